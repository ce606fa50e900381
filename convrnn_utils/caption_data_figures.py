"""Figures of notebook 04: captions with their words, boxes, statistics, padding; the browser."""

import html
import math
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy
import seaborn
from matplotlib.figure import Figure

from convrnn_utils.data import read_image
from convrnn_utils.plots import LINES, PALETTE, show_pictures
from convrnn_utils.text import PAD, tokenize
from convrnn_utils.widgets import Explorer, picture_html, row_of, turning_buttons, unobserved

# ---------------------------------------------------------------- words in captions


class WordSearch:
    """Finds the captions of a split that have a word, or several words in a row.

    Words are those of ``text.tokenize``: "dog" is in "The dog's bone", and not in "dogs".

    Args:
        split: what ``data.load_split`` returns.
    """

    def __init__(self, split):
        self.split = split
        self._texts = [[_spaced(caption) for caption in captions] for captions in split.captions]

    def frequent_words(self, count: int) -> list[str]:
        """The ``count`` most frequent words, starting with the most frequent."""
        counts = Counter(word for texts in self._texts for text in texts for word in text.split())
        return [word for word, _ in counts.most_common(count)]

    def find(self, words: str) -> dict[int, list[str]]:
        """The captions that have the words, by the row of their picture; may be empty."""
        wanted = _spaced(words)
        found = {}
        if wanted.strip():
            for row, texts in enumerate(self._texts):
                captions = zip(self.split.captions[row], texts, strict=True)
                if having := [caption for caption, text in captions if wanted in text]:
                    found[row] = having
        return found

    def some(self, words: str, count: int) -> list[tuple[int, str]]:
        """Rows of pictures, at most ``count``, spread over all found, each with one caption."""
        found = list(self.find(words).items())
        count = min(count, len(found))
        chosen = [found[number * len(found) // count] for number in range(count)]
        return [(row, captions[0]) for row, captions in chosen]


def _spaced(text: str) -> str:
    return f" {' '.join(tokenize(text))} "


def split_at_words(caption: str, words: str) -> list[str]:
    """Split a caption at ``words``: the pieces at odd indices are the words as written in it."""
    parts = tokenize(words)
    if not parts:
        return [caption]
    before = "" if parts[0][0] == "'" or parts[0] == "n't" else r"(?<![\w-])"
    written = [re.escape(part).replace("'", "['’]") for part in parts]
    after = r"(?:(?![\w-])|(?=n['’]t))"  # the "is" of "isn't" is a word
    pattern = before + r"\W*".join(written) + after
    return re.split(f"({pattern})", caption, flags=re.IGNORECASE)


def show_captions(split, rows: Sequence[int]) -> Figure:
    """Pictures of a split side by side, each with all its captions under it.

    Args:
        split: what ``data.load_split`` returns.
        rows: which pictures.
    """
    size = 2.8  # inches
    width = round(12.5 * size)  # letters in a line
    texts = [
        "\n".join(
            textwrap.fill(caption, width, initial_indent="• ", subsequent_indent="   ")
            for caption in split.captions[row]
        )
        for row in rows
    ]
    pictures = [read_image(split.paths[row]) for row in rows]
    return show_pictures(pictures, texts, len(rows), 1000, size, align="left")


def show_word(search: WordSearch, words: str, count: int = 4) -> Figure:
    """Some of the pictures whose captions have the words: each with one caption, words bold.

    Args:
        search: of the split to look in.
        words: one word, or several in a row.
        count: number of pictures shown, spread evenly over all that were found.

    Raises:
        ValueError: no caption has the words.
    """
    chosen = search.some(words, count)
    if not chosen:
        raise ValueError(f"No caption of {search.split.name} has {words!r}.")
    texts = [_in_bold(caption, words, width=30) for _, caption in chosen]
    pictures = [read_image(search.split.paths[row]) for row, _ in chosen]
    figure = show_pictures(pictures, texts, 4, width=1000)
    for axis in figure.axes:
        axis.title.set_parse_math(True)  # for the bold letters
    return figure


def _in_bold(caption: str, words: str, width: int) -> str:
    """A caption in lines of ``width`` letters, for matplotlib, with ``words`` bold."""
    pieces = split_at_words(caption, words)
    pieces[1::2] = [re.sub(r"(\S+)", "\x01\\1\x02", piece) for piece in pieces[1::2]]
    text = textwrap.fill("".join(pieces), width).replace("$", r"\$")

    def bold(match: re.Match) -> str:
        plain = re.fullmatch("[A-Za-z]+", match[1])
        return rf"$\mathbf{{{match[1]}}}$" if plain else f"[{match[1]}]"

    return re.sub("\x01(.*?)\x02", bold, text)


def show_instances(picture, masks: Sequence, boxes: Sequence, names: Sequence[str]) -> Figure:
    """A picture, the boxes drawn onto it, and the mask of each instance in a colour of its own.

    Args:
        picture: an image of PIL, or an array (H, W, 3) of bytes.
        masks: one array (H, W) of 0 and 1 for each instance.
        boxes: [x, y, width, height] of each in pixels, x and y of its top left corner.
        names: what each of them is.
    """
    pixels = numpy.asarray(picture)
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
    painted = numpy.full((*pixels.shape[:2], 3), 0.93)
    for number, (mask, (x, y, width, height), name) in enumerate(
        zip(masks, boxes, names, strict=True)
    ):
        colour = PALETTE[number % len(PALETTE)]
        painted[numpy.asarray(mask) == 1] = colour
        corner = (x - 0.5, y - 0.5)  # the middle of the top left pixel is at (0, 0)
        for line_width, line in ((3.5, "black"), (2, colour)):
            axes[1].add_patch(
                plt.Rectangle(corner, width, height, fill=False, ec=line, lw=line_width)
            )
        box = {"facecolor": "white", "edgecolor": colour, "alpha": 0.85, "pad": 1.5}
        above = y > 10
        place = (x, y - 2) if above else (x, y + height + 1)
        axes[1].text(
            *place, f"{number + 1} {name}", fontsize=9, va="bottom" if above else "top", bbox=box
        )
        axes[2].text(x + width / 2, y + height / 2, number + 1, ha="center", va="center", bbox=box)
    titles = ("the picture", "boxes and categories", "masks")
    for axis, shown, title in zip(axes, (pixels, pixels, painted), titles, strict=True):
        axis.imshow(shown, interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    return figure


def rank_frequency(counts: dict[str, Counter]) -> Figure:
    """The share of each word among all words against its rank, on log axes, with Zipf's line.

    Args:
        counts: how often each word occurs, by the name of the data set.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    for (name, words), (marker, _) in zip(counts.items(), cycle(LINES), strict=False):
        shares = numpy.sort(list(words.values()))[::-1] / words.total()
        ranks = numpy.arange(1, len(shares) + 1)
        axis.loglog(ranks, shares, marker=marker, markersize=3.5, lw=0, label=name)
    longest = max(len(words) for words in counts.values())
    ranks = numpy.array([1, longest])
    axis.loglog(ranks, 0.12 / ranks, color="black", lw=1.2, ls="--", label="Zipf: share ∝ 1 / rank")
    axis.set(xlabel="rank of the word (1 = most frequent)", ylabel="share of all words")
    axis.legend()
    return figure


def vocabulary_growth(words: dict[str, Sequence[str]]) -> Figure:
    """How many different words a reader has met against how many words she has read.

    Args:
        words: all words in the order of reading, by the name of the data set.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.8))
    for (name, sequence), (_, line) in zip(words.items(), cycle(LINES), strict=False):
        first = {}
        for position, word in enumerate(sequence, start=1):
            first.setdefault(word, position)
        read = [*first.values(), len(sequence)]
        axis.step(
            read, [*range(1, len(first) + 1), len(first)], where="post", ls=line, lw=2, label=name
        )
    axis.set(xscale="log", yscale="log", xlabel="words read", ylabel="different words met")
    axis.legend()
    return figure


def word_clouds(offsets: dict[str, Sequence[tuple[float, float]]], columns: int = 4) -> Figure:
    """Where the first thing lies relative to the second, for each word that relates the two.

    Args:
        offsets: (x, y) of first minus second in pixels, y down as in a picture, by word.
        columns: panels in a row.
    """
    rows = math.ceil(len(offsets) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.4 * columns, 2.6 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis in axes.flat[len(offsets) :]:
        axis.set_axis_off()
    for axis, (word, points) in zip(axes.flat, offsets.items(), strict=False):
        x, y = numpy.array(points, dtype=float).reshape(-1, 2).T
        axis.plot(x, y, ".", markersize=3, alpha=0.35, rasterized=True)
        axis.plot(0, 0, "k+", markersize=12, mew=2)
        axis.set(title=f"{word} (n = {len(x)})", xlim=(-85, 85), ylim=(85, -85), aspect="equal")
    for axis in axes[:, 0]:
        axis.set_ylabel("pixels, down")
    for axis in axes[-1]:
        axis.set_xlabel("pixels, to the right")
    return figure


def show_padding(batches: dict[str, Sequence]) -> Figure:
    """Batches of padded captions side by side: a dark cell is a word, a light one padding.

    Args:
        batches: ids (B, T), 0 for padding, by the name of the batch.
    """
    longest = max(batch.shape[1] for batch in batches.values())
    tallest = max(batch.shape[0] for batch in batches.values())
    figure, axes = plt.subplots(
        1, len(batches), figsize=(3.3 * len(batches), 3.6), sharex=True, sharey=True, squeeze=False
    )
    for axis, (name, batch) in zip(axes[0], batches.items(), strict=True):
        words = numpy.asarray(batch) != PAD
        colours = matplotlib.colors.ListedColormap(["#f3d9b1", PALETTE[0]])
        axis.imshow(words, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set(title=f"{name}\n{1 - words.mean():.0%} padding", xlabel="position in the caption")
        axis.set(xlim=(-0.5, longest - 0.5), ylim=(tallest - 0.5, -0.5))
        axis.grid(False)
    axes[0, 0].set_ylabel("caption of the batch")
    return figure


def show_combinations(counts: dict[str, Counter], rows: Sequence, columns: Sequence) -> Figure:
    """How often each pair occurs, a heat map for each split; a cross if it never occurs.

    Args:
        counts: how often each (row, column) occurs, by the name of the split.
        rows, columns: the names, in the order to show them in.
    """
    figure, axes = plt.subplots(1, len(counts), figsize=(4.6 * len(counts), 3.6), squeeze=False)
    for axis, (name, pairs) in zip(axes[0], counts.items(), strict=True):
        table = numpy.array([[pairs[row, column] for column in columns] for row in rows])
        seaborn.heatmap(
            table, ax=axis, cmap="cividis", xticklabels=columns, yticklabels=rows,
            cbar_kws={"label": "things"}, linewidths=0.5,
        )  # fmt: skip
        for row, column in numpy.argwhere(table == 0):
            axis.text(column + 0.5, row + 0.5, "×", color="white", ha="center", va="center")
        axis.set_title(name)
        axis.set_xticklabels(columns, rotation=45, ha="right", rotation_mode="anchor")
        axis.tick_params(axis="y", rotation=0)
    return figure


# ---------------------------------------------------------------- the browser


def caption_browser(split, words: str = "above", count: int = 4) -> Explorer:
    """Look up a word and page through the pictures whose captions have it, the word marked.

    Args:
        split: what ``data.load_split`` returns.
        words: what to look for first: a word, or several in a row.
        count: pictures on a page.

    Returns:
        the explorer; as the last line of a cell it shows itself.
    """
    search = WordSearch(split)
    word = ipywidgets.Combobox(
        value=words,
        options=sorted(search.frequent_words(500)),
        placeholder="type or pick a word",
        description="word",
        continuous_update=False,  # look it up at Enter, not at every letter
    )
    page = ipywidgets.BoundedIntText(value=1, min=1, max=1, description="page")
    page.layout.width = "11em"
    result = ipywidgets.HTML()
    found: dict[int, list[str]] = {}

    def show(_=None) -> None:
        start = count * (page.value - 1)
        cards = [
            _card(split.paths[row], split.captions[row], word.value)
            for row in list(found)[start : start + count]
        ]
        total = sum(len(captions) for captions in found.values())
        looked_for = html.escape(word.value)
        said = f"<b>{looked_for}</b>: in {total:,} captions of {len(found):,} pictures out of "
        said += f"{len(split):,}"
        if found:
            said += f"; page {page.value} of {page.max}."
        else:
            said += ". Try another word: plurals and other forms are words of their own."
        row_of_cards = f'<div style="display:flex;flex-wrap:wrap;gap:1em">{"".join(cards)}</div>'
        result.value = f'<p role="status">{said}</p>{row_of_cards}'

    def look_up(_=None) -> None:
        nonlocal found
        found = search.find(word.value)
        with unobserved(page, show):
            page.value, page.max = 1, max(1, math.ceil(len(found) / count))
        show()

    word.observe(look_up, "value")
    page.observe(show, "value")
    look_up()
    turns = turning_buttons(page, "the pictures before these", "further pictures with the word")
    return Explorer("caption browser", [row_of([word, *turns, page]), result])


def _card(path: Path, captions: list[str], words: str) -> str:
    """A picture with its captions as HTML; the text of a caption is never taken for a tag."""
    lines = []
    for caption in captions:
        pieces = [html.escape(piece) for piece in split_at_words(caption, words)]
        pieces[1::2] = [f"<mark>{piece}</mark>" for piece in pieces[1::2]]
        lines.append(f'<li style="line-height:1.3">{"".join(pieces)}</li>')
    return (
        '<figure style="margin:0;width:15em">'
        f"{picture_html(path, captions[0], 'width:100%')}"
        f'<figcaption><ul style="padding-left:1.2em;margin:0">{"".join(lines)}</ul></figcaption>'
        "</figure>"
    )

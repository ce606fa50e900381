"""Figures, in one style, each with a sentence for those who cannot see it."""

import base64
import html
import io
import itertools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy
import seaborn
from IPython.display import Image as ImageFile
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from convrnn_utils.data import read_image
from convrnn_utils.text import PAD, tokenize

# Okabe and Ito's colours, which the colour-blind can tell apart, in the order seaborn has them.
PALETTE = seaborn.color_palette("colorblind")
# A marker and a line style for each colour, for those who cannot tell the colours apart at all.
LINES = list(zip("os^DvPX*<>", itertools.cycle(["-", "--", "-.", ":"]), strict=False))


def set_style() -> None:
    """Set the look of all figures of a notebook: small files, legible text, safe colours."""
    seaborn.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc={"figure.dpi": 80, "figure.figsize": (7, 3.5), "figure.constrained_layout.use": True},
    )


def describe(sentence: str) -> None:
    """Print what a figure shows: read aloud by a screen reader, kept where pictures are lost."""
    print(textwrap.fill(f"Figure: {sentence}", 100))


def show_pictures(
    pictures: Sequence,
    titles: Sequence[str],
    columns: int = 4,
    width: int = 26,
    size: float = 2.6,
    align: str = "center",
) -> Figure:
    """Pictures in rows, a caption under each.

    Args:
        pictures: images of PIL, or arrays (H, W, 3) of bytes.
        titles: one text a picture; it is wrapped, and its own line breaks are kept.
        columns: pictures in a row.
        width: letters in a line.
        size: width of a picture in inches.
        align: of the captions: left or center.
    """
    texts = ["\n".join(textwrap.fill(line, width) for line in t.split("\n")) for t in titles]
    arrays = [numpy.asarray(picture) for picture in pictures]
    heights = [  # of the rows, in inches: the tallest picture and the longest caption of each
        size * max(pixels.shape[0] / pixels.shape[1] for pixels in arrays[start : start + columns])
        + 0.21 * max(text.count("\n") + 1 for text in texts[start : start + columns])
        for start in range(0, len(arrays), columns)
    ]
    figure, axes = plt.subplots(
        len(heights),
        columns,
        figsize=(size * columns, sum(heights)),
        squeeze=False,
        height_ratios=heights,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, pixels, text in zip(axes.flat, arrays, texts, strict=False):
        # enlarged without smoothing, a small picture makes a small file
        axis.imshow(pixels, interpolation="nearest" if len(pixels) < 128 else None)
        title = axis.set_title(text, y=0, pad=-5, va="top", fontsize=10, loc=align)
        title.set_parse_math(False)  # a caption may have dollar signs
    return figure


def show_attention(
    picture: Image.Image, words: Sequence[str], attention, columns: int = 6, size: float = 1.7
) -> Figure:
    """Where a captioner looked for each word: the places it looked at are bright, the rest dark.

    A place is drawn as what it is, one cell of the grid. In each panel the brightest cell is
    the one with the largest weight, which stands beside the word.

    Args:
        picture: as the captioner saw it, so that the cells lie where they belong.
        words: T words.
        attention: (T, L) weights of the L places, row by row; L is a square number.
        columns: panels in a row.
        size: width of a panel in inches.

    Raises:
        ValueError: there is no word.
    """
    if not words:
        raise ValueError("the caption has no word, so there is nothing to show.")
    attention = numpy.asarray(attention)
    panels = [light_up(picture, weights) for weights in attention]
    titles = [f"{word}  {w.max():.2f}" for word, w in zip(words, attention, strict=True)]
    return show_pictures(panels, titles, columns=min(columns, len(panels)), size=size)


def light_up(picture: Image.Image, weights) -> Image.Image:
    """A picture in which each cell of a grid is as bright as its weight, the largest fully.

    The cells are squares, all of the same number of pixels, so the picture becomes a square of
    about 224 pixels.

    Args:
        picture: as the captioner saw it, so that the cells lie where they belong.
        weights: one for each of L places, row by row; L is a square number.
    """
    weights = numpy.asarray(weights)
    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise ValueError(f"{len(weights)} places are no square grid.")
    cell = 224 // side
    light = 0.2 + 0.8 * weights.reshape(side, side) / weights.max()
    light = light.repeat(cell, axis=0).repeat(cell, axis=1)
    pixels = numpy.asarray(picture.convert("RGB").resize((side * cell, side * cell)), dtype=float)
    return Image.fromarray((pixels * light[..., None]).astype(numpy.uint8))


def draw_grid(axis, side: int, cells: int) -> None:
    """White lines that cut a square picture of ``side`` pixels into cells × cells places."""
    for line in numpy.linspace(0, side, cells + 1)[1:-1] - 0.5:  # pixel 0 is around 0
        axis.axhline(line, color="white", lw=0.8)
        axis.axvline(line, color="white", lw=0.8)


def learning_curves(history: Sequence[dict]) -> Figure:
    """Loss and CIDEr against the epoch.

    Args:
        history: what ``training.train`` returns.
    """
    epochs = [entry["epoch"] for entry in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for key, marker in (("training_loss", "o"), ("validation_loss", "s")):
        values = [entry[key] for entry in history]
        left.plot(epochs, values, marker=marker, label=key.replace("_", " "))
    left.set(xlabel="epoch", ylabel="cross-entropy, nats a word")
    left.legend()
    right.plot(epochs, [entry["cider"] for entry in history], marker="o", color=PALETTE[2])
    right.set(xlabel="epoch", ylabel="CIDEr × 100, greedy, val")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def show_times(milliseconds: dict[str, float], per: str) -> Figure:
    """A bar for each way to do the same thing, its time written at its end.

    Args:
        milliseconds: by the name of the way, the slowest first.
        per: what takes this time, such as ``"caption"``.
    """
    names, values = list(milliseconds), list(milliseconds.values())
    figure, axis = plt.subplots(figsize=(7, 0.5 + 0.5 * len(names)))
    bars = axis.barh(names, values, color=PALETTE[0])
    axis.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
    axis.set(xlabel=f"milliseconds a {per}", xlim=(0, 1.15 * max(values)))
    axis.invert_yaxis()
    axis.grid(False, axis="y")
    return figure


def live_curves() -> Callable[[Sequence[dict]], None]:
    """A place in the notebook for ``learning_curves`` that ``train`` redraws after each epoch."""
    place = display(display_id=True)

    def draw(history: Sequence[dict]) -> None:
        figure = learning_curves(history)
        place.update(figure)
        plt.close(figure)

    return draw


def show_as_jpeg(figure: Figure) -> None:
    """Show a figure made of pictures, and close it: as JPEG it takes a third of the room of PNG."""
    file = io.BytesIO()
    options = {"quality": 85, "subsampling": 0}
    figure.savefig(file, format="jpeg", bbox_inches="tight", pil_kwargs=options)
    plt.close(figure)
    display(ImageFile(file.getvalue(), format="jpeg"))


def show_in_few_colours(figure: Figure, colours: int = 256) -> None:
    """Show a figure of lines and letters, and close it: with few colours a PNG is a third as large.

    Args:
        figure: without photographs, for which ``show_as_jpeg`` is meant.
        colours: at most 256.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    plt.close(figure)
    small = io.BytesIO()
    Image.open(file).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    display(ImageFile(small.getvalue(), format="png"))


def html_image(shown: Figure | Image.Image, text: str, kind: str = "png", style: str = "") -> str:
    """A figure or a picture as an HTML ``<img>`` that holds it, for what an explorer shows.

    Args:
        shown: a figure, which is closed, or an image of PIL.
        text: what it shows, in words, for those who cannot see it.
        kind: png, or jpeg for photographs.
        style: CSS of the image.
    """
    file = io.BytesIO()
    if isinstance(shown, Figure):
        shown.savefig(file, format=kind)
        plt.close(shown)
    else:
        shown.save(file, kind, quality=88)
    address = f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img src="{address}" alt="{html.escape(text, quote=True)}" style="{style}">'


# ---------------------------------------------------------------- caption data (notebook 04)


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
        """The most frequent words, the most frequent first."""
        counts = Counter(word for texts in self._texts for text in texts for word in text.split())
        return [word for word, _ in counts.most_common(count)]

    def find(self, words: str) -> dict[int, list[str]]:
        """By the row of each picture that has any: its captions with the words. May be empty."""
        wanted = _spaced(words)
        found = {}
        if wanted.strip():
            for row, texts in enumerate(self._texts):
                captions = zip(self.split.captions[row], texts, strict=True)
                if having := [caption for caption, text in captions if wanted in text]:
                    found[row] = having
        return found


def _spaced(text: str) -> str:
    return f" {' '.join(tokenize(text))} "


def split_at_words(caption: str, words: str) -> list[str]:
    """A caption in pieces: those at odd places are ``words``, as they are written in it."""
    parts = tokenize(words)
    if not parts:
        return [caption]
    before = "" if parts[0][0] == "'" or parts[0] == "n't" else r"(?<![\w-])"
    written = [re.escape(part).replace("'", "['’]") for part in parts]
    after = r"(?:(?![\w-])|(?=n['’]t))"  # the "is" of "isn't" is a word
    pattern = before + r"\W*".join(written) + after
    return re.split(f"({pattern})", caption, flags=re.IGNORECASE)


def show_captions(split, rows: Sequence[int]) -> Figure:
    """Pictures of a split side by side, under each all its captions.

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
    """Pictures out of all whose captions have the words, with one such caption, the words bold.

    Args:
        search: of the split to look in.
        words: one word, or several in a row.
        count: pictures shown, at even distances among all that were found.

    Raises:
        ValueError: no caption has the words.
    """
    found = search.find(words)
    if not found:
        raise ValueError(f"No caption of {search.split.name} has {words!r}.")
    rows = list(found)[:: max(1, len(found) // count)][:count]
    texts = [_in_bold(found[row][0], words, width=30) for row in rows]
    pictures = [read_image(search.split.paths[row]) for row in rows]
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
        masks: one array (H, W) of 0 and 1 an instance.
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
    for (name, words), (marker, _) in zip(counts.items(), itertools.cycle(LINES), strict=False):
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
    for (name, sequence), (_, line) in zip(words.items(), itertools.cycle(LINES), strict=False):
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
    """Where the first thing is as seen from the second, for each word that relates the two.

    Args:
        offsets: (x, y) of first minus second in pixels, y down as in a picture, by word.
        columns: panels in a row.
    """
    rows = -(-len(offsets) // columns)
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
    """How often each pair comes, a table of colours for each split; a cross where it never does.

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

"""Figures and explorers of notebook 06: where a captioner looked, and whether it looked right."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from convrnn_utils.captioning import Caption, place_of_most
from convrnn_utils.data import read_image
from convrnn_utils.decoding import attention_of, beams_at_end
from convrnn_utils.plots import PALETTE, html_image, light_up
from convrnn_utils.scene_model import Scene
from convrnn_utils.scene_reading import ATTRIBUTES, LEXICON
from convrnn_utils.scene_shapes import place_shares
from convrnn_utils.text import PAD, Vocabulary
from convrnn_utils.widgets import Explorer, picture_chooser, row_of, turning_buttons, unobserved

# ---------------------------------------------------------------- captions with their maps


@torch.inference_mode()
def captions_of_beam(
    model, image: Tensor, vocabulary: Vocabulary, beam_width: int = 3, max_words: int = 20
) -> list[Caption]:
    """All captions that are in the beam at the end, the most probable first.

    The last word of each is ``<end>``, unless the caption was cut at ``max_words``.

    Args:
        model: a captioner that attends, in evaluation mode.
        image: what its ``start`` takes, (1, ...).
        vocabulary: the model's.
        beam_width: beginnings kept at every step, and captions at the end.
        max_words: captions end here at the latest.
    """
    beams, log_probabilities = beams_at_end(model, image, max_words, beam_width)
    maps = attention_of(model, image, beams[0]).float().cpu().numpy()
    written = []
    for ids, total, attention in zip(
        beams[0].tolist(), log_probabilities[0].tolist(), maps, strict=True
    ):
        if total == -math.inf:  # fewer captions exist than the beam is wide
            continue
        words = [vocabulary.words[word] for word in ids if word != PAD]
        written.append(Caption(words, attention[: len(words)], total))
    return written


# ---------------------------------------------------------------- which thing a word is about


def words_about(words: Sequence[str]) -> list[tuple[str, str] | None]:
    """For each word of a scene's caption: what it tells, and about which shape.

    ``("colour", "star")`` for "red" in "a small red star"; None for words that tell no size,
    colour, pattern or shape of a single thing with a named shape. An adjective belongs to the
    noun after it if only adjectives stand between the two, and otherwise to the noun before it.
    """
    meanings = [LEXICON.get((word,), (None, None)) for word in words]
    found: list[tuple[str, str] | None] = [None] * len(words)
    shape = None  # of the last noun
    waiting: list[int] = []
    for place, (kind, value) in enumerate([*meanings, (None, None)]):
        if kind in ATTRIBUTES:
            waiting.append(place)
            continue
        if kind == "noun":
            shape = None if value[1] else value[0]  # None in the plural
            if shape:
                found[place] = ("shape", shape)
        for adjective in waiting:
            if shape:
                found[adjective] = (meanings[adjective][0], shape)
        waiting = []
        if kind == "tail" and shape:
            found[place] = ("pattern", shape)
    return found


def named_things(words: Sequence[str], scene: Scene) -> list[tuple[int, str, int]]:
    """The words that are about one thing of a scene: (place of the word, what it tells, thing).

    A shape counts only if exactly one thing of the scene has it: then it is certain which thing is
    meant.
    """
    shapes = [thing.shape for thing in scene.things]
    return [
        (place, about[0], shapes.index(about[1]))
        for place, about in enumerate(words_about(words))
        if about and shapes.count(about[1]) == 1
    ]


def places_of(mask: numpy.ndarray, side: int, least: float = 0.0) -> numpy.ndarray:
    """Which places of a grid a thing touches, as side · side of True and False.

    Args:
        mask: the thing's pixels, (H, H) of True and False.
        side: places in a row of the grid; H is a multiple of it.
        least: the thing must cover more than this share of a place's pixels.
    """
    return place_shares(mask, side) > least


def weight_on(attention: numpy.ndarray, mask: numpy.ndarray, least: float = 0.0) -> float:
    """The share of a map's weight that lies on the places of a thing (see ``places_of``).

    Args:
        attention: (L,) weights that sum to 1.
        mask, least: see ``places_of``.
    """
    places = places_of(mask, math.isqrt(len(attention)), least)
    return float(numpy.asarray(attention)[places].sum())


# ---------------------------------------------------------------- figures


def show_film_strip(
    picture: Image.Image,
    words: Sequence[str],
    attention,
    tracks: Mapping[str, Sequence[float]],
    most: Mapping[str, float] | None = None,
) -> Figure:
    """A caption as a film: a frame for each word, lit where the model looked, numbers below.

    Args:
        picture: as the captioner saw it.
        words: T words.
        attention: (T, L) weights of the L places.
        tracks: by name, one number per word, drawn as bars under the frames.
        most: by the name of a track, the greatest possible number, drawn as a line.
    """
    frames = [numpy.asarray(light_up(picture, weights).resize((112, 112))) for weights in attention]
    film = numpy.zeros((148, 122 * len(frames), 3), dtype=numpy.uint8)
    for number, frame in enumerate(frames):
        film[18:130, 122 * number + 5 : 122 * number + 117] = frame
    for x in range(8, film.shape[1] - 8, 20):  # the perforation
        film[5:13, x : x + 10] = film[135:143, x : x + 10] = 235
    figure, axes = plt.subplots(
        1 + len(tracks), 1, figsize=(0.85 * len(frames) + 0.9, 1.4 + 0.8 * len(tracks)),
        sharex=True, height_ratios=[1.5] + [0.8] * len(tracks), squeeze=False,
    )  # fmt: skip
    centres = 122 * numpy.arange(len(frames)) + 61
    strip = axes[0, 0]
    strip.imshow(film, aspect="auto", interpolation="nearest")
    strip.set_yticks([])
    strip.tick_params(axis="x", labelbottom=False, labeltop=True, length=0)
    strip.set_xticks(centres, list(words), fontsize=11)
    strip.grid(False)
    for number, (axis, (name, values)) in enumerate(zip(axes[1:, 0], tracks.items(), strict=True)):
        bars = axis.bar(centres, list(values), width=80, color=PALETTE[number])
        axis.set_ylabel(name, fontsize=9)
        axis.tick_params(axis="x", labelbottom=False, labeltop=False)
        axis.grid(False, axis="x")
        if name in (most or {}):
            axis.axhline(most[name], color="black", ls="--", lw=1)
            axis.set_ylim(0, 1.15 * most[name])
            axis.bar_label(bars, fmt="{:.2f}", fontsize=8, label_type="center", color="white")
        else:
            axis.set_ylim(0, 1.3 * max(*values, 1e-9))
            axis.bar_label(bars, fmt="{:.2f}", fontsize=8)
    return figure


def show_on_things(
    panels: Sequence[tuple[Image.Image, numpy.ndarray, numpy.ndarray, str]], columns: int = 4
) -> Figure:
    """Maps and the outline of the thing that was named, side by side.

    Args:
        panels: for each the picture, the weights (L,) of its places, the thing's mask, and a text.
        columns: panels in a row.
    """
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.2 * columns, 2.65 * rows), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (picture, weights, mask, text) in zip(axes.flat, panels, strict=False):
        lit = light_up(picture, weights)
        axis.imshow(lit, extent=(-0.5, len(mask) - 0.5, len(mask) - 0.5, -0.5))
        for width, colour in ((3.5, "black"), (1.8, "white")):
            axis.contour(mask, levels=[0.5], colors=[colour], linewidths=[width])
        axis.set_title(text, fontsize=9)
    return figure


def show_bars(
    groups: Mapping[str, Mapping[str, float]], label: str, lines: Mapping[str, float] | None = None
) -> Figure:
    """Bars in groups: a colour and a hatch for each kind of bar, its number above it.

    Args:
        groups: the height of each bar, by the name of its group, then by its own name.
        label: what the height is.
        lines: heights to draw across all groups, by name.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    figure, axis = plt.subplots(figsize=(max(5.0, 0.55 * len(groups) * len(names) + 1.8), 3.3))
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [group + width * (number - (len(names) - 1) / 2) for group in range(len(groups))]
        heights = [bars.get(name, math.nan) for bars in groups.values()]
        drawn = axis.bar(
            places, heights, width, label=name, color=PALETTE[number], edgecolor="black",
            hatch=["", "//", "..", "xx"][number % 4], linewidth=0.5,
        )  # fmt: skip
        axis.bar_label(drawn, fmt="{:.2f}", fontsize=8)
    for name, height in (lines or {}).items():
        axis.axhline(height, color="black", ls="--", lw=1)
        axis.text(len(groups) - 0.45, height, name, ha="right", va="bottom", fontsize=9)
    axis.set_xticks(range(len(groups)), list(groups))
    axis.set(ylabel=label)
    axis.grid(False, axis="x")
    axis.margins(y=0.12)
    if len(names) > 1:
        axis.legend(fontsize=9, ncols=len(names), loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return figure


# ---------------------------------------------------------------- explorer


def attention_explorer(
    write: Callable[[Image.Image], Sequence[Caption]], pictures: Mapping[str, Path]
) -> Explorer:
    """Follow a caption word by word, and a place of the picture over the words.

    The reader chooses a picture or loads one, then a caption of the beam, a word, and a place of
    the grid. Everything can be reached with the keyboard; with a mouse, the weight of a place is
    shown while the pointer is on it.

    Args:
        write: gives, for a picture, the captions in the beam, best first.
        pictures: the files to choose from, by name.
    """
    caption = ipywidgets.Dropdown(description="caption")
    caption.layout.width = "40em"
    word = ipywidgets.IntSlider(value=1, min=1, max=1, description="word")
    row = ipywidgets.BoundedIntText(value=1, min=1, max=1, description="place: row")
    column = ipywidgets.BoundedIntText(value=1, min=1, max=1, description="column")
    for control in (row, column):
        control.layout.width = "11em"
    result = ipywidgets.HTML()
    shown: Image.Image | None = None
    written: Sequence[Caption] = []

    def show(_=None) -> None:
        one = written[caption.index]
        result.value = attention_html(shown, one, word.value - 1, row.value - 1, column.value - 1)

    def choose_caption(_=None) -> None:
        one = written[caption.index]
        with unobserved(word, show), unobserved(row, show), unobserved(column, show):
            word.value, word.max = 1, len(one.words)
            row.max = column.max = math.isqrt(one.attention.shape[1])
            row.value, column.value = place_of_most(one.attention.max(axis=0))
        show()

    def read(image: Image.Image) -> None:
        nonlocal shown, written
        shown, written = image, write(image)
        with unobserved(caption, choose_caption, "index"):
            caption.options = [
                f"{number}: {' '.join(one.words)} ({one.log_probability:.1f})"
                for number, one in enumerate(written, start=1)
            ]
            caption.index = 0
        choose_caption()

    picture, upload, message = picture_chooser(pictures, read, "picture")
    caption.observe(choose_caption, "index")
    for control in (word, row, column):
        control.observe(show, "value")
    read(read_image(next(iter(pictures.values()))))
    turns = turning_buttons(word, "one word back", "one word on")
    lines = ([picture, upload], [caption], [word, *turns, row, column])
    return Explorer("attention, word by word", [*map(row_of, lines), message, result])


def attention_html(picture: Image.Image, written: Caption, word: int, row: int, column: int) -> str:
    """One word of a caption as HTML: the picture under its grid, and one place over all words.

    Args:
        picture: any size; it is drawn as a square, as the captioner saw it.
        written: the caption and its maps.
        word, row, column: the word and the place that are chosen, counted from 0.
    """
    size = 300  # of the picture on the page, in pixels
    side = math.isqrt(written.attention.shape[1])
    weights = written.attention[word].reshape(side, side)
    of_place = written.attention[:, side * row + column]
    best_row, best_column = place_of_most(written.attention[word])
    said = (
        f"Word {word + 1} of {len(written.words)}: “{written.words[word]}”. The largest weight, "
        f"{weights.max():.2f}, is at row {best_row}, column {best_column}. The place at row "
        f"{row + 1}, column {column + 1} has {weights[row, column]:.2f}; its largest weight is "
        f"{of_place.max():.2f}, for “{written.words[int(of_place.argmax())]}”."
    )
    cell = size / side
    cells = "".join(
        f'<rect x="{cell * x:.1f}" y="{cell * y:.1f}" width="{cell:.1f}" height="{cell:.1f}" '
        f'fill="black" fill-opacity="{0.8 * (1 - weights[y, x] / weights.max()):.2f}" '
        f'stroke="white" stroke-opacity="0.25" stroke-width="0.5">'
        f"<title>row {y + 1}, column {x + 1}: {weights[y, x]:.3f}</title></rect>"
        for y in range(side)
        for x in range(side)
    )
    chosen = "".join(
        f'<rect x="{cell * column:.1f}" y="{cell * row:.1f}" width="{cell:.1f}" '
        f'height="{cell:.1f}" fill="none" stroke="{colour}" stroke-width="{width}" '
        'pointer-events="none"/>'
        for colour, width in (("black", 4), ("white", 2))
    )
    image = html_image(picture.resize((size, size)), said, "jpeg")
    square = f'width="{size}" height="{size}"'
    grid = (
        f'<div style="position:relative;line-height:0">{image}'
        f'<svg {square} style="position:absolute;left:0;top:0">{cells}{chosen}</svg></div>'
    )
    largest = written.attention.max()
    bars = "".join(
        f"<tr{' style=font-weight:bold' if number == word else ''}>"
        f"<td>{html.escape(text)}</td><td>{weight:.2f}</td>"
        f'<td><div style="background:#0173b2;height:0.7em;width:{120 * weight / largest:.0f}px">'
        "</div></td></tr>"
        for number, (text, weight) in enumerate(zip(written.words, of_place, strict=True))
    )
    table = (
        f"<table><caption>weight of the place at row {row + 1}, column {column + 1}</caption>"
        f"{bars}</table>"
    )
    return (
        f'<p role="status">{html.escape(said)}</p>'
        f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{grid}{table}</div>'
    )

"""Figures, in one style, each with a sentence for those who cannot see it."""

import base64
import html
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy
import seaborn
from IPython.display import Image as ImageFile
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

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
        titles: one text per picture; it is wrapped, and its own line breaks are kept.
        columns: pictures in a row.
        width: characters per line of a title.
        size: width of a picture in inches.
        align: how the titles are aligned: left or center.
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

    A place is drawn as what it is, one cell of the grid. In each panel the cell with the
    largest weight is not darkened at all; this weight stands beside the word.

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
    """A picture in which each cell of a grid is brighter the larger its weight is.

    The cell with the largest weight keeps its full brightness.
    The cells are squares, all of the same number of pixels, so the picture becomes a square of
    about 224 pixels.

    Args:
        picture: as the captioner saw it, so that the cells lie where they belong.
        weights: one for each of L places, row by row; L is a square number.

    Raises:
        ValueError: L is not a square number.
    """
    weights = numpy.asarray(weights)
    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise ValueError(f"{len(weights)} places do not make a square grid.")
    cell = 224 // side
    light = 0.2 + 0.8 * weights.reshape(side, side) / weights.max()
    light = light.repeat(cell, axis=0).repeat(cell, axis=1)
    pixels = numpy.asarray(picture.convert("RGB").resize((side * cell, side * cell)), dtype=float)
    return Image.fromarray((pixels * light[..., None]).astype(numpy.uint8))


def draw_grid(axis, side: int, cells: int) -> None:
    """White lines that cut a square picture of ``side`` pixels into cells × cells places."""
    for line in numpy.linspace(0, side, cells + 1)[1:-1] - 0.5:  # pixel 0 is centred on 0
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
    """A bar for each way to do the same thing, with its time written at the end.

    Args:
        milliseconds: the time of each way by its name, the slowest first.
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
        place.update(_in_few_colours(learning_curves(history), 64))

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
    display(_in_few_colours(figure, colours))


def _in_few_colours(figure: Figure, colours: int) -> ImageFile:
    file, small = io.BytesIO(), io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    plt.close(figure)
    Image.open(file).convert("RGB").quantize(colours).save(small, "PNG", optimize=True)
    return ImageFile(small.getvalue(), format="png")


def html_image(shown: Figure | Image.Image, text: str, kind: str = "png", style: str = "") -> str:
    """A figure or a picture as an HTML ``<img>`` that contains it, to be shown in an explorer.

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

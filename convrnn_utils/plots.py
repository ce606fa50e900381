"""Figures, in one style, each with a sentence for those who cannot see it."""

import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy
import seaborn
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, in the order seaborn has them.
PALETTE = seaborn.color_palette("colorblind")


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
    pictures: Sequence, titles: Sequence[str], columns: int = 4, width: int = 26, size: float = 2.6
) -> Figure:
    """Pictures in rows, a caption under each.

    Args:
        pictures: images of PIL, or arrays (H, W, 3) of bytes.
        titles: one text a picture; it is wrapped, and its own line breaks are kept.
        columns: pictures in a row.
        width: letters in a line.
        size: width of a picture in inches.
    """
    texts = ["\n".join(textwrap.fill(line, width) for line in t.split("\n")) for t in titles]
    rows = -(-len(pictures) // columns)
    lines = max(text.count("\n") + 1 for text in texts)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.21 * lines) * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, picture, text in zip(axes.flat, pictures, texts, strict=False):
        axis.imshow(numpy.asarray(picture))
        axis.set_title(text, y=-0.04, va="top", fontsize=10)
    return figure


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

"""The figures and the explorer of notebook 03: feature sequences, and what a network makes of them.

Pictures are bytes, (height, width, 3). The places of a grid are numbered row by row from 0.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets
import matplotlib.pyplot as plt
import numpy
from matplotlib.figure import Figure

from convrnn_utils.env import check_shape
from convrnn_utils.plots import LINES, PALETTE, html_image
from convrnn_utils.widgets import Explorer, row_of


def show_layers(picture, maps: Sequence, pooled: Sequence) -> Figure:
    """A picture, the mean feature map of each layer, and under it the pooled vector as a strip.

    Args:
        picture: bytes (height, width, 3).
        maps: one array (channels, h, w) for each layer.
        pooled: one array (channels,) for each layer.
    """
    figure, axes = plt.subplots(
        2, len(maps) + 1, figsize=(1.35 * (len(maps) + 1), 2.5), height_ratios=(4, 1)
    )
    axes[0, 0].imshow(picture, interpolation="nearest")
    axes[0, 0].set_title("picture", fontsize=10)
    for number, (values, vector) in enumerate(zip(maps, pooled, strict=True), start=1):
        values, vector = numpy.asarray(values), numpy.asarray(vector)
        axes[0, number].imshow(values.mean(axis=0), cmap="cividis", interpolation="nearest")
        axes[0, number].set_title(f"$h^{{({number})}}$", fontsize=10)
        axes[1, number].imshow(vector[None], cmap="cividis", aspect="auto", interpolation="nearest")
        axes[1, number].text(
            0.5, -0.15, f"{len(values)} numbers", transform=axes[1, number].transAxes, fontsize=9,
            ha="center", va="top",
        )  # fmt: skip
    for axis in axes.flat:
        axis.set_axis_off()
    return figure


def show_orders(paths: Mapping[str, Sequence[Sequence[int]]], side: int, picture) -> Figure:
    """The ways in which an RNN may go over the places of a grid, drawn over a picture.

    Args:
        paths: by the name of an order, one or several paths; a path is a list of place numbers.
        side: the grid has side · side places.
        picture: bytes (height, width, 3), shown pale under the paths.
    """
    columns = min(3, len(paths))
    rows = math.ceil(len(paths) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(2.9 * columns, 3.1 * rows), squeeze=False)
    pale = (0.45 * numpy.asarray(picture) + 0.55 * 255).astype(numpy.uint8)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, group) in zip(axes.flat, paths.items(), strict=False):
        axis.imshow(pale, extent=(-0.5, side - 0.5, side - 0.5, -0.5), interpolation="nearest")
        for line in range(side + 1):
            for draw in (axis.axhline, axis.axvline):
                draw(line - 0.5, color="white", lw=0.8)
        for path in group:
            y, x = numpy.divmod(numpy.asarray(path), side)
            axis.plot(x, y, color=PALETTE[0], lw=1.5)
            arrow = {"arrowstyle": "-|>", "color": PALETTE[3], "lw": 1.5, "mutation_scale": 16}
            axis.annotate("", (x[-1], y[-1]), (x[-2], y[-2]), arrowprops=arrow)
        if len(group) == 1:  # the first places are numbered
            for step, place in enumerate(group[0][:3], start=1):
                box = {"boxstyle": "circle", "facecolor": "white", "edgecolor": "black", "pad": 0.2}
                row, column = divmod(place, side)
                axis.text(column, row, step, fontsize=8, ha="center", va="center", bbox=box)
        axis.set_title(name, fontsize=11)
    return figure


def show_frames(clips: Sequence, names: Sequence[str]) -> Figure:
    """Clips as film strips, one under the other.

    Args:
        clips: arrays (frames, height, width, 3) of bytes.
        names: one for each clip.
    """
    figure, axes = plt.subplots(len(clips), 1, figsize=(9.5, 0.78 * len(clips)), squeeze=False)
    for axis, clip, name in zip(axes[:, 0], clips, names, strict=True):
        frames = numpy.pad(numpy.asarray(clip), ((0, 0), (0, 0), (1, 1), (0, 0)), mode="constant",
                           constant_values=255)  # fmt: skip
        axis.imshow(numpy.concatenate(list(frames), axis=1), interpolation="nearest")
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure


def show_accuracies(
    accuracies: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]],
    chance: float,
    commonest: float,
) -> Figure:
    """Accuracies of several models: a dot for each seed, a diamond for the mean, an interval.

    Args:
        accuracies: one for each seed, between 0 and 1, by the name of the model.
        intervals: the lower and upper end for each model; drawn no further than 0 and 1.
        chance: what guessing reaches, drawn as a dashed line.
        commonest: what always giving the commonest answer reaches, drawn as a dotted line.
    """
    figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(accuracies) + 0.9))
    lowest = min(chance, commonest, *(ends[0] for ends in intervals.values()))
    for row, (name, values) in enumerate(accuracies.items()):
        low, high = numpy.clip(intervals[name], 0, 1)
        axis.plot([100 * low, 100 * high], [row, row], color=PALETTE[0], lw=2.5, alpha=0.6)
        axis.plot(100 * numpy.asarray(values), [row] * len(values), "o", color="black", ms=4)
        mean = 100 * float(numpy.mean(values))
        axis.plot(mean, row, "D", color=PALETTE[0], ms=8, mfc="none", mew=2)
        axis.annotate(
            f"{mean:.1f}", (mean, row), xytext=(0, 7), textcoords="offset points", ha="center",
            fontsize=9, bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )  # fmt: skip
    axis.axvline(100 * chance, color="black", ls="--", lw=1)
    axis.axvline(100 * commonest, color="black", ls=":", lw=1.5)
    axis.set(
        yticks=range(len(accuracies)),
        xlim=(max(100 * lowest, 0) - 3, 102),
        ylim=(len(accuracies) - 0.4, -0.7),
    )
    axis.set_yticklabels(accuracies)
    axis.set_xlabel(
        "right answers on the test set, %\n(dashed: guessing; dotted: always the commonest answer)"
    )
    return figure


@dataclass
class Steps:
    """What a recurrent network did with N sequences of T steps.

    Attributes:
        pictures: bytes, (N, height, width, 3), or (N, T, height, width, 3) if each step has a
            picture of its own.
        states: s⁽ᵗ⁾ after each step, (N, T, number of units).
        probabilities: of each class after each step, (N, T, K).
        classes: the names of the K classes.
        truths: the number of the right class of each sequence.
        order: the place that is read at each step, T numbers; None if each step is a frame.
        side: the grid has side · side places.

    Raises:
        ValueError: the sizes do not fit each other.
    """

    pictures: numpy.ndarray
    states: numpy.ndarray
    probabilities: numpy.ndarray
    classes: Sequence[str]
    truths: Sequence[int]
    order: Sequence[int] | None = None
    side: int = 1

    def __post_init__(self):
        count, steps = self.states.shape[:2]
        check_shape(self.probabilities, count, steps, len(self.classes))
        if not len(self.pictures) == len(self.truths) == count:
            raise ValueError(
                f"{len(self.pictures)} pictures and {len(self.truths)} truths do not fit {count} "
                "sequences."
            )
        if self.order is not None and len(self.order) != steps:
            raise ValueError(f"the order has {len(self.order)} places for {steps} steps.")

    def sentence(self, number: int, step: int) -> str:
        """What there is to see after ``step`` steps (1 to T) of sequence ``number``, in words."""
        probabilities = self.probabilities[number, step - 1]
        best = int(probabilities.argmax())
        where = ""
        if self.order is not None:
            row, column = divmod(int(self.order[step - 1]), self.side)
            where = f", row {row + 1} and column {column + 1} of the grid"
        return (
            f"Step {step} of {self.states.shape[1]}{where}: the answer would be "
            f"“{self.classes[best]}” with probability {probabilities[best]:.2f}; "
            f"the truth is “{self.classes[self.truths[number]]}”."
        )


def show_steps(steps: Steps, number: int, step: int) -> Figure:
    """One sequence up to one step: what this step reads, the states and probabilities so far.

    Args:
        steps: of a trained network.
        number: which sequence.
        step: 1 to T.
    """
    length = steps.states.shape[1]
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(10, 2.9), width_ratios=(1, 1.25, 1.5)
    )
    picture = steps.pictures[number]
    left.imshow(picture if picture.ndim == 3 else picture[step - 1], interpolation="nearest")
    left.set_axis_off()
    if steps.order is None:
        left.set_title(f"frame {step}", fontsize=11)
    else:
        row, column = divmod(int(steps.order[step - 1]), steps.side)
        size = picture.shape[0] / steps.side
        corner = (column * size - 0.5, row * size - 0.5)
        for width, colour in ((4.5, "black"), (2, "white")):
            left.add_patch(plt.Rectangle(corner, size, size, fill=False, ec=colour, lw=width))
        left.set_title(f"place read at step {step}", fontsize=11)
    so_far = numpy.where(numpy.arange(length)[:, None] < step, steps.states[number], numpy.nan)
    middle.imshow(
        so_far.T, cmap="PuOr", vmin=-1, vmax=1, aspect="auto", interpolation="nearest",
        extent=(0.5, length + 0.5, so_far.shape[1] + 0.5, 0.5),
    )  # fmt: skip
    middle.set(xlabel="step", ylabel="unit of the state")
    middle.xaxis.get_major_locator().set_params(integer=True)
    middle.set_title("state (orange −1, purple +1)", fontsize=11)
    middle.grid(False)
    for index, name in enumerate(steps.classes):
        marker, line = LINES[index]
        right.plot(
            range(1, step + 1), steps.probabilities[number, :step, index], line, marker=marker,
            ms=4, color=PALETTE[index], label=name,
        )  # fmt: skip
    right.set(xlim=(0.5, length + 0.5), ylim=(-0.03, 1.03), xlabel="step", ylabel="probability")
    truth = steps.classes[steps.truths[number]]
    right.set_title(f"answer if it stopped here\n(truth: {truth})", fontsize=11)
    right.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def step_explorer(steps: Steps) -> Explorer:
    """Choose a sequence, move through its steps, and watch the state and the answer change.

    The slider is moved with the mouse or the arrow keys; the same is told in words below it.
    """
    count, length = steps.states.shape[:2]
    number = ipywidgets.BoundedIntText(value=1, min=1, max=count, description="example")
    step = ipywidgets.IntSlider(value=length, min=1, max=length, description="step")
    number.layout.width, step.layout.width = "11em", "32em"
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        said = steps.sentence(number.value - 1, step.value)
        figure = show_steps(steps, number.value - 1, step.value)
        result.value = f'<p role="status">{html.escape(said)}</p>{html_image(figure, said)}'

    number.observe(show, "value")
    step.observe(show, "value")
    show()
    return Explorer("step explorer", [row_of([number, step]), result])

"""Figures and explorers of notebook 02: a recurrence unrolled, gradients against time, gates."""

import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy
from matplotlib.figure import Figure
from torch import Tensor

from convrnn_utils.plots import LINES, PALETTE, html_image
from convrnn_utils.widgets import Explorer, row_of, turning_buttons

# ---------------------------------------------------------------- figures


def show_unrolled(
    inputs: Tensor, states: Tensor, W_s: Tensor, W_h: Tensor, b_s: Tensor, steps: int = 4
) -> Figure:
    """The recurrence, one column per step: all numbers and shapes are those of the tensors.

    Args:
        inputs: h(1), h(2), …, (T, D).
        states: s(0), s(1), …, (T + 1, H): one more than there are inputs.
        W_s, W_h, b_s: the weights, (H, H), (H, D) and (H).
        steps: the number of steps drawn, from the first.

    Raises:
        ValueError: the tensors do not fit each other.
    """
    (T, D), H = inputs.shape, W_s.shape[0]
    wanted = {"states": (T + 1, H), "W_s": (H, H), "W_h": (H, D), "b_s": (H,)}
    given = {"states": states, "W_s": W_s, "W_h": W_h, "b_s": b_s}
    for name, shape in wanted.items():
        if tuple(given[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(given[name].shape)}; {shape} fits the rest.")
    steps = min(steps, T)
    figure, axis = plt.subplots(figsize=(2.3 * (steps + 1) + 0.4, 4))
    arrow = {"arrowstyle": "-|>", "lw": 1.5, "color": "black", "shrinkA": 0, "shrinkB": 0}
    for t in range(steps + 1):
        _column(axis, t, 2.0, states[t], f"s({t})", PALETTE[0], name_above=True)
        if t:
            _column(axis, t, 0.0, inputs[t - 1], f"h({t})", PALETTE[1])
            axis.annotate("", (t, 1.7), (t, 0.45), arrowprops=arrow)
            axis.annotate("", (t - 0.2, 2.0), (t - 0.8, 2.0), arrowprops=arrow)
            axis.text(t + 0.04, 1.05, f"W_h\n{_shape(W_h)}", va="center", fontsize=11)
            axis.text(t - 0.5, 2.08, f"W_s\n{_shape(W_s)}", ha="center", va="bottom", fontsize=11)
    axis.text(0, 0.0, f"the same\nW_s, W_h, b_s\nat each step\n(b_s: size {len(b_s)})", ha="center",
              va="center", fontsize=11)  # fmt: skip
    axis.set(xlim=(-0.5, steps + 0.5), ylim=(-0.7, 2.6))
    axis.set_axis_off()
    return figure


def _shape(tensor: Tensor) -> str:
    return "(" + " × ".join(str(size) for size in tensor.shape) + ")"


def _column(axis, x, y, vector: Tensor, name: str, colour, name_above: bool = False) -> None:
    numbers = "\n".join(f"{value:.2f}" for value in vector.tolist())
    box = {"facecolor": "white", "edgecolor": colour, "lw": 2.5, "boxstyle": "round,pad=0.35"}
    axis.text(x, y, numbers, ha="center", va="center", fontsize=12, family="monospace", bbox=box)
    place, side = (y + 0.3, "bottom") if name_above else (y - 0.42, "top")
    axis.text(x, place, f"{name}, size {len(vector)}", ha="center", va=side, fontsize=11)


def show_on_log_axis(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    x_label: str,
    y_label: str,
    first: int = 1,
) -> Figure:
    """Curves against the step, panels side by side; each curve has its colour, marker and line.

    Args:
        panels: the values of each curve, by the title of its panel, then by its name. The vertical
            axis is logarithmic, so zero is left out.
        x_label, y_label: what the axes show.
        first: the step that belongs to the first value.
    """
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=((4.7 if len(panels) < 3 else 3.7) * len(panels) + 0.3, 4.4),
        sharey=True,
        squeeze=False,
    )
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for number, (name, values) in enumerate(curves.items()):
            values = numpy.asarray(values, dtype=float)
            marker, line = LINES[number % len(LINES)]
            steps = numpy.arange(first, first + len(values))
            shown = numpy.where(values > 0, values, numpy.nan)
            axis.plot(
                steps, shown, line, marker=marker, markevery=max(1, len(values) // 6), label=name,
                color=PALETTE[number],
            )  # fmt: skip
        axis.set_yscale("log")
        axis.set(title=title, xlabel=x_label)
        axis.legend(fontsize=10, loc="upper center", bbox_to_anchor=(0.5, -0.2))  # off the curves
    axes[0, 0].set_ylabel(y_label)
    return figure


def show_gates(panels: Mapping[str, Tensor], marked: int, symmetric: Sequence[str] = ()) -> Figure:
    """Gates over time: above, one row of colour per unit; below, the mean over the units.

    In a symmetric panel, positive and negative values would cancel in a mean: there, the mean of
    the absolute values is shown.

    Args:
        panels: by name, the values (T, H) of a gate or a state.
        marked: the step, counted from 1, that a line marks.
        symmetric: names of panels whose values may be negative: from −1 to 1, not from 0 to 1.
    """
    figure, axes = plt.subplots(
        2, len(panels), figsize=(2.9 * len(panels) + 0.6, 4.4), squeeze=False, sharex=True,
        height_ratios=[1.5, 1],
    )  # fmt: skip
    for (above, below), (name, values) in zip(axes.T, panels.items(), strict=True):
        values = numpy.asarray(values)
        low, colours = (-1, "PuOr") if name in symmetric else (0, "cividis")
        image = above.imshow(
            values.T, cmap=colours, vmin=low, vmax=1, aspect="auto", interpolation="nearest",
            extent=(0.5, len(values) + 0.5, values.shape[1] + 0.5, 0.5),
        )  # fmt: skip
        figure.colorbar(image, ax=above, location="top", shrink=0.9, label=name)
        above.grid(False)
        sizes = numpy.abs(values) if name in symmetric else values
        below.plot(numpy.arange(1, len(values) + 1), sizes.mean(axis=1), color=PALETTE[0])
        below.set(ylim=(-0.05, 1.05), xlabel="step t")
        if name in symmetric:
            below.set_title("mean of the sizes |·|", fontsize=11)
        above.axvline(marked, color="black", gapcolor="white", ls=":", lw=2)  # on light and dark
        below.axvline(marked, color="black", ls=":", lw=2)
    axes[0, 0].set_ylabel("unit")
    axes[1, 0].set_ylabel("mean over units")
    return figure


def show_accuracy_by_length(
    results: Mapping[str, Mapping[int, Sequence[float]]], chance: float, y_label: str = "accuracy"
) -> Figure:
    """Accuracy against length, a panel per kind of cell: mean over seeds, bar from worst to best.

    Args:
        results: one accuracy per seed, by the name of a model, then by length. Models whose names
            are the same up to the first comma share a panel.
        chance: the accuracy of guessing, drawn as a line.
        y_label: what the vertical axis shows.
    """
    kinds = list(dict.fromkeys(name.split(",")[0] for name in results))
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(3.4 * len(kinds) + 0.4, 4), sharey=True, squeeze=False
    )
    for axis, kind in zip(axes[0], kinds, strict=True):
        names = [name for name in results if name.split(",")[0] == kind]
        for number, name in enumerate(names):
            lengths = sorted(results[name])
            values = numpy.array([results[name][length] for length in lengths])
            mean = values.mean(axis=1)
            spread = numpy.abs([mean - values.min(axis=1), values.max(axis=1) - mean])
            places = numpy.arange(len(lengths)) + 0.09 * (number - 0.5)  # bars side by side
            marker, line = LINES[number]
            axis.errorbar(
                places, mean, spread, fmt=marker + line, capsize=5, lw=2, color=PALETTE[number],
                label=name,
            )  # fmt: skip
            axis.set_xticks(range(len(lengths)), lengths)
        axis.axhline(chance, color="0.3", ls=":", lw=1.5, label="guessing")
        axis.set(ylim=(0, 1.05), xlabel="length T")
        axis.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes[0, 0].set_ylabel(y_label)
    return figure


# ---------------------------------------------------------------- explorers


def cell_explorer(
    inputs: Tensor, W_s: Tensor, W_h: Tensor, b_s: Tensor, step: Callable[..., Tensor]
) -> Explorer:
    """Step through the recurrence: a slider and two buttons, and the numbers of one step.

    Args:
        inputs: h(1), h(2), …, (T, D).
        W_s, W_h, b_s: the weights, (H, H), (H, D) and (H).
        step: the cell: ``step(h, s)`` gives the next state.
    """
    states = [W_s.new_zeros(len(W_s))]
    for h in inputs:
        states.append(step(h, states[-1]))
    slider = ipywidgets.IntSlider(value=1, min=1, max=len(inputs), description="step t")
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        t = slider.value
        h, before, after = inputs[t - 1], states[t - 1], states[t]
        rows = [
            ("what was", f"s({t - 1})", before),
            ("what comes in", f"h({t})", h),
            ("from the state", f"W_s s({t - 1})", W_s @ before),
            ("from the input", f"W_h h({t})", W_h @ h),
            ("bias", "b_s", b_s),
            ("their sum", f"z({t})", W_s @ before + W_h @ h + b_s),
            ("what is now", f"s({t}) = g(z({t}))", after),
        ]
        said = f"Step {t} of {slider.max}: the state is now {_numbers(after)}."
        result.value = f'<p role="status">{html.escape(said)}</p>' + _table(rows)

    slider.observe(show, "value")
    show()
    turns = turning_buttons(slider, "one step back", "one step on")
    return Explorer("step through the cell", [row_of([slider, *turns]), result])


def _numbers(vector: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in vector.tolist()) + ")"


def _table(rows: Sequence[tuple[str, str, Tensor]]) -> str:
    cells = "".join(
        f'<tr><th scope="row" style="text-align:left;padding-right:1.5em">{what}</th>'
        f'<td style="padding-right:1.5em"><code>{html.escape(name)}</code></td>'
        f"<td><code>{_numbers(vector)}</code></td></tr>"
        for what, name, vector in rows
    )
    return f"<table>{cells}</table>"


def gradient_explorer(norms: Callable[[float, int, str, float], Sequence[float]]) -> Explorer:
    """Length, spectral radius, non-linearity and size of the inputs against the gradient's norm.

    Args:
        norms: ``norms(radius, length, g, scale)`` gives ‖∂s(t)/∂s(0)‖ for t = 1 … length; g is
            "linear" or "tanh", scale the standard deviation of the inputs.
    """
    options = {"continuous_update": False, "style": {"description_width": "8em"}}
    radius = ipywidgets.FloatSlider(
        value=1.1, min=0.5, max=1.5, step=0.05, description="spectral radius", **options
    )
    length = ipywidgets.IntSlider(value=50, min=5, max=100, step=5, description="length", **options)
    scale = ipywidgets.FloatSlider(
        value=0.1, min=0, max=2, step=0.1, description="size of inputs", **options
    )
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        panels = {}
        for g in ("linear", "tanh"):
            values = norms(radius.value, length.value, g, scale.value)
            panels[f"g {g}: at the end {values[-1]:.1e}"] = {
                "measured": values,
                "radius to the power t": [radius.value ** (t + 1) for t in range(length.value)],
            }
        figure = show_on_log_axis(panels, "step t", "norm of ∂s(t)/∂s(0)")
        text = f"Radius {radius.value:.2f}, {length.value} steps, inputs of size {scale.value:.1f}."
        text += " Norm of the gradient: " + "; ".join(panels) + "."
        result.value = f'<p role="status">{text}</p>{html_image(figure, text)}'

    for control in (radius, length, scale):
        control.observe(show, "value")
    show()
    return Explorer("gradient and spectral radius", [radius, length, scale, result])

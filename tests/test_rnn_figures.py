import base64
import math

import matplotlib.pyplot as plt
import pytest
import torch

from convrnn_utils import rnn_figures

W_s = torch.tensor([[0.5, 0.0], [1.0, -0.5]])
W_h = torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]])
b_s = torch.tensor([0.0, -1.0])
INPUTS = torch.tensor([[1.0, 1, 0], [0, 1, 1]])


def step(h, s):
    return torch.tanh(W_s @ s + W_h @ h + b_s)


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


# ---------------------------------------------------------------- figures


def test_the_unrolled_figure_shows_the_numbers_and_shapes_of_its_tensors():
    states = torch.tensor([[0.0, 0.0], [0.25, -0.5], [0.75, 1.0]])
    shown = texts(rnn_figures.show_unrolled(INPUTS, states, W_s, W_h, b_s))
    assert {"0.00\n0.00", "0.25\n-0.50", "0.75\n1.00", "1.00\n1.00\n0.00"} <= set(shown)
    assert shown.count("W_h\n(2 × 3)") == 2 and shown.count("W_s\n(2 × 2)") == 2
    assert "s(0), size 2" in shown and "h(2), size 3" in shown
    assert "h(0), size 3" not in shown


def test_the_unrolled_figure_draws_only_the_steps_asked_for():
    shown = texts(rnn_figures.show_unrolled(INPUTS, torch.zeros(3, 2), W_s, W_h, b_s, steps=1))
    assert "s(1), size 2" in shown and "s(2), size 2" not in shown


def test_the_unrolled_figure_refuses_tensors_that_do_not_fit():
    with pytest.raises(ValueError, match=r"states has shape \(2, 2\); \(3, 2\) fits"):
        rnn_figures.show_unrolled(INPUTS, torch.zeros(2, 2), W_s, W_h, b_s)
    with pytest.raises(ValueError, match="W_h has shape"):
        rnn_figures.show_unrolled(INPUTS, torch.zeros(3, 2), W_s, W_h.T, b_s)


def test_curves_begin_at_the_first_step_and_leave_out_zero_on_a_logarithmic_axis():
    figure = rnn_figures.show_on_log_axis({"a": {"one": [1.0, 0.0, 4.0]}}, "t", "norm", first=0)
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [0, 1, 2]
    assert math.isnan(line.get_ydata()[1]) and line.get_ydata()[2] == 4
    assert figure.axes[0].get_yscale() == "log"


def test_the_legend_lies_outside_the_curves():
    figure = rnn_figures.show_on_log_axis({"a": {"one": [1.0, 4.0]}}, "t", "norm")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert not axis.get_legend().get_window_extent().overlaps(axis.get_window_extent())


def test_curves_differ_by_more_than_colour():
    curves = {str(number): [1.0, 2.0] for number in range(6)}
    lines = rnn_figures.show_on_log_axis({"a": curves}, "t", "norm").axes[0].lines
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 6


def test_gates_show_each_unit_its_mean_and_the_mark():
    values = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    signed = values * torch.tensor([1.0, -1.0])  # the plain mean of the first row is −0.5
    figure = rnn_figures.show_gates({"f": values, "c": signed}, marked=2, symmetric=["c"])
    images = [axis.images[0] for axis in figure.axes if axis.images]
    assert images[0].get_array().tolist() == values.T.tolist()
    assert [image.get_clim() for image in images] == [(0, 1), (-1, 1)]
    means = [line.get_ydata() for axis in figure.axes for line in axis.lines]
    assert sum(list(data) == [0.5, 0.5, 0.5] for data in means) == 2  # of c, that of the sizes
    assert sum(list(line.get_xdata()) == [2, 2] for a in figure.axes for line in a.lines) == 4


def test_accuracies_show_mean_worst_and_best_of_each_model():
    results = {"a": {10: [0.5, 0.75, 1.0]}, "a, b": {10: [0.25]}, "c": {10: [1.0]}}
    figure = rnn_figures.show_accuracy_by_length(results, chance=0.25)
    assert len(figure.axes) == 2  # the first two share a panel
    points, caps, (bars,) = figure.axes[0].containers[0]
    assert points.get_ydata().tolist() == [0.75]
    assert bars.get_segments()[0][:, 1].tolist() == [0.5, 1.0]


# ---------------------------------------------------------------- explorers


def test_stepping_shows_the_sum_worked_by_hand():
    explorer = rnn_figures.cell_explorer(INPUTS, W_s, W_h, b_s, step)
    controls, result = explorer.children
    slider, back, further = controls.children
    assert "Step 1 of 2" in result.value and "(1.000, 1.000)" in result.value  # z(1)
    assert back.disabled and not further.disabled
    further.click()
    assert slider.value == 2 and further.disabled and not back.disabled
    assert "(-0.619, 2.381)" in result.value  # z(2) = W_s s(1) + W_h h(2) + b_s
    assert "(-0.551, 0.983)" in result.value  # s(2)
    slider.value = 1
    assert "Step 1 of 2" in result.value and "(-0.619, 2.381)" not in result.value
    back.click()
    assert slider.value == 1


def test_moving_a_slider_draws_the_gradient_again():
    asked = []

    def norms(radius, length, g, scale):
        asked.append((radius, length, g, scale))
        return [radius ** (t + 1) for t in range(length)]

    explorer = rnn_figures.gradient_explorer(norms)
    radius, length, scale, result = explorer.children
    first = result.value
    address = first.split("base64,")[1].split('"')[0]
    assert base64.b64decode(address).startswith(b"\x89PNG")
    radius.value = 0.5
    length.value = 10
    assert asked[-2:] == [(0.5, 10, "linear", scale.value), (0.5, 10, "tanh", scale.value)]
    assert result.value != first
    assert "Radius 0.50, 10 steps" in result.value and f"{0.5**10:.1e}" in result.value
    assert not plt.get_fignums()  # no figure is left open


def test_explorers_say_what_they_are_where_widgets_are_dead():
    explorer = rnn_figures.cell_explorer(INPUTS, W_s, W_h, b_s, step)
    assert repr(explorer) == "[step through the cell: run this cell to use it]"

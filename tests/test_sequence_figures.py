import re

import matplotlib.pyplot as plt
import numpy
import pytest

from convrnn_utils import sequence_figures
from convrnn_utils.sequence_figures import Steps


def make_steps(order=(0, 2, 1, 3), **changes) -> Steps:
    """Two sequences of four steps; the answer of the first turns from no to yes at step 3."""
    yes = numpy.array([[0.25, 0.4, 0.75, 1.0], [0.5, 0.25, 0.25, 0.0]])
    parts = {
        "pictures": numpy.arange(2 * 8 * 8 * 3, dtype=numpy.uint8).reshape(2, 8, 8, 3),
        "states": numpy.linspace(-1, 1, 2 * 4 * 5).reshape(2, 4, 5),
        "probabilities": numpy.stack([1 - yes, yes], axis=2),
        "classes": ["no", "yes"],
        "truths": [1, 0],
        "order": order,
        "side": 2,
    }
    return Steps(**(parts | changes))


def test_a_step_is_told_in_words():
    steps = make_steps()
    assert steps.sentence(0, 2) == (
        "Step 2 of 4, row 2 and column 1 of the grid: the answer would be “no” with probability "
        "0.60; the truth is “yes”."
    )
    assert "“yes” with probability 0.75" in steps.sentence(0, 3)
    assert "row" not in make_steps(order=None).sentence(0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["no", "yes", "perhaps"]}, r"4, 3\) was expected"),
        ({"truths": [1]}, "1 truths"),
        ({"order": (0, 1)}, "2 places for 4 steps"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make_steps(**changes)


def test_each_class_has_its_curve():
    classes = list("abcdefghi")
    steps = make_steps(classes=classes, probabilities=numpy.full((2, 4, 9), 1 / 9))
    right = sequence_figures.show_steps(steps, 0, 2).axes[2]
    assert [text.get_text() for text in right.get_legend().get_texts()] == classes
    assert len({(line.get_marker(), line.get_linestyle()) for line in right.lines}) == 9


def test_the_figure_of_a_step_shows_the_place_and_no_later_state():
    left, middle, right = sequence_figures.show_steps(make_steps(), 0, 2).axes
    box = left.patches[-1]  # step 2 reads place 2: second row, first column, of 4 × 4 pixels
    assert (box.get_x(), box.get_y(), box.get_width()) == (-0.5, 3.5, 4)
    states = numpy.ma.filled(middle.images[0].get_array().astype(float), numpy.nan)
    assert numpy.array_equal(numpy.isnan(states).all(axis=0), [False, False, True, True])
    lines = {line.get_label(): line.get_ydata() for line in right.lines}
    assert numpy.allclose(lines["yes"], [0.25, 0.4])


def test_a_step_of_a_clip_shows_its_own_frame():
    frames = numpy.stack([numpy.full((8, 8, 3), 10 * t, numpy.uint8) for t in range(4)])
    steps = make_steps(order=None, pictures=numpy.stack([frames, frames]))
    left = sequence_figures.show_steps(steps, 1, 3).axes[0]
    assert (left.images[0].get_array() == 20).all() and not left.patches


def test_the_explorer_answers_to_both_controls():
    explorer = sequence_figures.step_explorer(make_steps())
    (number, step), result = explorer.children[0].children, explorer.children[1]
    assert (step.min, step.max, step.value) == (1, 4, 4)
    seen = [result.value]
    for control, value in ((step, 3), (step, 1), (number, 2)):
        control.value = value
        seen.append(result.value)
    pictures = [re.search(r'src="([^"]+)"', page)[1] for page in seen]
    assert len(set(pictures)) == 4
    assert "Step 3 of 4, row 1 and column 2" in seen[1] and "“yes”" in seen[1]
    assert 'role="status"' in seen[3] and "the truth is “no”" in seen[3]
    assert [control.description for control in (number, step)] == ["example", "step"]
    assert not plt.get_fignums()
    assert repr(explorer) == "[step explorer: run this cell to use it]"


def test_names_of_classes_are_never_taken_for_html():
    explorer = sequence_figures.step_explorer(make_steps(classes=['<b>"no"</b>', "yes"]))
    assert set(re.findall(r"<(\w+)", explorer.children[1].value)) == {"p", "img"}


def test_orders_are_drawn_as_paths_over_the_grid():
    paths = {"columns": [[0, 2, 1, 3]], "both": [[0, 1], [1, 0]]}
    one, two, *_ = sequence_figures.show_orders(paths, 2, numpy.zeros((8, 8, 3))).axes
    path = [line for line in one.lines if len(line.get_xdata()) == 4][0]
    assert list(path.get_xdata()) == [0, 0, 1, 1] and list(path.get_ydata()) == [0, 1, 0, 1]
    assert [text.get_text() for text in one.texts if text.get_text()] == ["1", "2", "3"]
    assert not [text for text in two.texts if text.get_text()]  # several paths: no numbers


def test_accuracies_show_every_seed_and_an_interval_within_bounds():
    figure = sequence_figures.show_accuracies(
        {"one": [0.9, 1.0, 0.95], "two": [0.5]}, {"one": (0.8, 1.1), "two": (0.5, 0.5)}, 0.5, 0.6
    )
    interval, dots, mean = figure.axes[0].lines[:3]
    assert list(interval.get_xdata()) == [80, 100]
    assert numpy.allclose(dots.get_xdata(), [90, 100, 95])
    assert numpy.allclose(mean.get_xdata(), [95])
    assert [line.get_xdata()[0] for line in figure.axes[0].lines[-2:]] == [50, 60]


def test_strips_and_layers_keep_what_they_are_given():
    clip = numpy.full((3, 4, 4, 3), 7, numpy.uint8)
    strip = sequence_figures.show_frames([clip], ["left"]).axes[0].images[0].get_array()
    assert strip.shape == (4, 3 * 6, 3)
    assert (strip[:, 1:5] == 7).all() and (strip[:, 5:7] == 255).all()  # white between frames
    maps = [numpy.ones((2, 4, 4)), numpy.ones((5, 2, 2))]
    axes = sequence_figures.show_layers(clip[0], maps, [m.mean(axis=(1, 2)) for m in maps]).axes
    texts = [text.get_text() for axis in axes for text in axis.texts]
    assert texts == ["2 numbers", "5 numbers"]

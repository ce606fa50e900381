import base64

import matplotlib.pyplot as plt
from PIL import Image

from convrnn_utils import decoding_figures
from convrnn_utils.decoding_figures import Candidate, best_path

# Of the first words "a" and "two", "two" is the less probable and leads to the best beginning.
STEPS = [
    [
        Candidate(0, "a", -0.5, True),
        Candidate(0, "two", -1.0, True),
        Candidate(0, "one", -3, False),
    ],
    [
        Candidate(1, "dogs", -1.2, True),
        Candidate(0, "dog", -1.5, True),
        Candidate(0, "cat", -1.6, False),
    ],
    [Candidate(0, "", -1.2, True), Candidate(1, "runs", -2.0, True), Candidate(1, "is", -9, False)],
]


def texts(figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


# ---------------------------------------------------------------- figures


def test_the_best_path_leads_to_the_best_of_the_last_step():
    assert best_path(STEPS) == [1, 0, 0]
    assert best_path(STEPS[:1]) == [0]
    assert best_path([]) == []


def test_the_tree_shows_every_candidate_and_its_log_probability():
    shown = texts(decoding_figures.show_beam_tree(STEPS))
    assert {"two\n-1.00", "cat\n-1.60", "ended\n-1.20", "is\n-9.00", "step 3"} <= set(shown)


def test_the_tree_marks_the_best_path_and_what_was_dropped():
    axis = decoding_figures.show_beam_tree(STEPS).axes[0]
    thick = [line.get_ydata() for line in axis.lines if line.get_linewidth() > 3]
    assert [[-a for a in line] for line in thick] == [[0, 1], [1, 0], [0, 0]]  # two, dogs, ended
    assert sum(line.get_linestyle() == ":" for line in axis.lines) == 3
    bold = {text.get_text() for text in axis.texts if text.get_weight() == "bold"}
    assert bold == {"<start>", "two\n-1.00", "dogs\n-1.20", "ended\n-1.20"}


def test_the_tree_until_a_step_shows_nothing_of_later_ones():
    shown = texts(decoding_figures.show_beam_tree(STEPS, until=1))
    assert "a\n-0.50" in shown and "dog\n-1.50" not in shown


def test_words_outside_the_nucleus_are_hatched():
    panels = {"nucleus": ({"a": 1.0}, {"the": 0.3}), "all": ({"a": 0.7, "the": 0.3}, {})}
    figure = decoding_figures.show_distributions(panels)
    hatched = [[bar.get_hatch() for bar in axis.patches] for axis in figure.axes]
    assert hatched == [[None, "///"], [None, None]]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1.0, 0.3]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "the"]


def test_an_alignment_numbers_its_chunks():
    pairs = [(0, 2), (1, 3), (2, 0), (3, 1)]
    figure = decoding_figures.show_alignment("c d a b", "a b c d", pairs)
    assert texts(figure)[-4:] == ["1", "1", "2", "2"]
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles == ["-", "-", "--", "--"]
    assert list(figure.axes[0].lines[1].get_xdata()) == [1, 3]


def test_curves_differ_by_marker_and_share_their_ticks():
    panels = {"log p": {"a": {1: -3.0, 5: -2.0}, "b": {1: -3.0, 5: -2.5}}, "words": {"a": {1: 9.0}}}
    figure = decoding_figures.show_curves(panels, "width")
    lines = figure.axes[0].lines
    assert lines[0].get_marker() != lines[1].get_marker()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "5"]
    assert figure.axes[1].get_ylabel() == "words"
    figure = decoding_figures.show_curves({"y": {"a": {2: 0.0, 3: 0.0}, "b": {1: 0.0, 3: 0.0}}}, "")
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [[1, 2], [0, 2]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "3"]


def test_a_name_has_one_marker_in_all_panels_and_zero_is_drawn_where_it_matters():
    panels = {
        "score": {"greedy": (10, 9, 11), "beam": (12, 10, 14)},
        "difference": {"beam": (2, -1, 4)},
    }
    left, right = decoding_figures.show_intervals(panels).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("score", "difference")
    assert left.lines[3].get_marker() == right.lines[1].get_marker() == "s"
    assert list(right.lines[0].get_xdata()) == [-1, 4]
    assert len(left.lines) == 4 and len(right.lines) == 3  # the third is at zero


# ---------------------------------------------------------------- explorers


def test_the_beam_opens_step_by_step():
    asked = []

    def search(row, width):
        asked.append((row, width))
        return STEPS if row == 0 else STEPS[:2]

    explorer = decoding_figures.beam_explorer(search, ["dog", "cat"])
    controls, result = explorer.children
    picture, width, slider, back, further = controls.children
    assert asked == [(0, 3)] and back.disabled
    assert "Step 1 of 3. Kept: a (-0.50); two (-1.00)." in result.value
    first = result.value.split("base64,")[1].split('"')[0]
    assert base64.b64decode(first).startswith(b"\x89PNG")
    further.click()
    assert "Step 2 of 3. Kept: two dogs (-1.20); a dog (-1.50)." in result.value
    assert result.value.split("base64,")[1].split('"')[0] != first
    further.click()
    assert "two dogs (-1.20); a dog runs (-2.00)" in result.value and further.disabled
    width.value = 2
    assert asked[-1] == (0, 2) and slider.value == 1
    slider.value = 3
    picture.index = 1
    assert asked[-1] == (1, 2) and "Step 1 of 2" in result.value and slider.max == 2
    back.click()
    assert slider.value == 1
    assert not plt.get_fignums()


def test_moving_a_slider_draws_other_captions(tmp_path):
    paths = [tmp_path / "dog.jpg", tmp_path / "cat.jpg"]
    for path in paths:
        Image.new("RGB", (64, 48)).save(path)
    asked = []

    def write(row, temperature, top_p):
        asked.append((row, temperature, top_p))
        return [("a <dog>", -3.25), ("a cat", -4.0), ("a cat", -4.0)]

    explorer = decoding_figures.sampling_explorer(write, paths)
    (picture, temperature, top_p), result = explorer.children[0].children, explorer.children[1]
    assert "2 different captions out of 3" in result.value
    assert "a &lt;dog&gt; <small>(-3.2)" in result.value and 'alt="dog"' in result.value
    temperature.value, top_p.value = 0.5, 0.7
    picture.index = 1
    assert asked == [(0, 1, 1), (0, 0.5, 1), (0, 0.5, 0.7), (1, 0.5, 0.7)]
    assert 'alt="cat"' in result.value


def judge(row, caption):
    words = [*caption.split(), "<end>"]
    return [
        decoding_figures.Judged(word, 0.5 + place + row, {"a": 0.6, "<b>": 0.3})
        for place, word in enumerate(words)
    ]


def test_losses_are_bars_with_their_mean():
    figure = decoding_figures.show_losses(judge(0, "a dog runs"), marked=1)
    axis = figure.axes[0]
    assert [bar.get_height() for bar in axis.patches] == [0.5, 1.5, 2.5, 3.5]
    assert [bar.get_hatch() for bar in axis.patches] == [None, "///", None, None]
    assert axis.lines[0].get_ydata()[0] == 2.0
    assert [label.get_text() for label in axis.get_xticklabels()] == ["a", "dog", "runs", "<end>"]
    plt.close(figure)


def test_a_caption_is_typed_and_each_word_judged(tmp_path):
    paths = [tmp_path / "dog.jpg", tmp_path / "cat.jpg"]
    for path in paths:
        Image.new("RGB", (64, 48)).save(path)
    explorer = decoding_figures.loss_explorer(judge, paths, [["a dog", "it runs"], ["a cat"]])
    (picture, caption, word), result = explorer.children[0].children, explorer.children[1]
    assert word.max == 3 and "After “&lt;start&gt;” the model expects: a 60%" in result.value
    assert "Mean of all 3 words: 1.50 nats." in result.value
    word.value = 2
    assert "After “&lt;start&gt; a” the model expects" in result.value
    assert "says “dog”: 22.3%, 1.50 nats" in result.value
    caption.value = "so <it> goes on"
    assert word.max == 5 and "“&lt;it&gt;”" in result.value
    word.value = 5
    picture.index = 1
    assert caption.value == "a cat" and tuple(caption.options) == ("a cat",)
    assert word.max == 3 and word.value == 3 and "<end>" not in result.value
    assert not plt.get_fignums()


def test_explorers_say_what_they_are_where_widgets_are_dead():
    explorer = decoding_figures.beam_explorer(lambda row, width: STEPS, ["dog"])
    assert repr(explorer) == "[beam search, step by step: run this cell to use it]"

import base64
import io
from collections import Counter

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy
import pytest
from PIL import Image

from convrnn_utils import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def texts_of(figure):
    figure.canvas.draw()  # mathtext is read here
    return [text.get_text() for axis in figure.axes for text in (axis.title, *axis.texts)]


def test_word_search_finds_whole_words_and_words_in_a_row(small_split):
    search = plots.WordSearch(small_split)
    assert search.find("Noisy") == {
        row: [f"picture {row} is {'very ' * row}noisy"] for row in range(7)
    }
    assert list(search.find("very very noisy")) == [2, 3, 4, 5, 6]
    assert search.find("nois") == search.find("noise very") == search.find(" <>") == {}
    assert search.frequent_words(1) == ["very"]


@pytest.mark.parametrize(
    ("caption", "words", "pieces"),
    [
        ("A dog and a hot-dog", "dog", ["A ", "dog", " and a hot-dog"]),
        ("Dogs chase Dog.", "dog", ["Dogs chase ", "Dog", "."]),
        ("It is left  of: left", "left of", ["It is ", "left  of", ": left"]),
        ("the dog's bone isn't", "'s", ["the dog", "'s", " bone isn't"]),
        ("the dog's bone isn't", "n't", ["the dog's bone is", "n't", ""]),
        ("c++ (a.b)", "?", ["c++ (a.b)"]),
        ("nothing", "dog", ["nothing"]),
        ("it isn't a man’s hat", "is", ["it ", "is", "n't a man’s hat"]),
        ("it isn't a man’s hat", "'s", ["it isn't a man", "’s", " hat"]),
    ],
)
def test_split_at_words(caption, words, pieces):
    assert plots.split_at_words(caption, words) == pieces


def test_show_word_marks_the_word(small_split):
    search = plots.WordSearch(small_split)
    figure = plots.show_word(search, "noisy", count=3)
    assert sum(r"$\mathbf{noisy}$" in text for text in texts_of(figure)) == 3
    assert all(axis.title.get_parse_math() for axis in figure.axes[:3])
    with pytest.raises(ValueError, match="No caption of noise/train has 'zebra'"):
        plots.show_word(search, "zebra")


def test_marked_captions_may_hold_anything():
    assert plots._in_bold("it's $5 for a 5_a^", "5", 30) == r"it's \$[5] for a 5_a^"
    assert plots._in_bold("one two three", "two three", 9) == (
        "one $\\mathbf{two}$\n$\\mathbf{three}$"
    )


def test_figures_of_caption_data_can_be_drawn():
    counts = {"one": Counter("aaab"), "two": Counter("xyz")}
    mask = numpy.zeros((8, 8), int)
    mask[1:3, 2:6] = 1
    picture = numpy.zeros((8, 8, 3), numpy.uint8)
    figures = [
        plots.show_instances(picture, [mask], [[2, 1, 4, 2]], ["a box"]),
        plots.rank_frequency(counts),
        plots.vocabulary_growth({"one": "aabab", "two": "xyz"}),
        plots.word_clouds({"left": [(-1, 0), (-2, 1)], "nowhere": []}),
        plots.show_padding({"one": numpy.array([[1, 2], [1, 0]]), "two": numpy.eye(3, dtype=int)}),
        plots.show_combinations(
            {"train": Counter({("red", "ring"): 3})}, ["red"], ["ring", "star"]
        ),
    ]
    texts = [texts_of(figure) for figure in figures]
    assert "1 a box" in texts[0]
    assert "nowhere (n = 0)" in texts[3]
    assert "one\n25% padding" in texts[4]
    assert texts[5].count("×") == 1


def test_no_data_set_is_left_out_of_a_figure():
    names = [f"set {number}" for number in range(12)]
    figures = [
        plots.rank_frequency({name: Counter("aab") for name in names}),
        plots.vocabulary_growth(dict.fromkeys(names, "aab")),
    ]
    for figure in figures:
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert shown[: len(names)] == names


def test_growth_counts_new_words():
    line = plots.vocabulary_growth({"one": "aabab"}).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 1], [3, 2], [5, 2]]


def test_figures_are_shown_as_jpeg(monkeypatch, small_split):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show_as_jpeg(plots.show_captions(small_split, [0, 3]))
    assert shown[0].data.startswith(b"\xff\xd8\xff")
    assert not plt.get_fignums()


def test_figures_of_lines_are_shown_in_few_colours(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    figure, axis = plt.subplots()
    axis.plot([0, 1])
    plots.show_in_few_colours(figure, colours=16)
    image = Image.open(io.BytesIO(shown[0].data))
    assert image.format == "PNG" and len(image.convert("RGB").getcolors(10**6)) <= 16
    assert not plt.get_fignums()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_figure_or_a_picture_becomes_html_with_its_text(kind):
    figure, _ = plt.subplots()
    for shown in (figure, Image.new("RGB", (8, 6))):
        tag = plots.html_image(shown, 'a "<dog>" & a cat', kind, "width:100%")
        assert 'alt="a &quot;&lt;dog&gt;&quot; &amp; a cat"' in tag and 'style="width:100%"' in tag
        content = base64.b64decode(tag.split(f"data:image/{kind};base64,")[1].split('"')[0])
        assert Image.open(io.BytesIO(content)).format == kind.upper()
    assert not plt.get_fignums()


def test_captions_stand_under_their_picture(small_split):
    small_split.captions[3] = ["it costs $5 or $6", "two " * 20]
    texts = [axis.get_title(loc="left") for axis in plots.show_captions(small_split, [3, 0]).axes]
    assert texts[0].startswith("\u2022 it costs $5 or $6\n\u2022 two two")
    assert texts[1] == "\u2022 picture 0 is noisy\n\u2022 noise 0"


def test_attention_lights_the_cell_that_was_looked_at():
    weights = numpy.full((1, 9), 0.05)
    weights[0, 5] = 0.6  # the middle row's right cell
    figure = plots.show_attention(Image.new("RGB", (50, 40), "white"), ["dog"], weights)
    pixels = figure.axes[0].images[0].get_array()
    height, width, _ = pixels.shape
    assert texts_of(figure) == ["dog  0.60"]
    assert (pixels[height // 2, width - 5] == 255).all()
    assert (pixels[height // 2, 5] < 80).all() and (pixels[5, width - 5] < 80).all()


def test_attention_over_places_that_are_no_grid_is_refused():
    with pytest.raises(ValueError, match="8 places are no square grid"):
        plots.show_attention(Image.new("RGB", (50, 40)), ["dog"], numpy.full((1, 8), 0.125))


def test_times_are_bars_with_their_numbers_the_first_one_on_top():
    figure = plots.show_times({"one by one": 120.0, "together": 1.25}, "caption")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [120.0, 1.25]
    assert [text.get_text() for text in axis.texts] == ["120", "1.25"]
    assert axis.yaxis_inverted() and axis.get_xlabel() == "milliseconds a caption"
    plots.plt.close(figure)

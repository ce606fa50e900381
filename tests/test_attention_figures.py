import base64
import datetime
import io

import numpy
import pytest
import torch
from PIL import Image

from convrnn_utils import attention_figures, decoding, scenes
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.attention_figures import (
    captions_of_beam,
    named_things,
    places_of,
    weight_on,
    words_about,
)
from convrnn_utils.captioning import Caption
from convrnn_utils.text import Vocabulary


@pytest.fixture
def model(tiny_encoder):
    torch.manual_seed(0)
    return ShowAttendTell(6, 8, 9, cnn=tiny_encoder).eval()


def split(caption):
    return caption.split()


def thing(shape, colour="red", x=24.0, y=24.0):
    return scenes.Thing(shape, colour, "medium", "plain", x, y, 13.0, 0.0)


# ---------------------------------------------------------------- captions of the beam


def test_the_first_caption_is_that_of_beam_search(model):
    vocabulary = Vocabulary(["a", "red", "star", "on", "grass"])
    for seed in range(5):
        image = torch.rand(1, 4, 5, generator=torch.Generator().manual_seed(seed))
        for width in (1, 3):
            written = captions_of_beam(model, image, vocabulary, width, max_words=6)
            best = decoding.beam_search(model, image, 6, width)
            expected = [vocabulary.words[word] for word in best[0]]
            assert written[0].words == expected
            logarithm = decoding.log_probability(model, image, best).item()
            assert written[0].log_probability == pytest.approx(logarithm, abs=1e-4)
            maps = decoding.attention_of(model, image, best)[0].numpy()
            assert numpy.allclose(written[0].attention, maps, atol=1e-5)


def test_the_beam_comes_in_order_and_without_doubles(model):
    vocabulary = Vocabulary(["a", "red", "star", "on", "grass"])
    written = captions_of_beam(model, torch.rand(1, 4, 5), vocabulary, 4, max_words=5)
    logarithms = [one.log_probability for one in written]
    assert logarithms == sorted(logarithms, reverse=True)
    assert len({tuple(one.words) for one in written}) == 4
    for one in written:
        assert one.attention.shape == (len(one.words), 4)
        assert "<end>" not in one.words[:-1]


# ---------------------------------------------------------------- words and things


def test_adjectives_belong_to_the_noun_that_follows():
    assert words_about(split("a small red star above a ring")) == [
        None, ("size", "star"), ("colour", "star"), ("shape", "star"), None, None,
        ("shape", "ring"),
    ]  # fmt: skip


def test_what_is_said_afterwards_belongs_to_the_noun_before():
    about = words_about(split("a star with a checked pattern and a heart with dots is red"))
    assert about[4] == ("pattern", "star")
    assert about[10] == ("pattern", "heart")
    assert about[12] == ("colour", "heart")


def test_plurals_and_nouns_of_any_shape_are_about_no_single_thing():
    assert words_about(split("two red stars and a blue thing")) == [None] * 7


def test_other_words_for_a_shape_are_understood():
    assert words_about(["crescent"]) == [("shape", "moon")]


def test_only_shapes_that_one_thing_has_are_certain():
    scene = scenes.Scene((thing("star"), thing("ring"), thing("ring")), "grass", 0)
    named = named_things(split("a red star and a white ring and a heart"), scene)
    assert named == [(1, "colour", 0), (2, "shape", 0)]


def test_places_of_a_thing_are_those_it_touches():
    mask = numpy.zeros((12, 12), dtype=bool)
    mask[0:4, 0:5] = True  # all of the first place of nine, a quarter of the second
    assert places_of(mask, 3).tolist() == [True, True] + [False] * 7
    assert places_of(mask, 3, least=0.3).tolist() == [True] + [False] * 8
    with pytest.raises(ValueError, match="cannot be cut into 5"):
        places_of(mask, 5)


def test_weight_on_a_thing_is_that_of_its_places():
    mask = numpy.zeros((12, 12), dtype=bool)
    mask[0:4, 0:5] = True
    weights = numpy.array([0.5, 0.2, 0.1, 0.05, 0.05, 0.025, 0.025, 0.025, 0.025])
    assert weight_on(weights, mask) == pytest.approx(0.7)
    assert weight_on(weights, mask, least=0.3) == pytest.approx(0.5)
    assert weight_on(numpy.full(9, 1 / 9), mask) == pytest.approx(2 / 9)


# ---------------------------------------------------------------- figures


def test_a_film_strip_has_a_frame_a_word_and_a_bar_below_each():
    attention = numpy.eye(4)[[0, 3, 1]]
    entropies = [0.5, 1.5, 1.0]
    picture = Image.new("RGB", (20, 20), "white")
    figure = attention_figures.show_film_strip(
        picture,
        ["a", "red", "star"],
        attention,
        {"entropy": entropies, "gate": [0, 0, 0]},
        {"entropy": 2},
    )
    strip, bars, gates = figure.axes
    assert [label.get_text() for label in strip.get_xticklabels()] == ["a", "red", "star"]
    assert [bar.get_height() for bar in bars.patches] == entropies
    assert [list(line.get_ydata()) for line in bars.lines] == [[2, 2]] and not gates.lines
    pixels = strip.images[0].get_array()
    lit = [pixels[18 + 28, 122 * number + 5 + 28].max() for number in range(3)]  # top left cell
    assert lit[0] > 4 * lit[1] and lit[1] == lit[2]


def test_the_outline_of_the_named_thing_is_drawn():
    mask = numpy.zeros((12, 12), dtype=bool)
    mask[3:9, 3:9] = True
    panel = (Image.new("RGB", (12, 12)), numpy.full(9, 1 / 9), mask, "star: 0.44")
    figure = attention_figures.show_on_things([panel] * 5, columns=4)
    assert len(figure.axes) == 8
    assert figure.axes[0].get_title() == "star: 0.44"
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners.min() == 2.5 and corners.max() == 8.5


def test_bars_carry_their_numbers_and_differ_by_hatch():
    figure = attention_figures.show_bars(
        {"shape": {"model": 0.6, "uniform": 0.2}, "size": {"model": 0.5}}, "weight", {"half": 0.5}
    )
    texts = {text.get_text() for text in figure.axes[0].texts}
    assert texts - {""} == {"0.60", "0.20", "0.50", "half"}
    assert {bar.get_hatch() for bar in figure.axes[0].patches} == {"", "//"}


# ---------------------------------------------------------------- the explorer


def written_for(image):
    """Two captions; the darker the picture, the more of the first word is on the last place."""
    first = numpy.full((2, 4), 0.1)
    first[0, 3] = first[1, 0] = 0.7
    second = numpy.full((3, 4), 0.25)
    name = "dark" if numpy.asarray(image).mean() < 100 else "<light>"
    return [
        Caption([name, "<end>"], first, -1.25),
        Caption(["a", name, "<end>"], second, -2.5),
    ]


@pytest.fixture
def pictures(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "night.png")
    Image.new("RGB", (64, 48), "white").save(tmp_path / "day.png")
    return {"night": tmp_path / "night.png", "day": tmp_path / "day.png"}


def controls(explorer):
    (picture, upload), (caption,), walk = (box.children for box in explorer.children[:3])
    return picture, upload, caption, *walk, explorer.children[4]


def test_one_walks_along_the_words(pictures):
    explorer = attention_figures.attention_explorer(written_for, pictures)
    _, _, caption, word, back, further, row, column, result = controls(explorer)
    assert caption.options == ("1: dark <end> (-1.2)", "2: a dark <end> (-2.5)")
    assert "Word 1 of 2: “dark”. The largest weight, 0.70, is at row 2, column 2" in result.value
    assert back.disabled and not further.disabled
    further.click()
    assert "Word 2 of 2: “&lt;end&gt;”" in result.value and further.disabled
    assert "is at row 1, column 1" in result.value
    back.click()
    assert word.value == 1


def test_one_chooses_a_place_and_reads_its_weight_over_the_words(pictures):
    explorer = attention_figures.attention_explorer(written_for, pictures)
    _, _, caption, _, _, _, row, column, result = controls(explorer)
    row.value, column.value = 2, 2
    assert "The place at row 2, column 2 has 0.70; its largest weight is 0.70, for “dark”" in (
        result.value
    )
    assert "<title>row 2, column 2: 0.700</title>" in result.value
    row.value = 1
    assert "The place at row 1, column 2 has 0.10" in result.value
    caption.index = 1
    assert "Word 1 of 3: “a”" in result.value


def test_one_chooses_another_picture(pictures):
    explorer = attention_figures.attention_explorer(written_for, pictures)
    picture, _, caption, *_, result = controls(explorer)
    picture.value = "day"
    assert "“&lt;light&gt;”" in result.value and caption.index == 0
    encoded = result.value.split("base64,")[1].split('"')[0]
    pixels = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))))
    assert pixels.shape == (300, 300, 3) and pixels.min() > 240


def upload_of(name, content):
    return (
        {
            "name": name, "type": "image/png", "size": len(content),
            "content": memoryview(content), "last_modified": datetime.datetime.now(),
        },
    )  # fmt: skip


def test_one_loads_a_picture_of_ones_own(pictures):
    explorer = attention_figures.attention_explorer(written_for, pictures)
    picture, upload, *_, result = controls(explorer)
    upload.value = upload_of("mine.png", pictures["day"].read_bytes())
    assert "“&lt;light&gt;”" in result.value
    assert picture.value == "mine.png (yours)"
    upload.value = upload_of("<notes>.txt", b"no picture")
    assert "&lt;notes&gt;.txt cannot be read as a picture" in explorer.children[3].value
    assert "“&lt;light&gt;”" in result.value
    picture.value = next(iter(pictures))
    assert explorer.children[3].value == ""
    picture.value = "mine.png (yours)"
    assert "“&lt;light&gt;”" in result.value


def test_the_explorer_says_what_it_is_where_widgets_are_dead(pictures):
    explorer = attention_figures.attention_explorer(written_for, pictures)
    assert repr(explorer) == "[attention, word by word: run this cell to use it]"

"""Captions of one picture, and the explorer that goes through them word by word."""

import io
import re
from datetime import datetime, timezone
from functools import partial

import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from PIL import Image

from convrnn_utils import captioning, plots
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.captioning import Caption, caption_explorer, caption_picture
from convrnn_utils.decoding import attention_of, beam_search, greedy, log_probability
from convrnn_utils.text import Vocabulary


@pytest.fixture
def captioner(tiny_encoder):
    """A model with random weights, large enough that it chooses differently for each picture."""
    vocabulary = Vocabulary(["a", "the", "dog", "cat", "runs", "sits", "in", "on", "grass", "<b>"])
    torch.manual_seed(3)
    model = ShowAttendTell(8, 12, len(vocabulary), cnn=tiny_encoder).eval()
    for parameter in model.parameters():
        parameter.data.mul_(6)
    return model, vocabulary


def noise(seed, size=(30, 20)):
    pixels = numpy.random.RandomState(seed).randint(0, 256, (*size, 3), numpy.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("beam_width", [1, 3])
def test_a_caption_is_what_the_searches_give(captioner, beam_width):
    model, vocabulary = captioner
    picture = noise(1)
    caption = caption_picture(model, vocabulary, picture, beam_width)
    inputs = model.cnn.preprocess(picture).unsqueeze(0)
    if beam_width == 1:
        ids = greedy(model, inputs)
    else:
        ids = beam_search(model, inputs, beam_width=beam_width)
    count = len(caption.words)
    assert str(caption) == vocabulary.decode(ids[0])
    assert caption.log_probability == pytest.approx(log_probability(model, inputs, ids).item())
    expected = attention_of(model, inputs, ids)[0, :count]
    numpy.testing.assert_allclose(caption.attention, expected, rtol=1e-5)
    assert caption.attention.shape == (count, 4)


def test_the_choices_are_probable_words_and_have_the_one_that_was_written(captioner):
    model, vocabulary = captioner
    greedy_caption = caption_picture(model, vocabulary, noise(1))
    for word, choices in zip(greedy_caption.words, greedy_caption.choices, strict=True):
        assert max(choices, key=choices.get) == word
    for seed in range(5):
        caption = caption_picture(model, vocabulary, noise(seed), beam_width=4)
        for word, choices in zip(caption.words, caption.choices, strict=True):
            assert word in choices and 5 <= len(choices) <= 6
            assert 0 < sum(choices.values()) <= 1 + 1e-5


def test_row_and_column_are_counted_from_one():
    weights = numpy.zeros(9)
    weights[5] = 1
    assert captioning.place_of_most(weights) == (2, 3)


def made_up(picture, beam_width):
    """A caption whose words tell the beam's width and the picture's width."""
    words = ["width", str(beam_width), "<b>", str(picture.width)]
    attention = numpy.full((4, 9), 0.1)
    attention[range(4), [0, 1, 2, 5]] = 0.2
    choices = [{word: 0.5, "other": 0.25} for word in words]
    return Caption(words, attention, -3.0, choices)


def test_one_step_is_drawn_with_its_words():
    four = made_up(noise(0), 1)
    figure = captioning.show_step(noise(0), four, 4)
    titles = " ".join(axis.get_title() for axis in figure.axes)
    assert "3 × 3 places" in titles and "After “width 1 <b>”" in titles
    assert [text.get_text() for text in figure.axes[2].get_yticklabels()] == ["20", "other"]
    assert "After the start" in captioning.show_step(noise(0), four, 1).axes[1].get_title()
    five = Caption(list("abcde"), numpy.eye(5, 9), -5.0, [{word: 0.5} for word in "abcde"])
    assert "After “… b c d”" in captioning.show_step(noise(0), five, 5).axes[1].get_title()
    plt.close("all")


@pytest.fixture
def explorer(tmp_path):
    paths = []
    for width in (30, 40):
        paths.append(tmp_path / f"w{width}.png")
        Image.new("RGB", (width, 20), "red").save(paths[-1])
    return caption_explorer(made_up, paths)


def parts(explorer):
    controls, number, message, result = explorer.children
    return *controls.children, number, message, result


def text_of(result):
    return re.sub("<img[^>]*>", "", result.value)


def upload_file(upload, name, content):
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    upload.value = ({**file, "last_modified": datetime.now(timezone.utc)},)


def png(width):
    file = io.BytesIO()
    Image.new("RGB", (width, 9)).save(file, "png")
    return file.getvalue()


def test_every_control_changes_what_is_shown(explorer):
    photo, _, width, number, _, result = parts(explorer)
    assert "width 1 &lt;b&gt; 30" in text_of(result)
    photo.value = "w40"
    assert "width 1 &lt;b&gt; 40" in text_of(result)
    width.value = 3
    assert "width 3 &lt;b&gt; 40" in text_of(result)
    before = result.value
    number.value = 4
    assert result.value != before
    assert "<mark>40</mark>" in result.value and "other" in result.value
    assert "Word 4 of 4, “40”: probability 0.50" in text_of(result)
    assert "row 2, column 3 of 3 × 3 (weight 0.20)" in text_of(result)
    photo.value = "w30"
    assert number.value == 0 and number.max == 4


def test_a_caption_without_a_word_is_shown_as_the_picture_alone(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "first.png")
    nothing = Caption([], numpy.zeros((0, 9)), -0.5)
    explorer = captioning.caption_explorer(lambda picture, width: nothing, [tmp_path / "first.png"])
    *_, number, _, result = parts(explorer)
    assert number.max == 0 and "The whole picture" in text_of(result)
    with pytest.raises(ValueError, match="no word 1: the caption has 0"):
        captioning.show_step(noise(0), nothing, 1)
    with pytest.raises(ValueError, match="no word"):
        plots.show_attention(noise(0), [], nothing.attention)


def test_an_upload_joins_the_list_and_is_captioned(explorer):
    photo, upload, _, _, message, result = parts(explorer)
    upload_file(upload, "mine.png", png(57))
    assert photo.value == "mine.png (yours)" and "57" in text_of(result)
    upload_file(upload, "other.png", png(58))
    assert "58" in text_of(result)
    photo.value = "mine.png (yours)"
    assert "57" in text_of(result)
    upload_file(upload, "mine.png", png(59))  # the same name again
    assert "59" in text_of(result) and len(photo.options) == 4
    assert message.value == ""


def test_an_upload_is_captioned_once(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "first.png")
    written = []

    def write(picture, beam_width):
        written.append(picture.width)
        return made_up(picture, beam_width)

    upload_file(parts(caption_explorer(write, [tmp_path / "first.png"]))[1], "mine.png", png(57))
    assert written == [30, 57]


def test_a_wrong_upload_says_so_and_leaves_the_rest(explorer):
    photo, upload, _, _, message, result = parts(explorer)
    before = result.value, photo.options
    upload_file(upload, "<i>notes</i>.txt", b"dogs")
    assert "&lt;i&gt;notes&lt;/i&gt;.txt cannot be read as a picture" in message.value
    assert (result.value, photo.options) == before
    upload_file(upload, "mine.png", png(57))
    assert message.value == "" and "57" in text_of(result)


def test_words_are_never_taken_for_html(explorer):
    *_, number, _, result = parts(explorer)
    number.value = 3
    tags = set(re.findall(r"<(\w+)", re.sub('"[^"]*"', "", result.value)))
    assert tags <= {"p", "mark", "div", "img", "table", "caption", "tr", "td", "meter"}
    assert "<mark>&lt;b&gt;</mark>" in result.value


def test_the_explorer_works_with_a_model(captioner, tmp_path):
    path = tmp_path / "noise.png"
    noise(2).save(path)
    explorer = caption_explorer(partial(caption_picture, *captioner), [path])
    number = parts(explorer)[3]
    assert number.max == len(caption_picture(*captioner, noise(2)).words)
    assert repr(explorer) == "[captions, word by word: run this cell to use it]"

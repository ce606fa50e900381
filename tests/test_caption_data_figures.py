import re
from collections import Counter

import numpy
import pytest
from PIL import Image

from convrnn_utils import caption_data_figures, data, files


def texts_of(figure):
    figure.canvas.draw()  # mathtext is read here
    return [text.get_text() for axis in figure.axes for text in (axis.title, *axis.texts)]


def test_word_search_finds_whole_words_and_words_in_a_row(small_split):
    search = caption_data_figures.WordSearch(small_split)
    assert search.find("Noisy") == {
        row: [f"picture {row} is {'very ' * row}noisy"] for row in range(7)
    }
    assert list(search.find("very very noisy")) == [2, 3, 4, 5, 6]
    assert search.find("nois") == search.find("noise very") == search.find(" <>") == {}
    assert search.frequent_words(1) == ["very"]
    assert [row for row, _ in search.some("noisy", 4)] == [0, 1, 3, 5]  # spread over all seven
    assert [row for row, _ in search.some("noisy", 9)] == list(range(7))


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
    assert caption_data_figures.split_at_words(caption, words) == pieces


def test_show_word_marks_the_word(small_split):
    search = caption_data_figures.WordSearch(small_split)
    figure = caption_data_figures.show_word(search, "noisy", count=3)
    assert sum(r"$\mathbf{noisy}$" in text for text in texts_of(figure)) == 3
    assert all(axis.title.get_parse_math() for axis in figure.axes[:3])
    with pytest.raises(ValueError, match="No caption of noise/train has 'zebra'"):
        caption_data_figures.show_word(search, "zebra")


def test_marked_captions_may_hold_anything():
    assert caption_data_figures._in_bold("it's $5 for a 5_a^", "5", 30) == r"it's \$[5] for a 5_a^"
    assert caption_data_figures._in_bold("one two three", "two three", 9) == (
        "one $\\mathbf{two}$\n$\\mathbf{three}$"
    )


def test_figures_of_caption_data_can_be_drawn():
    counts = {"one": Counter("aaab"), "two": Counter("xyz")}
    mask = numpy.zeros((8, 8), int)
    mask[1:3, 2:6] = 1
    picture = numpy.zeros((8, 8, 3), numpy.uint8)
    figures = [
        caption_data_figures.show_instances(picture, [mask], [[2, 1, 4, 2]], ["a box"]),
        caption_data_figures.rank_frequency(counts),
        caption_data_figures.vocabulary_growth({"one": "aabab", "two": "xyz"}),
        caption_data_figures.word_clouds({"left": [(-1, 0), (-2, 1)], "nowhere": []}),
        caption_data_figures.show_padding(
            {"one": numpy.array([[1, 2], [1, 0]]), "two": numpy.eye(3, dtype=int)}
        ),
        caption_data_figures.show_combinations(
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
        caption_data_figures.rank_frequency({name: Counter("aab") for name in names}),
        caption_data_figures.vocabulary_growth(dict.fromkeys(names, "aab")),
    ]
    for figure in figures:
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert shown[: len(names)] == names


def test_growth_counts_new_words():
    line = caption_data_figures.vocabulary_growth({"one": "aabab"}).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 1], [3, 2], [5, 2]]


def test_captions_stand_under_their_picture(small_split):
    small_split.captions[3] = ["it costs $5 or $6", "two " * 20]
    figure = caption_data_figures.show_captions(small_split, [3, 0])
    texts = [axis.get_title(loc="left") for axis in figure.axes]
    assert texts[0].startswith("\u2022 it costs $5 or $6\n\u2022 two two")
    assert texts[1] == "\u2022 picture 0 is noisy\n\u2022 noise 0"


@pytest.fixture
def browser(small_split):
    return caption_data_figures.caption_browser(small_split, "noisy", count=3)


def parts(browser):
    (word, back, further, page), result = browser.children[0].children, browser.children[1]
    return word, back, further, page, result


def test_a_page_shows_pictures_with_the_word_marked(browser):
    *_, result = parts(browser)
    assert "in 7 captions of 7 pictures out of 7; page 1 of 3" in result.value
    assert result.value.count("<mark>noisy</mark>") == 3
    assert result.value.count('src="data:image/jpeg;base64,') == 3
    assert 'alt="picture 0 is noisy"' in result.value


def test_buttons_and_number_turn_pages_and_stop_at_the_ends(browser):
    _, back, further, page, result = parts(browser)
    assert back.disabled and not further.disabled
    further.click()
    further.click()
    assert (page.value, further.disabled, back.disabled) == (3, True, False)
    assert result.value.count("<figure") == 1
    page.value = 99
    assert page.value == 3
    back.click()
    assert page.value == 2 and "page 2 of 3" in result.value


def test_another_word_begins_at_page_one(browser):
    word, _, further, page, result = parts(browser)
    further.click()
    word.value = "very very very"
    assert (page.value, page.max) == (1, 2)
    assert "in 4 captions of 4 pictures" in result.value
    word.value = "zebra"
    assert "in 0 captions of 0 pictures" in result.value and "<figure" not in result.value
    assert further.disabled
    word.value = ""
    assert "<figure" not in result.value


def test_captions_and_words_are_never_taken_for_html(data_home):
    folder = data_home / "bad"
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(folder / "images" / "1.png")
    caption = '<script>alert("dog")</script> & a dog\'s <img src=x onerror=y>'
    files.write_captions(
        folder, "test", [{"id": 1, "file_name": "1.png", "captions": [caption, "b"]}]
    )
    split = data.load_split(folder, "test")
    for words in ("dog", "script", "'s", "<b>x</b>"):
        page = parts(caption_data_figures.caption_browser(split, words))[-1].value
        assert set(re.findall(r"<(\w+)", page)) <= set(
            ["p", "b", "div", "figure", "img", "figcaption", "ul", "li", "mark"]
        )
        assert page.count("<b>") == 1
        assert "<img src=x" not in page


def test_controls_say_what_they_are(browser):
    assert [control.description for control in parts(browser)[:-1]] == [
        "word", "previous", "next", "page",
    ]  # fmt: skip
    assert repr(browser) == "[caption browser: run this cell to use it]"

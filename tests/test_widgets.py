import io
import re

import pytest
from PIL import Image

from convrnn_utils import data, files, widgets


@pytest.fixture
def browser(small_split):
    return widgets.caption_browser(small_split, "noisy", count=3)


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
        page = parts(widgets.caption_browser(split, words))[-1].value
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


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif"])
def test_an_uploaded_picture_is_read(kind):
    file = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(file, kind)
    picture = widgets.read_upload({"name": f"mine.{kind}", "content": memoryview(file.getvalue())})
    assert (picture.mode, picture.size) == ("RGB", (9, 7))


def test_an_uploaded_file_that_is_no_picture_is_refused_in_a_sentence():
    file = io.BytesIO()
    Image.new("RGB", (99, 99), "red").save(file, "jpeg")
    for name, content in (
        ("notes.txt", b"dogs"),
        ("no.jpg", b""),
        ("b.jpg", file.getvalue()[:400]),
    ):
        with pytest.raises(
            ValueError, match=f"^{name} cannot be read as a picture; .*JPEG"
        ) as caught:
            widgets.read_upload({"name": name, "content": memoryview(content)})
        assert "\n" not in str(caught.value) and "object at" not in str(caught.value)


def test_the_button_answers():
    (button,) = widgets.widget_test().children
    button.click()
    assert button.description == "pressed: widgets work here"

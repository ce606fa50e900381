import io

import pytest
from PIL import Image

from convrnn_utils import widgets


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
            ValueError, match=f"^{name} cannot be read as a picture: .*JPEG"
        ) as caught:
            widgets.read_upload({"name": name, "content": memoryview(content)})
        assert "\n" not in str(caught.value) and "object at" not in str(caught.value)


def test_the_button_answers():
    (button,) = widgets.widget_test().children
    button.click()
    assert button.description == "pressed: widgets work here"

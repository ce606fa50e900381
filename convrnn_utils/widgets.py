"""The explorers: figures that respond to the reader, worked with the mouse or the keyboard."""

import contextlib
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ipywidgets
from PIL import Image

from convrnn_utils.data import read_image
from convrnn_utils.plots import html_image


class Explorer(ipywidgets.VBox):
    """Controls above what they control; where widgets do not work, a sentence is shown instead."""

    def __init__(self, name: str, children):
        super().__init__(children)
        self._name = name

    def __repr__(self) -> str:
        return f"[{self._name}: run this cell to use it]"


def row_of(controls: Sequence) -> ipywidgets.HBox:
    """Controls side by side, wrapped onto further lines if the page is narrow."""
    row = ipywidgets.HBox(controls)
    row.layout.flex_flow = "row wrap"
    return row


@contextlib.contextmanager
def unobserved(control, show: Callable, name: str = "value") -> Iterator[None]:
    """Let the block change a control without a call of ``show``, which is then called only once."""
    control.unobserve(show, name)
    try:
        yield
    finally:
        control.observe(show, name)


def turning_buttons(number, back_tip: str, further_tip: str) -> list[ipywidgets.Button]:
    """Two buttons that move ``number``, an ``IntSlider`` or the like, back or on by one."""
    back = ipywidgets.Button(description="previous", tooltip=back_tip)
    further = ipywidgets.Button(description="next", tooltip=further_tip)

    def turn(button: ipywidgets.Button) -> None:
        number.value += 1 if button is further else -1

    def at_the_ends(_=None) -> None:
        back.disabled, further.disabled = number.value == number.min, number.value == number.max

    for button in (back, further):
        button.layout.width = "7em"
        button.on_click(turn)
    number.observe(at_the_ends, ["value", "max"])
    at_the_ends()
    return [back, further]


def widget_test() -> Explorer:
    """A button whose label says, once it is pressed, that widgets work."""
    button = ipywidgets.Button(description="press me")
    button.layout.width = "20em"

    def answer(_) -> None:
        button.description = "pressed: widgets work here"

    button.on_click(answer)
    return Explorer("a button to press", [button])


def picture_chooser(
    pictures: Mapping[str, Path], choose: Callable[[Image.Image], None], description: str = "photo"
) -> tuple[ipywidgets.Dropdown, ipywidgets.FileUpload, ipywidgets.HTML]:
    """A list of pictures, a button that adds a picture of one's own to it, and a message.

    A file that is uploaded stays in memory.

    Args:
        pictures: the files to choose from, by name.
        choose: called with the picture whenever one is chosen, but not with the first one.
        description: the label before the list.
    """
    uploaded: dict[str, Image.Image] = {}
    names = ipywidgets.Dropdown(options=list(pictures), description=description)
    upload = ipywidgets.FileUpload(accept="image/*", description="your own")
    message = ipywidgets.HTML()

    def show(_=None) -> None:
        name = names.value
        message.value = ""
        choose(uploaded[name] if name in uploaded else read_image(pictures[name]))

    def receive(_=None) -> None:
        if not upload.value:
            return
        file = last_upload(upload)
        try:
            received = read_upload(file)
        except ValueError as error:
            message.value = f'<p role="alert">{html.escape(str(error))}</p>'
            return
        name = f"{file['name']} (yours)"
        uploaded[name] = received
        with unobserved(names, show):
            names.options = [*pictures, *uploaded]
            names.value = name
        show()

    names.observe(show, "value")
    upload.observe(receive, "value")
    return names, upload, message


def picture_html(path: Path, text: str, style: str = "", longest: int = 240) -> str:
    """A photograph, made small, as HTML; ``text`` says what it shows."""
    picture = read_image(path)
    picture.thumbnail((longest, longest))
    return html_image(picture, text, "jpeg", style)


def last_upload(upload: ipywidgets.FileUpload) -> Mapping:
    """The file that was chosen last: its ``"name"`` and its ``"content"``."""
    if isinstance(upload.value, Mapping):  # ipywidgets 7, which Colab has
        name, file = list(upload.value.items())[-1]
        return {"name": name, "content": file["content"]}
    return upload.value[-1]


def read_upload(file: Mapping) -> Image.Image:
    """The picture in a file that ``ipywidgets.FileUpload`` has received.

    Raises:
        ValueError: it is not a picture; the sentence is for the person who chose it.
    """
    try:
        return read_image(io.BytesIO(file["content"]))
    except ValueError:
        raise ValueError(
            f"{file['name']} cannot be read as a picture: it is of another kind, damaged, or has "
            "more than 179 million pixels; please choose a JPEG, PNG, WebP or GIF file (a HEIC "
            "file from a telephone must be saved as JPEG first)."
        ) from None

import base64
import io

import matplotlib.pyplot as plt
import numpy
import pytest
from PIL import Image

from convrnn_utils import plots


def test_figures_are_shown_as_jpeg(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show_as_jpeg(plots.show_pictures([Image.new("RGB", (9, 9), "red")], ["red"]))
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


def test_attention_lights_the_cell_that_was_looked_at():
    weights = numpy.full((1, 9), 0.05)
    weights[0, 5] = 0.6  # the middle row's right cell
    figure = plots.show_attention(Image.new("RGB", (50, 40), "white"), ["dog"], weights)
    pixels = figure.axes[0].images[0].get_array()
    height, width, _ = pixels.shape
    assert [axis.get_title() for axis in figure.axes] == ["dog  0.60"]
    assert (pixels[height // 2, width - 5] == 255).all()
    assert (pixels[height // 2, 5] < 80).all() and (pixels[5, width - 5] < 80).all()


def test_attention_over_places_that_are_no_grid_is_refused():
    with pytest.raises(ValueError, match="8 places do not make a square grid"):
        plots.show_attention(Image.new("RGB", (50, 40)), ["dog"], numpy.full((1, 8), 0.125))


def test_times_are_bars_with_their_numbers_the_first_one_on_top():
    figure = plots.show_times({"one by one": 120.0, "together": 1.25}, "caption")
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == [120.0, 1.25]
    assert [text.get_text() for text in axis.texts] == ["120", "1.25"]
    assert axis.yaxis_inverted() and axis.get_xlabel() == "milliseconds a caption"
    plots.plt.close(figure)

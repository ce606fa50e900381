"""The notebooks for those who see no red and green apart, who see nothing, or who use no mouse."""

import base64
import io
import re
from itertools import combinations
from pathlib import Path

import ipywidgets
import matplotlib
import nbformat
import numpy
import pytest
from PIL import Image

from convrnn_utils import caption_data_figures, plots

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
# G. M. Machado et al., 2009, doi:10.1109/TVCG.2009.113: how a deuteranope sees linear RGB
DEUTERANOPIA = numpy.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
TO_XYZ = numpy.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colours):
    """sRGB from 0 to 1, with its curve taken off."""
    colours = numpy.asarray(colours, dtype=float)
    return numpy.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def lab(light):
    """Linear RGB as CIE L*a*b*, in which a distance of about 2 can just be seen."""
    xyz = light @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    root = numpy.where(xyz > 0.008856, numpy.cbrt(xyz.clip(0)), 7.787 * xyz + 16 / 116)
    x, y, z = root.T
    return numpy.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def distances(colours, deuteranope=False):
    """Between all pairs of colours, (n, n)."""
    light = linear(colours)
    seen = lab((light @ DEUTERANOPIA.T).clip(0, 1) if deuteranope else light)
    return numpy.linalg.norm(seen[:, None] - seen[None], axis=-1)


def contrast(one, other):
    """The ratio of WCAG 2.2, from 1 to 21."""
    bright, dark = sorted((linear(c) @ TO_XYZ[1] for c in (one, other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_the_simulation_knows_what_a_deuteranope_confuses():
    red, green = (0.75, 0.30, 0.25), (0.45, 0.50, 0.20)
    assert distances([red, green])[0, 1] > 40 > 25 > distances([red, green], True)[0, 1]
    assert distances([(0, 0, 1), (1, 1, 0)], True)[0, 1] > 100
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)


def test_the_first_colours_of_the_palette_stay_apart():
    """No figure has more than six groups in colours of their own; markers differ as well."""
    apart = distances(plots.PALETTE[:6], deuteranope=True)
    for first, second in combinations(range(6), 2):
        assert apart[first, second] > 8, (first, second)


@pytest.mark.parametrize("name", ["cividis", "PuOr"])
def test_a_scale_of_colours_keeps_its_order(name):
    """Eleven steps of it are as far apart for a deuteranope as they need be to be told apart."""
    steps = matplotlib.colormaps[name](numpy.linspace(0, 1, 11))[:, :3]
    apart = distances(steps, deuteranope=True)
    assert numpy.diagonal(apart, 1).min() > 4
    assert apart[0, -1] > 40


def charts(path):
    """The charts of a notebook; photographs are JPEG."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                data = base64.b64decode(output["data"]["image/png"])
                yield Image.open(io.BytesIO(data)).convert("RGB")


def main_colours(chart, share=0.0004):
    """The colours of lines and areas: what many pixels have in exactly the same way."""
    pixels = chart.width * chart.height
    colours = [c for count, c in chart.getcolors(pixels) if count > share * pixels]
    return [[v / 255 for v in c] for c in colours if max(c) - min(c) > 50]


def confused(chart):
    """Pairs of main colours that differ clearly, and hardly for a deuteranope."""
    colours = main_colours(chart)
    if not 2 <= len(colours) <= 12:  # one colour, or a continuous scale (tested above)
        return []
    plain, seen = distances(colours), distances(colours, deuteranope=True)
    pairs = combinations(range(len(colours)), 2)
    return [(colours[i], colours[j]) for i, j in pairs if plain[i, j] > 20 > 8 > seen[i, j]]


def test_a_chart_in_red_and_green_would_be_found():
    chart = Image.new("RGB", (90, 30), "white")
    chart.paste((200, 80, 80), (0, 0, 30, 30))
    chart.paste((40, 160, 80), (30, 0, 60, 30))
    assert len(confused(chart)) == 1
    chart.paste((1, 115, 178), (30, 0, 60, 30))
    assert confused(chart) == []


@pytest.mark.parametrize("path", LESSONS, ids=[path.stem for path in LESSONS])
def test_what_differs_in_a_saved_chart_differs_for_a_deuteranope(path):
    for number, chart in enumerate(charts(path), start=1):
        assert confused(chart) == [], f"chart {number}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_headings_go_down_one_level_at_a_time(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(levels, levels[1:], strict=False))


def explorers():
    """Every function of the course that makes an explorer, by its source."""
    for path in sorted((ROOT / "convrnn_utils").glob("*.py")):
        yield path.name, path.read_text(encoding="utf-8")


REACHED_BY_KEYS = {"BoundedIntText", "Button", "Checkbox", "Combobox", "Dropdown", "FileUpload"}
REACHED_BY_KEYS |= {"FloatSlider", "IntSlider"}
NOT_CONTROLS = {"GridBox", "HBox", "HTML", "VBox"}


def test_controls_are_those_that_a_keyboard_reaches():
    """The browser test works each of them with keys; here no other kind is used."""
    used = {name for _, text in explorers() for name in re.findall(r"ipywidgets\.([A-Z]\w+)", text)}
    assert used <= REACHED_BY_KEYS | NOT_CONTROLS
    assert all(hasattr(ipywidgets, name) for name in used)
    for name, text in explorers():
        assert not re.search(r"onclick|onmouse|tabindex=.?-1", text), name


def test_every_control_has_a_name():
    """A label, or words on the button: what a screen reader says."""
    for name, text in explorers():
        for kind, options in re.findall(
            r"ipywidgets\.([A-Z]\w+)\(([^()]*(?:\([^()]*\))*[^()]*)\)", text
        ):
            if kind in REACHED_BY_KEYS:
                assert "description=" in options or "**" in options, f"{name}: {kind}({options})"


def test_pictures_in_explorers_have_a_text():
    for name, text in explorers():
        assert not re.search(r"<img (?![^>]*alt=)", text), name


def light_and_dark_photographs():
    return {0: numpy.zeros((96, 96, 3), "uint8"), 255: numpy.full((96, 96, 3), 255, "uint8")}


@pytest.mark.parametrize("brightness", [0, 255])
def test_text_over_a_picture_can_be_read_on_any_picture(brightness):
    """Labels of boxes stand on a patch of their own, and differ from it at least as 4.5 to 1."""
    picture = Image.fromarray(light_and_dark_photographs()[brightness])
    masks = [
        numpy.pad(numpy.ones((30, 30), "uint8"), ((20 * n, 66 - 20 * n), (10, 56)))
        for n in range(3)
    ]
    boxes = [[10, 20 * n, 30, 30] for n in range(3)]
    figure = caption_data_figures.show_instances(picture, masks, boxes, ["star", "ring", "moon"])
    figure = figure or plots.plt.gcf()
    texts = [text for axis in figure.axes for text in axis.texts]
    assert texts
    for text in texts:
        patch = text.get_bbox_patch()
        red, green, blue, alpha = patch.get_facecolor()
        behind = alpha * numpy.array([red, green, blue]) + (1 - alpha) * brightness / 255
        assert contrast(matplotlib.colors.to_rgb(text.get_color()), behind) >= 4.5
    plots.plt.close(figure)

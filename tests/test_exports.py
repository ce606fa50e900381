"""The notebooks as pages to read and as lectures, by nbconvert."""

import base64
import io
import re
import sys
from pathlib import Path

import nbformat
import numpy
import pytest
from nbconvert import HTMLExporter, SlidesExporter
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "notebooks"))
import save_outputs  # noqa: E402
import slides  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
WIDGET = "application/vnd.jupyter.widget-view+json"
STANDS_IN = re.compile(r"\[(.+): run this cell to use it\]")
NO_PICTURE = {"a button to press"}  # it only answers whether widgets work


@pytest.fixture(params=LESSONS, ids=[path.stem for path in LESSONS])
def lesson(request):
    return nbformat.read(request.param, as_version=4), request.param.name[:2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_page_to_read_has_all_its_pictures(path):
    notebook = nbformat.read(path, as_version=4)
    page, _ = HTMLExporter(embed_images=False).from_notebook_node(notebook)
    kinds = [
        kind
        for cell in notebook.cells
        for o in cell.get("outputs", [])
        for kind in o.get("data", {})
    ]
    pictures = re.findall(r'<img[^>]*src="([^"]*)"', page)
    embedded = [source for source in pictures if source.startswith("data:image/")]
    assert len(embedded) >= sum(kind in ("image/png", "image/jpeg") for kind in kinds)
    others = set(pictures) - set(embedded)
    assert all(source.startswith("https://colab.research.google.com/") for source in others)
    assert "Traceback" not in page


def test_where_a_widget_is_dead_a_still_stands_for_it(lesson):
    """Beside its sentence, a picture in the same section or the one before."""
    notebook, _ = lesson
    page, _ = HTMLExporter().from_notebook_node(notebook)
    sections = [[]]
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"^#{2,3} ", cell.source, re.MULTILINE):
            sections.append([])
        sections[-1].append(cell)
    for before, section in zip([[], *sections], sections, strict=False):
        outputs = [o for cell in [*before, *section] for o in cell.get("outputs", [])]
        still = any({"image/png", "image/jpeg"} & set(o.get("data", {})) for o in outputs)
        for output in [o for cell in section for o in cell.get("outputs", [])]:
            if WIDGET in output.get("data", {}):
                text = output.data["text/plain"]
                name = STANDS_IN.fullmatch(text)[1]
                assert text in page, "the page shows nothing in its place"
                assert still or name in NO_PICTURE, name


def test_slides_are_marked_by_the_rule(lesson):
    notebook, number = lesson
    before = [dict(cell.metadata) for cell in notebook.cells]
    slides.mark(notebook, number)
    changed = [
        c.source[:60] for c, m in zip(notebook.cells, before, strict=True) if c.metadata != m
    ]
    assert not changed, "run python notebooks/slides.py"


def test_a_raw_cell_is_not_shown_in_a_lecture():
    cells = [nbformat.v4.new_markdown_cell("## 1 A heading"), nbformat.v4.new_raw_cell("raw")]
    slides.mark(nbformat.v4.new_notebook(cells=cells), "18")
    kinds = [cell.metadata["slideshow"]["slide_type"] for cell in cells]
    assert kinds == ["slide", "skip"]


def test_a_lecture_has_15_to_25_slides_that_begin_and_end(lesson):
    notebook, _ = lesson
    page, _ = SlidesExporter().from_notebook_node(notebook)
    body = page[page.index('<div class="slides">') :]
    stacks = re.split(r"<section>\s*<section>", body)[1:]
    assert 15 <= len(stacks) <= 25
    assert "<h1" in stacks[0]
    assert "Summary" in stacks[-1]
    for stack in stacks:
        assert re.search(r"<h[1-4]|<img", stack), "a slide without a heading or a picture"
    assert "Exercise 1" not in body


@pytest.mark.parametrize("kind, most", [("jpeg", 3), ("png", 0)])
def test_a_saved_picture_is_packed_better_and_looks_the_same(kind, most):
    waves = 127 * numpy.sin(numpy.arange(200 * 300).reshape(200, 300) / 997.0) + 128
    file = io.BytesIO()
    Image.fromarray(waves.astype("uint8")).convert("RGB").save(file, kind, compress_level=1)
    data = {f"image/{kind}": base64.b64encode(file.getvalue()).decode()}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data)])
    notebook = nbformat.v4.new_notebook(cells=[cell])
    save_outputs.pack_pictures(notebook)
    packed = base64.b64decode(cell.outputs[0].data[f"image/{kind}"])
    assert len(packed) < len(file.getvalue())
    before, after = (
        numpy.asarray(Image.open(io.BytesIO(b)), int) for b in (file.getvalue(), packed)
    )
    assert abs(before - after).max() <= most
    again = str(notebook)
    save_outputs.pack_pictures(notebook)
    assert str(notebook) == again

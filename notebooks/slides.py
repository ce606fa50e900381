"""Mark the cells of each notebook for a lecture of 15 to 25 slides, by one rule for all.

    python notebooks/slides.py          marks them (run it after you have changed a notebook)
    make slides                         writes the lectures, as web pages, into build/slides

The rule: a heading begins a slide, with its text. The figures of its section are shown on it
without their code; where a notebook has few headings, each figure is a slide of its own. Short
code with a short output stays, and other code does not. Text between a section's cells goes into
the speaker's notes (key S). Set-up, exercises and references are left out, and so is what the
guide for the lecturer says can be cut from the longest notebooks.
"""

import re
import sys
from pathlib import Path

import nbformat

from convrnn_utils.files import complete_or_absent

HERE = Path(__file__).resolve().parent
MOST_LINES = 12  # of code that an audience can read
FEW_HEADINGS = 15
LEFT_OUT = {  # sections, by the beginning of the heading
    "01": ("3.4", "3.5", "3.6", "4.3", "6.1"),
    "06": ("2.3", "9.1"),
    "07": ("1.5", "3.2", "5.3"),
}
NO_LECTURE = ("Exercise", "References", "Every equality", "How to get help")
HEADING = re.compile(r"^#{1,4} (?:\d+ )?(.*)$", re.MULTILINE)


def mark(notebook, number: str) -> None:
    """Write ``slideshow`` into the metadata of every cell, and the tag ``hide-input``."""
    kinds = _kinds(notebook, number)
    for cell, kind in zip(notebook.cells, kinds, strict=True):
        cell.metadata["slideshow"] = {"slide_type": kind}
        if _has_picture(cell):
            tags = cell.metadata.setdefault("tags", [])
            cell.metadata["tags"] = tags if "hide-input" in tags else [*tags, "hide-input"]


def _kinds(notebook, number: str) -> list[str]:
    few = sum(_begins_slide(cell, number) for cell in notebook.cells) < FEW_HEADINGS
    kinds, shown = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and HEADING.search(cell.source):
            shown = _begins_slide(cell, number)
            kinds.append("slide" if shown else "skip")
        elif not shown:
            kinds.append("skip")
        elif cell.cell_type == "markdown":
            kinds.append("notes")
        elif _has_picture(cell):
            kinds.append("slide" if few else "-")
        else:
            kinds.append("-" if _is_short(cell) else "skip")
    return kinds


def _begins_slide(cell, number: str) -> bool:
    headings = HEADING.findall(cell.source) if cell.cell_type == "markdown" else []
    if not headings:
        return False
    first = re.search(r"^#+ (.*)$", cell.source, re.MULTILINE)[1]
    if first.startswith(LEFT_OUT.get(number, ())):
        return False
    return not cell.source.startswith("**Exercise") and not headings[0].startswith(NO_LECTURE)


def _has_picture(cell) -> bool:
    kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
    return bool(kinds & {"image/png", "image/jpeg"})


def _is_short(cell) -> bool:
    """Code that fits on a slide, with an output that does."""
    if cell.cell_type != "code":  # raw
        return False
    lines = sum(output.get("text", "").count("\n") for output in cell.outputs)
    tables = any("text/html" in output.get("data", {}) for output in cell.outputs)
    tags = set(cell.metadata.get("tags", []))
    if tags & {"setup", "exercise", "solution-check"} or not cell.outputs:
        return False
    return cell.source.count("\n") < MOST_LINES and (tables or 0 < lines <= MOST_LINES)


if __name__ == "__main__":
    names = [Path(name) for name in sys.argv[1:]]
    for path in names or sorted(HERE.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        mark(notebook, path.name[:2])
        with complete_or_absent(path) as unfinished:
            nbformat.write(notebook, unfinished)

"""Write a student's and an instructor's version of each notebook, from the one source.

    python notebooks/versions.py        (or: make versions)

The student's version, in build/student, has no outputs and does not say where solutions are; it is
for the folder notebooks of a copy of the course. The instructor's, in build/instructor, has all
outputs, and under each exercise its solution as text: a solution is not run there, since it may use
names that the lesson uses otherwise.
"""

import re
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
EXERCISE = re.compile(r"^(?:#+ |\*\*)Exercises? (\d+)", re.MULTILINE)
SAYS_WHERE_SOLUTIONS_ARE = re.compile(
    r"(\s*)(?:Solutions are in\s*\[[^\]]*\]\([^)]*\)[^.]*\."
    r"|Each has a\s+notebook of solutions, in the folder `solutions`; try first\.)(\s*)"
)
BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*\)\]\([^)]*colab[^)]*\)\s*")  # it opens the full notebook


def student_version(lesson):
    """The lesson without outputs, without a badge, without a word on where the solutions are."""
    for cell in lesson.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = SAYS_WHERE_SOLUTIONS_ARE.sub(_gap, BADGE.sub("", cell.source)).strip()
            cell.source = re.sub(r"\[([^\]]*)\]\(solutions[^)]*\)", r"\1", cell.source)
    return lesson


def _gap(sentence: re.Match) -> str:
    """What stands between the texts before and after a sentence that is left out."""
    return next((space for space in sentence.groups() if "\n\n" in space), " ")


def instructor_version(lesson, solutions):
    """The lesson with the solution of each exercise under it."""
    texts = _solutions_as_text(solutions)
    cells, waiting = [], []
    for cell in [*lesson.cells, None]:
        if cell is None or cell.cell_type == "markdown":
            cells += [nbformat.v4.new_markdown_cell(texts.pop(n)) for n in waiting if n in texts]
            waiting = EXERCISE.findall(cell.source) if cell else []
        if cell:
            cells.append(cell)
    for cell in cells:  # it is read where it lies, one folder deeper than the lesson
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", "](../../")
            cell.source = cell.source.replace("](solutions/", "](../../notebooks/solutions/")
    lesson.cells = cells
    if texts:
        raise ValueError(f"there are solutions without an exercise: {', '.join(texts)}.")
    return lesson


def _solutions_as_text(solutions) -> dict[str, str]:
    """From a notebook of solutions, by the number of the exercise, its solution in Markdown."""
    texts, number = {}, None
    for cell in solutions.cells:
        if cell.cell_type == "markdown":
            found = EXERCISE.search(cell.source)
            number = found[1] if found else number
            piece = cell.source
        else:
            piece = f"```python\n{cell.source}\n```"
            said = "".join(output.get("text", "") for output in cell.outputs)
            piece += f"\n\nprints\n\n```text\n{said.rstrip()}\n```" if said else ""
        if number:
            texts[number] = texts.get(number, "### Solution\n") + "\n" + piece + "\n"
    return texts


def write_versions(target: Path = ROOT / "build") -> list[Path]:
    """Write all versions under ``target`` anew; return their paths."""
    written = []
    for name in ("student", "instructor"):
        shutil.rmtree(target / name, ignore_errors=True)
        (target / name).mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        solutions = path.parent / "solutions" / f"{path.stem}_solutions.ipynb"
        versions = {
            "student": student_version(nbformat.read(path, as_version=4)),
            "instructor": instructor_version(
                nbformat.read(path, as_version=4), nbformat.read(solutions, as_version=4)
            ),
        }
        for name, version in versions.items():
            nbformat.write(version, target / name / path.name)
            written.append(target / name / path.name)
    return written


if __name__ == "__main__":
    for path in write_versions():
        print(path)

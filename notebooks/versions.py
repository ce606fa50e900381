"""Write a copy of the course for students, and the lessons with their solutions for instructors.

    python notebooks/versions.py        (or: make versions)

The students' copy, build/student, is complete: to hand out as it is, as a zip file or a repository.
Its lessons have no outputs and do not say where solutions are; solutions, the guide, tests and what
README and Makefile say for teachers are not in it. The instructor's lessons, in build/instructor,
have all outputs, and under each exercise its solution as text: a solution is not run there, since
it may use names that the lesson uses for something else.
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
FOR_TEACHERS = re.compile(r"^[^\n]*for teachers: begin.*?for teachers: end[^\n]*\n", re.M | re.S)
COPIED = (  # to the students' copy, beside the lessons
    ".gitignore",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "convrnn_utils",
    "data/README.md",
    "data/captioner",
    "data/photos",
    "data/small_cnn",
    "environment.yml",
    "notebooks/glossary.md",
    "pyproject.toml",
    "requirements.txt",
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
    """Write all versions under ``target`` anew; return the paths of the notebooks."""
    for name in ("student", "instructor"):
        shutil.rmtree(target / name, ignore_errors=True)
    (target / "instructor").mkdir(parents=True)
    _copy_for_students(target / "student")
    written = []
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        solutions = path.parent / "solutions" / f"{path.stem}_solutions.ipynb"
        solved = (
            nbformat.read(solutions, as_version=4)
            if solutions.exists()
            else nbformat.v4.new_notebook()
        )
        versions = {
            "student/notebooks": student_version(nbformat.read(path, as_version=4)),
            "instructor": instructor_version(nbformat.read(path, as_version=4), solved),
        }
        for folder, version in versions.items():
            nbformat.write(version, target / folder / path.name)
            written.append(target / folder / path.name)
    return written


def _copy_for_students(target: Path) -> None:
    """Copy all but the lessons."""
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
            shutil.copytree(ROOT / name, target / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, target / name)
    for name in ("README.md", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        (target / name).write_text(FOR_TEACHERS.sub("", text), encoding="utf-8")


if __name__ == "__main__":
    for path in write_versions():
        print(path)

"""What a lecturer gets: versions for students and instructors, a guide, exercises that answer."""

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "notebooks"))
import versions  # noqa: E402

LESSONS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
OPEN = re.compile(r"\*\*Exercise \d+ \(open\)")
NOT_DONE = re.compile(r"^Exercise (\d+)(:| is) not done yet", re.MULTILINE)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return versions.write_versions(tmp_path_factory.mktemp("build"))


@pytest.fixture(params=LESSONS, ids=[path.stem for path in LESSONS])
def lesson(request):
    return request.param


def test_a_lesson_without_solutions_is_in_the_versions_too(monkeypatch, tmp_path):
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.read(LESSONS[0], 4), tmp_path / "notebooks" / "18_mine.ipynb")
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(
        versions, "_copy_for_students", lambda to: (to / "notebooks").mkdir(parents=True)
    )
    assert len(versions.write_versions(tmp_path / "build")) == 2


def of(written, kind, lesson):
    path = next(p for p in written if kind in p.parts and p.name == lesson.name)
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="module")
def students(written):
    """The copy of the course for students."""
    return next(path for path in written if "student" in path.parts).parents[1]


def sources(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def headings(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"^#+ .*", text, re.MULTILINE)


def test_the_students_version_is_blank_and_names_no_solution(written, lesson):
    student = of(written, "student", lesson)
    nbformat.validate(student)
    assert sources(student) == sources(nbformat.read(lesson, as_version=4))
    assert not any(cell.get("outputs") for cell in student.cells)
    text = "\n".join(cell.source for cell in student.cells if cell.cell_type == "markdown")
    for hint in ("](solutions", "Solutions are in", "folder `solutions`", "colab-badge"):
        assert hint not in text
    assert headings(student) == headings(nbformat.read(lesson, as_version=4))


def test_the_instructors_version_has_outputs_and_every_solution(written, lesson):
    instructor = of(written, "instructor", lesson)
    nbformat.validate(instructor)
    assert any(cell.get("outputs") for cell in instructor.cells)
    added = [c.source for c in instructor.cells if c.source.startswith("### Solution")]
    path = lesson.parent / "solutions" / f"{lesson.stem}_solutions.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    first = next(i for i, cell in enumerate(cells) if versions.EXERCISE.search(cell.source))
    for cell in cells[first:]:
        assert any(cell.source in text for text in added), cell.source[:100]


def test_a_solution_stands_under_its_exercise(written, lesson):
    number = None
    for cell in of(written, "instructor", lesson).cells:
        if cell.source.startswith("### Solution"):
            assert versions.EXERCISE.search(cell.source)[1] in number
        elif cell.cell_type == "markdown" and versions.EXERCISE.search(cell.source):
            number = versions.EXERCISE.findall(cell.source)


def test_a_blank_exercise_says_politely_that_it_is_not_done(lesson):
    """The notebooks are saved and tested with blank exercises: so their checks ran, and ran on."""
    cells = nbformat.read(lesson, as_version=4).cells
    expected, answered = set(), set()
    for place, cell in enumerate(cells):
        if cell.cell_type == "markdown":
            numbers = versions.EXERCISE.findall(cell.source)
            has_stub = place + 1 < len(cells) and "exercise" in cells[place + 1].metadata.get(
                "tags", []
            )
            if numbers and has_stub and not OPEN.search(cell.source):
                expected |= set(numbers)
        for output in cell.get("outputs", []):
            answered |= {number for number, _ in NOT_DONE.findall(output.get("text", ""))}
    assert expected and expected == answered


def test_the_solutions_of_00_have_the_captions_of_the_lesson():
    """They are saved apart, and the captioner may have been trained anew in between."""

    def said(path):
        cells = nbformat.read(ROOT / "notebooks" / path, as_version=4).cells
        texts = [output.get("text", "") for cell in cells for output in cell.get("outputs", [])]
        return "\n".join(texts)

    lesson = " ".join(said("00_welcome.ipynb").split())
    solution = said("solutions/00_welcome_solutions.ipynb")
    greedy = re.findall(r"^(\w+)\n +1: (.*) \(", solution, re.MULTILINE)
    assert len(greedy) > 10
    for name, caption in greedy:
        assert f"{name}: {caption}" in lesson


def links(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)  # solutions, as text
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)


def test_links_of_the_students_notebooks_lead_somewhere_in_their_copy(written, students, lesson):
    for target in links(of(written, "student", lesson)):
        assert (students / "notebooks" / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "data/README.md", "notebooks/glossary.md"])
def test_links_of_the_students_pages_lead_somewhere_in_their_copy(students, name):
    page = students / name
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors


def test_the_students_copy_has_no_solution_and_nothing_for_teachers(students):
    folders = {path.name for path in students.rglob("*") if path.is_dir()}
    assert not folders & {"solutions", "tests", "book", "__pycache__", "flickr8k", "checkpoints"}
    for path in [*students.rglob("*.md"), *students.rglob("*.ipynb"), students / "Makefile"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"for teachers|make (test|versions|book)|solutions/", text), path.name


def test_the_students_copy_can_be_set_up_and_used(students):
    command = ["make", "-n", "lab"]
    shown = subprocess.run(command, cwd=students, capture_output=True, text=True, check=True)
    assert "jupyter lab" in shown.stdout
    script = "from convrnn_utils import data; print(len(data.load_split(data.photos(), 'test')))"
    environment = {**os.environ, "PYTHONPATH": str(students)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=students, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "24", done.stderr


def test_links_of_the_instructors_version_lead_somewhere_where_it_lies(written, lesson):
    lessons = {path.name for path in LESSONS}
    for target in links(of(written, "instructor", lesson)):
        place = ROOT / "build" / "instructor" / target
        assert target in lessons or place.resolve().is_file(), target


def test_the_guide_has_all_parts_for_every_lesson(lesson):
    guide = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    number = lesson.stem[:2]
    part = re.search(rf"^## {number} .*?(?=^## )", guide, re.MULTILINE | re.DOTALL)[0]
    for heading in ("Objectives.", "Time.", "Where they get stuck.", "To discuss.", "To cut."):
        assert f"**{heading}**" in part
    assert len(re.findall(r"^\d\. \*[^*]+\*", part, re.MULTILINE)) == 3  # questions


def test_the_guide_speaks_of_sections_that_exist():
    guide = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    for lesson in LESSONS:
        number = lesson.stem[:2]
        part = re.search(rf"^## {number} .*?(?=^## )", guide, re.MULTILINE | re.DOTALL)[0]
        text = lesson.read_text(encoding="utf-8")
        named = set(re.findall(r"[Ss]ections? (\d(?:\.\d)?)", part))
        named |= set(re.findall(r"\((\d\.\d)\)", part))
        for section in named - {"2" if number == "00" else ""}:
            assert re.search(rf"#+ {re.escape(section)} ", text), f"{number}: section {section}"


def glossary_rows():
    text = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \| \[.+\]\((.+)#(.+)\) \|$", text, re.MULTILINE)
    assert len(rows) == text.count("](")
    return [(english, chinese, name, unquote(anchor)) for english, chinese, name, anchor in rows]


def test_each_term_is_linked_to_a_section_that_uses_it():
    assert len(glossary_rows()) > 100
    for english, chinese, name, anchor in glossary_rows():
        cells = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        headings = [h.replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
        assert anchor in headings, f"{name} has no section {anchor}"
        first = re.split(r",| \(| and ", english)[0].lower().replace("-", " ")
        words = " ".join(re.sub(r"[-$]+", " ", text.lower()).split())
        assert first[:8] in words, f"{english} is not in {name}"
        assert re.search(r"[\u4e00-\u9fff]", chinese) or chinese == english


def test_the_terms_of_each_part_are_in_order_and_none_comes_twice():
    text = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
    everything = [english for english, *_ in glossary_rows()]
    assert len(set(everything)) == len(everything)
    for part in text.split("\n## ")[1:]:
        terms = re.findall(r"^\| (.+) \| .+ \| \[", part, re.MULTILINE)
        assert terms == sorted(terms, key=str.lower), part[:20]

"""The files of the course as files: requirements, notebooks, and what must not be in them."""

import ast
import json
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest

import convrnn_utils

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
NOTEBOOKS = [path for path in NOTEBOOKS if ".ipynb_checkpoints" not in path.parts]
LESSONS = [path for path in NOTEBOOKS if path.parent.name == "notebooks"]
CONDA_NAMES = {"torch": "pytorch"}
REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(>=[0-9.]+)\s*(#.*)?$")


def pip_requirements() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return {match[1]: match[2] for match in map(REQUIREMENT.match, lines) if match}


def test_requirements_are_ranges_with_a_comment():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        match = REQUIREMENT.match(line)
        assert match, f"not a lower bound: {line}"
        assert match[3], f"no word on what uses it: {line}"


def test_conda_and_pip_name_the_same_set():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    entries = re.findall(r"^ +- ([a-z0-9-]+)(>=[0-9.]+)$", "\n".join(lines), re.MULTILINE)
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in pip_requirements().items()}
    assert dict(entries) == expected


def imported_by(code: str) -> set[str]:
    """The first name of each module that some code imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_requirement_is_used_and_every_import_required():
    """Modules and notebooks import what requirements.txt names, all but the tools around them."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    required = {re.split(r"[>=<\s]", line)[0].replace("-", "_") for line in lines if line.strip()}
    tools = {"jupyterlab", "nbval", "pytest", "pytest_xdist", "hypothesis", "ruff"}
    assert tools <= required
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "convrnn_utils").glob("*.py")]
    for path in NOTEBOOKS:
        code += [re.sub(r"(?m)^[%!].*", "", c.source) for c in code_cells(nbformat.read(path, 4))]
    imported = set().union(*map(imported_by, code))
    of_others = {"convrnn_utils", "google", "IPython"}  # Colab has google, and ipywidgets IPython
    modules = imported - set(sys.stdlib_module_names) - of_others
    assert {"pillow" if name == "PIL" else name for name in modules} == required - tools


@pytest.fixture(params=NOTEBOOKS, ids=[path.name for path in NOTEBOOKS])
def notebook(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(content) -> list:
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    return [cell for cell in cells if cell.source.strip()]


def test_notebook_is_valid_and_small(notebook):
    path, content = notebook
    nbformat.validate(content)
    assert path.stat().st_size <= 1_000_000


def test_notebook_is_saved_as_it_was_run(notebook):
    """Every cell was executed, in order, without an error."""
    _, content = notebook
    counts = [cell.execution_count for cell in code_cells(content)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(content):
        kinds = {output.output_type for output in cell.outputs}
        assert "error" not in kinds or "raises-exception" in cell.metadata.get("tags", [])


def test_notebook_keeps_nothing_of_the_machine_it_ran_on(notebook):
    _, content = notebook
    text = json.dumps([cell.get("outputs", []) for cell in content.cells])
    assert not re.search(r"/(work|tmp|root|home|Users)/", text)
    assert '"stderr"' not in text
    assert set(content.metadata) <= {"kernelspec", "language_info", "accelerator", "colab"}


def has_picture(cell) -> bool:
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    return bool(kinds & {"image/png", "image/jpeg"})


def test_notebook_describes_its_figures(notebook):
    """A cell that leaves a picture is followed by its description, in this cell or the next."""
    _, content = notebook
    cells = code_cells(content)
    for cell, following in zip(cells, [*cells[1:], cells[-1]], strict=True):
        if has_picture(cell):
            near = [cell] if has_picture(following) else [cell, following]
            texts = "".join(output.get("text", "") for each in near for output in each.outputs)
            assert "Figure: " in texts, cell.source[:200]


def test_notebook_shows_nothing_of_flickr8k(notebook):
    _, content = notebook
    captions = ROOT.parent / "shared" / "flickr8k" / "Flickr8k.token.txt.gz"
    if not captions.exists():
        pytest.skip("Flickr8k's captions are not here to compare with")
    import gzip

    lines = gzip.decompress(captions.read_bytes()).decode().splitlines()
    counts = Counter(line.split("\t")[1].strip(" .").lower() for line in lines)
    # what two people wrote word for word is a common sentence, which a model may write as well
    known = {caption for caption, n in counts.items() if n == 1 and caption.count(" ") > 7}
    text = json.dumps([cell.get("outputs", []) for cell in content.cells]).lower()
    assert not [caption for caption in known if caption in text]


def test_all_notebooks_begin_with_the_same_short_setup():
    setups = {
        next(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
        for path in NOTEBOOKS
    }
    assert len(setups) == 1
    assert setups.pop().count("\n") < 25


def test_all_name_one_address_and_the_tag_of_this_version():
    """`make publish` writes them."""
    text = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    addresses = set(re.findall(r'ADDRESS = ..https://github.com/([^"]*?)..  #', text))
    badges = re.findall(
        r"colab.research.google.com/github/([^/]+/[^/]+)/blob/([^/]+)/(\S+?)\)", text
    )
    assert len(addresses) == 1
    tag = f"v{convrnn_utils.__version__}"
    assert set(re.findall(r'TAG = ..([^"]*?)..  #', text)) == {tag}
    assert {(address, at) for address, at, _ in badges} == {(*addresses, tag)}
    assert [place for *_, place in badges] == [f"notebooks/{path.name}" for path in LESSONS]


def test_the_citation_is_of_this_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {convrnn_utils.__version__}" in lines


def test_colab_is_asked_for_a_gpu_where_photographs_are_trained_on():
    for path in LESSONS:
        content = nbformat.read(path, as_version=4)
        code = "\n".join(cell.source for cell in code_cells(content))
        trains = bool(re.search(r'gpu="flickr8k"', code)) and " train(" in code
        assert (content.metadata.get("accelerator") == "GPU") == trains, path.name
        assert "Colab's T4" in content.cells[0].source


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_hint_is_read_as_markdown(notebook):
    """Without an empty line after the summary, Jupyter shows its backticks as they are."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            summaries = cell.source.count("</summary>")
            assert cell.source.count("</summary>\n\n") == summaries
            assert cell.source.count("\n\n</details>") == summaries


def test_every_lesson_has_solutions():
    for path in LESSONS:
        assert (path.parent / "solutions" / f"{path.stem}_solutions.ipynb").exists()


def test_links_between_files_lead_somewhere():
    for path in [*LESSONS, ROOT / "README.md", ROOT / "data" / "README.md"]:
        text = path.read_text()
        if path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"

"""The course as a website, by Sphinx with MyST-NB: `make book`. Nothing is copied or run."""

import re
from urllib.parse import unquote

from docutils import nodes
from myst_parser.mdit_to_docutils.base import github_slugify

project = "Conv-RNN, notebook by notebook"
html_title = project
extensions = ["myst_nb", "sphinx_external_toc"]
external_toc_path = "book/_toc.yml"
include_patterns = ["README.md", "LICENSE", "data/README.md", "notebooks/**"]
exclude_patterns = ["**.ipynb_checkpoints", "notebooks/*.py"]
html_theme = "sphinx_book_theme"
html_theme_options = {"show_navbar_depth": 1, "show_toc_level": 2}
html_show_copyright = False

nb_execution_mode = "off"  # the outputs are those that are saved
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True


def anchors_as_here(app, name: str, source: list[str]) -> None:
    """Jupyter's links to headings, such as x.ipynb#3.1-By-hand, as Sphinx numbers headings."""

    def as_here(link) -> str:
        return link[1] + github_slugify(unquote(link[2]).replace("-", " ")) + ")"

    if name == "notebooks/glossary":
        source[0] = re.sub(r"(\.ipynb#)([^)]*)\)", as_here, source[0])


def describe_pictures(app, doctree) -> None:
    """What a cell, or the next one, prints about its pictures is their alternative text, too."""
    waiting = []
    for cell in doctree.findall(nodes.container):
        if "cell" not in cell["classes"]:
            continue
        waiting += cell.findall(nodes.image)
        printed = "\n".join(block.astext() for block in cell.findall(nodes.literal_block))
        if found := re.search(r"^Figure: (.*)", printed, re.DOTALL | re.MULTILINE):
            for picture in waiting:
                picture["alt"] = " ".join(found[1].split())
            waiting = []


def setup(app) -> None:
    app.connect("doctree-read", describe_pictures)
    app.connect("source-read", anchors_as_here)

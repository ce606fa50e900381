"""Write the address at which the course is hosted into badges, links and set-up cells.

    python notebooks/publish.py OWNER/NAME        (or: make publish REPO=OWNER/NAME)

The notebooks name a tag as well, that of this version, so that a notebook opened in Colab gets the
files that belong to it. Run a second time, it changes nothing.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = re.compile(r'ADDRESS = \\"https://github\.com/([^"\\]+)\\"')  # as JSON has it
TAG = re.compile(r'TAG = \\"([^"\\]+)\\"')


def publish(repository: str, root: Path = ROOT) -> list[Path]:
    """Put ``repository`` in place of the address that is there; return the changed files.

    Raises:
        ValueError: it is not of the form owner/name; nothing was written.
    """
    repository = repository.removeprefix("https://github.com/").removesuffix("/")
    repository = repository.removesuffix(".git")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is not of the form owner/name, as in ada/conv-rnn.")
    tag = version_tag(root)
    notebooks = sorted((root / "notebooks").rglob("[0-9]*.ipynb"))
    before = ADDRESS.search(notebooks[0].read_text(encoding="utf-8"))[1]
    changed = []
    for path in [*notebooks, *sorted(root.glob("*.md")), *sorted(root.glob("notebooks/*.md"))]:
        old = path.read_text(encoding="utf-8")
        new = re.sub(
            rf"github(\.com)?/{re.escape(before)}(?![\w-])", rf"github\1/{repository}", old
        )
        new = re.sub(rf"(github/{re.escape(repository)}/blob)/[^/]+/", rf"\1/{tag}/", new)
        new = TAG.sub(f'TAG = \\\\"{tag}\\\\"', new)
        if new != old:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def version_tag(root: Path = ROOT) -> str:
    """The tag of this version of the course, such as v0.1.0."""
    text = (root / "convrnn_utils" / "__init__.py").read_text(encoding="utf-8")
    return "v" + re.search(r'__version__ = "([^"]+)"', text)[1]


if __name__ == "__main__":
    try:
        changed = publish(*sys.argv[1:2] or [""])
    except ValueError as error:
        sys.exit(f"{error}")
    print(f"{len(changed)} files written. Notebooks opened in Colab fetch the tag, so now:")
    print("(if you have published this version before, first raise __version__ in")
    print("convrnn_utils/__init__.py and run this again)")
    print(
        f"    git commit --all && git tag {version_tag()} && git push origin HEAD {version_tag()}"
    )

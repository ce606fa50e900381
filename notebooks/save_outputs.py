"""Run notebooks from top to bottom and save them with their outputs.

    python notebooks/save_outputs.py [NOTEBOOK ...]

Without a name, all of them. Progress bars and other lines on stderr, timings of cells and the
state of widgets are left out: they would change with every run and say nothing to a reader.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def save_outputs(path: Path) -> None:
    """Run one notebook; where a cell fails, the file stays as it was."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    names = [Path(name) for name in sys.argv[1:]]
    for path in names or sorted(HERE.rglob("[0-9]*.ipynb")):
        print(path, flush=True)
        save_outputs(path)

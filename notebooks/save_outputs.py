"""Run notebooks from top to bottom and save them with their outputs.

    python notebooks/save_outputs.py [NOTEBOOK ...]

Without a name, all of them. Progress bars and other lines on stderr, timings of cells and the
state of widgets are left out: they would change with every run and say nothing to a reader.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from convrnn_utils.files import complete_or_absent

HERE = Path(__file__).resolve().parent
PACKING = {
    "image/jpeg": {"quality": "keep", "optimize": True, "progressive": True},
    "image/png": {"optimize": True},
}
COLAB = ("accelerator", "colab")  # whether Colab gives the notebook a GPU


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
    pack_pictures(notebook)
    for_colab = {key: notebook.metadata[key] for key in COLAB if key in notebook.metadata}
    notebook.metadata = for_colab | {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    with complete_or_absent(path) as unfinished:
        nbformat.write(notebook, unfinished)


def pack_pictures(notebook) -> None:
    """Store each picture in fewer bytes: JPEG with the same tables, PNG with the same pixels."""
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        for kind, options in PACKING.items():
            if kind in output.get("data", {}):
                before, after = base64.b64decode(output.data[kind]), io.BytesIO()
                Image.open(io.BytesIO(before)).save(after, kind.split("/")[1], **options)
                if len(after.getvalue()) < 0.99 * len(before):
                    output.data[kind] = base64.b64encode(after.getvalue()).decode()


if __name__ == "__main__":
    names = [Path(name) for name in sys.argv[1:]]
    for path in names or sorted(HERE.rglob("[0-9]*.ipynb")):
        print(path, flush=True)
        save_outputs(path)

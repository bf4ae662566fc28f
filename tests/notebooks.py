"""Executing the notebooks: for the tests in a copy, for `make notebooks` in place."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
TIMEOUT = 600  # seconds, of a cell on a busy machine


def read(path: Path) -> Any:
    """A notebook as nbformat's node."""
    return nbformat.read(path, as_version=4)


def execute(path: Path) -> Any:
    """The notebook with the outputs of a fresh kernel that runs in the notebook's folder.

    What differs from machine to machine is left out: times, and the version of Python.
    """
    notebook = read(path)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=TIMEOUT, resources=place, record_timing=False).execute()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def main() -> None:
    """Execute every notebook, and write it where it was."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(path), path)


if __name__ == "__main__":
    main()

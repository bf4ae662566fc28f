"""The notebooks run, show what they promise, and say nothing that was not computed.

A cell tagged ``figure`` must end in a picture, one tagged ``conclusion`` in words. Words between
the cells hold no numbers: those come from values.
"""

import ast
import base64
import re
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.notebooks import FOLDER, execute, read

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
FIGURE, CONCLUSION = "figure", "conclusion"
CODE_OR_LINK = re.compile(r"`[^`]*`|\]\([^)]*\)")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])


def _tagged(notebook: Any, tag: str) -> list[Any]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def _data(cell: Any, kind: str) -> list[str]:
    """What a cell shows as one kind of data."""
    shown = (output.get("data", {}) for output in cell.outputs)
    return [data[kind] for data in shown if kind in data]


def _words(notebook: Any) -> str:
    """All text that a notebook's cells put out."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found += [output.get("text", ""), *output.get("traceback", [])]
            found += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(found)


def _tree(cell: Any) -> ast.Module:
    return ast.parse("\n".join(x for x in cell.source.splitlines() if not x.startswith("%")))


def _typed(tree: ast.Module) -> str:
    """The words of a conclusion that stand in its code: neither values, formats nor keys."""
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    formats = {id(one.format_spec) for j in joined for one in ast.walk(j) if _is_format(one)}
    found = [v for j in joined if id(j) not in formats for v in j.values]
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if getattr(call.func, "id", "") == "Markdown":
            found += [part for part in _sum(call.args[0]) if not isinstance(part, ast.JoinedStr)]
    return " ".join(str(v.value) for v in found if isinstance(v, ast.Constant))


def _is_format(node: ast.AST) -> bool:
    return isinstance(node, ast.FormattedValue) and node.format_spec is not None


def _sum(node: ast.expr) -> list[ast.expr]:
    """The parts that ``+`` and ``if`` put together."""
    if isinstance(node, ast.BinOp):
        return _sum(node.left) + _sum(node.right)
    if isinstance(node, ast.IfExp):
        return _sum(node.body) + _sum(node.orelse)
    return [node]


def _check_outputs(notebook: Any) -> None:
    for cell in _tagged(notebook, FIGURE):
        pictures = _data(cell, "image/png")
        assert pictures, f"no picture: {cell.source}"
        for picture in pictures:
            image = np.asarray(Image.open(BytesIO(base64.b64decode(picture))).convert("L"))
            assert image.shape[1] > 400 and image.std() > 5, f"an empty picture: {cell.source}"
    for cell in _tagged(notebook, CONCLUSION):
        [told] = _data(cell, "text/markdown")
        assert re.search(r"\d", told), told
        assert not re.search(r"\bnan\b|\binf\b", told), told
    here = {str(FOLDER.parent), str(Path.home()), tempfile.gettempdir(), "site-packages"}
    told = _words(notebook)
    assert not [place for place in here if re.search(rf"{re.escape(place)}(?![\w-])", told)], told
    streams = [o.text for c in notebook.cells for o in c.get("outputs", []) if "text" in o]
    assert not streams, streams


def test_there_are_five_and_together_they_are_small() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 1_500_000


@every_notebook
def test_every_question_has_a_picture_and_a_conclusion(path: Path) -> None:
    notebook, kinds, question = read(path), [], 0
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            assert cell.source.splitlines()[0].endswith("?")
            question += 1
        kinds += [(question, tag) for tag in cell.metadata.get("tags", [])]
    assert question >= 3
    for number in range(1, question + 1):
        assert [tag for asked, tag in kinds if asked == number][-1] == CONCLUSION
    assert len({asked for asked, tag in kinds if tag == FIGURE}) >= 2


@every_notebook
def test_notebooks_import_and_show(path: Path) -> None:
    """Whatever has a name of its own belongs into the packages."""
    for cell in read(path).cells:
        if cell.cell_type == "code":
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            assert not [node for node in ast.walk(_tree(cell)) if isinstance(node, kinds)]


@every_notebook
def test_no_figure_is_typed_by_hand(path: Path) -> None:
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            words = CODE_OR_LINK.sub("", cell.source)
            assert not re.search(r"\d", words), words
            for target in re.findall(r"\]\(([^)]+)\)", cell.source):
                assert (path.parent / target).exists(), target
    for cell in _tagged(notebook, CONCLUSION):
        typed = CODE_OR_LINK.sub("", _typed(_tree(cell)))
        assert typed and not re.search(r"\d", typed), typed


@pytest.mark.parametrize(("code", "typed"), [
    ('Markdown(f"it is {x:.2f} " + ("good" if x > 3 else f"{y[7]} bad"))', False),
    ('Markdown(f"it is {x:.2f} of 5")', True),
    ('Markdown("it is " + ("7 %" if x else "less"))', True),
    ('words = f"{x} and 3"\nMarkdown(words)', True),
])  # fmt: skip
def test_what_counts_as_typed(code: str, typed: bool) -> None:
    assert bool(re.search(r"\d", _typed(ast.parse(code)))) is typed


@every_notebook
def test_the_committed_outputs_are_whole(path: Path) -> None:
    notebook = read(path)
    _check_outputs(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@pytest.mark.slow
@every_notebook
def test_the_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    copy = tmp_path / "notebooks" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    done = execute(copy)
    _check_outputs(done)
    assert [file.name for file in copy.parent.iterdir()] in (
        [path.name, "work"],
        ["work", path.name],
    )
    # What is committed shows the same things; `make notebooks` renews it.
    for new, old in zip(done.cells, read(path).cells, strict=True):
        shown = [sorted(output.get("data", {})) for output in new.get("outputs", [])]
        assert shown == [sorted(output.get("data", {})) for output in old.get("outputs", [])]

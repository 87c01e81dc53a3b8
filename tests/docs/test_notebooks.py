"""The notebooks in examples/ run from top to bottom, and hold no output."""

import ast
import json

import pytest
from pages import ROOT
from PIL import Image

SHORTER = {
    "samples=1000": "samples=160",
    "max_steps=90": "max_steps=4",
    "val_check_interval=45": "val_check_interval=4",
}
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path):
    return json.loads(path.read_text())["cells"]


def run(source, names):
    """Run a cell; the value of its last line, where that is an expression, as a notebook shows it."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(last, "cell", "eval"), names)


@pytest.mark.long
def test_the_quickstart(tmp_path, monkeypatch, capsys):
    """All cells in order, in one process, with fewer samples and steps."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    sources = ["".join(cell["source"]) for cell in cells(ROOT / "examples" / "quickstart.ipynb")
               if cell["cell_type"] == "code"]  # fmt: skip
    whole = "\0".join(sources)
    for long, short in SHORTER.items():
        assert whole.count(long) == 1
        whole = whole.replace(long, short)
    shown = [run(source, names) for source in whole.split("\0")]
    assert len([value for value in shown if isinstance(value, Image.Image)]) == 3
    assert (tmp_path / "runs" / "quickstart" / "summary.json").is_file()
    assert "untrained" in capsys.readouterr().out.rpartition("knn")[2]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_nothing_of_a_machine_is_stored(path):
    assert json.loads(path.read_text())["nbformat"] == 4
    assert len({cell["id"] for cell in cells(path)}) == len(cells(path)) > 0
    for cell in cells(path):
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


def test_there_are_notebooks():
    assert NOTEBOOKS

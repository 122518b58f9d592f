"""The notebooks as they are in the repository: words between calls, no logic, nothing of a run left behind."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["01_data", "02_lineage", "03_model_and_slices", "04_what_if", "05_exploration"]
# Most statements of a cell that only calls the package: imports aside, a name or two and what is shown.
STATEMENTS = 3
ALLOWED = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(path):
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def test_there_are_five_and_each_is_a_story():
    assert [path.stem for path in NOTEBOOKS] == NAMES
    for number, path in enumerate(NOTEBOOKS, 1):
        cells = read(path)["cells"]
        assert "".join(cells[0]["source"]).startswith(f"# {number}. ")
        kinds = [cell["cell_type"] for cell in cells]
        assert kinds[0] == "markdown"
        # Words come before what they are about: never three calls in a row.
        assert "code code code" not in " ".join(kinds)
        words = " ".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").split()
        assert len(words) > 150


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_only_call_the_package(path):
    for source in code_cells(path):
        tree = ast.parse(source)
        assert all(isinstance(statement, ALLOWED) for statement in tree.body), source
        assert sum(not isinstance(s, ast.Import | ast.ImportFrom) for s in tree.body) <= STATEMENTS, source
        logic = (ast.Lambda, ast.comprehension, ast.IfExp, ast.BinOp, ast.BoolOp, ast.Compare, ast.Subscript)
        assert not [node for node in ast.walk(tree) if isinstance(node, logic)], source
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module is not None
                names = [name.name for name in node.names]
                assert (node.module, names) == ("bike_pipeline", ["Workspace"]) or (
                    node.module == "bike_pipeline.notebook_views"
                ), source
            assert not isinstance(node, ast.Import), source
        # Each cell ends with what it shows.
        assert isinstance(tree.body[-1], ast.Expr), source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_of_a_run_is_left_in_it(path):
    notebook = read(path)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"""["'\s(](/|~/|[A-Za-z]:\\\\)\w""", text), "a path of some machine"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


def test_without_a_run_there_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "notebooks.py")],
        env={**os.environ, "BIKE_PIPELINE_WORKSPACE": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 12
    assert done.stderr == (
        f"notebooks: error: {tmp_path / 'none'}: there is no run in this workspace yet. Run `make run` first, or name "
        "another workspace.\n"
    )
    assert not (tmp_path / "none").exists()


def test_a_notebook_shows_an_error_of_ours_as_one_line():
    from bike_pipeline.errors import MetadataError

    error = MetadataError("there is no run yet", fix="run it")
    assert error._render_traceback_() == ["error: there is no run yet. Run it."]

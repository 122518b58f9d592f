"""A workspace that was moved or copied goes on from where it was, under whatever name it has now."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Halves, Product

pytestmark = pytest.mark.slow


def forget_last_record(workspace: Path) -> None:
    """Let the next run ask TFX's cache stage by stage, as it does after any change."""
    with closing(sqlite3.connect(workspace / "metadata.sqlite")) as connection:
        connection.execute("DELETE FROM ContextProperty WHERE name = 'unchanged_while'")
        connection.commit()


def test_a_moved_and_a_copied_workspace_go_on_where_they_were(tmp_path: Path, run_halves: Halves) -> None:
    made = Product(tmp_path / "made")
    run_halves.copied(1, made.workspace)
    (version,) = map(int, made.versions())
    copied, moved = Product(tmp_path / "a copy"), Product(tmp_path / "moved" / "workspace")
    shutil.copytree(made.workspace, copied.workspace)
    moved.workspace.parent.mkdir()
    shutil.move(made.workspace, moved.workspace)
    forget_last_record(copied.workspace)
    for product in (moved, copied):
        (model,) = product.call("models", "--json").result
        assert (model["served_version"], model["serving"], model["wrong"]) == (version, True, "")
        assert Path(model["uri"]).is_relative_to(product.workspace)
        assert product.call("verify").code == 0
        shown = product.call("lineage", "--format", "json").result
        payloads = {node["payload"] for node in shown["graph"]["nodes"] if node["kind"] == "artifact"}
        assert payloads == {"there"}
        again = product.call("run", "--json")
        assert set(again.states.values()) == {"cached"}, again.out
        assert (again.result["pushed_version"], again.result["newly_pushed"]) == (version, False)
        assert product.versions() == [str(version)]
    # What a run that came to nothing left is freed where it lies now.
    worse = moved.call("run", "--json", "--set", "training.learning_rate=1e-6")
    assert worse.code == 6, worse.err
    freed = moved.call("gc", "--keep-days", "0", "--keep-blessed", "0", "--json").result
    gone = [Path(entry["uri"]) for entry in freed["artifacts"] if entry["free"]]
    assert freed["freed_bytes"] > 0
    assert gone
    assert all(path.is_relative_to(moved.workspace) and not path.exists() for path in gone)

from __future__ import annotations

from pathlib import Path

import pytest

from bike_pipeline.lineage.queries.garbage_collection import plan
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import find_model
from bike_pipeline.lineage.reports.lineage_report import report_of_model
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.lineage.store.monitor_looks import looks_at, record_look
from bike_pipeline.model_registry import ModelRegistry
from tests.lineage.world import FIRST, SECOND, Runs


def look(sha256: str, status: str = "changed") -> dict[str, str]:
    return {
        "first": "2012-09-17T00:00",
        "last": "2012-09-30T23:00",
        "status": status,
        "headline": "Changed: answers.",
        "verdicts": "1 changed, 9 fine",
        "report": "/reports/one.json",
        "sha256": sha256,
    }


@pytest.fixture
def world(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "workspace").two()


def test_a_version_s_lineage_tells_how_often_it_was_looked_at_and_what_was_said_last(world: Runs) -> None:
    lineage, registry = Lineage(world.recorder.store), ModelRegistry(world.settings.serving_path)
    for found in (look("a" * 64, "fine"), look("b" * 64)):
        record_look(lineage, registry.uri(SECOND), found)
    assert [prop(one, "status") for one in looks_at(lineage, registry.uri(SECOND))] == ["fine", "changed"]
    history = History(lineage)
    newest, older = (
        dict(report_of_model(history, find_model(history, registry.uri(SECOND).rpartition("/")[0], name), "").facts)
        for name in (str(SECOND), str(FIRST))
    )
    assert newest["monitor"] == (
        "2 looks, the newest at 2012-09-17 00:00 to 2012-09-30 23:00: Changed: answers. (1 changed, 9 fine), "
        f"report sha256 {'b' * 64}"
    )
    assert "monitor" not in older


def test_looks_change_no_run_and_keep_no_files(world: Runs) -> None:
    lineage, base = Lineage(world.recorder.store), world.settings.serving_path

    def freed() -> set[int]:
        return {p.artifact_id for p in plan(History(lineage), world.settings.pipeline_root, base, 0, 0) if p.free}

    before = lineage.runs(), lineage.pushes(), freed()
    record_look(lineage, ModelRegistry(base).uri(FIRST), look("a" * 64))
    assert (lineage.runs(), lineage.pushes(), freed()) == before


def test_a_version_that_is_not_on_record_is_left_out(world: Runs) -> None:
    lineage = Lineage(world.recorder.store)
    record_look(lineage, ModelRegistry(world.settings.serving_path).uri(987_654), look("a" * 64))
    assert all(lineage.stage_of(one) != "Monitor" for one in world.recorder.store.get_executions())

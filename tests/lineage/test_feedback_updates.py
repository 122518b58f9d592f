from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.garbage_collection import plan
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import as_trained, find_model
from bike_pipeline.lineage.reports.lineage_report import report_of_model, report_of_run
from bike_pipeline.lineage.store.feedback_updates import record_missing
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry, layout
from tests.lineage.world import SECOND, Runs

UPDATED = SECOND + 60
TOLD: dict[str, Any] = {
    "of": SECOND,
    "updates": 2,
    "labels": {"rows": 1_340, "first": "2012-12-07T00:00", "last": "2013-01-31T23:00", "sha256": "a" * 64},
    "factors": [0.9, 1.25],
    "upload": {"source": "up.csv", "rows": 5, "first": "2013-01-31T19:00", "new": 5, "sha256": "b" * 64},
}


@pytest.fixture
def world(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "workspace").two()


def push(world: Runs, **changed: Any) -> ModelRegistry:
    """Push a version that labels made, which nothing records."""
    registry = ModelRegistry(world.settings.serving_path)
    model = world.workspace / "aside"
    (model / "assets.extra").mkdir(parents=True)
    (model / "saved_model.pb").write_text("graph", encoding="utf-8")
    record = {
        "model_id": world.models[-1].id,
        "model_uri": world.models[-1].uri,
        "fingerprint": layout.fingerprint(model),
        "exports_fingerprint": "",
        "metric_set": "m",
        "pushed_at_ms": 1,
        "feedback_of": SECOND,
        "feedback": TOLD,
        **changed,
    }
    registry.add(model, UPDATED, record)
    return registry


def test_a_version_that_labels_made_is_recorded_once_as_one_of_its_model(world: Runs) -> None:
    registry, lineage = push(world), Lineage(world.recorder.store)
    before = len(lineage.pushes())
    record_missing(lineage, registry)
    record_missing(lineage, registry)
    pushes = lineage.pushes()
    assert len(pushes) == before + 1
    newest = pushes[-1]
    assert (newest.model_id, newest.version, newest.destination) == (
        world.models[-1].id,
        UPDATED,
        registry.uri(UPDATED),
    )
    assert newest.fingerprint == registry.fingerprint(UPDATED)
    assert (newest.metric_set, newest.feedback) == ("m", TOLD)
    (pushed,) = (a for a in lineage.artifacts("PushedModel") if a.uri == registry.uri(UPDATED))
    execution = lineage.producer(pushed.id)
    assert lineage.stage_of(execution) == "FeedbackUpdate"
    inputs = lineage.inputs(execution.id)
    assert [a.id for a in inputs["model"]] == [newest.model_id]
    assert inputs["pushed_model"][0].custom_properties["pushed_version"].string_value == str(SECOND)
    labels = inputs["labels"][0].custom_properties
    assert (labels["source"].string_value, labels["new"].int_value) == ("up.csv", 5)


def test_every_question_knows_it_as_its_model(world: Runs) -> None:
    registry = push(world)
    lineage = Lineage(world.recorder.store)
    record_missing(lineage, registry)
    base, model_id = world.settings.serving_path, world.models[-1].id
    assert lineage.serving_now(base).version == lineage.serving_model(base).version == UPDATED
    served = {model.model_id: (model.served_version, model.serving) for model in lineage.models(base)}
    assert served[model_id] == (UPDATED, True)
    assert find_model(lineage, base, str(UPDATED)).model_id == model_id
    assert as_trained(lineage, model_id).push.version == SECOND
    history = History(lineage)
    report = report_of_model(history, find_model(history, base, None), world.settings.store_uri)
    assert f"served as version {UPDATED} (serving now)" in report.title
    told = dict(report.facts)["feedback"]
    assert told.startswith(
        "2 updates, 1,340 labels from 2012-12-07 00:00 to 2013-01-31 23:00, answers times 0.90 to 1.25"
    )
    assert f"version {UPDATED} of version {SECOND}" in told
    names = {node.name for node in report.graph.nodes.values()}
    assert {"FeedbackUpdate", "Labels", "Trainer", "Pusher"} <= names
    older = report_of_model(history, find_model(history, base, str(SECOND)), world.settings.store_uri)
    assert "serving now" not in older.title
    assert "feedback" not in dict(older.facts)
    run = history.run_of(history.producer(model_id).id)
    assert dict(report_of_run(history, run, world.settings.store_uri).facts)["feedback"] == told
    kept = {p.artifact_id for p in plan(history, world.settings.pipeline_root, base, 0, 0) if not p.free}
    assert model_id in kept


def test_an_unrecorded_model_is_one_clear_error_and_nothing_is_written(world: Runs) -> None:
    registry = push(world, model_id=987_654)
    lineage = Lineage(world.recorder.store)
    before = json.dumps([push.version for push in lineage.pushes()])
    with pytest.raises(MetadataError, match="model 987654 is not on record"):
        record_missing(lineage, registry)
    assert json.dumps([push.version for push in lineage.pushes()]) == before

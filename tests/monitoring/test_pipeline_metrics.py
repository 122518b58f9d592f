"""What is on record of the pipeline, as metrics of the files that node_exporter reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bike_pipeline.data.spans import SpanStore
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.monitoring import exposition
from bike_pipeline.monitoring.pipeline_metrics import of_pipeline
from tests.lineage.world import SECOND, Runs
from tests.recording import STATES


def told(path):
    """Return every sample of a file by name and labels."""
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("world")).two()


def written(world, folder):
    lineage = Lineage(world.recorder.store)
    newest = SpanStore(world.settings.store_uri).latest()
    metrics = of_pipeline(lineage, world.settings.serving_path, newest)
    return told(exposition.write(folder, exposition.PIPELINE_FILE, metrics))


def test_runs_gates_spans_and_the_promoted_version_are_told(world, tmp_path):
    found = written(world, tmp_path)
    assert found["bike_pipeline_runs", ("state", "done")] == 2
    assert found["bike_pipeline_runs", ("state", "failed")] == 0
    assert found["bike_pipeline_run_state", ("state", "done")] == 1
    assert found["bike_model_blessed",] == 1
    gate = (("binding", "true"), ("kind", "value"), ("metric", "mae"), ("slice", ""), ("slicing", "overall"))
    assert (found["bike_gate_passed", *gate], found["bike_gate_value", *gate]) == (1, 40.0)
    assert found["bike_span_newest",] == 2
    # The data ends with 2012.
    last_hour = datetime(2012, 12, 31, 23, tzinfo=UTC).timestamp()
    assert found["bike_span_last_hour_timestamp_seconds",] == last_hour
    assert found["bike_promoted_version_info", ("version", str(SECOND))] == 1
    stages = {dict(labels)["stage"] for name, *labels in found if name == "bike_pipeline_stage_seconds"}
    assert {"CsvExampleGen", "Trainer", "Evaluator", "Pusher"} <= stages
    assert found["bike_pipeline_run_started_timestamp_seconds",] <= datetime.now(UTC).timestamp()


def test_a_model_that_was_refused_and_a_run_that_failed_are_told(tmp_path):
    world = Runs(tmp_path / "workspace")
    world.run("run-1", (1,), None)
    world.recorder.execution("Trainer", "run-2", state=STATES.FAILED)
    found = written(world, tmp_path)
    assert found["bike_model_blessed",] == 0
    assert found["bike_pipeline_run_state", ("state", "failed")] == 1
    assert not any(name == "bike_promoted_version_info" for name, *_ in found)


def test_nothing_on_record_is_told_as_nothing(tmp_path):
    world = Runs(tmp_path / "workspace")
    metrics = of_pipeline(Lineage(world.recorder.store), world.settings.serving_path, None)
    found = told(exposition.write(tmp_path, exposition.PIPELINE_FILE, metrics))
    assert set(found) == {("bike_pipeline_runs", ("state", s)) for s in ("done", "failed", "interrupted", "running")}

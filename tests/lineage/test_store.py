"""Questions to ML Metadata, on stores written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.lineage.store.metadata_store import Lineage
from tests.recording import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """An empty store."""
    return Recorder(tmp_path / "metadata.sqlite")


def test_an_empty_store_answers(recorder: Recorder) -> None:
    lineage = Lineage(recorder.store)
    assert lineage.runs() == []
    assert lineage.models() == []
    assert lineage.serving_model() is None


def test_the_last_pushed_model_serves(recorder: Recorder) -> None:
    first, second = recorder.model("a"), recorder.model("b", span=2)
    recorder.push("a", first, 100, "/serving/100", fingerprint="f1", metric_set="m")
    recorder.push("b", second, 1000, "/serving/1000", fingerprint="f2", metric_set="m")
    serving = Lineage(recorder.store).serving_model()
    assert serving is not None
    assert (serving.model_id, serving.version, serving.fingerprint) == (second.id, 1000, "f2")
    assert [push.version for push in Lineage(recorder.store).pushes()] == [100, 1000]


def test_what_was_not_pushed_does_not_serve(recorder: Recorder) -> None:
    model = recorder.model("a")
    refused = recorder.artifact("PushedModel", pushed=0)
    recorder.execution("Pusher", "a", {"model": model}, {"pushed_model": refused})
    assert Lineage(recorder.store).serving_model() is None


def test_a_cached_execution_is_no_producer(recorder: Recorder) -> None:
    model = recorder.artifact("Model")
    made = recorder.execution("Trainer", "a", outputs={"model": model})
    recorder.execution("Trainer", "b", outputs={"model": model}, state=pb.Execution.CACHED)
    producer = Lineage(recorder.store).producer(model.id)
    assert producer is not None
    assert producer.id == made


def test_models_with_their_verdicts(recorder: Recorder) -> None:
    model = recorder.model("a", span=3)
    evaluation = recorder.artifact("ModelEvaluation", metric_mae=30.5, metric_rmse=50.0, metric_set="m")
    blessing = recorder.artifact("ModelBlessing", blessed=1)
    recorder.execution("Evaluator", "a", {"model": model}, {"evaluation": evaluation, "blessing": blessing})
    recorder.push("a", model, 7)
    untested = recorder.model("b")
    copied = recorder.artifact("Model")
    recorder.execution("BaselineLookup", "b", {"model": untested}, {"baseline_model": copied})
    first, second = Lineage(recorder.store).models()
    assert (first.span, first.blessed, first.served_version, first.serving) == (3, True, 7, True)
    assert first.metrics == {"mae": 30.5, "rmse": 50.0}
    assert (second.blessed, second.served_version, second.serving, second.metrics) == (None, None, False, {})


def test_runs_and_how_they_ended(recorder: Recorder) -> None:
    pushed = recorder.artifact("PushedModel", pushed=1, pushed_version="7")
    refused = recorder.artifact("PushedModel", pushed=0)
    examples = recorder.artifact("Examples", span=2, version=1)
    recorder.execution("CsvExampleGen", "pushed", outputs={"examples": examples})
    recorder.execution("Pusher", "pushed", outputs={"pushed_model": pushed})
    recorder.execution("Pusher", "again", outputs={"pushed_model": pushed}, state=pb.Execution.CACHED)
    recorder.execution("Pusher", "refused", outputs={"pushed_model": refused})
    recorder.execution("DataGate", "failed", state=pb.Execution.FAILED, error="span 2 is refused")
    recorder.execution("Trainer", "killed", state=pb.Execution.CANCELED)
    recorder.execution("Transform", "stopped")
    recorder.execution("Trainer", "working", state=pb.Execution.RUNNING)
    runs = {run.run_id: run for run in Lineage(recorder.store).runs()}
    assert {name: run.state for name, run in runs.items()} == {
        "pushed": "done",
        "again": "done",
        "refused": "done",
        "failed": "failed",
        "killed": "interrupted",
        "stopped": "interrupted",
        "working": "running",
    }
    assert (runs["pushed"].span, runs["pushed"].version) == (2, 1)
    assert runs["pushed"].outcome == "pushed as version 7"
    assert runs["again"].outcome == "nothing new, version 7"
    assert runs["refused"].outcome == "not blessed"
    assert runs["failed"].outcome == "DataGate: span 2 is refused"


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="bike-pipeline run"):
        open_at(f"sqlite://{tmp_path}/absent.sqlite")
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(MetadataError, match="cannot open"):
        open_at(f"sqlite://{path}")

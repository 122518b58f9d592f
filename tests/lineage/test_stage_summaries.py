"""The few words that a person reads of each stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb
from tfx.types import standard_artifacts

from bike_pipeline.lineage.queries.run_results import stage_summary
from tests.recording import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """An empty store."""
    return Recorder(tmp_path / "metadata.sqlite")


def anomalies(**verdicts: int) -> pb.Artifact:
    """Return what TFX's ExampleValidator writes: one verdict a split, 1 where it found nothing."""
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.set_json_value_custom_property("blessed", verdicts)
    # TFX keeps such values aside until the artifact is written to the store.
    return pb.Artifact.FromString(artifact.mlmd_artifact.SerializeToString())


def test_examples_tell_their_span_and_every_split_that_has_rows(recorder: Recorder) -> None:
    rows = json.dumps({"train": 6889, "eval": 1756, "history": 0})
    examples = recorder.artifact("Examples", span=2, version=3, rows_by_split=rows)
    assert stage_summary("CsvExampleGen", {"examples": [examples]}) == "span 2 version 3: 6,889 train, 1,756 eval rows"


def test_the_validator_names_the_splits_with_anomalies() -> None:
    assert stage_summary("ExampleValidator", {"anomalies": [anomalies(train=1, eval=1)]}) == "no anomalies"
    assert stage_summary("ExampleValidator", {"anomalies": [anomalies(train=1, eval=0)]}) == "anomalies in eval"
    both = stage_summary("ExampleValidator", {"anomalies": [anomalies(train=0, eval=0)]})
    assert both in ("anomalies in eval, train", "anomalies in train, eval")


@pytest.mark.parametrize(
    ("warnings", "said"), [(0, "passed"), (1, "passed with 1 warning"), (2, "passed with 2 warnings")]
)
def test_the_gate_counts_its_warnings(recorder: Recorder, warnings: int, said: str) -> None:
    report = recorder.artifact("bike.DataGateReport", warnings=warnings)
    assert stage_summary("DataGate", {"report": [report]}) == said


@pytest.mark.parametrize(("blessed", "verdict"), [(1, "blessed"), (0, "NOT blessed")])
def test_the_evaluation_tells_its_verdict(recorder: Recorder, blessed: int, verdict: str) -> None:
    outputs = {
        "evaluation": [recorder.artifact("ModelEvaluation", metric_mae=30.04, metric_rmse=51.96)],
        "blessing": [recorder.artifact("ModelBlessing", blessed=blessed)],
    }
    assert stage_summary("Evaluator", outputs) == f"MAE 30.0, RMSE 52.0: {verdict}"


def test_the_push_tells_its_version_or_that_there_was_none(recorder: Recorder) -> None:
    pushed = recorder.artifact("PushedModel", pushed=1, pushed_version="17")
    refused = recorder.artifact("PushedModel", pushed=0)
    assert stage_summary("Pusher", {"pushed_model": [pushed]}) == "version 17"
    assert stage_summary("Pusher", {"pushed_model": [refused]}) == "nothing pushed"


def test_the_trainer_tells_how_large_the_served_model_is(recorder: Recorder, tmp_path: Path) -> None:
    folder = tmp_path / "model" / "Format-Serving" / "variables"
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(bytes(3 * 1024))
    (folder.parent / "saved_model.pb").write_bytes(bytes(1024))
    (tmp_path / "model" / "beside").write_bytes(bytes(10_000))
    assert stage_summary("Trainer", {"model": [recorder.artifact("Model", str(tmp_path / "model"))]}) == "model of 4 kB"


@pytest.mark.parametrize("stage", ["BaselineLookup", "WarmStartLookup"])
def test_a_lookup_tells_its_reason(recorder: Recorder, stage: str) -> None:
    baseline = recorder.artifact("Model", reason="version 7 is serving")
    assert stage_summary(stage, {"baseline_model": [baseline]}) == "version 7 is serving"


def test_other_stages_and_stages_without_outputs_have_nothing_to_tell(recorder: Recorder) -> None:
    assert stage_summary("Transform", {"transform_graph": [recorder.artifact("TransformGraph")]}) == ""
    assert stage_summary("Evaluator", {}) == ""

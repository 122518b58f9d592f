"""A recorded run as a tracking server is told it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.tracking_payload import tracking_payload
from bike_pipeline.lineage.store.metadata_store import Lineage
from tests.lineage.world import FIRST, SECOND, Runs, report


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two pushed runs, one that was refused, and one that was answered from the second."""
    runs = Runs(tmp_path_factory.mktemp("world")).two()
    store = runs.recorder.store
    (context,) = [c for c in store.get_contexts_by_type("pipeline_run") if c.name == "run-2"]
    (evaluated,) = [
        execution
        for execution in store.get_executions_by_context(context.id)
        if Lineage(store).stage_of(execution) == "Evaluator"
    ]
    outputs = {key: found[0] for key, found in Lineage(store).outputs(evaluated.id).items()}
    runs.recorder.execution("Evaluator", "run-3", {}, outputs, state=pb.Execution.CACHED)
    runs.run("run-4", (1, 2), None, mae=70.0)
    runs.recorder.execution("DataGate", "run-5", state=pb.Execution.FAILED)
    return runs


def test_settings_metrics_by_slice_and_where_they_come_from(runs: Runs) -> None:
    told = tracking_payload(Lineage(runs.recorder.store), "run-2")
    assert told.run_id == "run-2"
    assert told.parameters["training.epochs"] == str(runs.settings.training.epochs)
    assert told.parameters["training.hidden_units"] == "[224, 128]"
    assert not any(name.startswith("tracking") for name in told.parameters)
    assert told.metrics["mae"] == 40.0
    assert told.metrics["season/1/rmse"] == 80.0
    assert told.metrics["change/mae"] == 0.01
    assert (told.metrics["change/mae/low"], told.metrics["change/mae/high"]) == (-0.03, 0.05)
    assert told.decisions == report(40.0)
    assert [push.version for push in told.pushes] == [SECOND]
    assert told.pushes[0].destination == str(Path(runs.settings.serving_path) / str(SECOND))
    assert 0 < told.started_ms <= told.ended_ms
    tags = {name.removeprefix("bike_pipeline."): value for name, value in told.tags.items()}
    assert (tags["span"], tags["version"], tags["blessed"]) == ("2", "1", "True")
    assert tags["data_sha256"] == runs.spans.latest(2).manifest.content_sha256
    assert tags["baseline"] == "no model has been pushed yet"
    assert "baseline_version" not in tags
    assert {"source_sha256", "settings_sha256", "schema_sha256", "seed", "runner"} <= set(tags)
    assert tags["environment.tensorflow"]


def test_a_run_from_the_cache_is_the_run_that_it_repeats(runs: Runs) -> None:
    lineage = Lineage(runs.recorder.store)
    assert tracking_payload(lineage, "run-3") == tracking_payload(lineage, "run-2")
    assert [push.version for push in tracking_payload(lineage, "run-1").pushes] == [FIRST]


def test_a_refused_candidate_is_told_without_a_push_and_is_the_newest(runs: Runs) -> None:
    told = tracking_payload(Lineage(runs.recorder.store))
    assert (told.run_id, told.pushes, told.metrics["mae"]) == ("run-4", (), 70.0)


@pytest.mark.parametrize(("name", "said"), [("run-5", "came to no evaluation"), ("run-9", "there is no run 'run-9'")])
def test_what_cannot_be_told_is_one_clear_error(runs: Runs, name: str, said: str) -> None:
    with pytest.raises(MetadataError, match=said) as error:
        tracking_payload(Lineage(runs.recorder.store), name)
    assert error.value.fix


def test_before_the_first_evaluation_it_says_so(tmp_path: Path) -> None:
    from tests.recording import Recorder

    with pytest.raises(MetadataError, match="no run has come to an evaluation yet"):
        tracking_payload(Lineage(Recorder(tmp_path / "metadata.sqlite").store))

"""A blessing needs TFMA and every binding threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.components import evaluator
from bike_pipeline.errors import ModelError
from tests.components.evaluating import WIDE, World, blessed, lookup


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """The model beside nothing else."""
    return World(tmp_path, exported.path, examples, schema)


def test_a_model_against_itself_is_measured_alike_and_blessed(measured: Any, examples: Any) -> None:
    assert blessed(measured)
    assert measured.report["blessed_by_tfma"]
    assert measured.report["candidate_metrics"] == measured.report["baseline_metrics"]
    changes = [d for d in measured.report["decisions"] if d["kind"] == "change"]
    assert [(d["metric"], d["value"]) for d in changes] == [("mae", 0.0), ("rmse", 0.0)]
    overall = next(m for m in measured.report["candidate_metrics"] if m["slicing"] == "overall")
    assert overall["rows"] == json.loads(examples.get_string_custom_property("rows_by_split"))["eval"]
    assert measured.evaluation.get_float_custom_property("metric_mae") == overall["mae"]
    by_hour = [m["rows"] for m in measured.report["candidate_metrics"] if m["slicing"] == "hour_band"]
    assert sum(by_hour) == overall["rows"]
    assert len(by_hour) > 1


def test_the_metrics_are_those_of_the_served_signature(measured: Any, exported: Any, store_uri: str) -> None:
    import tensorflow as tf

    from bike_pipeline import features
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore

    rows = with_optional_inputs(SpanStore(store_uri).read(2, 1, ("eval",)), SpanStore(store_uri).read(2, 1, ("train",)))
    kinds = {"int": np.int64, "float": np.float32}
    inputs = {f.name: tf.constant(rows[f.name].to_numpy().astype(kinds[f.kind])) for f in features.MODEL_INPUTS}
    predicted = tf.saved_model.load(str(exported.path)).signatures["serving_all_inputs"](**inputs)[features.LABEL]
    label = rows[features.LABEL].to_numpy().astype(np.float64)
    error = predicted.numpy().ravel() - label
    assert measured.evaluation.get_float_custom_property("metric_mae") == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert measured.report["hourly_mean_mae"] == pytest.approx(np.abs(9000 - label).mean())


def test_what_tfma_refuses_is_not_blessed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorflow_model_analysis.proto import validation_result_pb2

    refusal = validation_result_pb2.ValidationResult(validation_ok=False)
    write = evaluator.tfma_output.write
    monkeypatch.setattr(
        evaluator.tfma_output, "write", lambda folder, by_slice, _, run: write(folder, by_slice, refusal, run)
    )
    evaluated = world.evaluate("refused", lookup("found", Path(world.model.uri)))
    assert all(decision["passed"] for decision in evaluated.report["decisions"] if decision["binding"])
    assert not blessed(evaluated)


SLICE_LIMIT = [*WIDE["value_thresholds"], {"metric": "mae", "slicing": "workingday", "upper": 0.001}]


@pytest.mark.parametrize(("min_rows", "verdict"), [(1, False), (10_000, True)])
def test_a_slice_withdraws_the_blessing_where_it_has_the_rows(world: World, min_rows: int, verdict: bool) -> None:
    rows = {**WIDE["min_rows"], "workingday": min_rows}
    evaluated = world.evaluate("sliced", lookup("none"), value_thresholds=SLICE_LIMIT, min_rows=rows)
    assert evaluated.report["blessed_by_tfma"]
    assert {d["passed"] for d in evaluated.report["decisions"] if d["slicing"] == "workingday"} == {False}
    assert blessed(evaluated) is verdict


def test_the_naive_baseline_must_be_beaten(world: World, measured: Any) -> None:
    hard = measured.evaluation.get_float_custom_property("metric_mae") / measured.report["hourly_mean_mae"]
    passing = world.evaluate("passing", lookup("none"), max_mae_to_mean=hard * 1.01)
    failing = world.evaluate("failing", lookup("none"), max_mae_to_mean=hard * 0.99)
    assert (blessed(passing), blessed(failing)) == (True, False)


def test_a_slice_that_training_saw_and_eval_lacks_withdraws_the_blessing(world: World) -> None:
    """Training saw such rows, and the eval split has none of them: no number tells how wrong the model is there."""
    trained = json.loads(world.trained.read_text())
    trained["rows_by_slice"]["workingday"]["2"] = 1234
    world.trained.write_text(json.dumps(trained))
    evaluated = world.evaluate("lacking", lookup("none"))
    assert not blessed(evaluated)
    (missing,) = [d for d in evaluated.report["decisions"] if d["binding"] and not d["passed"]]
    assert (missing["kind"], missing["slicing"], missing["slice"], missing["rows"]) == (
        "coverage",
        "workingday",
        "2",
        0,
    )
    assert "not judged: absent from the eval split, though training saw 1,234 rows" in missing["reason"]


def test_a_slice_that_may_be_missing_is_named_as_not_judged(world: World) -> None:
    trained = json.loads(world.trained.read_text())
    trained["rows_by_slice"]["season"]["3"] = 500
    world.trained.write_text(json.dumps(trained))
    evaluated = world.evaluate("lacking", lookup("none"))
    assert blessed(evaluated)
    named = {(d["slicing"], d["slice"]): d["reason"] for d in evaluated.report["decisions"] if d["kind"] == "coverage"}
    assert "evaluation.may_be_missing allows" in named["season", "3"]
    strict = world.evaluate("strict", lookup("none"), may_be_missing={**WIDE["may_be_missing"], "season": [1, 2, 4]})
    assert not blessed(strict)


def test_without_the_trained_slices_there_is_no_verdict(world: World) -> None:
    world.trained.unlink()
    with pytest.raises(ModelError, match="does not say which slices it was trained on"):
        world.evaluate("blind", lookup("none"))
    world.trained.write_text('{"rows_by_slice": {"season": {}}}')
    with pytest.raises(ModelError, match="not rows by slice"):
        world.evaluate("damaged", lookup("none"))
    assert not (world.folder / "blind" / "evaluation" / "decisions.json").exists()

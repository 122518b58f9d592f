"""No verdict without its evidence, and none of an answer that is not a number."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.components import evaluator
from bike_pipeline.errors import DataError
from bike_pipeline.modeling import slice_sums
from tests.components.evaluating import WIDE, World, blessed, lookup, stored


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """The model beside nothing else."""
    return World(tmp_path, exported.path, examples, schema)


@pytest.mark.parametrize("answer", [math.nan, math.inf])
def test_a_model_that_answers_no_numbers_is_not_blessed_and_goes_on_record(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: float
) -> None:
    from bike_pipeline.lineage.queries.run_results import stage_summary

    monkeypatch.setattr(slice_sums, "_predict", lambda _, records: np.full(len(records), answer))
    evaluated = world.evaluate("nan", lookup("none"))
    assert not blessed(evaluated)
    assert not evaluated.report["blessed_by_tfma"]
    overall = next(m for m in evaluated.report["candidate_metrics"] if m["slicing"] == "overall")
    assert overall["mae"] is None
    assert overall["rows"] > 0
    recorded = stored(evaluated.evaluation, world.folder)
    assert "metric_mae" not in recorded.custom_properties
    assert json.loads(recorded.custom_properties["decisions"].string_value) == evaluated.report
    told = stage_summary("Evaluator", {"evaluation": [recorded], "blessing": [evaluated.blessing.mlmd_artifact]})
    assert told == "MAE not a number, RMSE not a number: NOT blessed"


def test_eval_days_without_a_rental_are_not_blessed_and_go_on_record(
    world: World, month_file: Any, tmp_path: Path
) -> None:
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.settings import load_settings
    from tests.components.conftest import generate

    uri = str(tmp_path / "spans")
    nothing = {"casual": "0", "registered": "0", "cnt": "0"}
    upload = month_file("2012-03", lambda row: {**row, **nothing} if row["dteday"] >= "2012-03-25" else row)
    ingest(load_settings(assignments=(f"data.store={uri}",)), str(upload))
    world.inputs["examples"] = [generate(uri, tmp_path / "examples", spans=1)]
    evaluated = world.evaluate("zero", lookup("none"))
    assert not blessed(evaluated)
    failed = {d["metric"] for d in evaluated.report["decisions"] if d["binding"] and not d["passed"]}
    assert {"bias", "calibration"} <= failed
    assert stored(evaluated.evaluation, world.folder).custom_properties["metric_mae"].double_value > 0


def test_a_small_slice_on_which_the_candidate_is_much_worse_is_warned_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as bad as the baseline on too few rows to decide: blessed, and said aloud."""
    decide = evaluator.evaluation.decide

    def worse(settings: Any, candidate: Any, *others: Any) -> Any:
        for key, values in candidate.items():
            if key[0] == "season":
                values["mae"] *= 2.1
        return decide(settings, candidate, *others)

    monkeypatch.setattr(evaluator.evaluation, "decide", worse)
    changes = [*WIDE["change_thresholds"], {"metric": "mae", "slicing": "season", "max_increase": 0.1}]
    few = {**WIDE["min_rows"], "season": 10_000}
    evaluated = world.evaluate(
        "warned", lookup("found", Path(world.model.uri)), change_thresholds=changes, min_rows=few
    )
    assert blessed(evaluated)
    assert evaluated.report["warnings"]
    assert all("+110%" in told and "does not decide" in told for told in evaluated.report["warnings"])
    assert evaluated.evaluation.get_int_custom_property("warnings") == len(evaluated.report["warnings"])
    calm = world.evaluate(
        "calm", lookup("found", Path(world.model.uri)), change_thresholds=changes, min_rows=few, warn_increase=2.5
    )
    assert calm.report["warnings"] == []


def test_only_a_found_baseline_is_compared_with(world: World) -> None:
    for state, compared in (("none", False), ("reset", False), ("found", True)):
        evaluated = world.evaluate(state, lookup(state, Path(world.model.uri)))
        assert any(d["kind"] == "change" for d in evaluated.report["decisions"]) is compared
        assert bool(evaluated.report["baseline_metrics"]) is compared
        assert evaluated.report["baseline"] == {"state": state, "reason": f"it is {state}", "serving_version": 12}
        for artifact in (evaluated.evaluation, evaluated.blessing):
            assert artifact.get_string_custom_property("baseline_state") == state
            assert artifact.get_string_custom_property("metric_set") == "m"


def test_without_the_naive_baseline_there_is_no_verdict(world: World) -> None:
    world.reference.unlink()
    with pytest.raises(Exception, match=r"hourly_mean\.json"):
        world.evaluate("blind", lookup("none"))
    assert not (world.folder / "blind" / "evaluation" / "decisions.json").exists()


def test_without_the_baselines_metrics_there_is_no_verdict(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write = evaluator.tfma_output.write

    def without_the_baseline(folder: str, by_slice: Any, *arguments: Any) -> None:
        kept = {
            key: {metric: value for metric, value in values.items() if metric.model_name != "baseline"}
            for key, values in by_slice.items()
        }
        write(folder, kept, *arguments)

    monkeypatch.setattr(evaluator.tfma_output, "write", without_the_baseline)
    with pytest.raises(ValueError, match="no overall metrics of the baseline"):
        world.evaluate("blind", lookup("found", Path(world.model.uri)))


def test_rows_that_are_not_all_there_give_no_verdict(world: World) -> None:
    (examples,) = world.inputs["examples"]
    promised = json.loads(examples.get_string_custom_property("rows_by_split"))
    fewer = copy.deepcopy(examples)
    fewer.set_string_custom_property("rows_by_split", json.dumps({**promised, "eval": promised["eval"] + 1}))
    world.inputs["examples"] = [fewer]
    with pytest.raises(DataError, match=f"{promised['eval']} rows were evaluated and {promised['eval'] + 1}"):
        world.evaluate("fewer", lookup("none"))


def test_on_beam_the_same_decisions_to_the_last_digit(world: World, measured: Any) -> None:
    by_beam = world.evaluate("beam", lookup("found", Path(world.model.uri)), in_memory_rows=1)
    assert by_beam.report == measured.report

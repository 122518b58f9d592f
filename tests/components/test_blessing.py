"""A blessing needs TFMA and every binding threshold; no verdict without its evidence; numbers as stock TFX has them."""

from __future__ import annotations

import copy
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bike_pipeline.components import evaluator
from bike_pipeline.errors import DataError, ModelError
from bike_pipeline.modeling import slice_sums
from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.conftest import on_beam

WIDE: dict[str, Any] = {
    "value_thresholds": [
        {"metric": "mae", "upper": 1000},
        {"metric": "rmse", "upper": 1000},
        {"metric": "rmsle", "upper": 100},
        {"metric": "bias", "lower": -100, "upper": 100},
        {"metric": "calibration", "lower": -100, "upper": 100},
    ],
    "change_thresholds": [{"metric": "mae", "max_increase": 0.02}, {"metric": "rmse", "max_increase": 0.02}],
    "bootstrap": {"confidence": 0.9, "draws": 200, "min_blocks": 6},
    "max_mae_to_mean": 0.99,
    "min_rows": {"hour_band": 1, "workingday": 1, "season": 1, "weathersit": 1},
    # Six days of March have neither four seasons nor all kinds of weather.
    "may_be_missing": {"hour_band": [], "workingday": [], "season": [1, 2, 3, 4], "weathersit": [1, 2, 3, 4]},
    "warn_increase": 0.5,
}
# Far above any count, so that even a model of two epochs beats it.
EASY_BASELINE = {"mean_rentals_by_workingday_and_hour": [[9000.0] * 24] * 2}


def lookup(state: str, model: Path | None = None) -> Any:
    """Return what BaselineLookup hands on."""
    from tfx.types import standard_artifacts

    artifact = standard_artifacts.Model()
    artifact.uri = "" if model is None else str(model)
    artifact.set_string_custom_property("state", state)
    artifact.set_string_custom_property("reason", f"it is {state}")
    artifact.set_int_custom_property("serving_version", 12)
    return artifact


class World:
    """One small model and the examples of a month."""

    def __init__(self, folder: Path, saved_model: Path, examples: Any, schema: Any) -> None:
        """Copy the model, since tests change it."""
        from tfx.types import standard_artifacts

        self.folder = folder
        self.model = standard_artifacts.Model()
        self.model.uri = str(folder / "model")
        shutil.copytree(saved_model, folder / "model" / "Format-Serving")
        self.reference = folder / "model" / "Format-Serving" / "assets.extra" / "hourly_mean.json"
        self.reference.write_text(json.dumps(EASY_BASELINE))
        self.trained = self.reference.with_name("trained_slices.json")
        self.inputs = {"examples": [examples], "schema": [schema], "model": [self.model]}

    def evaluate(self, name: str, baseline: Any, in_memory_rows: int = 10**6, **changes: Any) -> Any:
        """Run the Evaluator; return its report and both artifacts."""
        from tfx.types import standard_artifacts
        from tfx.utils import proto_utils

        from bike_pipeline.modeling import evaluation

        settings = EvaluationSettings.model_validate({**WIDE, **changes})
        output, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
        output.uri, blessing.uri = (str(self.folder / name / kind) for kind in ("evaluation", "blessing"))
        evaluator.EvaluatorExecutor(on_beam()).Do(
            {**self.inputs, "baseline_model": [baseline]},
            {"evaluation": [output], "blessing": [blessing]},
            {
                "eval_config": proto_utils.proto_to_json(evaluation.eval_config(settings)),
                "example_splits": json.dumps(["eval"]),
                "module_path": "bike_pipeline.modeling.evaluation",
                "fairness_indicator_thresholds": "null",
                "evaluation": settings.model_dump_json(),
                "metric_set": "m",
                "in_memory_rows": in_memory_rows,
            },
        )
        report = json.loads((Path(output.uri) / "decisions.json").read_text())
        return SimpleNamespace(report=report, evaluation=output, blessing=blessing)


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """The model beside nothing else."""
    return World(tmp_path, exported.path, examples, schema)


@pytest.fixture(scope="session")
def measured(exported: Any, examples: Any, schema: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real evaluation of the model against itself."""
    world = World(tmp_path_factory.mktemp("evaluation"), exported.path, examples, schema)
    return world.evaluate("real", lookup("found", Path(world.model.uri)))


def blessed(evaluated: Any) -> bool:
    """Return the verdict; report, property and marker file must agree."""
    (marker,) = Path(evaluated.blessing.uri).iterdir()
    verdicts = {
        evaluated.report["blessed"],
        evaluated.blessing.get_int_custom_property("blessed") == 1,
        marker.name == "BLESSED",
    }
    assert len(verdicts) == 1
    return verdicts.pop()


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


def stored(artifact: Any, folder: Path) -> Any:
    """Write an artifact to a metadata store, as TFX does after the stage; return what stands there."""
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(folder / "metadata.sqlite")
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(config)
    artifact.type_id = store.put_artifact_type(artifact.artifact_type)
    (found,) = store.get_artifacts_by_id(store.put_artifacts([artifact.mlmd_artifact]))
    return found


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
    world.inputs["examples"] = [generate(uri, tmp_path / "examples", history_spans=0)]
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


def by_stock_tfx(world: World, baseline: Any, settings: EvaluationSettings) -> Any:
    """Run TFX's own Evaluator on the same artifacts with the same configuration; return both of its artifacts."""
    from tfx.components.evaluator import executor as stock
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from bike_pipeline.modeling import evaluation

    output, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    output.uri, blessing.uri = (str(world.folder / "stock" / kind) for kind in ("evaluation", "blessing"))
    inputs = world.inputs if baseline is None else {**world.inputs, "baseline_model": [baseline]}
    stock.Executor(on_beam()).Do(
        inputs,
        {"evaluation": [output], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(evaluation.eval_config(settings)),
            "example_splits": json.dumps(["eval"]),
            "module_path": "benchmarks.plain_tfx.module",
            "fairness_indicator_thresholds": "null",
        },
    )
    return SimpleNamespace(evaluation=output, blessing=blessing)


def by_slice_and_key(folder: str) -> dict[str, dict[str, Any]]:
    """Return what TFMA reads from an evaluation: values by slice and by the whole metric key."""
    import tensorflow_model_analysis as tfma

    return {
        str(record.slice_key): {
            str(entry.key): pytest.approx(entry.value.double_value.value, rel=1e-6, abs=1e-9, nan_ok=True)
            for entry in record.metric_keys_and_values
        }
        for record in tfma.load_metrics(folder)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compared", "changes"),
    [
        (True, {}),
        (True, {"change_thresholds": [{"metric": m, "max_increase": -0.1} for m in ("mae", "rmse")]}),
        (False, {}),
        (
            False,
            {
                "value_thresholds": [{**v, "upper": 1e-9} for v in WIDE["value_thresholds"][:3]]
                + WIDE["value_thresholds"][3:]
            },
        ),
    ],
)
def test_metrics_and_verdict_are_those_of_stock_tfx(world: World, compared: bool, changes: dict[str, Any]) -> None:
    import tensorflow_model_analysis as tfma

    baseline = lookup("found", Path(world.model.uri)) if compared else None
    settings = EvaluationSettings.model_validate({**WIDE, **changes})
    stock = by_stock_tfx(world, baseline, settings)
    ours = world.evaluate("ours", baseline or lookup("none"), **changes)
    expected, found = (by_slice_and_key(e.evaluation.uri) for e in (stock, ours))
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].keys() == values.keys()
        for name, value in values.items():
            assert found[key][name].expected == value
    verdicts = [tfma.load_validation_result(e.evaluation.uri) for e in (stock, ours)]
    assert verdicts[0].validation_ok == verdicts[1].validation_ok
    failures = [
        {str(f.metric_key) + str(f.metric_threshold) for s in v.metric_validations_per_slice for f in s.failures}
        for v in verdicts
    ]
    assert failures[0] == failures[1]
    assert str(verdicts[0].validation_details) == str(verdicts[1].validation_details)
    configs = [tfma.load_eval_result(e.evaluation.uri).config for e in (stock, ours)]
    assert configs[0] == configs[1]
    for name in ("blessed", "current_model_id", "baseline_model_id"):
        assert stock.blessing.get_int_custom_property(name) == ours.blessing.get_int_custom_property(name)
    for name in ("current_model_uri", "baseline_model_uri"):
        assert stock.blessing.get_string_custom_property(name) == ours.blessing.get_string_custom_property(name)

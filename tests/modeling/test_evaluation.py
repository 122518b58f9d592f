from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bike_pipeline.modeling import evaluation, metrics, slices
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.evaluation import EvaluationSettings

GOOD = {"mae": 40.0, "rmse": 60.0, "rmsle": 0.4, "bias": 0.05, "calibration": 1.05}
BINS = {"hour_band": ("0", "6"), "workingday": ("0", "1"), "season": ("1",), "weathersit": ("1", "3")}


@pytest.fixture(scope="module")
def base():
    return load_settings().evaluation


def measured(rows=1000, **changed):
    keys = [("overall", "")] + [(slicing, value) for slicing, values in BINS.items() for value in values]
    return {key: {**GOOD, **changed, "rows": float(rows)} for key in keys}


def settings_with(base, **changed):
    return EvaluationSettings.model_validate({**base.model_dump(), **changed})


def failed(decisions):
    return {(d.kind, d.metric, d.slicing, d.slice) for d in decisions if d.binding and not d.passed}


def decided(base, candidate=None, baseline=None, naive_mae=100.0):
    return evaluation.decide(base, candidate or measured(), baseline, naive_mae)


def test_a_good_candidate_passes_every_threshold(base):
    decisions = decided(base, baseline=measured())
    assert failed(decisions) == set()
    assert {d.kind for d in decisions} == {"value", "change", "reference"}
    for limit in base.value_thresholds:
        assert any((d.kind, d.metric, d.slicing) == ("value", limit.metric, limit.slicing) for d in decisions)
    for change in base.change_thresholds:
        assert any((d.kind, d.metric, d.slicing) == ("change", change.metric, change.slicing) for d in decisions)


@pytest.mark.parametrize(
    ("metric", "passing", "failing"),
    [
        ("mae", (0.0, 45.0), (45.01,)),
        ("rmse", (0.0, 70.0), (70.01,)),
        ("rmsle", (0.0, 0.5), (0.5001,)),
        ("bias", (-0.15, 0.0, 0.15), (-0.151, 0.151)),
        ("calibration", (0.85, 1.0, 1.15), (0.849, 1.151)),
    ],
)
def test_a_value_threshold_holds_on_each_of_its_sides(base, metric, passing, failing):
    for value in passing:
        assert ("value", metric, "overall", "") not in failed(decided(base, measured(**{metric: value})))
    for value in (*failing, math.nan, math.inf, -math.inf):
        assert ("value", metric, "overall", "") in failed(decided(base, measured(**{metric: value})))


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
def test_a_metric_that_is_missing_never_passes(base, metric):
    candidate = measured()
    # The naive baseline's ratio reads the overall MAE itself, so that one goes missing on a slice.
    key = ("hour_band", "6") if metric == "mae" else ("overall", "")
    del candidate[key][metric]
    found = [d for d in decided(base, candidate) if (d.metric, d.slicing, d.slice) == (metric, *key)]
    assert found
    assert all(d.binding and not d.passed and math.isnan(d.value) for d in found if d.kind == "value")


@pytest.mark.parametrize("slicing", sorted(BINS))
def test_a_bad_slice_decides_from_its_number_of_rows_on_and_is_only_reported_below(base, slicing):
    strict = settings_with(
        base, value_thresholds=[*base.value_thresholds[:5], {"metric": "mae", "slicing": slicing, "upper": 70}]
    )
    key = (slicing, BINS[slicing][-1])
    for rows, binding in ((base.min_rows[slicing], True), (base.min_rows[slicing] - 1, False)):
        candidate = measured()
        candidate[key] = {**GOOD, "mae": 71.0, "rows": float(rows)}
        (decision,) = [d for d in decided(strict, candidate) if (d.slicing, d.slice) == key and d.kind == "value"]
        assert not decision.passed
        assert decision.binding is binding
        assert (("value", "mae", *key) in failed(decided(strict, candidate))) is binding
        assert ("reported" in decision.reason) is not binding


def test_a_threshold_on_slices_that_were_not_measured_fails(base):
    candidate = {key: value for key, value in measured().items() if key[0] != "hour_band"}
    found = failed(decided(base, candidate, candidate))
    assert ("value", "mae", "hour_band", "") in found
    assert ("change", "mae", "hour_band", "") in found


def test_an_overall_slice_decides_however_few_its_rows_are(base):
    assert ("value", "mae", "overall", "") in failed(decided(base, measured(rows=1, mae=56.0)))


@pytest.mark.parametrize(("increase", "passes"), [(-0.5, True), (0.0, True), (0.019, True), (0.021, False)])
def test_a_change_threshold_bounds_the_increase_over_the_baseline(base, increase, passes):
    found = failed(decided(base, measured(rmse=60 * (1 + increase)), measured()))
    assert (("change", "rmse", "overall", "") not in found) is passes


def test_a_negative_largest_increase_demands_an_improvement(base):
    changes = [{"metric": "mae", "max_increase": -0.1}, {"metric": "rmse", "max_increase": 0.02}]
    strict = settings_with(base, change_thresholds=changes)
    assert ("change", "mae", "overall", "") in failed(decided(strict, measured(mae=36.1), measured()))
    assert ("change", "mae", "overall", "") not in failed(decided(strict, measured(mae=35.9), measured()))


@pytest.mark.parametrize("before", [None, math.nan, 0.0])
def test_a_change_that_cannot_be_computed_never_passes(base, before):
    baseline = measured()
    if before is None:
        del baseline["season", "1"]
    else:
        baseline["season", "1"]["mae"] = before
    assert ("change", "mae", "season", "1") in failed(decided(base, measured(), baseline))


def test_without_a_baseline_there_is_no_comparison_and_all_else_holds(base):
    decisions = decided(base, measured(mae=56.0), None)
    assert {d.kind for d in decisions} == {"value", "reference"}
    assert ("value", "mae", "overall", "") in failed(decisions)


@pytest.mark.parametrize(
    ("naive_mae", "passes"), [(48.0, True), (46.0, False), (0.0, False), (math.nan, False), (math.inf, False)]
)
def test_the_candidate_must_clearly_beat_the_naive_baseline(base, naive_mae, passes):
    decisions = decided(base, naive_mae=naive_mae)
    assert (("reference", "mae", "overall", "") not in failed(decisions)) is passes


def test_the_report_blesses_only_where_every_binding_decision_passed(base):
    for mae, blessed in ((40.0, True), (56.0, False)):
        candidate = measured(mae=mae)
        decisions = decided(base, candidate)
        report = evaluation.report(
            base, decisions, candidate, None, {"reason": "none yet"}, {"hourly mean": 100.0}, None
        )
        assert report["blessed"] is blessed
        assert len(report["decisions"]) == len(decisions)
        assert json.loads(json.dumps(report))["baseline"] == {"reason": "none yet"}
        assert len(report["candidate_metrics"]) == len(candidate)
        assert report["baseline_metrics"] == []
    small = measured()
    small["hour_band", "0"] |= {"mae": 500.0, "rows": 3.0}
    assert evaluation.report(base, decided(base, small), small, None, {}, {"hourly mean": 100.0}, None)["blessed"]


def test_tfma_is_given_every_overall_threshold_and_no_other(base):
    config = evaluation.eval_config(base)
    assert [(spec.name, spec.is_baseline) for spec in config.model_specs] == [("candidate", False), ("baseline", True)]
    assert {spec.signature_name for spec in config.model_specs} == {"serving_examples"}
    found = {}
    for metric in config.metrics_specs[0].metrics:
        assert not metric.HasField("threshold")
        if metric.class_name == "ExampleCount":
            assert not metric.per_slice_thresholds
            continue
        (threshold,) = metric.per_slice_thresholds
        (spec,) = threshold.slicing_specs
        assert not spec.feature_keys
        assert not spec.feature_values
        found[json.loads(metric.config)["name"]] = threshold.threshold
    assert set(found) == set(metrics.METRICS)
    for limit in (limit for limit in base.value_thresholds if limit.slicing == "overall"):
        assert found[limit.metric].value_threshold.upper_bound.value == limit.upper
        if limit.lower is not None:
            assert found[limit.metric].value_threshold.lower_bound.value == limit.lower
    for change in (change for change in base.change_thresholds if change.slicing == "overall"):
        assert found[change.metric].change_threshold.relative.value == change.severe_increase
        assert found[change.metric].change_threshold.direction == tfma.MetricDirection.LOWER_IS_BETTER
    measured_slices = {tuple(spec.feature_keys) for spec in config.slicing_specs}
    assert measured_slices == {(), *((slicing,) for slicing in evaluation.SLICINGS)}


@pytest.mark.parametrize(
    ("hour", "band"), [(0, 0), (5, 0), (6, 6), (9, 6), (10, 10), (15, 10), (16, 16), (19, 16), (20, 20), (23, 20)]
)
def test_every_hour_has_its_band(hour, band):
    assert slices.values_of({"hr": np.array([hour])}, slices.HOUR_BAND).tolist() == [band]


def test_a_changed_set_of_metrics_is_another_metric_set(monkeypatch):
    before = evaluation.metric_set()
    monkeypatch.setattr(evaluation.features, "HOUR_BANDS", (0, 12))
    assert evaluation.metric_set() != before


def test_metrics_go_through_tfma_and_come_back_by_slice(tmp_path, base):
    frame = pd.DataFrame(
        {
            "label": [10.0, 20.0, 0.0, 40.0],
            "prediction": [13.0, 16.0, 2.0, 40.0],
            "season": [1, 1, 2, 2],
        }
    )
    config = evaluation.eval_config(base)
    del config.model_specs[:]
    config.model_specs.add(prediction_key="prediction", label_key="label")
    del config.slicing_specs[:]
    config.slicing_specs.add()
    config.slicing_specs.add(feature_keys=["season"])
    for metric in config.metrics_specs[0].metrics:
        del metric.per_slice_thresholds[:]
    tfma.analyze_raw_data(frame, config, output_path=str(tmp_path))
    found = evaluation.read_metrics(str(tmp_path), "candidate")
    assert set(found) == {("overall", ""), ("season", "1"), ("season", "2")}
    for key, rows in ((("overall", ""), frame), (("season", "2"), frame[frame.season == 2])):
        wanted = metrics.metrics_of(metrics.sums_of(rows.label, rows.prediction))
        assert found[key] == pytest.approx({**wanted, "rows": len(rows)})
    with pytest.raises(ValueError, match="no overall metrics of the baseline"):
        evaluation.read_metrics(str(tmp_path), "baseline")


ANY_NUMBER = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-3, 3) | st.floats(0, 300)
SLICES = [("overall", "")] + [(slicing, value) for slicing, values in BINS.items() for value in values]
MEASURED = st.fixed_dictionaries(
    {
        key: st.fixed_dictionaries(
            {"rows": st.integers(0, 1000).map(float), "mae": ANY_NUMBER},
            optional=dict.fromkeys(("rmse", "rmsle", "bias", "calibration"), ANY_NUMBER),
        )
        for key in SLICES
    }
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(MEASURED, st.none() | MEASURED, ANY_NUMBER)
def test_whatever_is_measured_only_numbers_within_their_limits_pass(candidate, baseline, naive_mae):
    shipped = load_settings().evaluation
    decisions = evaluation.decide(shipped, candidate, baseline, naive_mae)
    for decision in decisions:
        assert decision.reason
        if decision.passed:
            assert math.isfinite(decision.value)
            assert decision.value <= decision.upper
            assert decision.lower is None or decision.lower <= decision.value
        if decision.slicing == "overall":
            assert decision.binding
    bound = {(d.kind, d.metric, d.slicing) for d in decisions}
    wanted = {("value", limit.metric, limit.slicing) for limit in shipped.value_thresholds} | {
        ("reference", "mae", "overall")
    }
    if baseline is not None:
        wanted |= {("change", change.metric, change.slicing) for change in shipped.change_thresholds}
    assert bound == wanted
    report = evaluation.report(shipped, decisions, candidate, baseline, {}, {"hourly mean": naive_mae}, None)
    assert report["blessed"] is not any(d.binding and not d.passed for d in decisions)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.sampled_from(SLICES), st.sampled_from(["mae", "rmse", "rmsle"]), st.floats(1.0, 20.0))
def test_a_larger_error_never_helps(key, metric, factor):
    shipped = load_settings().evaluation
    worse = measured()
    worse[key] = {**worse[key], metric: worse[key][metric] * factor}
    before = failed(evaluation.decide(shipped, measured(), measured(), 100.0))
    assert before <= failed(evaluation.decide(shipped, worse, measured(), 100.0))

"""The evaluation: TFMA's configuration, the metrics it wrote, what is decided by them, and what is not judged."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from bike_pipeline import features
from bike_pipeline.modeling import metrics, tfma_output
from bike_pipeline.modeling.decision import Decision, by_interval
from bike_pipeline.modeling.feedback_record import NO_BACKTEST, Backtest
from bike_pipeline.modeling.paired_bootstrap import DAYS_A_WEEK, Change
from bike_pipeline.modeling.slice_sums import SliceKey
from bike_pipeline.modeling.slices import OVERALL, SLICINGS, RowsBySlice
from bike_pipeline.modeling.targets import RENTALS, Target
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.storage.files import as_pattern

CANDIDATE, BASELINE = tfma_output.CANDIDATE, tfma_output.BASELINE
ROWS = "rows"

# Metrics by slice: (slicing, value) -> {metric: value, "rows": number of rows}.
SliceMetrics = dict[tuple[str, str], dict[str, float]]
# Changes against the baseline by slice and metric, where there are weeks or days enough for an interval.
SliceChanges = Mapping[tuple[str, str], Mapping[str, Change]]


def metric_set(target: type[Target] = Target) -> str:
    """Return a hash of what is measured: metrics, slicings, signature. Models compare only under the same one."""
    measured = [sorted(target.formulas), sorted(SLICINGS), features.HOUR_BANDS, features.SERVING_EXAMPLES]
    return hashlib.sha256(json.dumps(measured).encode()).hexdigest()


def eval_config(settings: EvaluationSettings, target: type[Target] = Target) -> config_pb2.EvalConfig:
    """Return TFMA's configuration: both models through the served signature, by the limits of a target's settings.

    Metrics of a count are classes by which TFMA can measure the files by itself. Those of a probability stand there by
    name, as those that a graph computes: which hour is busy is known only when the model is trained. TFMA itself
    enforces the overall thresholds, those against the baseline where they hold whatever an interval says; `decide` adds
    the intervals and the slices.
    """
    config = config_pb2.EvalConfig()
    for name in (CANDIDATE, BASELINE):
        config.model_specs.add(
            name=name,
            signature_name=features.SERVING_EXAMPLES,
            label_key=features.LABEL,
            model_type="tf_generic",
            is_baseline=name == BASELINE,
        )
    config.slicing_specs.add()
    for slicing in SLICINGS:
        config.slicing_specs.add(feature_keys=[slicing])
    spec = config.metrics_specs.add()
    spec.metrics.add(class_name="ExampleCount")
    values = {str(limit.metric): limit for limit in settings.value_thresholds if limit.slicing == OVERALL}
    changes = {str(limit.metric): limit for limit in settings.change_thresholds if limit.slicing == OVERALL}
    for name in target.formulas:
        if target.in_tfma:
            metric = metrics.METRICS[name]
            added = spec.metrics.add(
                class_name=metric.__name__, module=metric.__module__, config=json.dumps({"name": name})
            )
            limits = added.per_slice_thresholds
        else:
            limits = spec.per_slice_thresholds[name].thresholds
        if name not in values.keys() | changes.keys():
            continue
        threshold = limits.add(slicing_specs=[config_pb2.SlicingSpec()]).threshold
        if value := values.get(name):
            if math.isfinite(value.highest):
                threshold.value_threshold.upper_bound.value = value.highest
            if value.lower is not None:
                threshold.value_threshold.lower_bound.value = value.lower
        if change := changes.get(name):
            plain = change.max_increase if change.severe_increase is None else change.severe_increase
            threshold.change_threshold.relative.value = plain
            threshold.change_threshold.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
    return config


def read_metrics(evaluation_path: str, model_name: str, target: Target = RENTALS) -> SliceMetrics:
    """Return what TFMA measured for "candidate" or "baseline"; ValueError without overall metrics of it."""
    found: SliceMetrics = {}
    # TFMA knows the candidate without a baseline as "".
    names = {model_name, ""} if model_name == CANDIDATE else {model_name}
    # TFMA takes the folder for a pattern.
    for record in tfma.load_metrics(os.path.join(as_pattern(evaluation_path), tfma.METRICS_KEY)):
        key = _slice_key(record.slice_key)
        for entry in record.metric_keys_and_values:
            if entry.key.is_diff:
                continue
            value = entry.value.double_value.value
            if entry.key.name == "example_count":
                found.setdefault(key, {})[ROWS] = value
            elif entry.key.name in target.formulas and entry.key.model_name in names:
                found.setdefault(key, {})[entry.key.name] = value
    if set(found.get((OVERALL, ""), ())) != {ROWS, *target.formulas}:
        raise ValueError(f"{evaluation_path} holds no overall metrics of the {model_name}")
    return found


def key_of_slice(key: SliceKey) -> tuple[str, str]:
    """Return the key of a slice in the sums as metrics and decisions have it."""
    return key[0], "" if key[1] is None else str(key[1])


def _slice_key(key: Any) -> tuple[str, str]:
    for single in key.single_slice_keys:
        kind = single.WhichOneof("kind")
        value = getattr(single, kind)
        return single.column, value.decode() if isinstance(value, bytes) else f"{value:g}"
    return OVERALL, ""


def decide(
    settings: EvaluationSettings,
    candidate: SliceMetrics,
    baseline: SliceMetrics | None,
    naive: float,
    changes: SliceChanges | None = None,
    target: Target = RENTALS,
) -> list[Decision]:
    """Apply every threshold of the settings; the candidate passes if all binding decisions passed.

    Without a baseline change thresholds rest; `naive` is the naive baseline's error on the same rows, by the target's
    own metric: its MAE in rentals, or its log loss.
    Without `changes` the limits against the baseline hold for the plain numbers.
    """
    decisions = []

    def measured(slicing: str) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
        # A threshold on slices that were not measured must not pass unseen.
        for key in sorted(key for key in candidate if key[0] == slicing) or [(slicing, "")]:
            yield key, candidate.get(key, {})

    for limit in settings.value_thresholds:
        for key, found in measured(limit.slicing):
            value, rows, lower = found.get(limit.metric, math.nan), int(found.get(ROWS, 0)), limit.lower
            passed = value <= limit.highest and (lower is None or value >= lower) and math.isfinite(value)
            binding = not found or _has_rows(settings, key[0], rows)
            decisions.append(Decision("value", limit.metric, *key, value, lower, limit.highest, rows, binding, passed))
    compared = [
        (change, key, row, (changes or {}).get(key, {}).get(change.metric))
        for change in (settings.change_thresholds if baseline is not None else ())
        for key, row in measured(change.slicing)
    ]
    # How many limits are judged by the intervals of weeks, overall (True) and on slices.
    families = Counter(
        key[0] == OVERALL for _, key, _, interval in compared if interval and interval.days == DAYS_A_WEEK
    )
    for change, key, found, interval in compared:
        before = (baseline or {}).get(key, {}).get(change.metric, math.nan)
        value = (found.get(change.metric, math.nan) - before) / before if before else math.nan
        rows = int(found.get(ROWS, 0))
        binding = not found or _has_rows(settings, key[0], rows)
        passed = math.isfinite(value) and value <= change.max_increase
        plain = Decision("change", change.metric, *key, value, None, change.max_increase, rows, binding, passed)
        if interval is not None and math.isfinite(value):
            plain = by_interval(plain, change, interval, families[key[0] == OVERALL], settings.bootstrap)
        decisions.append(plain)
    overall, upper = candidate[OVERALL, ""], settings.max_mae_to_mean
    # A naive error that is no number is no evidence; one of zero is not beaten by anything.
    ratio = overall[target.error] / naive if naive and math.isfinite(naive) else math.nan
    rows, passed = int(overall[ROWS]), math.isfinite(ratio) and ratio <= upper
    decisions.append(Decision("reference", target.error, OVERALL, "", ratio, None, upper, rows, True, passed))
    return decisions


def interval_decisions(settings: EvaluationSettings, backtest: Backtest | None) -> list[Decision]:
    """Apply the limits on the model's intervals, by what they did on the eval split; without a backtest none passes."""
    limits, found = settings.intervals, backtest or NO_BACKTEST
    # A small split is no fault of the model; what knows no interval of a large one is.
    rows, few = found.interval_rows, 0 < found.rows < limits.min_rows
    judged = (
        ("interval_coverage", found.coverage, limits.min_coverage, limits.max_coverage),
        ("interval_width", found.width, None, limits.max_width),
    )
    return [
        Decision(
            "value", name, OVERALL, "", value, low, high, rows, not few, value <= high and (low is None or value >= low)
        )
        for name, value, low, high in judged
    ]


def _has_rows(settings: EvaluationSettings, slicing: str, rows: int) -> bool:
    return slicing == OVERALL or rows >= settings.min_rows.get(slicing, 1)  # type: ignore[call-overload]


def unjudged(
    settings: EvaluationSettings, candidate: SliceMetrics, trained: RowsBySlice, decisions: Sequence[Decision]
) -> Iterator[Decision]:
    """Yield a decision for every slice of `trained` (what training saw) that no binding limit judges.

    One that the eval split lacks fails unless the settings let it be missing: a model may be as wrong there as it
    likes, and no number would tell.
    """
    judged = {(decision.slicing, decision.slice) for decision in decisions if decision.binding}
    for slicing, values in trained.items():
        may_be_missing = {str(value) for value in settings.may_be_missing.get(slicing, ())}  # type: ignore[call-overload]
        for value in sorted(values, key=int):
            if (slicing, value) in judged:
                continue
            rows = int(candidate.get((slicing, value), {}).get(ROWS, 0))
            fewest = settings.min_rows.get(slicing, 1)  # type: ignore[call-overload]
            binding = False
            if not rows and value in may_be_missing:
                note = "absent from the eval split, as evaluation.may_be_missing allows"
            elif not rows:
                binding = True
                note = (
                    f"absent from the eval split, though training saw {values[value]:,} rows; "
                    "evaluation.may_be_missing does not allow it"
                )
            elif rows < fewest:
                note = f"fewer rows than the {fewest} of evaluation.min_rows"
            else:
                note = "no limit applies"
            yield Decision("coverage", "limits", slicing, value, 0.0, 1.0, math.inf, rows, binding, False, note)


def warnings(
    settings: EvaluationSettings, candidate: SliceMetrics, baseline: SliceMetrics | None, decisions: Sequence[Decision]
) -> list[str]:
    """Return, in words, each slice on which the candidate is much worse and which does not refuse it."""
    found = []
    for decision in decisions:
        decided = decision.binding and (not decision.passed or decision.slicing == OVERALL)
        if decision.kind != "change" or decided or not decision.value > settings.warn_increase:
            continue
        key = (decision.slicing, decision.slice)
        now, before = (part.get(key, {}).get(decision.metric, math.nan) for part in (candidate, baseline or {}))
        fewest = settings.min_rows.get(decision.slicing, 1)  # type: ignore[call-overload]
        why = f"fewer than the {fewest:,} of evaluation.min_rows, so it does not decide"
        if decision.binding and decision.low is not None:
            uncertain = "its interval holds no increase too, so it does not decide"
            why = uncertain if decision.low <= 0 else f"it decides from {decision.upper:+.0%} on"
        found.append(
            f"{features.slice_name(*key)}: {decision.metric} {now:.4g} against {before:.4g} of the baseline "
            f"({decision.value:+.0%}) on {decision.rows:,} rows; {why}: look at it before you rely on the model there"
        )
    return found


def worst_slice(
    settings: EvaluationSettings, candidate: SliceMetrics, decisions: Sequence[Decision], error: str = "mae"
) -> dict[str, Any] | None:
    """Return the slice that is judged and whose error rose most against the baseline; None where no slice is judged.

    `error` is the metric that counts. Without a baseline, the one with the largest error among those with `min_rows`.
    Its `reason` says it in words.
    """
    change = {(d.slicing, d.slice): d for d in decisions if (d.kind, d.metric) == ("change", error) and d.binding}
    change.pop((OVERALL, ""), None)
    errors = {k: v[error] for k, v in candidate.items() if k[0] != OVERALL and _has_rows(settings, k[0], int(v[ROWS]))}
    by = {key: decision.value for key, decision in change.items()} or errors
    if not by:
        return None
    key = max(by, key=lambda key: math.inf if math.isnan(by[key]) else by[key])
    row = candidate.get(key, {})
    rows, value = int(row.get(ROWS, 0)), row.get(error, math.nan)
    reason = f"{error}, {features.slice_name(*key)}: {value:.4g} on {rows:,} rows"
    found = {"slicing": key[0], "slice": key[1], "rows": rows, error: value, "change": None, "reason": reason}
    return {**found, "change": change[key].value, "reason": change[key].reason} if key in change else found


def report(
    settings: EvaluationSettings,
    decisions: list[Decision],
    candidate: SliceMetrics,
    baseline: SliceMetrics | None,
    baseline_state: Mapping[str, Any],
    naive_by_name: Mapping[str, float],
    backtest: Backtest | None,
    target: Target = RENTALS,
) -> dict[str, Any]:
    """Return all of an evaluation as plain values, for `decisions.json`; numbers may be inf or NaN.

    `naive_by_name` are the errors of the naive baselines, by the target's own metric; under the released name
    `hourly_mean_mae` stands the best MAE of them, which the candidate is held against.
    """

    def flat(measured: SliceMetrics | None) -> list[dict[str, Any]]:
        return [{"slicing": k[0], "slice": k[1], **v} for k, v in sorted((measured or {}).items())]

    naive: dict[str, Any] = {}
    if target.error == "mae":
        naive = {"hourly_mean_mae": min(naive_by_name.values(), default=math.nan), "naive_maes": dict(naive_by_name)}
    return {
        "blessed": all(decision.passed for decision in decisions if decision.binding),
        "baseline": dict(baseline_state),
        "target": target.described(),
        "naive_errors": {"metric": target.error, "by_name": dict(naive_by_name)},
        **naive,
        "backtest": backtest and {**asdict(backtest), "reason": backtest.reason},
        "confidence": settings.bootstrap.confidence,
        "worst_slice": worst_slice(settings, candidate, decisions, target.error),
        "warnings": warnings(settings, candidate, baseline, decisions),
        "decisions": [{**asdict(decision), "word": decision.word, "reason": decision.reason} for decision in decisions],
        "candidate_metrics": flat(candidate),
        "baseline_metrics": flat(baseline),
    }

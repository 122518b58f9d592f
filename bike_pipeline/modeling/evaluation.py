"""The evaluation: TFMA's configuration, the metrics it wrote, what is decided by them, and what is not judged."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from bike_pipeline import features
from bike_pipeline.modeling import metrics, tfma_output
from bike_pipeline.modeling.slices import OVERALL, SLICINGS, RowsBySlice
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.storage.files import as_pattern

CANDIDATE, BASELINE = tfma_output.CANDIDATE, tfma_output.BASELINE
ROWS = "rows"

# Metrics by slice: (slicing, value) -> {metric: value, "rows": number of rows}.
SliceMetrics = dict[tuple[str, str], dict[str, float]]


def metric_set() -> str:
    """Return a hash of what is measured: metrics, slicings, signature. Models compare only under the same one."""
    measured = [sorted(metrics.METRICS), sorted(SLICINGS), features.HOUR_BANDS, features.SERVING_EXAMPLES]
    return hashlib.sha256(json.dumps(measured).encode()).hexdigest()


def eval_config(settings: EvaluationSettings) -> config_pb2.EvalConfig:
    """Return TFMA's configuration: both models through the served signature, on raw counts.

    TFMA itself enforces the overall thresholds; `decide` adds the slices, which bind only from a number of rows on.
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
    for name, metric in metrics.METRICS.items():
        added = spec.metrics.add(
            class_name=metric.__name__, module=metric.__module__, config=json.dumps({"name": name})
        )
        threshold = added.per_slice_thresholds.add(slicing_specs=[config_pb2.SlicingSpec()]).threshold
        if value := values.get(name):
            threshold.value_threshold.upper_bound.value = value.upper
            if value.lower is not None:
                threshold.value_threshold.lower_bound.value = value.lower
        if change := changes.get(name):
            threshold.change_threshold.relative.value = change.max_increase
            threshold.change_threshold.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
    return config


def read_metrics(evaluation_path: str, model_name: str) -> SliceMetrics:
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
            elif entry.key.name in metrics.METRICS and entry.key.model_name in names:
                found.setdefault(key, {})[entry.key.name] = value
    if set(found.get((OVERALL, ""), ())) != {ROWS, *metrics.METRICS}:
        raise ValueError(f"{evaluation_path} holds no overall metrics of the {model_name}")
    return found


def _slice_key(key: Any) -> tuple[str, str]:
    for single in key.single_slice_keys:
        kind = single.WhichOneof("kind")
        value = getattr(single, kind)
        return single.column, value.decode() if isinstance(value, bytes) else f"{value:g}"
    return OVERALL, ""


@dataclass(frozen=True)
class Decision:
    """One threshold, applied.

    Attributes:
        kind: "value", "change" (against the baseline), "reference" (against the naive baseline) or "coverage" (that a
            slice is judged at all).
        metric: the metric; "limits", how many judge a slice, for "coverage".
        slice: the slice's value; "" for overall.
        value: the candidate's metric; for "change" the relative increase; for "reference" the ratio.
        binding: whether it decides; a slice with too few `rows` is reported only.
        passed: whether the value lies within the limits. A value that is missing or not a number never passes.
        note: why a slice is not judged; "" for the other kinds.
    """

    kind: str
    metric: str
    slicing: str
    slice: str
    value: float
    lower: float | None
    upper: float
    rows: int
    binding: bool
    passed: bool
    note: str = ""

    @property
    def reason(self) -> str:
        """The decision in words."""
        where = features.slice_name(self.slicing, self.slice)
        if self.note:
            return f"{where}, {self.rows} rows: not judged: {self.note}"
        limits = f"at most {self.upper:g}" if self.lower is None else f"between {self.lower:g} and {self.upper:g}"
        what = {
            "value": self.metric,
            "change": f"{self.metric} against the baseline",
            "reference": f"{self.metric} as a share of the naive baseline's",
        }[self.kind]
        value = f"{self.value:.4g}"
        if self.kind == "change":
            limits = f"at most {100 * self.upper:+g} %"
            value = f"{100 * self.value:+.1f} %" if math.isfinite(self.value) else value
        note = "" if self.binding else f" (only {self.rows} rows: reported)"
        return f"{what}, {where}: {value}, {limits}{note}"


def decide(
    settings: EvaluationSettings, candidate: SliceMetrics, baseline: SliceMetrics | None, naive_mae: float
) -> list[Decision]:
    """Apply every threshold of the settings; the candidate passes if all binding decisions passed.

    Without a baseline change thresholds rest; `naive_mae` is that of the naive baseline on the same rows, in rentals.
    """
    limits = [("value", limit.metric, limit.slicing, limit.lower, limit.upper) for limit in settings.value_thresholds]
    if baseline is not None:
        limits += [("change", c.metric, c.slicing, None, c.max_increase) for c in settings.change_thresholds]
    decisions = []
    for kind, metric, slicing, lower, upper in limits:
        # A threshold on slices that were not measured must not pass unseen.
        for key in sorted(key for key in candidate if key[0] == slicing) or [(slicing, "")]:
            measured = candidate.get(key, {})
            value, rows = measured.get(metric, math.nan), int(measured.get(ROWS, 0))
            if kind == "change" and baseline is not None:
                before = baseline.get(key, {}).get(metric, math.nan)
                value = (value - before) / before if before else math.nan
            binding = not measured or slicing == OVERALL or rows >= settings.min_rows.get(slicing, 1)
            passed = value <= upper and (lower is None or value >= lower) and math.isfinite(value)
            decisions.append(Decision(kind, metric, *key, value, lower, upper, rows, binding, passed))
    overall, upper = candidate[OVERALL, ""], settings.max_mae_to_mean
    # A naive MAE that is no number is no evidence; one of zero is not beaten by anything.
    ratio = overall["mae"] / naive_mae if naive_mae and math.isfinite(naive_mae) else math.nan
    rows, passed = int(overall[ROWS]), math.isfinite(ratio) and ratio <= upper
    decisions.append(Decision("reference", "mae", OVERALL, "", ratio, None, upper, rows, True, passed))
    return decisions


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
    """Return, in words, each slice that is too small to decide and on which the candidate is much worse."""
    found = []
    for decision in decisions:
        if decision.kind != "change" or decision.binding or decision.value <= settings.warn_increase:
            continue
        key = (decision.slicing, decision.slice)
        now, before = (part.get(key, {}).get(decision.metric, math.nan) for part in (candidate, baseline or {}))
        fewest = settings.min_rows.get(decision.slicing, 1)  # type: ignore[call-overload]
        found.append(
            f"{features.slice_name(*key)}: {decision.metric} {now:.1f} against {before:.1f} of the baseline "
            f"({decision.value:+.0%}) on {decision.rows:,} rows; fewer than the {fewest:,} of evaluation.min_rows, so "
            "it does not decide: look at it before you rely on the model there"
        )
    return found


def report(
    decisions: list[Decision],
    candidate: SliceMetrics,
    baseline: SliceMetrics | None,
    baseline_state: Mapping[str, Any],
    naive_mae: float,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return all of an evaluation as plain values, for `decisions.json`; numbers may be inf or NaN."""

    def flat(measured: SliceMetrics | None) -> list[dict[str, Any]]:
        return [{"slicing": k[0], "slice": k[1], **v} for k, v in sorted((measured or {}).items())]

    return {
        "blessed": all(decision.passed for decision in decisions if decision.binding),
        "baseline": dict(baseline_state),
        "hourly_mean_mae": naive_mae,
        "warnings": list(warnings),
        "decisions": [{**asdict(decision), "reason": decision.reason} for decision in decisions],
        "candidate_metrics": flat(candidate),
        "baseline_metrics": flat(baseline),
    }

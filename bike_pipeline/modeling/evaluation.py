"""The evaluation: TFMA's configuration, the metrics it wrote, and the decision they lead to."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from bike_pipeline import features
from bike_pipeline.modeling import metrics, saved_model, tfma_output
from bike_pipeline.modeling.slices import OVERALL, SLICINGS
from bike_pipeline.settings import EvaluationSettings
from bike_pipeline.storage.literal_paths import as_pattern

CANDIDATE, BASELINE = tfma_output.CANDIDATE, tfma_output.BASELINE
ROWS = "rows"

# Metrics by slice: (slicing, value) -> {metric: value, "rows": number of rows}.
SliceMetrics = dict[tuple[str, str], dict[str, float]]


def metric_set() -> str:
    """Return a hash of what is measured: metrics, slicings, signature. Models compare only under the same one."""
    measured = [sorted(metrics.METRICS), sorted(SLICINGS), features.HOUR_BANDS, saved_model.SERVING_EXAMPLES]
    return hashlib.sha256(json.dumps(measured).encode()).hexdigest()


def eval_config(settings: EvaluationSettings) -> config_pb2.EvalConfig:
    """Return TFMA's configuration: both models through the served signature, on raw counts.

    TFMA itself enforces the overall thresholds; `decide` adds the slices, which bind only from a number of rows on.
    """
    config = config_pb2.EvalConfig()
    for name in (CANDIDATE, BASELINE):
        config.model_specs.add(
            name=name,
            signature_name=saved_model.SERVING_EXAMPLES,
            label_key=features.LABEL,
            model_type="tf_generic",
            is_baseline=name == BASELINE,
        )
    config.slicing_specs.add()
    for slicing in SLICINGS:
        config.slicing_specs.add(feature_keys=[slicing])
    spec = config.metrics_specs.add()
    spec.metrics.add(class_name="ExampleCount")
    for name, metric in metrics.METRICS.items():
        added = spec.metrics.add(
            class_name=metric.__name__, module=metric.__module__, config=json.dumps({"name": name})
        )
        overall = config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()])
        for value in settings.value_thresholds:
            if (value.metric, value.slicing) == (name, OVERALL):
                overall.threshold.value_threshold.upper_bound.value = value.upper
                if value.lower is not None:
                    overall.threshold.value_threshold.lower_bound.value = value.lower
        for change in settings.change_thresholds:
            if (change.metric, change.slicing) == (name, OVERALL):
                overall.threshold.change_threshold.relative.value = change.max_increase
                overall.threshold.change_threshold.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
        added.per_slice_thresholds.append(overall)
    return config


def read_metrics(evaluation_path: str, model_name: str) -> SliceMetrics:
    """Return what TFMA measured for "candidate" or "baseline" (TFMA knows the candidate without a baseline as "").

    Raises:
        ValueError: there are no metrics for it, or no overall slice.
    """
    found: SliceMetrics = {}
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
        slicing: "overall" or a slicing.
        slice: the slice's value; "" for overall.
        value: the candidate's metric; for "change" the relative increase; for "reference" the ratio.
        lower: smallest passing value, or None.
        upper: largest passing value.
        rows: rows of the slice.
        binding: whether it decides; a slice with too few rows is reported only.
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


def _within(value: float, lower: float | None, upper: float) -> bool:
    return math.isfinite(value) and value <= upper and (lower is None or value >= lower)


def decide(
    settings: EvaluationSettings, candidate: SliceMetrics, baseline: SliceMetrics | None, naive_mae: float
) -> list[Decision]:
    """Apply every threshold of the settings; the candidate passes if all binding decisions passed.

    Args:
        settings: thresholds and the fewest rows of a slice that decides.
        candidate: the candidate's metrics by slice.
        baseline: the baseline's, on the same rows; None if there is no baseline, so that change thresholds rest.
        naive_mae: MAE of the naive baseline on the same rows, in rentals.
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
            passed = _within(value, lower, upper)
            decisions.append(Decision(kind, metric, *key, value, lower, upper, rows, binding, passed))
    overall, upper = candidate[OVERALL, ""], settings.max_mae_to_mean
    # A naive MAE that is no number is no evidence; one of zero is not beaten by anything.
    ratio = overall["mae"] / naive_mae if naive_mae and math.isfinite(naive_mae) else math.nan
    passed = _within(ratio, None, upper)
    decisions.append(Decision("reference", "mae", OVERALL, "", ratio, None, upper, int(overall[ROWS]), True, passed))
    return decisions


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

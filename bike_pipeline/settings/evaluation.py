"""The gate in front of serving: thresholds on metrics, overall and by slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from bike_pipeline import features
from bike_pipeline.settings.section import Count, Positive, Section
from bike_pipeline.settings.training import TargetName

Metric = Literal["mae", "rmse", "rmsle", "bias", "calibration"]
# Of a probability: those that are better the smaller they are, and shares, which are best at 1.
BusyMetric = Literal["log_loss", "brier", "auc", "precision", "recall", "f1", "calibration"]
Slicing = Literal["overall", "hour_band", "workingday", "season", "weathersit"]

# The slices of each slicing, as they are recorded.
SLICES: dict[Slicing, tuple[int, ...]] = {
    "hour_band": features.HOUR_BANDS,
    "workingday": (0, 1),
    "season": tuple(features.SEASONS),
    "weathersit": tuple(features.WEATHER),
}
# Lower is better for these; bias is best at 0 and calibration at 1, so those two are bounded on both sides.
ERROR_METRICS: tuple[Metric, ...] = ("mae", "rmse", "rmsle")
TWO_SIDED: dict[Metric, float] = {"bias": 0.0, "calibration": 1.0}


class ValueThreshold(Section):
    """The largest and smallest passing value of a metric on raw counts; `lower` is only for bias and calibration.

    `slicing` is "overall" or the name of a slicing, whose every slice with enough rows must pass.
    """

    metric: Metric
    slicing: Slicing = "overall"
    upper: float
    lower: float | None = None

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        if self.metric in ERROR_METRICS:
            if self.lower is not None:
                raise ValueError(f"{self.metric} is an error: smaller is better, so it takes `upper`, never `lower`")
            if self.upper <= 0:
                raise ValueError(f"{self.metric}: upper must be above 0")
            return self
        best = TWO_SIDED[self.metric]
        if self.lower is None or not self.lower < best < self.upper:
            raise ValueError(f"{self.metric} is best at {best:g}: it takes a `lower` below and an `upper` above that")
        return self

    @property
    def highest(self) -> float:
        """The largest passing value."""
        return self.upper


class BusyThreshold(Section):
    """The largest or smallest passing value of a metric of the probability that an hour is busy.

    `log_loss` and `brier` take an `upper`; `auc`, `precision`, `recall` and `f1`, which are best at 1, take a `lower`;
    `calibration` takes both. `slicing` is as for `ValueThreshold`.
    """

    metric: BusyMetric
    slicing: Slicing = "overall"
    upper: Annotated[float, Field(gt=0.0)] | None = None
    lower: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        wanted = {"upper"} if self.metric in ("log_loss", "brier") else {"lower"}
        if self.metric == "calibration":
            wanted.add("upper")
        if wanted != {name for name in ("lower", "upper") if getattr(self, name) is not None}:
            raise ValueError(f"{self.metric} takes {' and '.join(sorted(wanted))}, and nothing else")
        if self.metric == "calibration" and self.upper is not None and self.upper <= 1.0:
            raise ValueError("calibration is best at 1: it takes an `upper` above that")
        return self

    @property
    def highest(self) -> float:
        """The largest passing value, infinite where there is none."""
        return math.inf if self.upper is None else self.upper


class _ChangeLimit(Section):
    slicing: Slicing = "overall"
    max_increase: Annotated[float, Field(gt=-1.0, lt=1.0)]
    severe_increase: float | None = None

    @model_validator(mode="after")
    def _severe_is_more(self) -> Self:
        if self.severe_increase is not None and not self.max_increase < self.severe_increase < math.inf:
            raise ValueError(f"severe_increase must be above max_increase ({self.max_increase:g})")
        return self


class ChangeThreshold(_ChangeLimit):
    """A limit on how much worse than the baseline an error metric may be, on the same rows.

    Attributes:
        max_increase: the largest passing (candidate - baseline) / baseline. With `severe_increase` the candidate fails
            only if it is worse than that for certain, by the paired bootstrap; without, by the plain number.
        severe_increase: from which increase on a candidate fails that may only by chance be worse than the limit.
    """

    metric: Literal["mae", "rmse", "rmsle"]


class BusyChangeThreshold(_ChangeLimit):
    """The same for the probability that an hour is busy."""

    metric: Literal["log_loss", "brier"]


class BootstrapSettings(Section):
    """How sure a change against the baseline must be; see docs/decisions/0022-paired-bootstrap.md.

    Attributes:
        confidence: of the interval of each change, two-sided; a change is worse than a limit if all of it lies above.
        draws: how often the weeks are drawn.
        min_blocks: fewest weeks for an interval that decides, and fewest days for one that decides on severe changes.
    """

    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]
    draws: Annotated[int, Field(ge=100, le=100_000)]
    min_blocks: Annotated[int, Field(ge=4)]


class IntervalLimits(Section):
    """What the widest interval must hold on the eval split, each day's made of labels that had arrived before it.

    Attributes:
        min_coverage: smallest passing share of labels inside it.
        max_coverage: largest passing share; an interval that holds all says nothing.
        max_width: largest passing mean width, in rentals.
        min_rows: fewest hours with an interval that decide.
    """

    min_coverage: Annotated[float, Field(gt=0.0, lt=1.0)]
    max_coverage: Annotated[float, Field(gt=0.0, le=1.0)]
    max_width: Positive
    min_rows: Count

    @model_validator(mode="after")
    def _right_way_round(self) -> Self:
        if self.min_coverage >= self.max_coverage:
            raise ValueError("min_coverage must be below max_coverage")
        return self


class ModelCardSettings(Section):
    """How a model is explained on its card: by permuting each of its inputs.

    Attributes:
        rows: about as many rows of the eval split, spread evenly over it.
        repeats: permutations of each input.
    """

    rows: Count
    repeats: Count


class BusyLimits(Section):
    """What stands in place of the limits in rentals where the target is `busy`.

    Attributes:
        value_thresholds: absolute limits.
        change_thresholds: limits against the baseline, on `log_loss` and `brier`.
        max_log_loss_to_share: largest passing log loss as a share of that of the naive baseline, which answers how
            often the hour of such a day was busy.
    """

    value_thresholds: tuple[BusyThreshold, ...]
    change_thresholds: tuple[BusyChangeThreshold, ...]
    max_log_loss_to_share: Annotated[float, Field(gt=0.0, lt=1.0)]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        bounded = {t.metric for t in self.value_thresholds if t.slicing == "overall"}
        if missing := [name for name in get_args(BusyMetric) if name not in bounded]:
            raise ValueError(
                f"value_thresholds: no overall limit for {', '.join(missing)}; a metric without a limit gates nothing"
            )
        if {t.metric for t in self.change_thresholds if t.slicing == "overall"} != {"log_loss", "brier"}:
            raise ValueError(
                "change_thresholds: log_loss and brier need overall limits, else a worse model replaces a better one"
            )
        _each_once(self.value_thresholds, self.change_thresholds)
        return self


def _each_once(*limits: Sequence[ValueThreshold | BusyThreshold | ChangeThreshold | BusyChangeThreshold]) -> None:
    for name, thresholds in zip(("value", "change"), limits, strict=True):
        keys = [(t.metric, t.slicing) for t in thresholds]
        if len(set(keys)) != len(keys):
            raise ValueError(f"{name}_thresholds: the same metric and slicing stand there twice")


class EvaluationSettings(Section):
    """The gate in front of serving.

    Attributes:
        change_thresholds: limits against the baseline; they bind as soon as there is a baseline.
        bootstrap: how sure a change must be.
        intervals: what the model's widest interval must hold.
        max_mae_to_mean: largest passing MAE as a share of that of the naive baseline that fits the eval rows best.
        min_rows: for each slicing, the rows from which on a slice decides by the plain number; smaller ones are
            reported only, unless a change on them is certain.
        may_be_missing: for each slicing, the slices that the eval split may lack although training saw them; if it
            lacks another, the candidate is not blessed.
        busy: what holds in place of the limits above where the target is `busy`.
        warn_increase: from which (candidate - baseline) / baseline on a slice that does not decide is warned of.
    """

    value_thresholds: tuple[ValueThreshold, ...]
    change_thresholds: tuple[ChangeThreshold, ...]
    bootstrap: BootstrapSettings
    intervals: IntervalLimits
    max_mae_to_mean: Annotated[float, Field(gt=0.0, lt=1.0)]
    min_rows: dict[Slicing, Count]
    may_be_missing: dict[Slicing, tuple[int, ...]]
    warn_increase: Positive
    busy: BusyLimits

    @model_validator(mode="after")
    def _complete(self) -> Self:
        bounded = {t.metric for t in self.value_thresholds if t.slicing == "overall"}
        missing = [m for m in (*ERROR_METRICS, *TWO_SIDED) if m not in bounded]
        if missing:
            raise ValueError(
                f"value_thresholds: no overall limit for {', '.join(missing)}; a metric without a limit gates nothing"
            )
        if not {"mae", "rmse"} <= {t.metric for t in self.change_thresholds if t.slicing == "overall"}:
            raise ValueError(
                "change_thresholds: mae and rmse need overall limits, else a worse model replaces a better one"
            )
        if wrong := sorted((set(get_args(Slicing)) - {"overall"}) ^ set(self.min_rows)):
            raise ValueError(f"min_rows: it holds one number for each slicing (see to {', '.join(wrong)})")
        for slicing, values in self.may_be_missing.items():
            if unknown := sorted(set(values) - set(SLICES.get(slicing, ()))):
                known = ", ".join(str(value) for value in SLICES.get(slicing, ())) or "none: it is no slicing"
                raise ValueError(f"may_be_missing: {slicing} has no slice {unknown[0]} (it has {known})")
        _each_once(self.value_thresholds, self.change_thresholds)
        return self

    def of(self, target: TargetName) -> Self:
        """Return the gate with the limits of a target where those for rentals stand."""
        if target == "rentals":
            return self
        own = self.busy
        limits = {"value_thresholds": own.value_thresholds, "change_thresholds": own.change_thresholds}
        return self.model_copy(update={**limits, "max_mae_to_mean": own.max_log_loss_to_share})

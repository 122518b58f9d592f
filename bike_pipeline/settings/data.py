"""Where rows come from, how they are cut, and what stops a run before training."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from bike_pipeline import features
from bike_pipeline.settings.section import Count, Fraction, Positive, Section, Severity

# What the gate looks for besides TFDV's anomalies; see `data/plausibility.py`.
GateKind = Literal[
    "LABEL_NEAR_CONSTANT",
    "LABEL_WEEK_LEVEL",
    "LABEL_STEP",
    "LABEL_MONTH_LEVEL",
    "LABEL_HOUR_PROFILE",
    "WEATHER_CONSTANT",
    "WEATHER_MONTH_LEVEL",
    "WEATHER_RELATION",
    "HOURS_MISSING",
    "DAYS_MISSING",
    "GAP_TO_HISTORY",
    "REPEATED_ROWS",
    "NOT_COMPARED",
]
Factor = Annotated[float, Field(gt=1.0, lt=1e6)]


class WindowSettings(Section):
    """Which rows a run reads.

    Attributes:
        spans: of so many spans, the newest of which gives the eval split; null for all.
        days: of so many days up to the last one of the newest span, at most a century; null for all. The eval split is
            never cut.
    """

    spans: Count | None
    days: Annotated[int, Field(ge=1, le=36_500)] | None


class DataSettings(Section):
    """Where rows come from and how they are cut.

    Attributes:
        store: folder or URL of the span store; empty for `<workspace>/spans`.
        mapping: name or path of the mapping profile that an ingest reads sources by; empty for none.
        extra_columns: of an upload without a mapping, whether columns that the feature contract does not know are
            ignored and told, or refuse it, so that a source that changed is told at once.
        format: what new versions of spans are stored as; versions of either format stand side by side.
        eval_fraction: share of each span's days, counted from its end, that is the eval split (whole days).
        max_rejected_fraction: largest share of rows that may break the contract before the whole ingest is refused.
        in_memory_rows: up to so many rows a stage computes in its own process; above that, and on an engine of other
            machines always, it runs on Beam.
    """

    store: str = ""
    mapping: str = ""
    extra_columns: Literal["ignore", "refuse"] = "ignore"
    format: Literal["csv", "parquet"]
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    max_rejected_fraction: Fraction
    window: WindowSettings
    in_memory_rows: Count

    @model_validator(mode="before")
    @classmethod
    def _former_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and "history_spans" in values:
            raise ValueError("history_spans is window.spans now, which counts the newest span, too: write one more")
        return values


class GateLimits(Section):
    """What a span may differ by from its calendar and from the spans before it.

    Attributes:
        label_variation: smallest standard deviation of a split's label, as a share of its mean (LABEL_NEAR_CONSTANT).
        stuck_days: largest share of a split's days within which the label hardly varies (LABEL_NEAR_CONSTANT).
        label_week_up: largest factor by which seven days' mean label exceeds that of the two weeks on each side
            (LABEL_WEEK_LEVEL).
        label_week_down: the same for falling below it; its square if no week follows.
        label_step_up: largest factor from the label of four weeks to that of the next four (LABEL_STEP).
        label_step_down: the same downwards.
        label_month: largest factor between a month's mean label and that month of the history (LABEL_MONTH_LEVEL).
        label_profile: largest factor by which parts of the day may move apart (LABEL_HOUR_PROFILE).
        weather_month: largest mean shift of a weather column against the same months of the history, in standard
            deviations within a month; 1 / √months is added for the weather (WEATHER_MONTH_LEVEL).
        weather_relation: largest shift of a month's atemp from what temp lets expect, in standard deviations of the
            history (WEATHER_RELATION).
        hours_a_day: smallest share of a day's 24 hours that has rows, on average (HOURS_MISSING).
        hour_coverage: smallest share of the days on which each hour of the day has a row (HOURS_MISSING).
        days_present: smallest share of the days between a span's first and last that have rows (DAYS_MISSING).
        gap_days: most days in a row without rows, in a span (DAYS_MISSING) and before it (GAP_TO_HISTORY).
        repeated_rows: largest share of rows that stand under other dates already (REPEATED_ROWS).
    """

    label_variation: Fraction
    stuck_days: Fraction
    label_week_up: Factor
    label_week_down: Factor
    label_step_up: Factor
    label_step_down: Factor
    label_month: Factor
    label_profile: Factor
    weather_month: Positive
    weather_relation: Positive
    hours_a_day: Fraction
    hour_coverage: Fraction
    days_present: Fraction
    gap_days: Annotated[int, Field(ge=0)]
    repeated_rows: Fraction


class GateSettings(Section):
    """What stops a run before training.

    Attributes:
        default_severity: severity of an anomaly that the table does not name.
        severities: severity by anomaly type (TFDV's or one of `GateKind`), by feature, or by `feature:TYPE` (the most
            precise entry wins).
        min_rows: fewest rows by split; a split with fewer is an error.
    """

    default_severity: Severity
    severities: dict[str, Severity]
    min_rows: dict[Literal["train", "eval"], Count]
    limits: GateLimits

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        types = {*anomalies_pb2.AnomalyInfo.Type.keys(), *get_args(GateKind)}
        for key in self.severities:
            feature, _, kind = key.rpartition(":")
            known = kind in types and (not feature or feature in features.BY_NAME)
            if not known and key not in features.BY_NAME:
                raise ValueError(f"severities: '{key}' is neither a feature, an anomaly type nor feature:TYPE")
        if set(self.min_rows) != {"train", "eval"}:
            raise ValueError("min_rows must name the train and the eval split")
        return self

"""Where rows come from, how they are cut, and what stops a run before training."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline import features
from bike_pipeline.settings.section import Count, Fraction, Section, Severity


class DataSettings(Section):
    """Where rows come from and how they are cut.

    Attributes:
        store: folder or URL of the span store; empty for `<workspace>/spans`.
        format: what new versions of spans are stored as; versions of either format stand side by side.
        eval_fraction: share of each span's days, counted from its end, that is the eval split (whole days).
        max_rejected_fraction: largest share of rows that may break the contract before the whole ingest is refused.
        history_spans: how many spans before the newest one are trained on as well.
        in_memory_rows: up to so many rows a stage computes in its own process; above that, and on an engine of other
            machines always, it runs on Beam.
    """

    store: str = ""
    format: Literal["csv", "parquet"]
    eval_fraction: Annotated[float, Field(gt=0.0, lt=1.0)]
    max_rejected_fraction: Fraction
    history_spans: Annotated[int, Field(ge=0)]
    in_memory_rows: Count


class GateSettings(Section):
    """What stops a run before training.

    Attributes:
        default_severity: severity of an anomaly that the table does not name.
        severities: severity by TFDV's anomaly type, by feature, or by `feature:TYPE` (the most precise entry wins).
        min_rows: fewest rows by split; a split with fewer is an error.
    """

    default_severity: Severity
    severities: dict[str, Severity]
    min_rows: dict[Literal["train", "eval"], Count]

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        types = set(anomalies_pb2.AnomalyInfo.Type.keys())
        for key in self.severities:
            feature, _, kind = key.rpartition(":")
            known = kind in types and (not feature or feature in features.BY_NAME)
            if not known and key not in features.BY_NAME:
                raise ValueError(f"severities: '{key}' is neither a feature, a TFDV anomaly type nor feature:TYPE")
        if set(self.min_rows) != {"train", "eval"}:
            raise ValueError("min_rows must name the train and the eval split")
        return self

"""How the model is watched: which requests are kept, and what makes a change one that is told."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Fraction, Positive, Section


class RequestLogSettings(Section):
    """Which requests the embedded server keeps, and how much room they may take.

    Attributes:
        enabled: whether requests are kept at all.
        path: folder of the log; empty for `<workspace>/monitoring/requests`.
        sample: share of the requests that are kept; a request is kept whole or not at all.
        per_second: about so many requests are kept in a second; where more come, a smaller share. 0: any number.
        rows_per_request: most rows of one request that are kept.
        file_megabytes: size at which a file is closed and the next one begun.
        files: most files that are kept; the oldest goes first.
    """

    enabled: bool = True
    path: str = ""
    sample: Fraction = 1.0
    per_second: Annotated[int, Field(ge=0)] = 500
    rows_per_request: Count = 100
    file_megabytes: Positive = 64.0
    files: Annotated[int, Field(ge=2)] = 16


class DecisionSettings(Section):
    """What makes a change one that is told (see `monitoring.verdicts`).

    Attributes:
        fewest_rows: with fewer rows in a window, or in what it is compared with, nothing is judged.
        false_discovery_rate: of the changes that are told, the share that may be accidents.
        windows: newest windows of which `persistent_windows` must show a change.
        persistent_windows: how many of them.
    """

    fewest_rows: Count = 24
    false_discovery_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    windows: Count = 3
    persistent_windows: Count = 2

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.persistent_windows > self.windows:
            raise ValueError("persistent_windows is more than windows: nothing would ever be told")
        return self


class DetectorSettings(Section):
    """The smallest changes that matter (see `monitoring.detectors`).

    Attributes:
        temperature: in °C, of temp and atemp.
        humidity: in % of relative humidity.
        wind: in km/h.
        index: of the population stability index.
        divergence: of the Jensen-Shannon divergence, in bits.
        distance: by Kolmogorov and Smirnov.
        code_index, code_divergence: the first two of the calendar and of kinds of weather.
        separation: by how much the domain classifier's AUC is above 0.5.
        level: of the level of the label against the answers, as a share.
        error: of the mean error, in rentals an hour.
        coverage: by how much the share of labels inside their interval is off.
        faulty_share: of rows with a fault that is certain.
        outlier_share: of rows that are unlike all of training.
        jump: of answers between rows that differ by less than any sensor reads, as a share.
        agreement: how far weather of one hour may differ among its requests, by feature, in the feature's unit.
        label_age_days, model_age_days: age from which labels and the model are too old.
    """

    temperature: Positive = 8.5
    humidity: Positive = 18.5
    wind: Positive = 6.0
    index: Positive = 3.0
    divergence: Fraction = 0.4
    distance: Fraction = 0.6
    code_index: Positive = 1.0
    code_divergence: Fraction = 0.2
    separation: Fraction = 0.3
    level: Fraction = 0.05
    error: Positive = 20.0
    coverage: Fraction = 0.1
    faulty_share: Fraction = 0.02
    outlier_share: Fraction = 0.1
    jump: Fraction = 0.5
    agreement: dict[str, Positive] = Field(
        default_factory=lambda: {"temp": 2.0, "atemp": 3.0, "hum": 12.0, "windspeed": 7.0}
    )
    label_age_days: Positive = 14.0
    model_age_days: Positive = 400.0


class HarmSettings(Section):
    """What a change may cost before something is done about it (see `monitoring.harm` and `monitoring.remedies`).

    Attributes:
        tolerated_share: of the error that the reference lets expect; more than that is harm, and a gain worth having.
    """

    tolerated_share: Fraction = 0.1


class MonitoringSettings(Section):
    """How the model is watched.

    Attributes:
        path: folder of what the monitor keeps; empty for `<workspace>/monitoring`.
    """

    path: str = ""
    request_log: RequestLogSettings = RequestLogSettings()
    decision: DecisionSettings = DecisionSettings()
    detectors: DetectorSettings = DetectorSettings()
    harm: HarmSettings = HarmSettings()

"""When our detectors say what: looks at a year day by day, and at a fault every three hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from benchmarks.monitoring.traffic import Columns, Episode
from bike_pipeline.modeling.label_update import moment
from bike_pipeline.monitoring.columns import Window
from bike_pipeline.monitoring.detectors import (
    DETECTORS,
    data_faults,
    distributions,
    domain_classifier,
    feed_faults,
    outliers,
    skew,
)
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement, decide
from bike_pipeline.settings.monitoring import MonitoringSettings

WEEK, DAY = 7, 1
LOOK_HOURS = 3
LABEL_DELAY_DAYS = 1
WITH_LABELS = ("concept drift", "model")
FAULTS = (data_faults.measure, feed_faults.measure)
FEATURES = (distributions.measure, domain_classifier.measure, outliers.measure)


class Told(NamedTuple):
    """A verdict that something has changed: when it is told, and of what."""

    at: datetime
    kind: str
    detector: str
    subject: str
    reason: str


def _window(last_hour: int, days: int) -> Window:
    return datetime.fromisoformat(moment(last_hour - days * 24 + 1)), datetime.fromisoformat(moment(last_hour))


def _decided(measured: Iterable[Measurement], settings: MonitoringSettings) -> list[Told]:
    found = []
    for verdict in decide(measured, settings.decision):
        if verdict.status == "changed":
            late = timedelta(days=LABEL_DELAY_DAYS if verdict.meta["kind"] in WITH_LABELS else 0)
            names = (verdict.meta[name] for name in ("kind", "detector", "subject"))
            found.append(Told(verdict.meta["last"] + timedelta(hours=1) + late, *names, verdict.data["reason"]))
    return found


def year(observed: Columns, reference: Reference, settings: MonitoringSettings, days: int = 366) -> list[Told]:
    """Return what is told at the end of each day of the last three weeks, and of faults in the last day.

    Features are looked at once a week, as their windows are weeks.
    """
    first = int(observed["hour"].min())
    ends = [first + day * 24 - 1 for day in range(WEEK, days + 1)]
    measured: dict[datetime, list[Measurement]] = {}
    for measure in DETECTORS:
        # The spans hold none of the second year's hours.
        if measure is skew.measure:
            continue
        length = DAY if measure in FAULTS else WEEK
        chosen = ends[:: WEEK if measure in FEATURES else 1]
        windows = [_window(end, length) for end in chosen]
        for one in measure(observed, reference, windows, settings.detectors):
            measured.setdefault(one.last, []).append(one)
    found = []
    for end in ends:
        last = _window(end, DAY)[1]
        back = [last - timedelta(days=WEEK * count) for count in reversed(range(settings.decision.windows))]
        newest = {(one.detector, one.subject) for one in measured[last]}
        every = [one for moment in back for one in measured.get(moment, [])]
        found += _decided([one for one in every if (one.detector, one.subject) in newest], settings)
    return found


def delay(episode: Episode, reference: Reference, settings: MonitoringSettings, hours: int) -> tuple[float | None, str]:
    """Return hours from the beginning of a fault until it is told, None if it is not within `hours`, and by whom."""
    looks = [episode.start + after for after in range(LOOK_HOURS, hours + 1, LOOK_HOURS)]
    usual = [episode.start - 24 * back for back in (3, 2, 1, 0)]
    windows = [_window(end - 1, DAY) for end in (*usual, *looks)]
    measured: list[Measurement] = []
    for detector in (data_faults, feed_faults):
        measured += detector.measure(episode.rows, reference, windows, settings.detectors)
    for end in looks:
        last = datetime.fromisoformat(moment(end - 1))
        told = _decided([one for one in measured if one.last == last], settings)
        if told:
            return float(end - episode.start), told[0].detector
    return None, ""


def pages(told: Sequence[Told], quiet_days: int = 7) -> list[Told]:
    """Return the first of each row of verdicts of a kind: what wakes somebody, as Alertmanager groups it."""
    newest: dict[str, datetime] = {}
    found = []
    for one in sorted(told):
        if one.kind not in newest or one.at - newest[one.kind] > timedelta(days=quiet_days):
            found.append(one)
        newest[one.kind] = one.at
    return found

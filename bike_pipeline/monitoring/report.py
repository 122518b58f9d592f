"""What the monitor found, as one record: verdicts, what they cost and why, the time line, and what is missing.

The record is kept as JSON, hashed, one file a run of the monitor; the page, `monitor status`, metrics and triggers read
the newest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from bike_pipeline.errors import MonitoringError
from bike_pipeline.monitoring.timeline import Day, Event, drawing
from bike_pipeline.monitoring.verdicts import STATUSES, Measurement, Status, Verdict, decide
from bike_pipeline.pages import render
from bike_pipeline.settings.monitoring import DecisionSettings
from bike_pipeline.storage.atomic_files import replace_file
from bike_pipeline.storage.plain_json import finite

FORMAT = 1
FOLDER = "reports"
_NAME, _TOLERATED = "%Y%m%dT%H%M%S%f", timedelta(hours=1)
# Causes of `attribution`, to follow "since".
_SINCE = {
    "inputs moved": "the inputs moved",
    "level moved": "the level moved",
    "pattern moved": "the pattern of hours and days moved",
    "data fault": "the data are faulty",
}


@dataclass(frozen=True)
class Lights:
    """One status for each subject and window, as it was judged then.

    Attributes:
        windows: the last day of each window, rising.
        subjects: by subject, the worst status of its detectors in each window; None where nothing measured it.
    """

    windows: tuple[str, ...]
    subjects: Mapping[str, tuple[Status | None, ...]]


@dataclass(frozen=True)
class MonitorReport:
    """What the monitor found. Times without a zone are local.

    Attributes:
        at: when it looked, UTC.
        first: the first moment of the newest window.
        last: its last moment.
        version: the version that serves; None if none does.
        status: the worst of the verdicts; "not judged" if nothing could be.
        verdicts: `Verdict`s as plain values, the worst first.
        rows: answers of the window.
        hours: hours of the window by state: predicted, waiting, known, corrected.
        log: what came of the log lines, by reason.
        lights: `Lights` as plain values.
        days: `Day`s of the time line as plain values.
        events: `Event`s of the time line as plain values.
        attribution: whence a change of error comes (see `attribution`); None if there is none.
        remedies: what helps and by how much, the best first.
        missing: evidence that was not there, in words.
    """

    at: datetime
    first: datetime
    last: datetime
    version: int | None
    status: Status
    verdicts: Sequence[Mapping[str, Any]]
    rows: int
    hours: Mapping[str, int]
    log: Mapping[str, int]
    lights: Mapping[str, Any]
    days: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()
    attribution: Mapping[str, Any] | None = None
    remedies: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[str] = field(default_factory=tuple)


def lights_of(measurements: Iterable[Measurement], settings: DecisionSettings) -> Lights:
    """Return what would have been said of each subject at the end of each window."""
    every = list(measurements)
    ends = sorted({one.last for one in every})
    found: dict[str, list[Status | None]] = {one.subject: [None] * len(ends) for one in every}
    for place, end in enumerate(ends):
        until = [one for one in every if one.last <= end]
        for verdict in decide(until, settings):
            if verdict.meta["last"] == end:
                row = found[verdict.meta["subject"]]
                row[place] = worst([verdict.status, *([row[place]] if row[place] else [])])
    return Lights(tuple(f"{end:%Y-%m-%d}" for end in ends), {name: tuple(row) for name, row in found.items()})


def worst(statuses: Iterable[Status | None]) -> Status:
    """Return the worst of statuses; "not judged" if there are none, since no evidence is never fine."""
    found = [status for status in statuses if status is not None]
    return max(found, key=STATUSES.index) if found else "not judged"


def overall(verdicts: Sequence[Verdict]) -> Status:
    """Return what all verdicts come to: changed if one is, fine or harmless if all that was judged is.

    Subjects that were not judged are told one by one; only where nothing was judged is the whole not judged.
    """
    judged = [verdict.status for verdict in verdicts if verdict.status != "not judged"]
    return worst(judged)


def in_order(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Return verdicts, the worst first, and of one status those that cost most."""

    def key(verdict: Verdict) -> tuple[int, float, float]:
        harm = (verdict.data.get("harm") or {}).get("rentals_a_day") or 0.0
        effect, least = abs(verdict.data.get("effect") or 0.0), verdict.data.get("minimum") or 1.0
        return -STATUSES.index(verdict.status), -harm, -effect / least

    return sorted(verdicts, key=key)


def write(report: MonitorReport, folder: Path) -> Path:
    """Write a report into a folder of its own kind, as one file with its hash; return the file."""
    content = plain({"format": FORMAT, **asdict(report)})
    sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    sealed = json.dumps({"sha256": sha256, "report": content}, indent=1)
    target = folder / FOLDER / f"{report.at:{_NAME}}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_file(target, sealed.encode())
    return target


def plain(value: Any) -> Any:
    """Return a value as it will be read again: times and days in ISO 8601, lists, numbers that are finite."""
    return json.loads(json.dumps(finite(value), default=_text))


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def newest(folder: Path) -> MonitorReport | None:
    """Return the newest report in a folder; None if there is none.

    One of the future counts only if there is no other: a clock that was wrong once must not hide all later reports.

    Raises:
        MonitoringError: its file was changed or cannot be read.
    """
    files = sorted((folder / FOLDER).glob("*.json"))
    # Another machine's clock may be some minutes fast.
    now = f"{datetime.now(UTC) + _TOLERATED:{_NAME}}"
    return read(max(files, key=lambda file: (file.stem <= now, file.stem))) if files else None


def read(file: Path) -> MonitorReport:
    """Return the report in a file that `write` made.

    Raises:
        MonitoringError: it was changed since, or another release wrote it.
    """
    try:
        sealed = json.loads(file.read_bytes())
        content = sealed["report"]
        text = json.dumps(content, sort_keys=True)
        if hashlib.sha256(text.encode()).hexdigest() != sealed["sha256"]:
            raise ValueError("its hash is another")
        if content.pop("format") != FORMAT:
            raise ValueError("another release wrote it")
        moments = {name: datetime.fromisoformat(content[name]) for name in ("at", "first", "last")}
        return MonitorReport(**{**content, **moments})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MonitoringError(
            f"the monitor's report cannot be believed ({error})",
            where=str(file),
            fix="call `bike-pipeline monitor run`",
        ) from None


def headline(report: MonitorReport) -> str:
    """Return the verdict in a sentence: what has changed, what it costs, whence, and what helps most."""
    changed = [v for v in report.verdicts if v["data"]["status"] == "changed"]
    if report.status == "not judged":
        return "Not judged: there is not enough to look at."
    if not changed:
        harmless = [v["meta"]["subject"] for v in report.verdicts if v["data"]["status"] == "harmless"]
        return f"Changed, and harmless: {_listed(harmless)}." if harmless else "Nothing has changed."
    told = f"Changed: {_listed([v['meta']['subject'] for v in changed])}"
    if report.attribution:
        cost = amount(report.attribution.get("harm"))
        told += f"; it costs {cost} rentals a day, mostly since {_SINCE[report.attribution['cause']]}"
    best = report.remedies[0] if report.remedies else None
    helps = ""
    if best:
        gain = f" What helps most: {best['remedy']}, {amount(best['gain'])} rentals a day."
        helps = " No remedy is certain to help." if best["remedy"] == "nothing" else gain
    return f"{told}.{helps}"


def amount(found: Mapping[str, Any] | None) -> str:
    """Return rentals a day with their interval, as pages and tables tell them."""
    if not found or found.get("rentals_a_day") is None:
        return "not known"
    between = f" ({found['low']:+,.0f} to {found['high']:+,.0f})" if found.get("low") is not None else ""
    return f"{found['rentals_a_day']:+,.0f}{between}"


def _listed(names: Sequence[str], most: int = 4) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(unique[:most]) + more


def as_page(report: MonitorReport) -> str:
    """Return a report as one HTML page that needs no network."""
    days = [Day(**{**day, "day": date.fromisoformat(str(day["day"]))}) for day in report.days]
    events = [Event(**{**event, "at": datetime.fromisoformat(str(event["at"]))}) for event in report.events]
    return render(
        "monitor.html",
        title=f"The model from {report.first:%Y-%m-%d %H:%M} to {report.last:%Y-%m-%d %H:%M}",
        it=report,
        headline=headline(report),
        amount=amount,
        line=drawing(days, events),
        events=events,
    )

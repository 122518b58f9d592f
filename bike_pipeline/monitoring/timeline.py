"""One time line: how wrong the answers were each day and which version gave them, with all that happened to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bike_pipeline.lineage.store.entities import PushedModel, RunRecord
from bike_pipeline.model_registry.deployment import Change
from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY

EventKind = Literal["trigger", "refusal", "promotion", "rollback", "feedback", "rollout"]
# Of the drawing, in pixels.
_WIDTH, _HEIGHT, _MARKS, _AXIS = 960, 220, 28, 20
# Versions are told apart by so many colours; the next one begins anew.
COLOURS = 6


@dataclass(frozen=True)
class Day:
    """A day that was asked about.

    Attributes:
        day: the day of the hours, not of the requests.
        version: the version that answered most of its rows.
        rows: answers.
        known: those whose label has arrived.
        mae: mean absolute error of these, in rentals an hour; None while all wait.
    """

    day: date
    version: int
    rows: int
    known: int
    mae: float | None


@dataclass(frozen=True)
class Event:
    """Something that happened to the model.

    Attributes:
        at: when, UTC.
        kind: what.
        title: it in a few words.
        detail: the reason on record.
        evidence: the command that shows all of it.
    """

    at: datetime
    kind: EventKind
    title: str
    detail: str
    evidence: str


def days_of(columns: Mapping[str, npt.NDArray[Any]]) -> list[Day]:
    """Return the days of observations (see `observations`), rising; rows whose day is not known are left out."""
    hours = np.asarray(columns["hour"], np.int64)
    placed = hours >= 0
    numbers = hours[placed] // HOURS_A_DAY
    versions, labels = np.asarray(columns["version"])[placed], np.asarray(columns["label"], np.float64)[placed]
    errors = np.abs(np.asarray(columns["answer"], np.float64)[placed] - labels)
    found = []
    order = np.argsort(numbers, kind="stable")
    days, starts = np.unique(numbers[order], return_index=True)
    for number, rows in zip(days, np.split(order, starts[1:]) if len(days) else (), strict=True):
        known = rows[np.isfinite(errors[rows])]
        answered, counts = np.unique(versions[rows], return_counts=True)
        mae = float(errors[known].mean()) if len(known) else None
        day = (FIRST_DAY + int(number)).astype(date)
        found.append(Day(day, int(answered[counts.argmax()]), len(rows), len(known), mae))
    return found


def events_of(
    changes: Iterable[Change],
    runs: Iterable[RunRecord],
    pushes: Iterable[PushedModel],
    triggered: Mapping[str, Sequence[Event]] | None = None,
) -> list[Event]:
    """Return what happened, oldest first: from the promotion log, the runs and the pushes of a workspace.

    `triggered` is what the ledger of triggers tells, by the pipeline's run that it came to, or "".
    """
    told = triggered or {}
    found = [event for events in told.values() for event in events]
    updated = {push.version: push.feedback for push in pushes if push.feedback}
    for change in changes:
        at, version = datetime.fromisoformat(change.at), change.to_version
        if change.action == "promote" and version in updated:
            labels = updated[version]["labels"]
            detail = f"{labels['rows']} labels up to {labels['last'].replace('T', ' ')}; {change.reason}"
            found.append(Event(at, "feedback", f"version {version} knows newer labels", detail, "feedback show"))
        elif change.action == "promote":
            found.append(Event(at, "promotion", f"version {version} serves", change.reason, "history"))
        elif change.action == "rollback":
            title = f"back to version {version} from {change.from_version}"
            found.append(Event(at, "rollback", title, change.reason, "history"))
        elif change.action == "shift":
            what = "are copied to" if change.label == "shadow" else "go to"
            title = f"{change.share:g} % of the requests {what} version {version}, the {change.label}"
            found.append(Event(at, "rollout", title, change.reason, "history"))
        elif change.action == "abort":
            title = f"version {version} is no longer the {change.label}"
            found.append(Event(at, "rollback", title, change.reason, "history"))
        elif change.action == "refuse":
            found.append(Event(at, "refusal", f"version {version} may not serve", change.reason, "history"))
    for run in runs:
        if run.run_id in told:
            continue
        evidence = f"explain-run {run.run_id}"
        span = f"span {run.span} version {run.version}" if run.span else "no data"
        found.append(Event(run.started, "trigger", f"a run on {span}", run.outcome or run.state, evidence))
        if run.outcome.startswith("not blessed") or run.state == "failed":
            ended = run.started + timedelta(seconds=sum(stage.seconds for stage in run.stages))
            found.append(Event(ended, "refusal", f"run {run.run_id} made no model", run.outcome, evidence))
    return sorted(found, key=lambda event: event.at)


def drawing(days: Sequence[Day], events: Sequence[Event]) -> dict[str, Any]:
    """Return where everything of the time line stands, in pixels, for its template.

    `bars` have x, y, width, height, the colour of their version, whether they wait, and words; `marks` have x, the
    number of their event, its kind, words, and whether it lies outside of the days; `ticks` are x and words of the
    axes, `versions` the colours of the legend.
    """
    versions = sorted({day.version for day in days})
    colours = {version: number % COLOURS for number, version in enumerate(versions)}
    first = days[0].day if days else date(2011, 1, 1)
    count = ((days[-1].day - first).days if days else 0) + 1
    step = _WIDTH / count
    largest = max((day.mae for day in days if day.mae is not None), default=0.0) or 1.0
    top, bottom = _MARKS, _HEIGHT - _AXIS
    bars = []
    for day in days:
        height = (bottom - top) * (day.mae or 0.0) / largest if day.mae is not None else 6.0
        about = f"MAE {day.mae:,.1f}" if day.mae is not None else "waiting for labels"
        bars.append(
            {
                "x": f"{(day.day - first).days * step:.2f}",
                "y": f"{bottom - height:.2f}",
                "width": f"{max(step * 0.9, 0.8):.2f}",
                "height": f"{height:.2f}",
                "colour": colours[day.version],
                "waiting": day.mae is None,
                "words": f"{day.day}: {about}, {day.known} of {day.rows} labels known, version {day.version}",
            }
        )
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    marks = []
    for number, event in enumerate(events, 1):
        place = (event.at - begin).total_seconds() / 86_400 * step
        marks.append(
            {
                "x": f"{min(max(place, 6.0), _WIDTH - 6.0):.2f}",
                "number": number,
                "kind": event.kind,
                "words": f"{event.kind}: {event.title}",
                "outside": not 0 <= place <= _WIDTH,
            }
        )
    months = [first + timedelta(days=n) for n in range(count) if (first + timedelta(days=n)).day == 1]
    every = max(1, -(-len(months) // 12))
    ticks = [
        {"x": f"{(day - first).days * step:.2f}", "words": f"{day:%b %Y}" if day.month == 1 else f"{day:%b}"}
        for day in months[::every]
    ]
    return {
        "bars": bars,
        "marks": marks,
        "ticks": ticks or [{"x": "0", "words": str(first)}],
        "largest": largest,
        "versions": [(version, colours[version]) for version in versions],
        "width": _WIDTH,
        "height": _HEIGHT,
        "top": top,
        "bottom": bottom,
    }

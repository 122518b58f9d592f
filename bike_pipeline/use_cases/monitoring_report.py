"""One look at the model that serves: what has changed, what it costs, whence it comes, what helps, on one page."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError, ChangedError, MonitoringError, NotJudgedError

if TYPE_CHECKING:
    from bike_pipeline.monitoring.columns import Columns, Window
    from bike_pipeline.monitoring.reference import Reference
    from bike_pipeline.monitoring.report import MonitorReport
    from bike_pipeline.monitoring.timeline import Event
    from bike_pipeline.settings import Settings

# Windows that the page's table shows, the newest last.
_WINDOWS = 8
# The time line ends with the newest window and begins at most so long before.
_LINE_DAYS = 400
# What detectors look back on at most: the weeks that feedback learns from.
_LEARNT_DAYS = 56
# Of very much traffic some requests tell as much as all.
_MOST_ROWS = 50_000
REPORT_PAGE = "monitor.html"


@dataclass(frozen=True)
class MonitorRun:
    """A look at the model.

    Attributes:
        report: what was found.
        headline: it in a sentence.
        file: the report on record.
        page: the page.
    """

    report: MonitorReport
    headline: str
    file: Path
    page: Path

    def require_sound(self) -> None:
        """Raise what the verdict is, unless it is fine or harmless.

        Raises:
            ChangedError: something has changed, and that costs something or is not known to cost nothing.
            NotJudgedError: nothing could be judged.
        """
        if self.report.status == "changed":
            raise ChangedError(
                "something has changed, and that costs something or may",
                where=str(self.page),
                fix="the page says what helps",
            )
        if self.report.status == "not judged":
            missing = self.report.missing[0] if self.report.missing else "no window has enough rows"
            raise NotJudgedError("nothing could be judged", where=str(self.page), fix=f"what is missing: {missing}")


def run(
    settings: Settings, *, window_days: float = 7.0, until: datetime | None = None, output: Path | None = None
) -> MonitorRun:
    """Take in the request log, look at the newest window of what was asked and at those before it, and write a page.

    The same is written as metrics for Prometheus (see `monitoring.exposition`).

    Args:
        settings: the settings.
        window_days: length of a window, in days.
        until: where the newest window ends, local; by default behind the newest hour that was asked about and is over.
        output: the page; by default <workspace>/reports/monitor.html.

    Raises:
        DataError: the spans or what the monitor keeps are damaged.
        MetadataError: the look cannot be recorded.
        MissingExtraError: the extra `monitoring` is not installed.
    """
    from bike_pipeline.monitoring import exposition
    from bike_pipeline.monitoring import report as reports
    from bike_pipeline.storage.atomic_files import replace_file

    found = _look(settings, window_days, until)
    file = reports.write(found, settings.monitoring_path)
    exposition.write(settings.monitoring_path, exposition.MONITOR_FILE, exposition.of_report(found))
    page = output or settings.workspace_path / "reports" / REPORT_PAGE
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(page, reports.as_page(found).encode())
    _record(settings, found, file)
    return MonitorRun(found, reports.headline(found), file, page)


def _record(settings: Settings, found: MonitorReport, file: Path) -> None:
    """Write the look down beside the version that serves, so that its lineage tells of it."""
    from bike_pipeline.lineage.store.monitor_looks import record_look
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.monitoring.report import headline
    from bike_pipeline.use_cases.lineage import lineage_of

    if found.version is None:
        return
    counts = Counter(one["data"]["status"] for one in found.verdicts)
    about = {name: f"{at:%Y-%m-%dT%H:%M}" for name, at in (("first", found.first), ("last", found.last))}
    about |= {"status": found.status, "headline": headline(found), "report": str(file)}
    about["verdicts"] = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    about["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    record_look(lineage_of(settings), ModelRegistry(settings.serving_path).uri(found.version), about)


def status(settings: Settings) -> MonitorReport:
    """Return what the monitor found when it looked last.

    Raises:
        MonitoringError: it never did, or the record was changed since.
    """
    from bike_pipeline.monitoring import report as reports

    found = reports.newest(settings.monitoring_path)
    if found is None:
        raise MonitoringError(
            "the monitor has not looked yet",
            where=str(settings.monitoring_path),
            fix="call `bike-pipeline monitor run`",
        )
    return found


def _look(settings: Settings, window_days: float, until: datetime | None) -> MonitorReport:
    import numpy as np

    from bike_pipeline.monitoring import report as reports
    from bike_pipeline.monitoring.assessment import assess
    from bike_pipeline.monitoring.columns import rows_in
    from bike_pipeline.monitoring.detectors import measure_all
    from bike_pipeline.monitoring.timeline import days_of
    from bike_pipeline.monitoring.verdicts import decide
    from bike_pipeline.use_cases import monitoring

    progress.report(0.0, "reading the request log")
    ingested = monitoring.ingest(settings)
    store, now, missing = monitoring.observation_store(settings), datetime.now(UTC), list[str]()
    windows = _windows(until or _behind_newest(store.hours(now=now)), window_days)
    end = windows[-1][1]
    # Before anything large is imported: of all traffic, these take the most memory.
    days = days_of(store.columns(end - timedelta(days=_LINE_DAYS), end, ("hour", "version", "answer")))
    rows, states = len(store.columns(*windows[-1], ("hour",))["hour"]), store.hours(*windows[-1])["state"]
    observed = store.columns(min(windows[0][0], end - timedelta(days=_LEARNT_DAYS)), end, most=_MOST_ROWS)
    if not len(observed["hour"]):
        looked_at = f"the windows up to {end:%Y-%m-%d %H:%M} or the {_LEARNT_DAYS} days before it"
        missing.append(f"no answered request asks about {looked_at}; the log is {ingested.log}")
    progress.report(0.2, "reading the reference")
    reference = reference_of(settings, missing)
    # The newest window counts without rows as well: that nobody asks is something to tell.
    windows = [*(window for window in windows[:-1] if len(rows_in(observed, window)["hour"])), windows[-1]]
    progress.report(0.3, "measuring")
    section = settings.monitoring
    measurements = measure_all(observed, reference, windows, section.detectors)
    verdicts = decide(measurements, section.decision)
    progress.report(0.7, "asking what it costs, and why")
    assessed = assess(verdicts, observed, reference, windows[-1], section.harm)
    missing += [assessed.missing] if assessed.missing else []
    verdicts = reports.in_order(assessed.verdicts)
    return reports.MonitorReport(
        at=now,
        first=windows[-1][0],
        last=windows[-1][1],
        version=reference.version,
        status=reports.overall(verdicts),
        verdicts=reports.plain([{"data": dict(one.data), "meta": dict(one.meta)} for one in verdicts]),
        rows=rows,
        hours={str(state): int((states == state).sum()) for state in np.unique(states)},
        log=_log_counts(ingested.requests),
        lights=reports.plain(asdict(reports.lights_of(measurements, section.decision))),
        days=reports.plain([asdict(day) for day in days]),
        events=reports.plain([asdict(event) for event in _events(settings, missing)]),
        **reports.plain(assessed.plain()),
        missing=missing,
    )


def _behind_newest(hours: Mapping[str, Any]) -> datetime:
    """Return the moment behind the newest hour that is over, or, where none is, behind the newest one."""
    from bike_pipeline.modeling.label_update import moment

    if not len(hours["hour"]):
        return datetime.now(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    # Who asks about next week, or by mistake about another century, must not move the window to where no label is.
    over = hours["hour"][hours["state"] != "predicted"]
    return datetime.fromisoformat(moment(int((over if len(over) else hours["hour"]).max()) + 1))


def _windows(until: datetime, days: float) -> list[Window]:
    """Return windows of some days by their first and last hour, rising; no hour that has begun at `until`."""
    until = until.replace(minute=0, second=0, microsecond=0)
    ends = [until - timedelta(days=days * back) for back in reversed(range(_WINDOWS))]
    return [(end - timedelta(days=days), end - timedelta(hours=1)) for end in ends]


def reference_of(settings: Settings, missing: list[str]) -> Reference:
    """Return what observations are compared with; what is not there is added to `missing`."""
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.monitoring.reference import Reference
    from bike_pipeline.use_cases.feedback import first_untrained_hour, served
    from bike_pipeline.use_cases.lineage import lineage_of

    store = SpanStore(settings.store_uri)
    try:
        serving = served(settings)
        first = first_untrained_hour(settings, lineage_of(settings), int(serving.record["model_id"]))
    except BikePipelineError as error:
        missing.append(f"what the served model was trained on and keeps: {error}")
        return Reference.of_spans(store, schema=settings.schema_path)
    predict = _predict(settings, serving.version)
    return Reference.of_spans(store, first, serving.feedback, serving.version, predict, settings.schema_path)


def _predict(settings: Settings, version: int) -> Callable[[Columns], Any]:
    """Return a function that loads the version that serves, and with it TensorFlow, when it is first called."""

    @functools.cache
    def loaded() -> Any:
        from bike_pipeline.lean_imports import lean_imports

        with lean_imports(google_cloud=True):
            from bike_pipeline.serving.predictor import Predictor

            return Predictor(settings.serving_path, version)

    return lambda columns: loaded().predict(columns)


def _events(settings: Settings, missing: list[str]) -> Sequence[Event]:
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.monitoring.timeline import events_of
    from bike_pipeline.use_cases.lineage import lineage_of

    changes = ModelRegistry(settings.serving_path).history()
    try:
        lineage = lineage_of(settings)
        return events_of(changes, lineage.runs(), lineage.pushes(), _triggered(settings))
    except BikePipelineError as error:
        missing.append(f"the runs: {error}")
        return events_of(changes, (), ())


def _triggered(settings: Settings) -> Mapping[str, Sequence[Event]]:
    """Return what the ledger of triggers tells, by the pipeline's run that it came to, or ""."""
    from bike_pipeline.monitoring.timeline import Event
    from bike_pipeline.retraining.events import State
    from bike_pipeline.use_cases.retraining import has_ledger, open_ledger

    found: dict[str, list[Event]] = {}
    for run in open_ledger(settings).runs() if has_ledger(settings) else ():
        begun, evidence = datetime.fromtimestamp(run.claimed_at, UTC), f"triggers explain {run.events[0][:12]}"
        events = found.setdefault(str(run.facts.get("run_id", "")), [])
        events.append(Event(begun, "trigger", f"run {run.number} of triggers: {run.state}", run.reason, evidence))
        if run.state in (State.REFUSED, State.FAILED) and run.ended_at is not None:
            ended = datetime.fromtimestamp(run.ended_at, UTC)
            events.append(Event(ended, "refusal", f"run {run.number} of triggers made no model", run.why, evidence))
    return found


def _log_counts(added: Any) -> dict[str, int]:
    named = {
        "lines": added.lines,
        "new rows": added.rows,
        "rows that were known": added.known,
        "requests that failed": added.failures,
        "rows without a day": added.without_day,
    }
    aside = {f"set aside: {reason}": count for reason, count in added.set_aside.items()}
    return {name: count for name, count in {**named, **aside}.items() if count}

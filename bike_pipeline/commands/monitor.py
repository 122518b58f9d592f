"""`bike-pipeline monitor …`: what the model that serves was asked and answered, and the labels that came later."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
    from bike_pipeline.monitoring.report import MonitorReport
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.monitoring import Ingested
    from bike_pipeline.use_cases.monitoring_metrics import Exposed


@click.group(name="monitor")
def monitor_command() -> None:
    """Watch the model that serves: its requests, the labels that came later, what both say of it."""


@shared.command(monitor_command)
@click.option("--query", help="The SQL query, if LABELS is a database.")
@shared.json_option
@click.argument("labels", required=False)
def ingest(settings: Settings, labels: str | None, query: str | None, as_json: bool) -> None:
    """Take in the request log, and join the labels of the span store and of LABELS on the hour.

    LABELS are rows as of `data ingest`, in any order: a file, a folder, an address, a database with --query. What is
    known already changes nothing, another label of a known hour corrects it. Bad lines of the log are counted and set
    aside; they stop nothing.
    """
    if query is not None and labels is None:
        raise click.UsageError("--query asks a database: name it as LABELS")
    from bike_pipeline.use_cases.monitoring import ingest as use_case

    shared.answer(use_case(settings, labels, query), _ingest_view, as_json)


def _ingest_view(found: Ingested) -> list[str]:
    requests, labels, fresh = found.requests, found.labels, found.freshness
    if not requests.files:
        read = f"nothing new in {found.log}"
    else:
        read = f"{requests.lines:,} lines in {requests.files} files of {found.log}"
    counts = {
        "new": requests.rows,
        "known already": requests.known,
        "of them requests that failed": requests.failures,
        "without a day, which no label can be joined to": requests.without_day,
        **{f"passed over: {what}": number for what, number in requests.other.items()},
    }
    aside = ", ".join(f"{number:,} {reason}" for reason, number in sorted(requests.set_aside.items()))
    joined = {"new": labels.new, "corrected": labels.corrected, "known already": labels.known}
    return [
        f"requests: {read}",
        f"rows: {_listed(counts)}",
        *([f"set aside: {aside}; see {requests.set_aside_in}"] if aside else []),
        f"labels: {_listed(joined)}",
        f"hours asked about: {_listed(found.hours)}",
        *([f"newest request: {fresh.requested_at:%Y-%m-%d %H:%M} UTC"] if fresh.requested_at else []),
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {what}" for what, number in counts.items() if number) or "none"


@shared.command(monitor_command)
@shared.cluster_option
@shared.json_option
def metrics(settings: Settings, cluster: bool, as_json: bool) -> None:
    """Write what is on record of the pipeline, and what the monitor found last, for Prometheus.

    They are text files that node_exporter reads (--collector.textfile.directory), each replaced as a whole.
    """
    from bike_pipeline.use_cases.monitoring_metrics import write_metrics as use_case

    shared.answer(use_case(settings, cluster=cluster), _metrics_view, as_json)


def _metrics_view(made: Exposed) -> list[str]:
    monitor = f"monitor: {made.monitor}" if made.monitor else "monitor: it has not looked yet"
    return [f"pipeline: {made.pipeline}", monitor]


def _days(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """Return a length of time such as 7d or 36h in days."""
    found = re.fullmatch(r"([1-9]\d{0,3})([dh])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no length such as 7d or 36h.")
    return int(found[1]) / (1.0 if found[2] == "d" else 24.0)


@shared.command(monitor_command)
@click.option(
    "--window", callback=_days, default="7d", show_default=True, help="Length of a window, such as 7d or 36h."
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]),
    help="Where the newest window ends, local; by default behind the newest hour that was asked about.",
)
@click.option("--output", type=shared.FILE, help="The page; by default <workspace>/reports/monitor.html.")
@shared.json_option
def run(settings: Settings, window: float, until: datetime | None, output: Path | None, as_json: bool) -> None:
    """Say what has changed, what it costs, whence it comes and what helps, on one page.

    The request log is taken in first. The exit code is the verdict: 0 if nothing has changed, or nothing that costs
    anything; 22 if something has; 23 if nothing could be judged.
    """
    from bike_pipeline.use_cases.monitoring_report import run as use_case

    log = shared.log_file(settings, "monitor")
    with shared.captured(log) as screen:
        with shared.progress_on(screen, silent=as_json):
            found = use_case(settings, window_days=window, until=until, output=output)
        shared.answer(found, lambda made: [_report_view(made.report), f"page: {made.page}"], as_json, screen)
    found.require_sound()


@shared.command(monitor_command)
@shared.json_option
def status(settings: Settings, as_json: bool) -> None:
    """Show what the monitor found when it looked last."""
    from bike_pipeline.use_cases.monitoring_report import status as use_case

    shared.answer(use_case(settings), _report_view, as_json)


def _report_view(found: MonitorReport) -> shared.Parts:
    from bike_pipeline.monitoring.report import amount, headline

    told = [one for one in found.verdicts if one["data"]["status"] in {"changed", "harmless"}]
    rows = [
        (_status(one), one["meta"]["subject"], _effect(one), amount(one["data"].get("harm")), one["data"]["reason"])
        for one in told
    ]
    counts = Counter(one["data"]["status"] for one in found.verdicts)
    return [
        headline(found),
        f"{found.first:%Y-%m-%d %H:%M} to {found.last:%Y-%m-%d %H:%M}: {found.rows:,} answers"
        + (f" of version {found.version}" if found.version else ""),
        f"hours: {_listed(dict(found.hours))}",
        f"verdicts: {_listed(dict(counts))}",
        *([shared.table(("verdict", "what", "effect", "rentals a day", "reason"), rows)] if rows else []),
        *(f"remedy: {one['remedy']}, {amount(one['gain'])} rentals a day: {one['reason']}" for one in found.remedies),
        *(f"not there: {text}" for text in found.missing),
    ]


def _status(one: Mapping[str, Any]) -> str:
    return str(one["data"]["status"])


def _effect(one: Mapping[str, Any]) -> str:
    effect = one["data"]["effect"]
    return "-" if effect is None else f"{effect:,.3g} {one['data']['unit']}"


@shared.command(monitor_command)
@shared.json_option
def demo(settings: Settings, as_json: bool) -> None:
    """Ask the model that serves for every hour of the second half of the embedded data, and let their labels arrive.

    The embedded server is started for it on a free port, and its request log taken in.
    """
    from bike_pipeline.use_cases.monitoring import ingest as take_in
    from bike_pipeline.use_cases.monitoring_demo import ask_demo

    with shared.captured(shared.log_file(settings, "monitor")) as screen:
        with shared.progress_on(screen, silent=as_json):
            asked = ask_demo(settings)
        found = take_in(settings, asked.labels)
        shared.answer(
            found, lambda made: [f"{asked.rows:,} hours of 2012 asked for", *_ingest_view(made)], as_json, screen
        )

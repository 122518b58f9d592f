"""`bike-pipeline monitor …`: what the model that serves was asked and answered, and the labels that came later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
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

"""`bike-pipeline monitor …`: what the model that serves was asked and answered, and the labels that came later."""

from __future__ import annotations

import json
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
    from bike_pipeline.use_cases.explanations import ExplainedModel, ExplainedRequest
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


def _end(_context: click.Context, _parameter: click.Parameter, moment: datetime | None) -> datetime | None:
    """Refuse the end of a window for which there can be no rows, and before which no eight windows have room."""
    from bike_pipeline import features

    years = features.FIRST_YEAR, features.FIRST_YEAR + features.MOST_YEARS
    if moment is not None and not years[0] <= moment.year <= years[1]:
        raise click.BadParameter(f"{moment:%Y-%m-%d} is not in the years from {years[0]} to {years[1]}.")
    return moment


@shared.command(monitor_command)
@click.option(
    "--window", callback=_days, default="7d", show_default=True, help="Length of a window, such as 7d or 36h."
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]),
    callback=_end,
    help="Where the newest window ends, local; by default behind the newest hour asked about that is over.",
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


@shared.command()
@click.option("--row", type=click.IntRange(min=0), default=0, show_default=True, help="Which row of the request.")
@click.option("--html", metavar="FILE", type=shared.FILE, help="Write it as a page, too.")
@shared.json_option
@click.argument("request_id", required=False)
def explain_command(settings: Settings, request_id: str | None, row: int, html: Path | None, as_json: bool) -> None:
    """Tell why REQUEST_ID was answered as it was; without one, what moves the model that serves.

    What each input adds, in numbers that lead from the mean answer to this one exactly, and what other questions would
    have got, of the version that answered. It is kept beside the request's id, so that it is the same when it is asked
    again. Without REQUEST_ID: answers by the hour, permutation importance, and where errors are largest. What a run did
    is told by `explain-run`.
    """
    from bike_pipeline.use_cases import explanations

    with shared.captured(shared.log_file(settings, "explain")) as screen, shared.progress_on(screen, silent=as_json):
        if request_id is None:
            model = explanations.explain_model(settings, page=html)
        else:
            answer = explanations.explain(settings, request_id, row=row, page=html)
    if request_id is None:
        shared.answer(model, _model_view, as_json)
    else:
        shared.answer(answer, _answer_view, as_json)


def _answer_view(found: ExplainedRequest) -> shared.Parts:
    from bike_pipeline.monitoring.explanations.page import in_words

    of, why = found.explanation.of, found.explanation.why
    about = f", asked about {of.moment.replace('T', ' ')}" if of.moment else ""
    form = "+.3f" if of.unit == "probability" else "+,.0f"
    return [
        f"request {of.request_id}, row {of.row} of {found.rows}{about}",
        f"version {of.version} of model {of.model_id}, fingerprint {of.fingerprint[:16]}…",
        *in_words(why, of.unit),
        "had something else been asked:",
        shared.table(
            ("if", "change"), [(one.words, f"{one.change:{form}}") for one in why.what_ifs], right=("change",)
        ),
        f"kept in {found.table}" if found.is_new else f"explained before: read from {found.table}",
        *([f"page: {found.page}"] if found.page else []),
    ]


def _model_view(found: ExplainedModel) -> shared.Parts:
    form = ".3f" if found.unit == "probability" else ",.0f"
    hours = [(f"{hour}:00", *(f"{one.mean[hour]:{form}}" for one in found.curves)) for hour in range(24)]
    columns = ("hour", *("working day" if one.workingday else "no working day" for one in found.curves))
    inputs = (found.importance or {}).get("inputs", ())
    most = ", ".join(f"{one['name']} {one['mae_increase'] or 0.0:+.3g}" for one in inputs[:5])
    heads = ("slice", "MAE", "elsewhere", "rows", "days", "p-value")
    slices = [
        (one.words, f"{one.mae:,.1f}", f"{one.mae_elsewhere:,.1f}", one.rows, one.days, f"{one.p_value:.2g}")
        for one in found.slices
    ]
    return [
        f"version {found.version} of model {found.model_id}, fingerprint {found.fingerprint[:16]}…",
        f"answers by the hour, all else as in training, in {found.unit}:",
        shared.table(columns, hours, right=columns[1:]),
        f"MAE without an input: {most or 'not measured'}",
        f"worst slices: {found.searched}",
        *([shared.table(heads, slices, right=heads[1:])] if slices else []),
        *([f"page: {found.page}"] if found.page else []),
    ]


@shared.command(monitor_command)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="Port to listen on; 0: a free one.")
@click.option("--rows", type=click.IntRange(1, 100_000), default=500, show_default=True, help="Rows of a look (drift).")
@shared.json_option
@click.argument("kind", type=click.Choice(["outlier", "drift", "explainer"]))
def sidecar(settings: Settings, kind: str, host: str, port: int, rows: int, as_json: bool) -> None:
    """Answer CloudEvents of Seldon Core or KServe with what a look at the request finds, until SIGTERM or Ctrl-C.

    `outlier` says which rows are unlike those of training, `drift` what has changed in the newest rows, `explainer` why
    each row is answered as it is. Events are POSTed to /, in binary or structured mode; GET /healthz tells that it is
    ready.
    """
    from bike_pipeline.use_cases.monitoring_sidecars import run_sidecar

    def told(at: int) -> None:
        address = f"{host}:{at}"
        # One line, as `serve` does: whoever starts it reads until there is one.
        click.echo(json.dumps({"kind": kind, "address": address}) if as_json else f"{kind} listens on {address}")

    run_sidecar(settings, kind, host, port, rows, told)

"""`bike-pipeline data …`: bring rows in, list them, check them; `bike-pipeline label …`: which to label next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.shared import (
    FILE,
    PATH,
    answer,
    captured,
    json_option,
    log_file,
    progress_on,
    table,
    with_settings,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.data.manifest import IngestResult, SpanVersion
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.labels import Suggestion


_output = click.option("--output", type=PATH, help="By default in the workspace.")


@click.group(name="data")
def data_command() -> None:
    """Ingest rows into versioned spans, list them and check them."""


@data_command.command()
@click.argument("source")
@click.option("--query", help="The SQL query, if SOURCE is a database.")
@click.option("--span", type=int, help="The span that the rows are; else their time range decides.")
@click.option("--map", "mapping", metavar="NAME", help="The mapping of a file of another form, or its path.")
@click.option("--weather", help="The weather by the hour, if the mapping needs it: a file like SOURCE.")
@json_option
@with_settings
def ingest(source: str, as_json: bool, settings: Settings, **options: Any) -> None:
    """Check the rows of SOURCE and store them as a version of a span.

    SOURCE is a CSV or Parquet file (plain or gzip), a folder of such files, an http(s) address, a database address
    (sqlite:///rides.db with --query), a feature view or service of Feast (feast://REPOSITORY/NAME?entities=FILE) or
    object storage (s3://, gs://, …).
    """
    from bike_pipeline.use_cases import data

    answer(_document(data.ingest(settings, source, **options)), _ingest_view, as_json)


@data_command.command()
@click.option("--span", type=int, help="Only this span.")
@json_option
@with_settings
def dvc(span: int | None, as_json: bool, settings: Settings) -> None:
    """Write the stored versions for DVC: a .dvc file each, and the remote that `dvc pull` fetches them from."""
    from bike_pipeline.tracking.dvc import write_all
    from bike_pipeline.use_cases.data import span_store

    remote = settings.dvc_remote
    files = write_all(span_store(settings), settings.dvc_path, remote, span)
    written = {"remote": str(remote), "files": [str(path) for path in files]}
    last = f"remote: {remote}; in a DVC project: dvc remote add --default spans {remote}"
    answer(written, lambda found: [*(f"wrote {path}" for path in found["files"]), last], as_json)


@data_command.command()
@click.argument("view", metavar="feast://REPOSITORY/VIEW")
@click.option(
    "--days", type=click.IntRange(1), default=2, show_default=True, help="So many days up to the newest hour."
)
@with_settings
def feast_online(view: str, days: int, settings: Settings) -> None:
    """Write past weather to Feast's online store: the model's optional inputs, by hour, up to the hour to come."""
    from bike_pipeline.use_cases import data

    click.echo(f"wrote the optional inputs of {data.fill_feast(settings, view, days)} hours to {view}")


@data_command.command()
@_output
@with_settings
def fetch(output: Path | None, settings: Settings) -> None:
    """Download the original data set from UCI and check its SHA-256."""
    from bike_pipeline.data.embedded_dataset import fetch_original

    written = fetch_original(output or settings.workspace_path / "data" / "hour.csv")
    click.echo(f"wrote {written} (the published data set, SHA-256 checked)")


@data_command.command()
@_output
@json_option
@with_settings
def split_demo(output: Path | None, as_json: bool, settings: Settings) -> None:
    """Write the embedded data set as two uploads, 2011 and 2012."""
    from bike_pipeline.data import embedded_dataset

    first, second = map(str, embedded_dataset.split_demo(output or settings.workspace_path / "uploads"))
    lines = [f"wrote {first}", f"wrote {second}", f"next: bike-pipeline data ingest {first}"]
    answer({"first": first, "second": second}, lambda _: lines, as_json)


@data_command.command("list")
@json_option
@with_settings
def list_(as_json: bool, settings: Settings) -> None:
    """List every version of every span."""
    from bike_pipeline.use_cases import data

    versions, store = data.versions(settings, withdrawn=True), data.span_store(settings).uri
    withdrawn = {(record.span, record.version): record for record in data.withdrawals(settings)}
    found = [
        {
            "uri": v.uri,
            **v.manifest.model_dump(mode="json"),
            "withdrawn": record and record.model_dump(mode="json"),
        }
        for v in versions
        for record in (withdrawn.get((v.span, v.version)),)
    ]
    notes = [
        f"span {r.span} version {r.version} is withdrawn since {r.withdrawn_at:%Y-%m-%d %H:%M} UTC: {r.reason}"
        for r in withdrawn.values()
    ]
    nothing = f"{store} holds no span yet; run: bike-pipeline data ingest SOURCE"
    answer(found, lambda _: [store, _list_view(versions), *notes] if versions else nothing, as_json)


@data_command.command()
@click.argument("span", type=int)
@click.argument("version", type=int)
@click.option("--because", required=True, metavar="TEXT", help="Why; `data list` shows it.")
@json_option
@with_settings
def withdraw(span: int, version: int, because: str, as_json: bool, settings: Settings) -> None:
    """Let VERSION of SPAN count no longer: no run reads it, and it stands in the way of no upload.

    It stays readable by its number, for lineage and `reproduce`; `data restore` takes this back.
    """
    from bike_pipeline.use_cases import data

    record = data.withdraw(settings, span, version, because)
    said = f"span {span} version {version} is withdrawn: {record.reason}"
    answer(record.model_dump(mode="json"), lambda _: said, as_json)


@data_command.command()
@click.argument("span", type=int)
@click.argument("version", type=int)
@json_option
@with_settings
def restore(span: int, version: int, as_json: bool, settings: Settings) -> None:
    """Let VERSION of SPAN count again, which was withdrawn."""
    from bike_pipeline.use_cases import data

    found = data.restore(settings, span, version)
    answer({"span": span, "version": version, "uri": found.uri}, lambda _: f"{found.uri} counts again", as_json)


@data_command.command()
@click.option("--span", type=int, help="Only this span.")
@click.option("--version", type=int, help="Only this version; goes with --span.")
@json_option
@with_settings
def verify(span: int | None, version: int | None, as_json: bool, settings: Settings) -> None:
    """Check every file of the stored versions against its SHA-256."""
    from bike_pipeline.use_cases import data

    if version is not None and span is None:
        raise click.UsageError("--version goes with --span")
    versions = data.verify(settings, span, version)
    found = [{"span": v.span, "version": v.version, "uri": v.uri} for v in versions]
    lines = [
        f"span {v.span}, version {v.version}: {len(v.manifest.files)} files as they were written" for v in versions
    ]
    answer(found, lambda _: lines, as_json)


@click.group(name="label")
def label_command() -> None:
    """Suggest which hours to label next."""


@label_command.command()
@click.argument("source", type=PATH, required=False)
@click.option("--count", type=click.IntRange(1), default=24, show_default=True, help="How many hours are wanted.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the committee; by default that of the settings.")
@click.option("--output", type=FILE, help="Write the suggested rows as CSV.")
@json_option
@with_settings
def suggest(
    source: Path | None, count: int, seed: int | None, output: Path | None, as_json: bool, settings: Settings
) -> None:
    """Suggest the hours of SOURCE whose labels would teach the model most.

    SOURCE is a CSV, JSON or Parquet file with a row an hour, each with its date, and without labels; by default the
    newest span, whose labels are not looked at. A committee of trees learns from the rows that a run would read, and
    hours on which it disagrees are suggested, no two of one kind. Needs the extra `labeling`.
    """
    from bike_pipeline.storage.atomic_files import replace_file
    from bike_pipeline.use_cases.labels import suggest_labels

    with captured(log_file(settings, "label")) as screen, progress_on(screen, silent=as_json):
        found = suggest_labels(settings, source, count, seed)
        if output is not None:
            replace_file(output, found.to_csv())
    answer(found, lambda suggestion: _suggestion_view(suggestion, output), as_json)


def _suggestion_view(found: Suggestion, output: Path | None) -> list[RenderableType]:
    numbers = ("predicted", "least", "most", "score")
    rows = [
        (
            f"{hour.time:%Y-%m-%d %H:%M}",
            *(f"{count:.0f}" for count in (hour.predicted_cnt, hour.lowest_cnt, hour.highest_cnt)),
            f"{hour.score:.4f}",
        )
        for hour in found.hours
    ]
    return [
        f"{len(rows):,} of {found.candidates:,} hours, by a committee that learnt from {found.labelled:,}",
        *([f"left out, known already or there twice: {found.known:,}"] if found.known else []),
        *([table(("hour", *numbers), rows, right=numbers)] if rows else []),
        *([f"wrote {output}"] if output is not None else []),
    ]


def _document(result: IngestResult) -> dict[str, Any]:
    stored, rows = result.version, result.version.manifest.rows
    return {
        "span": stored.span,
        "version": stored.version,
        "created": result.created,
        "rows": rows.total,
        "train_rows": rows.train,
        "eval_rows": rows.eval,
        "rejected": result.rejected,
        "first": stored.manifest.first.isoformat(),
        "last": stored.manifest.last.isoformat(),
        "quarantine": stored.quarantine,
        "uri": stored.uri,
        "notes": list(result.notes),
        "manifest": stored.manifest.model_dump(mode="json"),
    }


def _ingest_view(found: dict[str, Any]) -> list[RenderableType]:
    counts = {"rows": "rows", "train": "train_rows", "eval": "eval_rows", "rejected": "rejected"}
    rows = [(name, f"{found[key]:,}") for name, key in counts.items()]
    rows += [(name, found[key][:16].replace("T", " ")) for name, key in (("from", "first"), ("to", "last"))]
    return [
        f"Span {found['span']}, version {found['version']}: {'created' if found['created'] else 'already there'}",
        table(("what", "value"), rows, right=("value",), header=False),
        f"stored in {found['uri']}",
        *([f"rejected rows in {found['quarantine']}"] if found["created"] and found["quarantine"] else []),
        *(f"note: {note}" for note in found["notes"]),
    ]


def _list_view(versions: list[SpanVersion]) -> RenderableType:
    rows = []
    for found in versions:
        manifest = found.manifest
        counts = (manifest.rows.train, manifest.rows.eval, manifest.rows.rejected)
        period = (f"{manifest.first:%Y-%m-%d}", f"{manifest.last:%Y-%m-%d}")
        source = manifest.source.location.rpartition("/")[2] or manifest.source.location
        rows.append((found.span, found.version, *(f"{count:,}" for count in counts), *period, source))
    numbers = ("span", "version", "train", "eval", "rejected")
    return table((*numbers, "from", "to", "source"), rows, right=numbers)

"""`bike-pipeline data …`: bring rows in, list them, check them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.data.ingest import IngestResult
    from bike_pipeline.data.span_version import SpanVersion
    from bike_pipeline.settings import Settings

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group(name="data")
def command() -> None:
    """Ingest rows into versioned spans, list them and check them."""


@command.command(name="ingest")
@click.argument("source")
@click.option("--query", default=None, help="The SQL query, where SOURCE is a database.")
@click.option("--span", type=int, default=None, help="The span that the rows are; else their time range decides.")
@json_option
@settings_options
def ingest_command(source: str, query: str | None, span: int | None, as_json: bool, settings: Settings) -> None:
    """Check the rows of SOURCE and store them as a version of a span.

    SOURCE is a CSV or Parquet file (plain or gzip), a folder of such files, an http(s) address, a database address
    (sqlite:///rides.db with --query) or object storage (s3://, gs://, …).
    """
    from bike_pipeline.data.ingest import ingest

    result = ingest(settings, source, query=query, span=span)
    if note := _for_dvc(settings, result):
        result = replace(result, notes=(*result.notes, note))
    if as_json:
        _print_json(_ingest_record(result))
        return
    stored = result.version
    manifest = stored.manifest
    done = "created" if result.created else "already there"
    _print_table(
        f"Span {stored.span}, version {stored.version}: {done}",
        ("what", "value"),
        [
            ("rows", f"{manifest.rows.total:,}"),
            ("train", f"{manifest.rows.train:,}"),
            ("eval", f"{manifest.rows.eval:,}"),
            ("rejected", f"{result.rejected:,}"),
            ("from", f"{manifest.first:%Y-%m-%d %H:00}"),
            ("to", f"{manifest.last:%Y-%m-%d %H:00}"),
        ],
    )
    click.echo(f"stored in {stored.uri}")
    if result.created and stored.quarantine:
        click.echo(f"rejected rows in {stored.quarantine}")
    for note in result.notes:
        click.echo(f"note: {note}")


def _for_dvc(settings: Settings, result: IngestResult) -> str:
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.tracking.beside import after_ingest

    return after_ingest(settings, SpanStore(settings.store_uri), result.version.span, result.version.version)


@command.command(name="dvc")
@click.option("--span", type=int, default=None, help="Only this span.")
@json_option
@settings_options
def dvc_command(span: int | None, as_json: bool, settings: Settings) -> None:
    """Write the stored versions for DVC: a .dvc file each, and the remote that `dvc pull` fetches them from."""
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.tracking.dvc import write_all

    written = write_all(SpanStore(settings.store_uri), settings.dvc_path, settings.dvc_remote, span)
    if as_json:
        _print_json({"remote": str(settings.dvc_remote), "files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"remote: {settings.dvc_remote}; in a DVC project: dvc remote add --default spans {settings.dvc_remote}")


@command.command(name="fetch")
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="File; default <workspace>/data/hour.csv."
)
@settings_options
def fetch_command(output: Path | None, settings: Settings) -> None:
    """Download the original data set from UCI and check its SHA-256."""
    from bike_pipeline.data.embedded_dataset import fetch_original

    written = fetch_original(output or settings.workspace_path / "data" / "hour.csv")
    click.echo(f"wrote {written} (the published data set, SHA-256 checked)")


@command.command(name="split-demo")
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Folder; default <workspace>/uploads.")
@json_option
@settings_options
def split_demo_command(output: Path | None, as_json: bool, settings: Settings) -> None:
    """Write the embedded data set as two uploads, 2011 and 2012."""
    from bike_pipeline.data.embedded_dataset import split_demo

    first, second = split_demo(output or settings.workspace_path / "uploads")
    if as_json:
        _print_json({"first": str(first), "second": str(second)})
        return
    click.echo(f"wrote {first}\nwrote {second}\nnext: bike-pipeline data ingest {first}")


@command.command(name="list")
@json_option
@settings_options
def list_command(as_json: bool, settings: Settings) -> None:
    """List every version of every span."""
    from bike_pipeline.data.spans import SpanStore

    store = SpanStore(settings.store_uri)
    versions = store.all_versions()
    if as_json:
        _print_json([{"uri": found.uri, **found.manifest.model_dump(mode="json")} for found in versions])
        return
    if not versions:
        click.echo(f"{store.uri} holds no span yet; run: bike-pipeline data ingest SOURCE")
        return
    _print_table(
        store.uri,
        ("span", "version", "train", "eval", "rejected", "from", "to", "source"),
        [_listed(found) for found in versions],
    )


@command.command(name="verify")
@click.option("--span", type=int, default=None, help="Only this span.")
@click.option("--version", type=int, default=None, help="Only this version; goes with --span.")
@json_option
@settings_options
def verify_command(span: int | None, version: int | None, as_json: bool, settings: Settings) -> None:
    """Check every file of the stored versions against its SHA-256."""
    from bike_pipeline.data.spans import SpanStore

    if version is not None and span is None:
        raise click.UsageError("--version goes with --span")
    store = SpanStore(settings.store_uri)
    if span is None:
        store.check_whole()
    spans = store.spans() if span is None else [store.latest(span).span]
    wanted = [(s, v) for s in spans for v in ([version] if version is not None else store.versions(s))]
    if not wanted:
        store.latest()  # says that there is nothing to verify
    verified = [store.verify(*numbers) for numbers in wanted]
    if as_json:
        _print_json([{"span": found.span, "version": found.version, "uri": found.uri} for found in verified])
        return
    for found in verified:
        click.echo(
            f"span {found.span}, version {found.version}: {len(found.manifest.files)} files as they were written"
        )


def _listed(found: SpanVersion) -> tuple[str, ...]:
    manifest = found.manifest
    return (
        str(found.span),
        str(found.version),
        f"{manifest.rows.train:,}",
        f"{manifest.rows.eval:,}",
        f"{manifest.rows.rejected:,}",
        f"{manifest.first:%Y-%m-%d}",
        f"{manifest.last:%Y-%m-%d}",
        manifest.source.location.rpartition("/")[2] or manifest.source.location,
    )


def _ingest_record(result: IngestResult) -> dict[str, Any]:
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


def _print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from bike_pipeline.commands.output import console_on

    # The title holds a path, which must not be broken.
    click.echo(title)
    table = Table(box=SIMPLE_HEAD)
    for column in columns:
        numeric = column in ("span", "version", "train", "eval", "rejected", "value")
        table.add_column(column, justify="right" if numeric else "left", no_wrap=column != "source", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console_on(sys.stdout).print(table)

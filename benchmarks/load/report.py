"""What `bike-pipeline bench-serving` does: it asks a server, and prints how many requests that answers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from benchmarks.load.figures import Figures, Load
from benchmarks.load.measuring import Choice, measure
from bike_pipeline.commands.shared import console_on
from bike_pipeline.serving.clients import connection
from bike_pipeline.serving.clients.connection import Protocol
from bike_pipeline.settings import Settings

MEASURES_ITSELF = (
    "The load came from Python, which takes more of a processor than the server: the figures measure both. "
    "`make load-generators` fetches compiled ones (for connections without TLS and credentials)."
)


def bench(
    settings: Settings,
    address: str,
    protocol: Protocol | None,
    version: int | None,
    label: str,
    connections: int,
    seconds: int,
    rate: float | None,
    rows: int,
    generator: Choice,
    as_json: bool,
) -> None:
    """Ask a server and print what that gave, as a table or as JSON."""
    where = connection(settings, address, protocol=protocol, version=version, label=label)
    load = Load(connections, float(seconds), rate, rows)
    click.echo(f"asking {where.where} for {seconds} s …", err=True)
    figures = measure(where, load, generator)
    if as_json:
        content = {**asdict(figures), "per_second": figures.per_second}
        click.echo(json.dumps({"address": where.where, **asdict(load), "figures": content}, indent=2))
        return
    _print(where.where, load, figures)


def _print(where: str, load: Load, figures: Figures) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    cells = {
        "server": where,
        "load from": figures.generator,
        "clients": f"{load.connections:,}",
        "rows": f"{load.rows:,}",
        "requests/s": f"{figures.per_second:,.0f}",
        "p50 ms": _milliseconds(figures.p50),
        "p90 ms": _milliseconds(figures.p90),
        "p99 ms": _milliseconds(figures.p99),
        "errors": f"{figures.errors:,}",
    }
    for name in cells:
        table.add_column(name, justify="left" if name in ("server", "load from") else "right", overflow="fold")
    table.add_row(*cells.values())
    console_on(sys.stdout).print(table)
    if figures.generator == "python":
        click.echo(MEASURES_ITSELF)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

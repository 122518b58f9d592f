"""`bike-pipeline bench-serving`: how many requests a model server answers, and how fast."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import FiniteRange, settings_options

if TYPE_CHECKING:
    from bike_pipeline.serving.clients.connection import Protocol
    from bike_pipeline.serving.load.figures import Figures, Load
    from bike_pipeline.serving.load.measuring import Choice
    from bike_pipeline.settings import Settings

MEASURES_ITSELF = (
    "The load came from Python, which takes more of a processor than the server: the figures measure both. "
    "`make load-generators` fetches compiled ones (for connections without TLS and credentials)."
)


@click.command()
@settings_options
@click.argument("address", default="127.0.0.1")
@click.option("--protocol", type=click.Choice(["rest", "grpc"]), default=None, help="What the server is asked in.")
@click.option("--version", type=int, default=None, help="The version that is asked; the newest by default.")
@click.option("--label", default="", help="The version label that is asked.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Waiting clients.")
@click.option("--seconds", type=click.IntRange(1, 86_400), default=10, show_default=True, help="How long.")
@click.option("--rate", type=FiniteRange(1), default=None, help="Requests a second; as many as it answers if none.")
@click.option("--rows", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Rows in each request.")
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "h2load", "python"]),
    default="auto",
    show_default=True,
    help="What makes the load.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
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
    """Ask the model server at ADDRESS as often as it answers, or at a rate; print requests a second and latencies.

    ADDRESS is a host, host:port, or http://… or grpc://…; this machine where none is given. Nothing else is asked.
    """
    from bike_pipeline.serving.clients import connection
    from bike_pipeline.serving.load.figures import Load
    from bike_pipeline.serving.load.measuring import measure

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

    from bike_pipeline.commands.output import console_on

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

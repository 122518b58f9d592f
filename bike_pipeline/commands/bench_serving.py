"""`bike-pipeline bench-serving`: how many requests a model server answers, and how fast (`benchmarks/load`)."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import FiniteRange, settings_options
from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


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
def command(settings: Settings, **options: Any) -> None:
    """Ask the model server at ADDRESS as often as it answers, or at a rate; print requests a second and latencies.

    ADDRESS is a host, host:port, or http://… or grpc://…; this machine where none is given. Nothing else is asked.
    """
    from bike_pipeline.settings import PROJECT_ROOT

    if not (PROJECT_ROOT / "benchmarks" / "load" / "report.py").is_file():
        raise ConfigurationError(
            "the load generators come with the source code, not with the installed package",
            where="bench-serving",
            fix="run it in a clone of the repository, or ask the server with wrk, h2load or ghz",
        )
    sys.path.append(str(PROJECT_ROOT))
    importlib.import_module("benchmarks.load.report").bench(settings, **options)

"""`bike-pipeline runs`: what ran."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--cluster", is_flag=True, help="Read the cluster's store (kubeflow.metadata).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every run, from ML Metadata: when, on which span, how many stages were run or cached, and its outcome."""
    from bike_pipeline.use_cases.metadata import lineage_of

    runs = lineage_of(settings, cluster).runs()
    if as_json:
        click.echo(json.dumps([asdict(run) for run in runs], indent=2, default=str))
        return
    from rich.table import Table

    from bike_pipeline.commands.output import console_on

    table = Table(box=None, pad_edge=False)
    for name in ("run", "started (UTC)", "span", "state", "ran", "cached", "seconds", "outcome"):
        number = name in ("ran", "cached", "seconds")
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for run in runs:
        ran = sum(stage.state in ("done", "failed") for stage in run.stages)
        cached = sum(stage.state == "cached" for stage in run.stages)
        seconds = sum(stage.seconds for stage in run.stages)
        span = f"{run.span} v{run.version}" if run.span else "-"
        table.add_row(
            run.run_id,
            f"{run.started:%Y-%m-%d %H:%M:%S}",
            span,
            run.state,
            str(ran),
            str(cached),
            f"{seconds:.1f}",
            run.outcome,
        )
    console_on(sys.stdout).print(table)

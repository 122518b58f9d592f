"""`bike-pipeline runs`: what ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import cluster_option, json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, table

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.entities import RunRecord
    from bike_pipeline.settings import Settings

_COLUMNS = ("run", "started (UTC)", "span", "state", "ran", "cached", "seconds", "outcome")


@click.command()
@settings_options
@cluster_option
@json_option
def command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every run, from ML Metadata: when, on which span, how many stages were run or cached, and its outcome."""
    from bike_pipeline.use_cases.lineage import runs

    answer(runs(settings, cluster=cluster), _view, as_json)


def _view(found: list[RunRecord]) -> Parts:
    rows = []
    for run in found:
        ran = sum(stage.state in ("done", "failed") for stage in run.stages)
        cached = sum(stage.state == "cached" for stage in run.stages)
        seconds = f"{sum(stage.seconds for stage in run.stages):.1f}"
        span = f"{run.span} v{run.version}" if run.span else "-"
        started = f"{run.started:%Y-%m-%d %H:%M:%S}"
        rows.append((run.run_id, started, span, run.state, ran, cached, seconds, run.outcome))
    return table(_COLUMNS, rows, right=("ran", "cached", "seconds"))

"""`bike-pipeline explain-run`: one page that tells a person what a run did, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command("explain-run")
@settings_options
@click.argument("run_id", required=False)
@click.option(
    "--output", type=click.Path(path_type=Path), default=None, help="Write to this file instead of <workspace>/reports."
)
def command(settings: Settings, run_id: str | None, output: Path | None) -> None:
    """Write one HTML page, without any need of a network, about RUN_ID (by default the newest run).

    It tells why the run took place, why each stage ran or was answered from the cache, every gate with its reason, the
    new model against the one that served, the data and how they moved, and the lineage.
    """
    from bike_pipeline.use_cases.lineage import explain_run

    click.echo(explain_run(settings, run_id, output))

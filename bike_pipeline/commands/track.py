"""`bike-pipeline track`: send a run to MLflow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("run", required=False)
def command(settings: Settings, as_json: bool, run: str | None) -> None:
    """Send a RUN to MLflow, such as one that ended while the server was down; `bike-pipeline runs` names them all.

    Without RUN, the newest that came to an evaluation. What the server has already is not sent twice. Ends with exit
    code 17 where the server cannot be reached or refuses.
    """
    from bike_pipeline.lineage.queries.tracking_payload import tracked_run
    from bike_pipeline.tracking.beside import in_words, tell_mlflow
    from bike_pipeline.use_cases.metadata import lineage_of

    found = tracked_run(lineage_of(settings), run)
    sent = tell_mlflow(settings, found)
    click.echo(
        json.dumps({"run_id": found.run_id, **sent}, indent=2) if as_json else f"{found.run_id}: {in_words(sent)}"
    )

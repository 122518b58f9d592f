"""`bike-pipeline track`: send a run to MLflow."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@json_option
@click.argument("run", required=False)
def command(settings: Settings, as_json: bool, run: str | None) -> None:
    """Send a RUN to MLflow, such as one that ended while the server was down; `bike-pipeline runs` names them all.

    Without RUN, the newest that came to an evaluation. What the server has already is not sent twice. Ends with exit
    code 17 if the server cannot be reached or refuses.
    """
    from bike_pipeline.use_cases.track import track

    found = track(settings, run)
    document = {"run_id": found.run_id, **asdict(found.sent)}
    answer(document, lambda _: f"{found.run_id}: {found.sent.in_words()}", as_json)

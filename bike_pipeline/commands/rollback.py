"""`bike-pipeline rollback`: let the version serve that served before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--to", type=int, default=None, help="The version to go back to; by default the one before.")
@click.option("--label", default="stable", show_default=True, help="The label that it gets back.")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
def command(settings: Settings, to: int | None, label: str, reason: str, as_json: bool) -> None:
    """Go back to a version that was promoted before. It was validated then, so nothing is loaded and nothing waits.

    The next run compares its candidate with that version, and no run promotes the one that was left again.
    """
    from bike_pipeline.use_cases.promotion import rollback

    answer(
        rollback(settings, to, label, reason),
        lambda change: f"version {change.to_version} is {label} again, version {change.from_version} is not",
        as_json,
    )

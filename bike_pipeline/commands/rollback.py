"""`bike-pipeline rollback`: let the version serve that served before."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--to", type=int, default=None, help="The version to go back to; by default the one before.")
@click.option("--label", default="stable", show_default=True, help="The label that it gets back.")
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--json", "as_json", is_flag=True, help="Print the change as JSON.")
def command(settings: Settings, to: int | None, label: str, reason: str, as_json: bool) -> None:
    """Go back to a version that was promoted before. It was validated then, so nothing is loaded and nothing waits.

    The next run compares its candidate with that version, and no run promotes the one that was left again.
    """
    from bike_pipeline.commands.promote import check_label
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion
    from bike_pipeline.rollout.targets import Followers

    check_label(label)
    signing.use(settings)
    change = promotion.rollback(settings.serving_path, Followers.of(settings), to, label, reason)
    if as_json:
        click.echo(json.dumps(asdict(change)))
    else:
        click.echo(f"version {change.to_version} is {label} again, version {change.from_version} is not")

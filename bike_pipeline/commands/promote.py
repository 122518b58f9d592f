"""`bike-pipeline promote`: let a pushed version serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, captured

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--label", default="stable", show_default=True, help="The label that the version gets.")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
@click.argument("version", type=int, required=False)
def command(settings: Settings, label: str, reason: str, as_json: bool, version: int | None) -> None:
    """Promote VERSION, the newest pushed one by default: validate it if that was not done, then let it serve.

    A version that does not pass is refused with exit code 20, and what was promoted before still is. The servers of
    serving.promotion.servers are told. With --json, null if there was no change to make.
    """
    from bike_pipeline.use_cases.promotion import promote, version_to_promote

    chosen = version_to_promote(settings, version)
    with captured(settings.logs_path / "promote.log") as screen:
        change = promote(settings, chosen, label, reason)
        answer(change, lambda made: _text(made, chosen, label), as_json, screen)


def _text(change: Change | None, version: int, label: str) -> str:
    if change is None:
        return f"version {version} is {label} already"
    before = "" if change.from_version is None else f" instead of version {change.from_version}"
    return f"version {version} is {label} now{before}"

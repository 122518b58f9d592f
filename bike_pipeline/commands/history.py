"""`bike-pipeline history`: every promotion and rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, table

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@json_option
def command(settings: Settings, as_json: bool) -> None:
    """List what was validated, promoted and rolled back: when, by whom, from which version to which, and why."""
    from bike_pipeline.use_cases.promotion import history

    answer(history(settings), _view, as_json)


def _view(changes: list[Change]) -> Parts:
    if not changes:
        return "no promotion is recorded yet"
    rows = []
    for change in changes:
        versions = ("-" if v is None else v for v in (change.from_version, change.to_version))
        when = change.at[:19].replace("T", " ")
        rows.append(
            (change.revision, when, change.who, change.action, change.label or "-", *versions, change.reason or "-")
        )
    return table(("", "when (UTC)", "who", "what", "label", "from", "to", "why"), rows)

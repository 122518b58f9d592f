"""`bike-pipeline history`: every promotion and rollback."""

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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(settings: Settings, as_json: bool) -> None:
    """List what was validated, promoted and rolled back: when, by whom, from which version to which, and why."""
    from bike_pipeline.model_registry import promotion_log

    changes = promotion_log.history(settings.serving_path)
    if as_json:
        click.echo(json.dumps([asdict(change) for change in changes], indent=2))
        return
    if not changes:
        click.echo("no promotion is recorded yet")
        return
    from rich.table import Table

    from bike_pipeline.commands.run_view import console_on

    table = Table(box=None, pad_edge=False)
    for name in ("", "when (UTC)", "who", "what", "label", "from", "to", "why"):
        table.add_column(name, overflow="fold")
    for change in changes:
        versions = ["-" if v is None else str(v) for v in (change.from_version, change.to_version)]
        when = change.at[:19].replace("T", " ")
        table.add_row(
            str(change.revision), when, change.who, change.action, change.label or "-", *versions, change.reason or "-"
        )
    console_on(sys.stdout).print(table)

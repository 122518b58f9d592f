"""`bike-pipeline config`: the settings and their schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.commands.output import as_document

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.group()
def command() -> None:
    """Show the settings, or their schema."""


@command.command()
@settings_options
def show(settings: Settings) -> None:
    """Print the settings in force, as YAML that `--config` takes."""
    import yaml

    click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@command.command()
def schema() -> None:
    """Print the JSON schema of the settings: every name, type, range and meaning."""
    from bike_pipeline.settings import Settings

    click.echo(as_document(Settings.model_json_schema()))

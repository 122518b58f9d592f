"""`bike-pipeline serving-config`: TF Serving's own configuration files, from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("configs/serving"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail where a file is not what would be written.")
def command(settings: Settings, output: Path, check: bool) -> None:
    """Write TF Serving's own configuration files, and the compose.yaml that runs it with exactly these.

    They follow from the settings (serving.configuration). With the version policy `promoted` they follow from what is
    promoted too.
    """
    from bike_pipeline.rollout import configuration, targets

    promoted = None
    if settings.serving.configuration.versions.policy == "promoted":
        promoted = targets.served_versions(settings.serving_path, settings.serving.promotion.keep_loaded)
    content = configuration.files(settings, output, promoted)
    if check:
        if wrong := configuration.differing(content, output):
            raise ConfigurationError(
                f"not what the settings give: {', '.join(wrong)}",
                where=str(output),
                fix=f"write them anew: `bike-pipeline serving-config --output {output}`",
            )
        click.echo(f"{output}: {len(content)} files as the settings give them")
        return
    for path in configuration.write(content, output):
        click.echo(str(path))

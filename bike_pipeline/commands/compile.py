"""`bike-pipeline compile`: write the pipeline for Kubeflow Pipelines or Vertex AI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.commands.output import captured, log_file

if TYPE_CHECKING:
    from bike_pipeline.runners.kubeflow.definition import Target
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option(
    "--target",
    type=click.Choice(["kubeflow", "vertex"]),
    default="kubeflow",
    show_default=True,
    help="Kubeflow Pipelines (YAML) or Vertex AI (a job in JSON).",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="The file; by default in <workspace>/kubeflow.",
)
def command(settings: Settings, target: Target, output: Path | None) -> None:
    """Compile the pipeline into a spec that a cluster runs.

    The section `kubeflow` of the settings says what the cluster looks like. The same settings and code give the same
    file.
    """
    click.echo(compiled(settings, target, output))


def compiled(settings: Settings, target: Target = "kubeflow", output: Path | None = None) -> Path:
    """Compile the pipeline; what the libraries write goes to a log."""
    from bike_pipeline.use_cases.cluster import compile_pipeline

    with captured(log_file(settings, "compile")):
        return compile_pipeline(settings, target, output)

"""`bike-pipeline compile`: write the pipeline for Kubeflow Pipelines or Vertex AI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

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
    from datetime import UTC, datetime

    from bike_pipeline import extras
    from bike_pipeline.log_capture import captured
    from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

    extras.require("kubeflow", "compiling for Kubeflow and Vertex AI")
    log_file = settings.logs_path / f"compile-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    with captured(log_file) as screen:
        path = KubeflowRunner.compile(settings, target, output)
        screen.write(f"{path}\n")

"""`bike-pipeline trainjob`: write the manifest of a training by several pods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import StorageError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.argument("name")
@click.option(
    "--examples", multiple=True, required=True, help="File pattern of tf.Examples; may be given several times."
)
@click.option("--transform-graph", required=True, help="Folder of the transform graph.")
@click.option("--model", required=True, help="Folder for the model; must not exist.")
@click.option("--base-model", default="", help="Folder of the SavedModel to start from.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; else standard output.")
def command(settings: Settings, name: str, output: Path | None, **places: Any) -> None:
    """Write the TrainJob NAME for Kubeflow Trainer, with its runtime.

    Places are as the pods see them, on a volume of kubeflow.volumes. training.workers says how many pods there are.
    """
    from bike_pipeline.use_cases.cluster import train_job

    text = train_job(settings, name, **places)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the manifest ({error.strerror or error})", where=str(output), fix="name another file"
        ) from None
    click.echo(output)

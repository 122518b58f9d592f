"""`bike-pipeline trainjob`: write the manifest of a training by several pods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
def command(
    settings: Settings,
    name: str,
    examples: tuple[str, ...],
    transform_graph: str,
    model: str,
    base_model: str,
    output: Path | None,
) -> None:
    """Write the TrainJob NAME for Kubeflow Trainer, with its runtime.

    Places are as the pods see them, on a volume of kubeflow.volumes. training.workers says how many pods there are.
    """
    from bike_pipeline.modeling.training_job import TrainingJob
    from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

    schema = settings.schema_file
    job = TrainingJob(
        examples=examples,
        schema_file=str(schema if schema.is_absolute() else Path(settings.kubeflow.project_folder) / schema),
        transform_graph=transform_graph,
        base_model=base_model,
        run_dir=f"{model.rstrip('/')}.run",
        model_dir=model,
        training=settings.training,
        seed=settings.seed,
    )
    text: str = KubeflowRunner.train_job(settings, job, name)
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

"""The one pipeline definition, with the places that its stages see in the cluster instead of this machine's."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.settings.metadata import MetadataSettings

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

Target = Literal["kubeflow", "vertex"]


def cluster_settings(settings: Settings, target: Target) -> Settings:
    """Return the settings with span store and serving folder as the containers of `target` see them."""
    kubeflow = settings.kubeflow
    if settings.beam.engine != "direct":
        raise ConfigurationError(
            f"a task of a cluster runs its Beam pipelines in its own container, never on '{settings.beam.engine}'",
            where="beam.engine",
            fix="compile with --set beam.engine=direct, or use `bike-pipeline run --runner beam`",
        )
    store, serving = kubeflow.span_store, kubeflow.serving_folder
    if target == "vertex":
        vertex = kubeflow.vertex
        store, serving = vertex.span_store, vertex.serving_folder
        for name in ("pipeline_root", "serving_folder", "span_store"):
            if not getattr(vertex, name):
                raise ConfigurationError(
                    "Vertex AI needs it and it is empty",
                    where=f"kubeflow.vertex.{name}",
                    fix="set it in an overlay, see configs/vertex.yaml",
                )
        if kubeflow.metadata.mysql is None:
            raise ConfigurationError(
                "Vertex AI has no volume that could hold a SQLite file",
                where="kubeflow.metadata",
                fix='set kubeflow.metadata.mysql, and sqlite_file: "" beside it',
            )
        if kubeflow.secrets:
            raise ConfigurationError(
                "Vertex AI has no Kubernetes secrets to take variables from",
                where="kubeflow.secrets",
                fix="put the password's file into kubeflow.environment as BIKE_METADATA_PASSWORD_FILE",
            )
    return settings.model_copy(
        update={
            "data": settings.data.model_copy(update={"store": store}),
            "serving": settings.serving.model_copy(update={"base_path": serving}),
            # The cluster's store is kubeflow.metadata; the definition must not depend on this machine's.
            "metadata": MetadataSettings(),
        }
    )


def cluster_definition(settings: Settings, target: Target) -> Pipeline:
    """Return the pipeline as `create_pipeline` defines it, for the containers of `target`."""
    from bike_pipeline.pipeline import create_pipeline

    return create_pipeline(cluster_settings(settings, target), settings.kubeflow.caching)


def schema_in_image(settings: Settings) -> str:
    """Return where the curated schema is in the image."""
    try:
        relative = settings.schema_path.resolve().relative_to(PROJECT_ROOT)
    except ValueError:
        raise ConfigurationError(
            "the curated schema is not in the project, so the image does not hold it",
            where=str(settings.schema_path),
            fix="move it below the project's folder and build the image again",
        ) from None
    return str(PurePosixPath(settings.kubeflow.project_folder, *relative.parts))

"""Writes the compiled pipeline: YAML in two documents for Kubeflow Pipelines, a job in JSON for Vertex AI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bike_pipeline import extras
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.runners.kubeflow import go_yaml
from bike_pipeline.runners.kubeflow.definition import Target
from bike_pipeline.runners.kubeflow.platform_document import platform_document
from bike_pipeline.runners.kubeflow.spec import pipeline_spec
from bike_pipeline.settings import Settings
from bike_pipeline.storage.atomic_files import one_error, replace_file

SUFFIXES: dict[Target, str] = {"kubeflow": ".yaml", "vertex": ".json"}


def compile_pipeline(settings: Settings, target: Target, output: Path | None = None) -> Path:
    """Write the compiled pipeline; the same settings and code give the same bytes.

    Args:
        settings: the settings; their section `kubeflow` says what the cluster looks like.
        target: what to compile for.
        output: the file; by default `<workspace>/kubeflow/<pipeline name>.yaml` (`.json` for Vertex AI).

    Returns:
        The file that was written.

    Raises:
        ConfigurationError: the definition cannot be compiled, or the file's name does not fit the target.
        MissingExtraError: the extra `kubeflow` is not installed.
        StorageError: the file cannot be written.
    """
    extras.require("kubeflow", "compiling for Kubeflow and Vertex AI")
    suffix = SUFFIXES[target]
    path = output or settings.workspace_path / "kubeflow" / f"{settings.pipeline_name}{suffix}"
    if path.suffix != suffix:
        raise ConfigurationError(
            f"the target '{target}' takes a {suffix} file", where=str(path), fix=f"name it {path.stem}{suffix}"
        )
    content = to_yaml(compiled(settings)) if target == "kubeflow" else to_json(vertex_job(settings))
    with one_error("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.encode())
    return path


def compiled(settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline spec and the platform document for Kubeflow Pipelines."""
    spec = pipeline_spec(settings, "kubeflow")
    return spec, platform_document(settings, spec)


def vertex_job(settings: Settings) -> dict[str, Any]:
    """Return Vertex AI's PipelineJob."""
    spec = pipeline_spec(settings, "vertex")
    vertex = settings.kubeflow.vertex
    return {
        "displayName": settings.pipeline_name,
        "labels": vertex.labels,
        "pipelineSpec": spec,
        "runtimeConfig": {"gcsOutputDirectory": vertex.pipeline_root, "parameterValues": {}},
    }


def to_yaml(documents: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """Return the two documents as the text that KFP's upload takes."""
    return go_yaml.dump_all(documents)


def to_json(job: dict[str, Any]) -> str:
    """Return the job as JSON."""
    return json.dumps(job, indent=2, sort_keys=True) + "\n"

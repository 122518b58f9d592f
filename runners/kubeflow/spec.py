"""The pipeline spec: TFX's own compilation, mended where Kubeflow Pipelines refuses it or runs it wrongly.

Each step names what happens without it. The sources are KFP's driver, launcher and compiler, 2.14 to 2.17.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.runners.beam.flags import direct_flags
from bike_pipeline.runners.kubeflow.definition import Target, cluster_definition, cluster_settings, schema_in_image
from bike_pipeline.settings import Settings
from bike_pipeline.stages import Stage

if TYPE_CHECKING:
    from tfx.dsl.components.base.base_node import BaseNode
    from tfx.orchestration.pipeline import Pipeline

SCHEMA_VERSION: Final = "2.1.0"
COMMAND: Final = ("python", "-m", "bike_pipeline.runners.kubeflow.task")
RESET: Final = "accept_baseline_reset"
# Argo counts the longest time for retries from the first attempt's start, so it has to outlast every attempt; without
# it KFP writes "0", and no retry ever comes. Vertex AI takes an hour where nothing is said, its limit.
RETRY_FOR: Final = f"{30 * 24 * 3600}s"
# They look at data or models that KFP's cache key does not know.
NEVER_CACHED: Final = frozenset({Stage.EXAMPLE_GEN, Stage.WARM_START_LOOKUP, Stage.BASELINE_LOOKUP, Stage.PUSHER})
# The stage that writes down what the run is made of: it has none before it and always runs.
RECORDER: Final = Stage.EXAMPLE_GEN
_NOT_IN_NAMES = re.compile(r"[^-a-zA-Z0-9]+")


def pipeline_spec(settings: Settings, target: Target) -> dict[str, Any]:
    """Return the pipeline spec (schema 2.1.0) as a dictionary that protobuf's JSON parser takes.

    Raises:
        ConfigurationError: the definition holds something that cannot be compiled.
    """
    definition = cluster_definition(settings, target)
    spec = compile_definition(definition, settings.kubeflow.image, target)
    if target == "kubeflow":
        spec["defaultPipelineRoot"] = settings.kubeflow.pipeline_root
    _set_schema_path(spec, settings)
    for name, task in spec["root"]["dag"]["tasks"].items():
        executor = spec["deploymentSpec"]["executors"][
            spec["components"][task["componentRef"]["name"]]["executorLabel"]
        ]
        cached = settings.kubeflow.caching and name not in NEVER_CACHED
        # An absent switch is not "off" everywhere: both are written down.
        task["cachingOptions"] = {"enableCache": True} if cached else {}
        _give_resources(task, executor["container"], settings, name, target)
        executor["container"]["args"] += _metadata_and_beam(settings)
        if name == RECORDER:
            executor["container"]["args"] += ["--run_record", _run_record(settings, target)]
    _let_runs_accept_a_reset(spec)
    return spec


def compile_definition(definition: Pipeline, image: str, target: Target) -> dict[str, Any]:
    """Return the mended spec of any TFX pipeline, without what the settings add to it."""
    from google.protobuf import json_format
    from tfx import version
    from tfx.orchestration.kubeflow.v2 import pipeline_builder

    nodes = {node.id: node for node in definition.components}
    for node in nodes.values():
        _refuse(node, target)
    try:
        built = pipeline_builder.PipelineBuilder(
            definition, image, default_commands=list(COMMAND), use_pipeline_spec_2_1=True
        ).build()
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"TFX cannot compile the pipeline for Kubeflow ({error})", where="the pipeline definition"
        ) from error
    spec: dict[str, Any] = json_format.MessageToDict(built)
    spec["schemaVersion"] = SCHEMA_VERSION
    spec["sdkVersion"] = f"tfx-{version.__version__}"
    _mend(spec, definition, nodes)
    return spec


def _refuse(node: BaseNode, target: Target) -> None:
    """Stop at nodes that compile and then fail in the cluster."""
    from tfx.dsl.components.common import importer, resolver

    if target == "kubeflow" and isinstance(node, resolver.Resolver):
        raise ConfigurationError(
            "a Resolver: Kubeflow Pipelines accepts the upload and refuses the run",
            where=node.id,
            fix="look the artifact up in an ordinary component, as BaselineLookup does",
        )
    if isinstance(node, importer.Importer):
        uri = node.exec_properties[importer.SOURCE_URI_KEY]
        if isinstance(uri, str) and not re.match(r"^(gs|s3|minio|oci)://", uri):
            raise ConfigurationError(
                f"an Importer of '{uri}': Kubeflow imports from gs, s3, minio and oci only",
                where=node.id,
                fix="put the artifact into the object store",
            )


def _mend(spec: dict[str, Any], definition: Pipeline, nodes: dict[str, BaseNode]) -> None:
    tasks = spec["root"]["dag"]["tasks"]
    names = {name: _NOT_IN_NAMES.sub("-", name).strip("-") for name in tasks}
    if len(set(names.values())) != len(names):
        raise ConfigurationError(
            f"two of these names are the same to Argo: {', '.join(sorted(names))}",
            where="the pipeline definition",
            fix="name stages by letters, digits and hyphens",
        )
    for task in tasks.values():
        # TFX writes the producer of a parameter as "X_task"; the task is "X": "unknown producer task".
        for reference in _references(task):
            reference["producerTask"] = names[reference["producerTask"].removesuffix("_task")]
        task["dependentTasks"] = sorted(names[name] for name in task.get("dependentTasks", ()))
        if not task["dependentTasks"]:
            del task["dependentTasks"]
        # Argo refuses names with dots and underscores.
        task["taskInfo"]["name"] = names[task["taskInfo"]["name"]]
    spec["root"]["dag"]["tasks"] = {names[name]: task for name, task in tasks.items()}
    _give_defaults(spec, nodes)
    for name, node in nodes.items():
        container = spec["deploymentSpec"]["executors"][f"{name}_executor"].get("container")
        if container is None or "--executor_class_path" not in container.get("args", ()):
            continue
        # Open-source KFP never reads the hook; our entry point runs the driver itself.
        container.pop("lifecycle", None)
        container["args"] = ["--executor_input", "{{$}}", "--task", json.dumps(_task(definition, node), sort_keys=True)]


def _references(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inputs = task.get("inputs", {})
    for kind, field in (("artifacts", "taskOutputArtifact"), ("parameters", "taskOutputParameter")):
        for source in inputs.get(kind, {}).values():
            if field in source:
                yield source[field]


def _give_defaults(spec: dict[str, Any], nodes: dict[str, BaseNode]) -> None:
    """Write the runtime parameters' defaults, which TFX loses: "is not optional, yet has neither default value"."""
    from tfx.orchestration import data_types

    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for node in nodes.values():
        for value in node.exec_properties.values():
            if isinstance(value, data_types.RuntimeParameter) and value.default is not None:
                parameters[value.name]["defaultValue"] = value.default


def _task(definition: Pipeline, node: BaseNode) -> dict[str, Any]:
    """Return what the entry point has to know of a node; KFP hands it no types of inputs and no driver."""
    from tfx.dsl.components.base import base_driver, executor_spec
    from tfx.utils import name_utils

    annotation = getattr(node.type_annotation, "MLMD_SYSTEM_BASE_TYPE", None) if node.type_annotation else None
    driver = node.driver_class
    return {
        "pipeline": definition.pipeline_info.pipeline_name,
        "node": node.id,
        "type": name_utils.get_full_name(type(node)),
        "base_type": int(annotation) if annotation is not None else 0,
        "executor": name_utils.get_full_name(node.executor_spec.executor_class),
        "beam": isinstance(node.executor_spec, executor_spec.BeamExecutorSpec),
        "driver": "" if driver is base_driver.BaseDriver else name_utils.get_full_name(driver),
        "inputs": {key: name_utils.get_full_name(channel.type) for key, channel in sorted(node.inputs.items())},
        "outputs": {key: name_utils.get_full_name(channel.type) for key, channel in sorted(node.outputs.items())},
        "integers": sorted(k for k, v in node.exec_properties.items() if isinstance(v, int)),
    }


def _set_schema_path(spec: dict[str, Any], settings: Settings) -> None:
    for task in spec["root"]["dag"]["tasks"].values():
        for source in task.get("inputs", {}).get("parameters", {}).values():
            constant = source.get("runtimeValue", {})
            if constant.get("constant") == str(settings.schema_path):
                constant["constant"] = schema_in_image(settings)


def _let_runs_accept_a_reset(spec: dict[str, Any]) -> None:
    """Make the acceptance of a baseline reset a parameter of a run: it is meant for one run, never for all to come."""
    for task in spec["root"]["dag"]["tasks"].values():
        parameters = task.get("inputs", {}).get("parameters", {})
        if RESET in parameters:
            parameters[RESET] = {"componentInputParameter": RESET}
    spec["root"].setdefault("inputDefinitions", {}).setdefault("parameters", {})[RESET] = {
        "parameterType": "NUMBER_INTEGER",
        "defaultValue": 0,
        "isOptional": True,
        "description": "1 lets a candidate with another signature or metric set pass uncompared, in this run.",
    }


def _give_resources(
    task: dict[str, Any], container: dict[str, Any], settings: Settings, name: str, target: Target
) -> None:
    stage = settings.kubeflow.stage(name)
    resources: dict[str, Any] = {}
    if stage.cpu:
        resources |= {"resourceCpuLimit": stage.cpu, "resourceCpuRequest": stage.cpu}
    if stage.memory:
        resources |= {"resourceMemoryLimit": stage.memory, "resourceMemoryRequest": stage.memory}
    if target == "vertex":
        # Vertex AI reads the numeric fields: cores, and gigabytes of 10^9 bytes.
        resources = {}
        if stage.cpu:
            resources["cpuLimit"] = _cores(stage.cpu)
        if stage.memory:
            resources["memoryLimit"] = _gigabytes(stage.memory)
    if stage.accelerator:
        accelerator = stage.accelerator
        resources["accelerator"] = (
            {"type": accelerator.type, "count": str(accelerator.count)}
            if target == "vertex"
            else {"resourceType": accelerator.type, "resourceCount": str(accelerator.count)}
        )
    if resources:
        container["resources"] = resources
    if settings.kubeflow.environment:
        container["env"] = [{"name": n, "value": v} for n, v in sorted(settings.kubeflow.environment.items())]
    if stage.retries:
        task["retryPolicy"] = {"maxRetryCount": stage.retries, "backoffDuration": "30s", "backoffFactor": 2.0}
        if target == "kubeflow":
            task["retryPolicy"]["backoffMaxDuration"] = RETRY_FOR


def _cores(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _gigabytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9]+)(.*)", quantity).groups()  # type: ignore[union-attr]
    factor = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    return round(int(number) * factor[unit] / 1e9, 6)


def _metadata_and_beam(settings: Settings) -> list[str]:
    kubeflow = settings.kubeflow
    arguments = ["--metadata", kubeflow.metadata.address, "--beam", json.dumps(direct_flags(settings.beam))]
    return [*arguments, "--artifact_folder", kubeflow.artifact_folder] if kubeflow.artifact_folder else arguments


def _run_record(settings: Settings, target: Target) -> str:
    """Return what the containers cannot know of the run they belong to: the settings that it was compiled from."""
    # Two places that differ from machine to machine, and mean nothing in a container.
    changes = {"workspace": Path("workspace"), "schema_file": Path(schema_in_image(settings))}
    there = cluster_settings(settings, target).model_copy(update=changes)
    return json.dumps({"runner": target, "settings": there.model_dump(mode="json")}, sort_keys=True)

"""Whether open-source Kubeflow Pipelines would take a compiled spec: its own rules at upload and at run creation.

The server answers a bad spec late: some only when a run is created, some never (a platform document for an executor
that does not exist is dropped without a word). The rules are those of KFP 2.14 to 2.17: the API server's
`template/v2_template.go`, the compiler's `visitor.go`, `argocompiler/dag.go` and `argocompiler/importer.go`, and Argo's
checks of names. `make referee` asks KFP's own code where its Go modules can be had.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bike_pipeline import extras
from bike_pipeline.errors import ConfigurationError, and_more
from bike_pipeline.runners.kubeflow import go_yaml

SCHEMA_VERSION = "2.1.0"
IMPORT_SCHEMES = ("gs", "s3", "minio", "oci")
_PIPELINE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# Argo's names of DAG tasks and templates.
_ARGO_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
# KFP puts "-driver" behind a task's name, and Argo allows 128 characters.
_LONGEST_TASK = 128 - len("-driver")
_RESERVED = ("root",)


def check(text: str) -> frozenset[str]:
    """Return the names of a spec's tasks, or stop where KFP would refuse the spec.

    Raises:
        ConfigurationError: KFP would refuse it; the line has the first reason and the number of others.
        MissingExtraError: the extra `kubeflow` is not installed.
    """
    extras.require("kubeflow", "checking a compiled spec")
    found = list(refusals(text))
    if found:
        raise ConfigurationError(
            f"Kubeflow Pipelines would refuse the spec: {found[0]}{and_more(found)}",
            fix="compile it with `bike-pipeline compile`; stock TFX output needs mending",
        )
    return frozenset(_documents(text)[0]["root"]["dag"]["tasks"])


def pipeline_root(text: str) -> str:
    """Return where a spec wants its artifacts; "" where it says nothing.

    No code of KFP reads it: a run's root is what the request for the run says, else the launcher's configuration.
    """
    return str(_documents(text)[0].get("defaultPipelineRoot") or "")


def refusals(text: str) -> Iterator[str]:
    """Yield every reason that KFP has to refuse a spec; nothing where it takes it."""
    import yaml

    try:
        documents = _documents(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        # Very deep nesting and integers of thousands of digits are refused by Python in its own ways.
        yield f"not YAML ({getattr(error, 'problem', None) or 'unreadable'})"
        return
    pipelines = [one for one in documents if "pipelineInfo" in one or "pipelineSpec" in one]
    if not pipelines:
        yield "there is no pipeline spec in it"
        return
    if "pipelineSpec" in pipelines[0]:
        yield "unknown template format: a pipeline job (of Vertex AI), where a pipeline spec is meant"
        return
    if len(pipelines) > 1 or documents[0] is not pipelines[0]:
        yield "multiple pipeline specs provided, or the pipeline is not the first document"
        return
    spec, broken = _parsed(pipelines[0], "PipelineSpec")
    if broken:
        yield f"invalid v2 pipeline spec: {broken}"
        return
    yield from _upload(spec)
    if "dag" not in spec.get("root", {}):
        return
    yield from _executors(spec)
    yield from _tasks(spec)
    yield from _parameters(spec)
    yield from _platform(spec, documents[1:])


def _documents(text: str) -> list[dict[str, Any]]:
    return [document for document in go_yaml.load_all(text) if isinstance(document, dict)]


def _parsed(document: dict[str, Any], kind: str) -> tuple[dict[str, Any], str]:
    """Return a document without its nulls, and what protobuf has against it; the server parses it as strictly."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    try:
        message = json_format.ParseDict(document, getattr(pipeline_spec_pb2, kind)())
    except json_format.ParseError as error:
        return {}, " ".join(str(error).split()).rstrip(".")
    return dict(json_format.MessageToDict(message)), ""


def _upload(spec: dict[str, Any]) -> Iterator[str]:
    version = spec.get("schemaVersion") or "none"
    if version != SCHEMA_VERSION:
        yield f"KFP only supports schema version {SCHEMA_VERSION}, but the pipeline spec has version {version}"
    name = spec.get("pipelineInfo", {}).get("name", "")
    if not _PIPELINE_NAME.fullmatch(name):
        yield f"the pipeline's name '{name}' is not of lower-case letters, digits, '-' and '.'"
    if "dag" not in spec.get("root", {}):
        yield "root component is empty"


def _executors(spec: dict[str, Any]) -> Iterator[str]:
    # A struct to the upload; what is in it is read when a run is created.
    _, broken = _parsed(spec.get("deploymentSpec", {}), "PipelineDeploymentConfig")
    if broken:
        yield f"deployment spec: {broken}"
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    for name, component in spec.get("components", {}).items():
        if name in _RESERVED:
            yield f'component name "{name}" is reserved'
        label = component.get("executorLabel", "")
        if not label and "dag" not in component:
            yield f"component '{name}': unknown component implementation"
        elif label and label not in executors:
            yield f"component '{name}': executor(label=\"{label}\") not found in deployment config"
        elif label and "container" in executors[label]:
            if not executors[label]["container"].get("image"):
                yield f"executor '{label}': its container has no image"
        elif label and "importer" in executors[label]:
            uri = executors[label]["importer"].get("artifactUri", {}).get("constant", "")
            if uri and uri.partition("://")[0] not in IMPORT_SCHEMES:
                yield f"executor '{label}': an importer takes {', '.join(IMPORT_SCHEMES)} addresses, not '{uri}'"
        elif label:
            yield f"executor '{label}': non-container and non-importer executor not implemented"


def _dags(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "root", spec["root"]
    for name, component in spec.get("components", {}).items():
        if "dag" in component:
            yield name, component


def _tasks(spec: dict[str, Any]) -> Iterator[str]:
    components = spec.get("components", {})
    for dag, component in _dags(spec):
        tasks = component["dag"].get("tasks", {})
        if not tasks:
            yield f"'{dag}' must contain one or more tasks"
        for name, task in tasks.items():
            if not _ARGO_NAME.fullmatch(name) or len(name) > _LONGEST_TASK:
                yield f"the task name '{name}' is not of letters, digits and '-', or too long for Argo"
            reference = task.get("componentRef", {}).get("name", "")
            if reference not in components:
                yield f"task '{name}': cannot find component '{reference}'"
            if "artifactIterator" in task:
                yield f"task '{name}': artifact iterator not implemented"
            policy = task.get("retryPolicy", {})
            if policy.get("maxRetryCount") and "backoffMaxDuration" not in policy:
                # Its default is "0", and Argo counts it from the first attempt's start.
                yield f"task '{name}': retries without backoffMaxDuration never come (Max duration limit exceeded)"
            yield from _producers(name, task, tasks)


def _producers(name: str, task: dict[str, Any], tasks: dict[str, Any]) -> Iterator[str]:
    inputs = task.get("inputs", {})
    for kind, field in (("artifacts", "taskOutputArtifact"), ("parameters", "taskOutputParameter")):
        for key, source in inputs.get(kind, {}).items():
            producer = source.get(field, {}).get("producerTask")
            if producer is not None and producer not in tasks:
                yield f"task '{name}': unknown producer task \"{producer}\" of its input '{key}'"
    for dependency in task.get("dependentTasks", ()):
        if dependency not in tasks:
            yield f"task '{name}': it depends on '{dependency}', which is no task"


def _parameters(spec: dict[str, Any]) -> Iterator[str]:
    for name, parameter in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items():
        if not parameter.get("isOptional") and parameter.get("defaultValue") is None:
            yield f"parameter {name} is not optional, yet has neither default value nor user provided value"
    known = set(spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    for name, task in spec["root"]["dag"].get("tasks", {}).items():
        for key, source in task.get("inputs", {}).get("parameters", {}).items():
            parameter = source.get("componentInputParameter")
            if parameter is not None and parameter not in known:
                yield f"task '{name}': its input '{key}' comes from the parameter '{parameter}', which is not there"


def _platform(spec: dict[str, Any], documents: list[dict[str, Any]]) -> Iterator[str]:
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2

    if len(documents) > 1:
        yield "multiple platform specs provided"
        return
    executors = spec.get("deploymentSpec", {}).get("executors", {})
    for document in documents:
        platform, broken = _parsed(document, "PlatformSpec")
        kubernetes = platform.get("platforms", {}).get("kubernetes")
        if kubernetes is None:
            yield f"the second document is no platform spec, and would be dropped{f' ({broken})' if broken else ''}"
            return
        for label, values in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
            if label not in executors:
                yield f"the platform document's executor '{label}' is not there, so its entry would be dropped"
            try:
                json_format.ParseDict(values, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
            except json_format.ParseError as error:
                yield f"the platform document's executor '{label}': {' '.join(str(error).split())}"
                continue
            claims = [mount.get("constant") for mount in values.get("pvcMount", ())]
            if len(set(claims)) != len(claims):
                yield f"the platform document's executor '{label}': one claim is mounted twice, a duplicate volume"

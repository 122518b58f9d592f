"""Runs a compiled spec without a cluster, as KFP's driver and Argo do (backend/src/v2, read at 2.14 to 2.17).

For every task it builds the ExecutorInput and hands it to the launcher (`runners/kubeflow/launcher.py`), with the
command and the retries of the task. Where a run here differs from one in a cluster:

- The object store is a folder, and so is the root of each container: /minio, /s3 and /gcs lie below it. The entry point
  learns it from a variable.
- `python` is this interpreter, and there is no image: resources, pull policy, node selectors, tolerations and volumes
  have no effect, and the tasks run as the user who calls. Secrets are expected in the caller's environment.
- Nothing is answered from KFP's cache. A retry comes without its pause; whether it comes is reckoned with the pauses.
- A task's exit code is that of its command. KFP's launcher ends with 1 whatever the command ended with.
- The output file is beside the artifacts, as in KFP 2.17; in 2.14 it is below /tmp.
- KFP 2.14 lists inputs by the bare beginning of their names, so that `model` brings `model_run` along: not here.
- Conditions, loops, importers and nested pipelines are refused: the bike pipeline has none.
"""

from __future__ import annotations

import graphlib
import json
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bike_pipeline.errors import BikePipelineError, ConfigurationError
from bike_pipeline.runners.kubeflow import go_yaml
from bike_pipeline.runners.kubeflow.launcher import LOGS, Container, Launcher, Progress
from bike_pipeline.runners.kubeflow.mounts import Mounts
from bike_pipeline.runners.kubeflow.platform_document import RUN_ID_FIELD

_UNSUPPORTED = ("artifactIterator", "parameterIterator", "triggerPolicy")


class Emulator:
    """One run of one compiled spec."""

    def __init__(
        self,
        file: Path,
        folder: Path,
        run_id: str,
        root: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Read the spec, to be run below `folder` with the artifacts at `root`, as the request for a run says it.

        `environment` comes to every task beside the variables of this process and of the spec.
        """
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2 as pb

        try:
            self._spec, platforms = go_yaml.load_all(file.read_text(encoding="utf-8"))
            json_format.ParseDict(self._spec, pb.PipelineSpec())
            json_format.ParseDict(self._spec["deploymentSpec"], pb.PipelineDeploymentConfig())
            json_format.ParseDict(platforms, pb.PlatformSpec())
        except (json_format.ParseError, yaml.YAMLError) as error:
            raise ConfigurationError(f"not a pipeline spec ({error})", where=str(file)) from None
        self._platform = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._tasks = self._spec["root"]["dag"]["tasks"]
        for name, task in self._tasks.items():
            if found := [field for field in _UNSUPPORTED if field in task]:
                raise ConfigurationError(f"'{found[0]}' is not run without a cluster", where=name)
        self.store = Mounts(str(folder / "store"))
        self._folder = folder
        self._run_id = run_id
        self._root = f"{root.rstrip('/')}/{self._spec['pipelineInfo']['name']}/{run_id}"
        self._parameters = {
            key: parameters.get(key, definition.get("defaultValue"))
            for key, definition in self._spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
        }
        self._launcher = Launcher(self.store, environment or {})
        self._outputs: dict[str, dict[str, Any]] = {}

    @property
    def upstream(self) -> dict[str, list[str]]:
        """The tasks, each with those that must be done before it, in an order in which they can run."""
        needed = {name: self._tasks[name].get("dependentTasks", []) for name in sorted(self._tasks)}
        try:
            return {name: needed[name] for name in graphlib.TopologicalSorter(needed).static_order()}
        except graphlib.CycleError as error:
            raise ConfigurationError("these tasks wait for each other", where=", ".join(error.args[1])) from None

    def stop(self) -> None:
        """End the processes of all tasks."""
        self._launcher.stop()

    def run_task(self, name: str, progress: Progress) -> None:
        """Run one task to its end, as often as its retry policy allows."""
        executor_input = self._executor_input(name)
        container = self._container(name)
        policy = self._tasks[name].get("retryPolicy", {})
        begin, paused, attempt = time.monotonic(), 0.0, 0
        while True:
            own = json.loads(json.dumps(executor_input))
            if policy:
                own["outputs"]["artifacts"][LOGS]["artifacts"][0]["uri"] += f"-{attempt}"
            try:
                self._outputs[name] = self._launcher.launch(container, own, progress)
                return
            except BikePipelineError:
                attempt += 1
                pause = _pause(policy, attempt)
                if attempt > int(policy.get("maxRetryCount", 0)) or self._launcher.stopped:
                    raise
                if reason := _too_late(policy, time.monotonic() - begin + paused, pause):
                    sys.stdout.write(f"[{name}] not tried again: {reason}\n")
                    raise
                paused += pause

    def _component(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._spec["components"][self._tasks[name]["componentRef"]["name"]]
        return found

    def _executor_input(self, name: str) -> dict[str, Any]:
        """What KFP's driver does: resolve inputs, and say where outputs belong."""
        definitions = self._component(name)
        given = self._tasks[name].get("inputs", {})
        values = {key: self._parameter(source) for key, source in given.get("parameters", {}).items()}
        artifacts = {}
        for key, source in given.get("artifacts", {}).items():
            producer = source["taskOutputArtifact"]
            artifacts[key] = self._outputs[producer["producerTask"]]["artifacts"][producer["outputArtifactKey"]]
        place = f"{self._root}/{name}/{uuid.uuid4()}"
        defined = definitions.get("outputDefinitions", {})
        outputs = {
            key: _announced(key, place, one["artifactType"], one.get("metadata"))
            for key, one in defined.get("artifacts", {}).items()
        }
        outputs[LOGS] = _announced(LOGS, place, {"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}, None)
        folder = self._task_folder(name)
        files = {key: {"outputFile": str(folder / "parameters" / key)} for key in defined.get("parameters", {})}
        file = f"{place}/output_metadata.json"
        return {
            "inputs": _without_empty({"parameterValues": values, "artifacts": artifacts}),
            "outputs": _without_empty(
                {"artifacts": outputs, "parameters": files, "outputFile": Mounts(str(folder)).path(file)}
            ),
        }

    def _parameter(self, source: dict[str, Any]) -> Any:
        if "runtimeValue" in source:
            return source["runtimeValue"]["constant"]
        if "componentInputParameter" in source:
            return self._parameters[source["componentInputParameter"]]
        producer = source["taskOutputParameter"]
        return self._outputs[producer["producerTask"]]["parameters"][producer["outputParameterKey"]]

    def _task_folder(self, name: str) -> Path:
        return self._folder / "tasks" / self._run_id / name

    def _container(self, name: str) -> Container:
        component = self._component(name)
        label = component["executorLabel"]
        container = self._spec["deploymentSpec"]["executors"][label]["container"]
        environment = {
            **{entry["name"]: entry["value"] for entry in container.get("env", ())},
            **{
                entry["name"]: self._run_id
                for entry in self._platform.get(label, {}).get("fieldPathAsEnv", ())
                if entry["fieldPath"] == RUN_ID_FIELD
            },
        }
        command = (*container["command"], *container.get("args", ()))
        return Container(name, component, command, environment, self._task_folder(name), self._root)


def _announced(key: str, place: str, kind: dict[str, Any], metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return an output artifact as the driver announces it: named by its key."""
    artifact = {"name": key, "type": kind, "uri": f"{place}/{key}", **({"metadata": metadata} if metadata else {})}
    return {"artifacts": [artifact]}


def _without_empty(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as protobuf writes it: empty maps are left out."""
    return {key: value for key, value in message.items() if value}


def _seconds(policy: Mapping[str, Any], key: str) -> float:
    return float(str(policy.get(key, "0s")).removesuffix("s"))


def _pause(policy: Mapping[str, Any], attempt: int) -> float:
    """Return how many seconds Argo waits after the attempt of this number, counted from 1."""
    factor = float(policy.get("backoffFactor", 0))
    return _seconds(policy, "backoffDuration") * float(factor ** (attempt - 1) if factor > 0 else 1)


def _too_late(policy: Mapping[str, Any], passed: float, pause: float) -> str:
    """Return Argo's reason not to try again, seconds after the first attempt's start; "" where there is none.

    A task without `backoffMaxDuration` gets KFP's default, "0": its time is always over.
    """
    longest = _seconds(policy, "backoffMaxDuration")
    if passed > longest:
        return "Max duration limit exceeded"
    return "Backoff would exceed max duration limit" if passed + pause > longest else ""

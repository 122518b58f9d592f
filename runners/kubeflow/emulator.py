"""Runs a compiled spec without a cluster, as KFP's driver and launcher do (backend/src/v2, read at 2.14 to 2.17).

For every task it builds the ExecutorInput, puts the task's own command and arguments together, copies the inputs from
the object store into the launcher's folders, runs the command as a process, reads its output file back and copies the
outputs into the object store. Where it differs from KFP:

- The object store is a folder. Copies are hard links, so files must not be edited in place (no stage does).
- The launcher's folders /minio, /s3 and /gcs lie below a folder of each task, and the output file as well, since the
  tasks share one file system. The entry point learns the former from a variable.
- `python` is this interpreter, and there is no image: resources, pull policy, node selectors, tolerations and volumes
  have no effect. Secrets are expected in the environment of the calling process.
- Nothing is answered from KFP's cache, and a failed task is tried again at once, without its pause.
- Conditions, loops, importers and nested pipelines are refused: the bike pipeline has none.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bike_pipeline.errors import BikePipelineError, ConfigurationError, StageError
from runners.kubeflow.mounts import ROOT_VARIABLE, Mounts
from runners.kubeflow.platform_document import RUN_ID_FIELD
from runners.kubeflow.task import PROGRESS_MARK

Progress = Callable[[float, str], None]
_UNSUPPORTED = ("artifactIterator", "parameterIterator", "triggerPolicy")


class Emulator:
    """One run of one compiled spec."""

    def __init__(
        self,
        file: Path,
        folder: Path,
        run_id: str,
        parameters: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Read the spec.

        Args:
            file: the compiled spec (YAML).
            folder: where the object store and the tasks' folders are.
            run_id: the run's id.
            parameters: values of the run's parameters; others keep their defaults.
            environment: variables of every task, besides those of this process and of the spec.

        Raises:
            ConfigurationError: the spec is none that KFP's schema knows, or it holds what is not run here.
        """
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2 as pb

        self._spec, platforms = yaml.safe_load_all(file.read_text(encoding="utf-8"))
        try:
            json_format.ParseDict(self._spec, pb.PipelineSpec())
            json_format.ParseDict(self._spec["deploymentSpec"], pb.PipelineDeploymentConfig())
            json_format.ParseDict(platforms, pb.PlatformSpec())
        except json_format.ParseError as error:
            raise ConfigurationError(f"not a pipeline spec ({error})", where=str(file)) from None
        self._platform = platforms["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._tasks = self._spec["root"]["dag"]["tasks"]
        for name, task in self._tasks.items():
            if found := [field for field in _UNSUPPORTED if field in task]:
                raise ConfigurationError(f"'{found[0]}' is not run without a cluster", where=name)
        self.store = Mounts(str(folder / "store"))
        self._folder = folder
        self._run_id = run_id
        name = self._spec["pipelineInfo"]["name"]
        self._root = f"{self._spec['defaultPipelineRoot'].rstrip('/')}/{name}/{run_id}"
        self._parameters = {
            key: parameters.get(key, definition.get("defaultValue"))
            for key, definition in self._spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
        }
        self._environment = dict(environment or {})
        self._outputs: dict[str, dict[str, Any]] = {}
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    @property
    def upstream(self) -> dict[str, list[str]]:
        """The tasks, each with those that must be done before it, in an order in which they can run."""
        ordered: dict[str, list[str]] = {}
        while len(ordered) < len(self._tasks):
            before = len(ordered)
            for name in sorted(self._tasks):
                needed = self._tasks[name].get("dependentTasks", [])
                if name not in ordered and all(other in ordered for other in needed):
                    ordered[name] = needed
            if len(ordered) == before:
                raise ConfigurationError("these tasks wait for each other", where=", ".join(self._tasks))
        return ordered

    def stop(self) -> None:
        """End the processes of all tasks."""
        self._stopped.set()
        for process in list(self._processes):
            process.terminate()

    def run_task(self, name: str, progress: Progress) -> None:
        """Run one task to its end, as often as its retry policy allows.

        Raises:
            BikePipelineError: the last attempt failed; the error and exit code are those of the task.
        """
        executor_input = self._executor_input(name)
        retries = int(self._tasks[name].get("retryPolicy", {}).get("maxRetryCount", 0))
        for attempt in range(retries + 1):
            try:
                self._outputs[name] = self._launch(name, json.loads(json.dumps(executor_input)), progress)
                return
            except BikePipelineError:
                if attempt == retries or self._stopped.is_set():
                    raise

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
        salt = uuid.uuid4()
        outputs = definitions.get("outputDefinitions", {})
        return {
            "inputs": {"parameterValues": values, "artifacts": artifacts},
            "outputs": {
                "artifacts": {
                    key: {
                        "artifacts": [
                            {
                                "type": definition["artifactType"],
                                "uri": f"{self._root}/{name}/{salt}/{key}",
                                "metadata": definition.get("metadata", {}),
                            }
                        ]
                    }
                    for key, definition in outputs.get("artifacts", {}).items()
                },
                "parameters": {
                    key: {"outputFile": str(self._task_folder(name) / "outputs" / key)}
                    for key in outputs.get("parameters", {})
                },
                "outputFile": str(self._task_folder(name) / "kfp_outputs" / "output_metadata.json"),
            },
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

    def _launch(self, name: str, executor_input: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """What KFP's launcher does: default parameters, placeholders, inputs down, the command, outputs up."""
        folder = self._task_folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        seen = Mounts(str(folder))
        values = executor_input["inputs"]["parameterValues"]
        for key, definition in self._component(name).get("inputDefinitions", {}).get("parameters", {}).items():
            if key not in values and "defaultValue" in definition:
                values[key] = definition["defaultValue"]
        for listed in executor_input["inputs"]["artifacts"].values():
            uri = listed["artifacts"][0]["uri"]
            _copy(self.store.path(uri), seen.path(uri))
        for listed in executor_input["outputs"]["artifacts"].values():
            Path(os.path.dirname(seen.path(listed["artifacts"][0]["uri"]))).mkdir(exist_ok=True, parents=True)
        self._call(name, executor_input, progress)
        result = self._collect(name, executor_input, seen)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _call(self, name: str, executor_input: dict[str, Any], progress: Progress) -> None:
        label = self._component(name)["executorLabel"]
        container = self._spec["deploymentSpec"]["executors"][label]["container"]
        placeholders = _placeholders(executor_input)
        command = [_filled(part, placeholders) for part in (*container["command"], *container.get("args", ()))]
        if command[0] == "python":
            command[0] = sys.executable
        environment = {
            **os.environ,
            **self._environment,
            **{entry["name"]: entry["value"] for entry in container.get("env", ())},
            **{
                entry["name"]: self._run_id
                for entry in self._platform.get(label, {}).get("fieldPathAsEnv", ())
                if entry["fieldPath"] == RUN_ID_FIELD
            },
            ROOT_VARIABLE: str(self._task_folder(name)),
        }
        last: collections.deque[str] = collections.deque(maxlen=50)
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            self._processes.add(process)
            try:
                if self._stopped.is_set():
                    process.kill()
                assert process.stdout is not None
                for line in process.stdout:
                    if line.startswith(PROGRESS_MARK):
                        fraction, _, text = line.removeprefix(PROGRESS_MARK).strip().partition(" ")
                        progress(float(fraction), text)
                    else:
                        last.append(line.rstrip())
                        sys.stdout.write(f"[{name}] {line}")
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
                self._processes.discard(process)
        if process.returncode:
            raise _error(name, process.returncode, last)

    def _collect(self, name: str, executor_input: dict[str, Any], seen: Mounts) -> dict[str, Any]:
        """Read what the task wrote, put its outputs into the object store and keep what KFP's store would keep."""
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2 as pb

        file = Path(executor_input["outputs"]["outputFile"])
        told: dict[str, Any] = {}
        if file.is_file():
            try:
                parsed = json_format.Parse(file.read_text(encoding="utf-8"), pb.ExecutorOutput())
            except json_format.ParseError as error:
                raise StageError(f"it wrote no ExecutorOutput ({error})", where=name) from None
            told = json_format.MessageToDict(parsed)
        artifacts = {}
        for key, listed in executor_input["outputs"]["artifacts"].items():
            artifact = listed["artifacts"][0]
            for written in told.get("artifacts", {}).get(key, {}).get("artifacts", [])[:1]:
                artifact["uri"] = written.get("uri") or artifact["uri"]
                artifact["metadata"] = {**artifact["metadata"], **written.get("metadata", {})}
            uri = artifact["uri"]
            if not uri.startswith(f"{self._root}/"):
                raise StageError(f"output '{key}' is not below the run's root: {uri}", where=name)
            _copy(seen.path(uri), self.store.path(uri))
            artifacts[key] = {"artifacts": [_stored(key, artifact)]}
        parameters = dict(told.get("parameterValues", {}))
        for key, place in executor_input["outputs"]["parameters"].items():
            if key not in parameters:
                parameters[key] = Path(place["outputFile"]).read_text(encoding="utf-8")
        return {"artifacts": artifacts, "parameters": parameters}


def _stored(key: str, artifact: dict[str, Any]) -> dict[str, Any]:
    """Return an artifact as KFP hands it on: named by its id, its type forgotten, lists and structs covered."""
    covers: dict[type, str] = {list: "list", dict: "struct"}
    kept = {k: {covers[type(v)]: v} if type(v) in covers else v for k, v in artifact["metadata"].items()}
    return {
        "name": str(uuid.uuid4().int % 10**9),
        "type": {"instanceSchema": ""},
        "uri": artifact["uri"],
        "metadata": {"display_name": key, **kept},
    }


def _copy(source: str, target: str) -> None:
    """Copy a folder or file; one that is not there is passed over, as the launcher does."""
    if Path(source).is_dir():
        shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
    elif Path(source).is_file():
        Path(os.path.dirname(target)).mkdir(exist_ok=True, parents=True)
        os.link(source, target)


def _placeholders(executor_input: dict[str, Any]) -> dict[str, str]:
    """Return the texts that the launcher puts in; those of paths are left out, since no task of ours asks for them."""
    found = {"{{$}}": json.dumps(executor_input)}
    for key, value in executor_input["inputs"]["parameterValues"].items():
        found[f"{{{{$.inputs.parameters['{key}']}}}}"] = value if isinstance(value, str) else json.dumps(value)
    for side in ("inputs", "outputs"):
        for key, listed in executor_input[side]["artifacts"].items():
            found[f"{{{{$.{side}.artifacts['{key}'].uri}}}}"] = listed["artifacts"][0]["uri"]
    for key, place in executor_input["outputs"]["parameters"].items():
        found[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = place["outputFile"]
    return found


def _filled(text: str, placeholders: Mapping[str, str]) -> str:
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    return text


def _error(name: str, code: int, last: collections.deque[str]) -> BikePipelineError:
    """Return the error that a task ended with, of the kind that its exit code says."""
    kinds = {int(kind.exit_code): kind for kind in BikePipelineError.__subclasses__()}
    for line in reversed(last):
        if line.startswith("error: ") and code in kinds:
            return kinds[code](line.removeprefix("error: ").removesuffix("."))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    told = next((line for line in reversed(last) if line.strip()), "")
    return StageError(f"its process {how}" + (f" ({told[:200]})" if told else ""), where=name, fix="see the log")

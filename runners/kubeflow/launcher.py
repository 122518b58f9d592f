"""What KFP's launcher does in the container of a task: inputs down, the command, its output file, outputs up.

Written from backend/src/v2/component and objectstore, 2.14 to 2.17. Copies take the way through an object store: files
arrive without their modes, folders without a file in them do not arrive, a link arrives as the file that it names.
"""

from __future__ import annotations

import collections
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from bike_pipeline.errors import BikePipelineError, StageError
from bike_pipeline.runners.kubeflow.mounts import ROOT_VARIABLE, Mounts
from bike_pipeline.runners.kubeflow.task import PROGRESS_MARK

Progress = Callable[[float, str], None]
# The driver adds it to the outputs of every task; the launcher writes the command's output there.
LOGS: Final = "executor-logs"
# What KFP's store keeps of the object store that an artifact went to.
SESSION: Final = json.dumps({"Provider": "minio", "Params": {"endpoint": "minio-service.kubeflow:9000"}})
# What a task gets to end in order, in seconds.
_PATIENCE = 10.0
_order = secrets.SystemRandom()


@dataclass(frozen=True)
class Container:
    """One task as its pod has it.

    Attributes:
        name: the task.
        component: its component.
        command: its command and arguments, with placeholders.
        environment: the variables that the spec sets.
        folder: what stands for the root of its file system.
        root: where the run's artifacts belong.
    """

    name: str
    component: Mapping[str, Any]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    root: str


class Launcher:
    """Runs the containers of one run."""

    def __init__(self, store: Mounts, environment: Mapping[str, str]) -> None:
        self._store = store
        self._environment = dict(environment)
        self._processes: set[subprocess.Popen[str]] = set()
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End all processes, which get a moment to write down that they were interrupted; none starts any more."""
        self._stopped.set()
        running = list(self._processes)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()

    def launch(self, container: Container, executor_input: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Run a container to its end and return its outputs as KFP's store keeps them.

        Raises:
            BikePipelineError: the command failed, or what it wrote cannot be taken.
        """
        shutil.rmtree(container.folder, ignore_errors=True)
        seen = Mounts(str(container.folder))
        _add_defaults(executor_input, container.component)
        for listed in executor_input["inputs"].get("artifacts", {}).values():
            uri = listed["artifacts"][0]["uri"]
            _transfer(self._store.path(uri), seen.path(uri))
        outputs = executor_input["outputs"].get("artifacts", {})
        places = [seen.path(listed["artifacts"][0]["uri"]) for listed in outputs.values()]
        places += [place["outputFile"] for place in executor_input["outputs"].get("parameters", {}).values()]
        for place in places:
            Path(os.path.dirname(place)).mkdir(exist_ok=True, parents=True)
        logs = outputs[LOGS]["artifacts"][0]["uri"]
        try:
            with Path(seen.path(logs)).open("w", encoding="utf-8") as log:
                self._call(container, filled(container.command, placeholders(executor_input, seen)), log, progress)
            return self._collect(container, executor_input, seen)
        except BikePipelineError:
            _transfer(seen.path(logs), self._store.path(logs))
            raise
        finally:
            shutil.rmtree(container.folder, ignore_errors=True)

    def _call(self, container: Container, command: list[str], log: TextIO, progress: Progress) -> None:
        if command[0] == "python":
            command[0] = sys.executable
        own = {**container.environment, ROOT_VARIABLE: str(container.folder)}
        last: collections.deque[str] = collections.deque(maxlen=50)
        try:
            started = subprocess.Popen(
                command,
                env={**os.environ, **self._environment, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            reason = f"{error.strerror or error}: {command[0]}"
            raise StageError(f"its command cannot be started ({reason})", where=container.name) from error
        with started as process:
            self._processes.add(process)
            try:
                if self.stopped:
                    process.kill()
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    if line.startswith(PROGRESS_MARK):
                        fraction, _, text = line.removeprefix(PROGRESS_MARK).strip().partition(" ")
                        progress(float(fraction), text)
                    else:
                        last.append(line.rstrip())
                        sys.stdout.write(f"[{container.name}] {line}")
            except BaseException:
                process.kill()
                raise
            finally:
                process.wait()
                self._processes.discard(process)
        if process.returncode:
            raise _error(container.name, process.returncode, last)

    def _collect(self, container: Container, executor_input: dict[str, Any], seen: Mounts) -> dict[str, Any]:
        """Read what the task wrote, put its outputs into the object store and return what KFP's store keeps."""
        told = _executor_output(container.name, Path(executor_input["outputs"]["outputFile"]))
        artifacts = {}
        for key, listed in executor_input["outputs"].get("artifacts", {}).items():
            artifact = listed["artifacts"][0]
            for written in told.get("artifacts", {}).get(key, {}).get("artifacts", [])[:1]:
                artifact["uri"] = written.get("uri") or artifact["uri"]
                artifact["metadata"] = {**artifact.get("metadata", {}), **written.get("metadata", {})}
            uri = artifact["uri"]
            if not uri.startswith(f"{container.root}/"):
                raise StageError(f"output '{key}' is not below the run's root: {uri}", where=container.name)
            try:
                _transfer(seen.path(uri), self._store.path(uri))
            except OSError as error:
                reason = error.strerror or error
                raise StageError(f"output '{key}' cannot be uploaded ({reason})", where=container.name) from error
            artifacts[key] = {"artifacts": [_stored(key, artifact)]}
        parameters = dict(told.get("parameterValues", {}))
        for key, place in executor_input["outputs"].get("parameters", {}).items():
            if key not in parameters:
                parameters[key] = Path(place["outputFile"]).read_text(encoding="utf-8")
        return {"artifacts": artifacts, "parameters": parameters}


def _add_defaults(executor_input: dict[str, Any], component: Mapping[str, Any]) -> None:
    definitions = component.get("inputDefinitions", {}).get("parameters", {})
    defaults = {key: one["defaultValue"] for key, one in definitions.items() if "defaultValue" in one}
    if values := {**defaults, **executor_input["inputs"].get("parameterValues", {})}:
        executor_input["inputs"]["parameterValues"] = values


def _executor_output(name: str, file: Path) -> dict[str, Any]:
    """Return what a task wrote into its output file; nothing where it wrote none."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    if not file.is_file():
        return {}
    try:
        parsed = json_format.Parse(file.read_text(encoding="utf-8"), pb.ExecutorOutput())
    except json_format.ParseError as error:
        raise StageError(f"it wrote no ExecutorOutput ({error})", where=name) from None
    return dict(json_format.MessageToDict(parsed))


def _stored(key: str, artifact: dict[str, Any]) -> dict[str, Any]:
    """Return an artifact as KFP hands it on: named by its id, its type forgotten, lists and structs covered."""
    covers: dict[type, str] = {list: "list", dict: "struct"}
    kept = {k: {covers[type(v)]: v} if type(v) in covers else v for k, v in artifact.get("metadata", {}).items()}
    return {
        "name": str(secrets.randbelow(10**9)),
        "type": {"instanceSchema": ""},
        "uri": artifact["uri"],
        "metadata": {"display_name": key, "store_session_info": SESSION, **kept},
    }


def _transfer(source: str, target: str) -> None:
    """Copy a folder's files or a file through an object store; what is not there is passed over."""
    if Path(source).is_file():
        Path(os.path.dirname(target)).mkdir(exist_ok=True, parents=True)
        shutil.copyfile(source, target)
        return
    for folder, folders, files in os.walk(source):
        linked = [name for name in folders if Path(os.path.join(folder, name)).is_symlink()]
        for name in [*files, *linked]:
            there = os.path.join(target, os.path.relpath(folder, source))
            Path(there).mkdir(exist_ok=True, parents=True)
            shutil.copyfile(os.path.join(folder, name), os.path.join(there, name))


def placeholders(executor_input: Mapping[str, Any], seen: Mounts) -> dict[str, str]:
    """Return the texts that the launcher puts in; the first one stands for the whole input."""
    found = {"{{$}}": json.dumps(_shuffled(executor_input))}
    for key, value in executor_input["inputs"].get("parameterValues", {}).items():
        found[f"{{{{$.inputs.parameters['{key}']}}}}"] = _text(value)
    for side in ("inputs", "outputs"):
        for key, listed in executor_input[side].get("artifacts", {}).items():
            uri = listed["artifacts"][0]["uri"]
            found[f"{{{{$.{side}.artifacts['{key}'].uri}}}}"] = uri
            found[f"{{{{$.{side}.artifacts['{key}'].path}}}}"] = seen.path(uri)
    for key, place in executor_input["outputs"].get("parameters", {}).items():
        found[f"{{{{$.outputs.parameters['{key}'].output_file}}}}"] = place["outputFile"]
    return found


def filled(command: tuple[str, ...], texts: Mapping[str, str]) -> list[str]:
    """Return a command with its placeholders filled: the program knows `{{$}}` alone, arguments all, in any order."""
    whole = "{{$}}"
    program, *arguments = command
    order = list(texts)
    _order.shuffle(order)
    for placeholder in order:
        arguments = [argument.replace(placeholder, texts[placeholder]) for argument in arguments]
    return [program.replace(whole, texts[whole]), *arguments]


def _shuffled(value: Any) -> Any:
    """Return plain values with maps in another order: Go's have none."""
    if isinstance(value, Mapping):
        keys = list(value)
        _order.shuffle(keys)
        return {key: _shuffled(value[key]) for key in keys}
    return [_shuffled(one) for one in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    """Return a parameter as Go writes it: a whole number has no point."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _error(name: str, code: int, last: collections.deque[str]) -> BikePipelineError:
    """Return the error that a task ended with, of the kind that its exit code says."""
    kinds = {int(kind.exit_code): kind for kind in BikePipelineError.__subclasses__()}
    for line in reversed(last):
        if line.startswith("error: ") and code in kinds:
            return kinds[code](line.removeprefix("error: ").removesuffix("."))
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    told = next((line for line in reversed(last) if line.strip()), "")
    return StageError(f"its process {how}" + (f" ({told[:200]})" if told else ""), where=name, fix="see the log")

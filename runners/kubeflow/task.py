"""What runs in the container of every task: `python -m bike_pipeline.runners.kubeflow.task`, called by KFP's launcher.

It maps URIs to the launcher's folders, asks our drivers (span, baseline and lost pushes are resolved when the task
runs, not when it is compiled), runs the stage's executor, writes the execution into our ML Metadata store and the
outputs into the file that the launcher reads. It ends with one line and the exit code of the error where it fails.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError, ConfigurationError, ExitCode
from bike_pipeline.lean_imports import lean_imports
from bike_pipeline.runners.interruption import heard
from bike_pipeline.runners.kubeflow.mounts import Mounts
from bike_pipeline.runners.kubeflow.platform_document import RUN_ID_VARIABLE

if TYPE_CHECKING:
    from tfx import types

    from bike_pipeline.runners.kubeflow.record import ArtifactMap, Received, Record

PROGRESS_MARK = "::progress "
# What KFP adds to an artifact's metadata, and the covers that it puts around lists and structs.
_ADDED = frozenset({"display_name", "store_session_info"})


def arguments_of(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments that the compiled spec gives."""
    parser = argparse.ArgumentParser(
        prog="python -m bike_pipeline.runners.kubeflow.task", description="Run one task of the pipeline."
    )
    parser.add_argument("--executor_input", required=True, help="KFP's ExecutorInput as JSON ({{$}})")
    parser.add_argument("--task", required=True, help="what the compiler knows of the task, as JSON")
    parser.add_argument("--metadata", required=True, help="sqlite:///FILE or mysql://HOST:PORT/DATABASE")
    parser.add_argument("--beam", default="[]", help="Beam's flags as a JSON list")
    parser.add_argument("--artifact_folder", default="", help="a folder on a volume in place of the object store")
    parser.add_argument("--run_record", default="", help="runner and settings as JSON, for the record of the run")
    return parser.parse_args(argv)


def run_id_of(executor_input: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """Return the run's id: from the pod's label, else from the place of the outputs.

    KFP puts outputs below ROOT/PIPELINE/RUN/TASK/…, Vertex AI below ROOT/PROJECT/JOB/TASK_NUMBER/….
    """
    if given := os.environ.get(RUN_ID_VARIABLE):
        return given
    uris = [a["uri"] for listed in executor_input["outputs"].get("artifacts", {}).values() for a in listed["artifacts"]]
    for uri in uris:
        if found := re.search(rf"/{re.escape(task['pipeline'])}/([^/]+)/{re.escape(task['node'])}/", uri):
            return found[1]
        if found := re.search(rf"/([^/]+)/{re.escape(task['node'])}_[^/]+/[^/]+$", uri):
            return found[1]
    raise ConfigurationError(
        "neither the pod's label nor the outputs name the run", where=task["node"], fix=f"set {RUN_ID_VARIABLE}"
    )


def plain_metadata(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return an artifact's metadata as it was before KFP stored it."""
    plain = {}
    for key, value in kept.items():
        if key in _ADDED or value is None:
            continue
        covered = isinstance(value, dict) and len(value) == 1 and next(iter(value)) in ("list", "struct")
        plain[key] = next(iter(value.values())) if covered else value
    return plain


def parameters_of(executor_input: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the execution's parameters; JSON knows one kind of number, TFX two."""
    given = executor_input.get("inputs", {}).get("parameterValues", {})
    return {key: int(value) if key in task["integers"] else value for key, value in given.items()}


class Task:
    """One task, from the launcher's call to the file that the launcher reads."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.task: dict[str, Any] = json.loads(arguments.task)
        self._input: dict[str, Any] = json.loads(arguments.executor_input)
        self._mounts = Mounts.of_environment(arguments.artifact_folder)
        self._beam = json.loads(arguments.beam)
        self._address: str = arguments.metadata
        self._run_record: str = arguments.run_record

    def run(self) -> None:
        """Run the task."""
        from bike_pipeline.runners.kubeflow.record import Record, Store
        from bike_pipeline.runners.stage_launcher import as_failure

        record = Record(Store(self._address), self.task, run_id_of(self._input, self.task))
        try:
            self._run(record)
        except (Exception, KeyboardInterrupt) as error:
            given = self._input["outputs"].get("artifacts", {}).values()
            places = [self._mounts.path(a["uri"]) for listed in given for a in listed["artifacts"]]
            failure = as_failure(self.task["node"], error, places[:1])
            record.fail(str(failure) or type(failure).__name__, isinstance(failure, KeyboardInterrupt))
            raise failure from error

    def _run(self, record: Record) -> None:
        self._look_at_the_volumes()
        properties = parameters_of(self._input, self.task)
        inputs = record.begin(self._received(), properties)
        if self._run_record:
            record.of_the_run(json.loads(self._run_record))
        outputs = self._outputs()
        self._drive(record, inputs, outputs, properties)
        seen_inputs, seen_outputs = self._seen(inputs), self._seen(outputs)
        result = self._execute(record, seen_inputs, seen_outputs, properties)
        uris = {key: [artifact.uri for artifact in listed] for key, listed in outputs.items()}
        for key, listed in result.output_artifacts.items():
            for artifact, uri in zip(listed.artifacts, uris[key], strict=True):
                artifact.uri = uri
        record.finish(outputs, result)
        self._report(result)

    def _look_at_the_volumes(self) -> None:
        """Stop the first stage where a later one could not write: the last one would, after hours of training."""
        from bike_pipeline.settings import Settings
        from bike_pipeline.storage import cluster_volumes

        made_of = json.loads(self._run_record) if self._run_record else {}
        if made_of.get("runner") == "kubeflow":
            for problem in cluster_volumes.problems(Settings.model_validate(made_of["settings"]).kubeflow):
                raise problem

    def _received(self) -> dict[str, list[Received]]:
        from bike_pipeline.runners.kubeflow.record import Received

        return {
            key: [Received(a["uri"], plain_metadata(a.get("metadata", {}))) for a in listed["artifacts"]]
            for key, listed in self._input.get("inputs", {}).get("artifacts", {}).items()
        }

    def _outputs(self) -> ArtifactMap:
        from tfx.utils import import_utils

        made: ArtifactMap = {}
        for key, listed in self._input["outputs"].get("artifacts", {}).items():
            if key not in self.task["outputs"]:
                continue
            artifact = import_utils.import_class_by_path(self.task["outputs"][key])()
            artifact.uri = listed["artifacts"][0]["uri"]
            made[key] = [artifact]
        return made

    def _seen(self, artifacts: ArtifactMap) -> ArtifactMap:
        """Return copies whose URIs are the paths that this container sees."""
        seen = copy.deepcopy(artifacts)
        for artifact in (artifact for listed in seen.values() for artifact in listed):
            artifact.uri = self._mounts.path(artifact.uri)
        return seen

    def _information(
        self, record: Record, inputs: ArtifactMap, outputs: ArtifactMap, properties: Any, **more: Any
    ) -> Any:
        from tfx.orchestration.portable import data_types

        return data_types.ExecutionInfo(
            execution_id=record.execution_id,
            input_dict=inputs,
            output_dict=outputs,
            exec_properties=properties,
            **more,
        )

    def _drive(self, record: Record, inputs: ArtifactMap, outputs: ArtifactMap, properties: dict[str, Any]) -> None:
        """Let the stage's driver resolve what only the moment of the run knows."""
        if not self.task["driver"]:
            return
        from tfx.utils import import_utils

        from bike_pipeline.runners.located_metadata import LocatedMetadata

        driver = import_utils.import_class_by_path(self.task["driver"])(LocatedMetadata(record.store.config))
        with record.store.alone():
            driven = driver.run(self._information(record, inputs, outputs, properties))
        for key, value in driven.exec_properties.items():
            properties[key] = getattr(value, value.WhichOneof("value"))
        for key, listed in driven.output_artifacts.items():
            for artifact, proto in zip(outputs[key], listed.artifacts, strict=True):
                artifact.set_mlmd_artifact(proto)

    def _execute(self, record: Record, inputs: ArtifactMap, outputs: ArtifactMap, properties: dict[str, Any]) -> Any:
        from tfx.orchestration.portable import outputs_utils, python_executor_operator
        from tfx.utils import import_utils

        from bike_pipeline.runners.sealed_stages import check_inputs, seal_outputs

        check_inputs(self.task["node"], inputs)
        outputs_utils.make_output_dirs(outputs)
        kind = import_utils.import_class_by_path(self.task["executor"])
        with tempfile.TemporaryDirectory(prefix=f"{self.task['node']}-") as folder:
            information = self._information(
                record,
                inputs,
                outputs,
                properties,
                execution_output_uri=os.path.join(folder, "executor_output.pb"),
                tmp_dir=os.path.join(folder, "tmp", ""),
                stateful_working_dir=os.path.join(folder, "state"),
            )
            for path in (information.tmp_dir, information.stateful_working_dir):
                pathlib.Path(path).mkdir(parents=True)
            with progress.listening(_print_progress):
                result = python_executor_operator.run_with_executor(information, kind(self._context(information)))
        seal_outputs(result)
        return result

    def _context(self, information: Any) -> Any:
        from tfx.dsl.components.base import base_beam_executor, base_executor

        common = {
            "tmp_dir": information.tmp_dir,
            "unique_id": str(information.execution_id),
            "executor_output_uri": information.execution_output_uri,
            "stateful_working_dir": information.stateful_working_dir,
        }
        if not self.task["beam"]:
            return base_executor.BaseExecutor.Context(extra_flags=[], **common)
        import apache_beam

        # As flags TFX would package itself anew for each stage, for workers on other machines.
        return base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[],
            extra_flags=[],
            make_beam_pipeline_fn=lambda: apache_beam.Pipeline(argv=list(self._beam)),
            **common,
        )

    def _report(self, result: Any) -> None:
        """Write the outputs down for the launcher: URIs, and properties that its store can hold."""
        from tfx.types import value_artifact
        from tfx.utils import import_utils

        artifacts, values = {}, {}
        for key, listed in result.output_artifacts.items():
            proto = listed.artifacts[0]
            artifacts[key] = {"artifacts": [{"uri": proto.uri, "metadata": _property_values(proto)}]}
            kind = import_utils.import_class_by_path(self.task["outputs"][key])
            if key in self._input["outputs"].get("parameters", {}) and issubclass(kind, value_artifact.ValueArtifact):
                value: types.Artifact = kind()
                value.uri = self._mounts.path(proto.uri)
                values[key] = value.read()
        path = self._input["outputs"]["outputFile"]
        pathlib.Path(os.path.dirname(path)).mkdir(exist_ok=True, parents=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"artifacts": artifacts, "parameterValues": values}, file)


def _property_values(proto: Any) -> dict[str, str | float]:
    """Return the properties of an artifact that are texts or numbers; KFP refuses nulls and covers the rest."""
    shown: dict[str, str | float] = {}
    for properties in (proto.custom_properties, proto.properties):
        for key, value in properties.items():
            kind = value.WhichOneof("value")
            if kind in ("string_value", "int_value", "double_value"):
                shown[key] = getattr(value, kind)
    return shown


def _print_progress(fraction: float, text: str) -> None:
    sys.stdout.write(f"{PROGRESS_MARK}{fraction:.3f} {text}\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the task that the arguments describe; return the exit code."""
    # Kubernetes ends a pod by this signal: the execution shall not stand as running for ever.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = arguments_of(argv)
    try:
        # Imports are most of what a task on few rows costs; what no stage uses is left out, as on the other runners.
        with heard(), lean_imports(google_cloud=any("gs://" in value for value in vars(arguments).values())):
            Task(arguments).run()
    except BikePipelineError as error:
        traceback.print_exc()
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())

"""BaselineLookup: the model that is serving now, as an artifact.

TFX has a Resolver node for this; open-source Kubeflow Pipelines refuses to run it, so this is an ordinary component
whose driver asks ML Metadata. The answer is part of the cache key: as long as the same model serves, the stages behind
are answered from the cache. A candidate that serves already is not compared with itself: it gets the baseline that it
was blessed against.
"""

from __future__ import annotations

import json
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils, path_utils

from bike_pipeline.components import base
from bike_pipeline.components.base import Artifacts
from bike_pipeline.errors import BaselineError
from bike_pipeline.lineage.store.metadata_store import COMPLETE, Lineage, prop
from bike_pipeline.model_registry import is_intact, local_copy
from bike_pipeline.modeling import saved_model, targets
from bike_pipeline.stages import FOUND, NONE, REASON_PROPERTY, RESET, STATE_PROPERTY, VERSION_PROPERTY, Stage

_RESOLVED = "baseline"
# What the answer says of the serving model.
_IDENTITY = ("model_id", "model_uri", "version", "destination", "fingerprint", "metric_set")


class BaselineDriver(base.Driver):
    """Asks ML Metadata which model serves, and makes the answer part of the execution's identity."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return the answer as the parameter `baseline` (JSON), and whether a reset was accepted."""
        properties = execution_info.exec_properties
        candidates = execution_info.input_dict.get("model") or []
        result = driver_output_pb2.DriverOutput()
        with self._mlmd_connection as connection:
            lineage = Lineage(connection.store)
            serving = lineage.serving_now(properties["serving_path"])
            resolved = {} if serving is None else {name: getattr(serving, name) for name in _IDENTITY}
            accept = int(properties["accept_baseline_reset"])
            if candidates and serving is not None and serving.model_id == candidates[0].id:
                for earlier in reversed(lineage.consumers(candidates[0].id, Stage.BASELINE_LOOKUP)):
                    if earlier.last_known_state == COMPLETE:
                        resolved = json.loads(prop(earlier, _RESOLVED))
                        accept = int(prop(earlier, "accept_baseline_reset"))
                        break
        data_types_utils.set_metadata_value(result.exec_properties[_RESOLVED], json.dumps(resolved, sort_keys=True))
        data_types_utils.set_metadata_value(result.exec_properties["accept_baseline_reset"], accept)
        return result


class BaselineLookupExecutor(base_executor.BaseExecutor):
    """Copies the serving model into the output, or says that there is none."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Set `state` ("found", "none" or "reset") and `reason` on the output, and copy the model where found.

        Raises:
            BaselineError: the serving model is of another target; or it is gone or damaged, takes other inputs or was
                measured otherwise than the candidate, and no reset was accepted.
        """
        output = artifact_utils.get_single_instance(output_dict["baseline_model"])
        baseline = json.loads(exec_properties[_RESOLVED])
        if not baseline:
            _record_lookup(output, NONE, "no model has been pushed yet", 0)
            return
        version = int(baseline["version"])
        source = _payload(baseline)
        candidates = input_dict.get("model") or []
        problem = "" if source else "its files are gone or changed"
        if source and candidates:
            problem = _difference(baseline, source, candidates[0], exec_properties["metric_set"])
        if problem and exec_properties["accept_baseline_reset"]:
            _record_lookup(output, RESET, f"reset accepted: version {version}: {problem}", version)
            return
        if problem:
            raise BaselineError(
                f"the candidate cannot be compared with the serving model (version {version}): {problem}",
                where=Stage.BASELINE_LOOKUP,
                fix="if that is meant, run once with --accept-baseline-reset; the reset is recorded",
            )
        io_utils.copy_dir(source, path_utils.serving_model_dir(output.uri))
        _record_lookup(output, FOUND, f"version {version} is serving", version)


def _record_lookup(output: types.Artifact, state: str, reason: str, version: int) -> None:
    output.set_string_custom_property(STATE_PROPERTY, state)
    output.set_string_custom_property(REASON_PROPERTY, reason)
    output.set_int_custom_property(VERSION_PROPERTY, version)


def _payload(baseline: dict[str, Any]) -> str:
    """Return the folder that holds the serving model's very bytes: the served one, else the trained one; else ""."""
    for folder in (baseline["destination"], path_utils.serving_model_dir(baseline["model_uri"])):
        if is_intact(folder, baseline["fingerprint"]):
            return str(local_copy(folder))
    return ""


def _difference(baseline: dict[str, Any], source: str, candidate: types.Artifact, metric_set: str) -> str:
    path = path_utils.serving_model_dir(candidate.uri)
    earlier, later = saved_model.target_of(source), saved_model.target_of(path)
    targets.require_same(earlier.name, later.name, Stage.BASELINE_LOOKUP)
    if baseline["metric_set"] != metric_set:
        return "the set of metrics or slices has changed since it was blessed"
    if moved := later.difference_to(earlier):
        return moved
    before = saved_model.signature_of(source)
    now = saved_model.signature_of(path)
    # One that is new changes nothing for anybody.
    for name in sorted(before):
        if before[name] != now.get(name):
            return f"the signature '{name}' has changed"
    return ""


class BaselineLookup(base.Component):
    """Finds the model that is serving now.

    Input: the candidate, where there is one. Output: the baseline model. Parameters: the serving base path; the hash of
    what is measured; whether a change of either may reset the baseline.
    """

    PARAMETERS = {**base.parameters(str, "serving_path", "metric_set"), **base.parameters(int, "accept_baseline_reset")}
    INPUTS = base.channels(model=standard_artifacts.Model, optional=True)
    OUTPUTS = base.channels(baseline_model=standard_artifacts.Model)
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(BaselineLookupExecutor)
    DRIVER_CLASS = BaselineDriver

"""HyperParametersLookup: the best hyperparameters that a search of an earlier run found.

An ordinary component and no Resolver, for the reason of BaselineLookup: open-source Kubeflow Pipelines runs none.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

from tfx.dsl.components.base import base_executor, executor_spec
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_artifacts

from bike_pipeline.components import base
from bike_pipeline.components.base import Artifacts
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.stages import HYPERPARAMETERS_PROPERTY, Stage

_SEARCH = "search"


class HyperParametersDriver(base.Driver):
    """Asks ML Metadata for the newest search below the artifacts' root, and makes the answer part of the cache key."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Return the answer as the parameter `search` (JSON).

        Raises:
            ConfigurationError: there is no search to take over from.
        """
        root = execution_info.exec_properties["pipeline_root"].rstrip("/")
        with self._mlmd_connection as connection:
            lineage = Lineage(connection.store)
            for artifact in reversed(lineage.artifacts(standard_artifacts.HyperParameters.TYPE_NAME)):
                producer = lineage.producer(artifact.id)
                # Workspaces may share a store, and none of them builds on files of another one.
                if producer is None or not artifact.uri.startswith(f"{root}/"):
                    continue
                if lineage.stage_of(producer) == Stage.TUNER:
                    found = {"id": artifact.id, "uri": artifact.uri, "run": lineage.run_of(producer.id)}
                    found["seal"] = prop(artifact, sealing.SEAL_PROPERTY)
                    found["values"] = prop(artifact, HYPERPARAMETERS_PROPERTY)
                    break
            else:
                raise ConfigurationError(
                    "there are no hyperparameters to import: no run has searched for them",
                    where="tuning.import_best",
                    fix="run once with --set tuning.enabled=true",
                )
        result = driver_output_pb2.DriverOutput()
        data_types_utils.set_metadata_value(result.exec_properties[_SEARCH], json.dumps(found, sort_keys=True))
        return result


class HyperParametersLookupExecutor(base_executor.BaseExecutor):
    """Copies what was found into the output."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Copy the file; set its values and the run that found them on the output.

        Raises:
            VerificationError: the files are gone, or are not those that the search wrote.
        """
        output = artifact_utils.get_single_instance(output_dict["best_hyperparameters"])
        found = json.loads(exec_properties[_SEARCH])
        sealing.check(found["uri"], found["seal"], Stage.HYPERPARAMETERS_LOOKUP, "best_hyperparameters")
        shutil.copytree(found["uri"], output.uri, dirs_exist_ok=True)
        output.set_string_custom_property(HYPERPARAMETERS_PROPERTY, found["values"])
        output.set_string_custom_property("summary", f"from the search of run {found['run']}")


class HyperParametersLookup(base.Component):
    """Finds the best hyperparameters of the newest search.

    Output: these. Parameter: the root of the artifacts that it looks among.
    """

    PARAMETERS = base.parameters(str, "pipeline_root")
    OUTPUTS = base.channels(best_hyperparameters=standard_artifacts.HyperParameters)
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(HyperParametersLookupExecutor)
    DRIVER_CLASS = HyperParametersDriver

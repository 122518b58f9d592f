"""Stages hold their inputs against the seals of those who wrote them, and seal what they write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tfx import types
from tfx.dsl.io import fileio
from tfx.orchestration.portable import launcher, outputs_utils

from bike_pipeline.lineage.records import sealing


def check_inputs(stage: str, inputs: Mapping[str, Iterable[types.Artifact]]) -> None:
    """Refuse inputs whose files are not those that their stages wrote."""
    for key, listed in inputs.items():
        for artifact in listed:
            sealing.check(artifact.uri, artifact.get_string_custom_property(sealing.SEAL_PROPERTY), stage, key)


def seal_outputs(result: Any) -> None:
    """Put the seal of its files on every artifact of an ExecutorOutput, at the paths where the stage wrote them."""
    for listed in result.output_artifacts.values():
        for artifact in listed.artifacts:
            artifact.custom_properties[sealing.SEAL_PROPERTY].string_value = sealing.seal_of(artifact.uri)


class SealingLauncher(launcher.Launcher):
    """TFX's launcher, which checks before the executor starts and seals after it has ended."""

    def _run_executor(self, execution_info: Any) -> Any:
        check_inputs(execution_info.pipeline_node.node_info.id, execution_info.input_dict)
        try:
            result = super()._run_executor(execution_info)
            seal_outputs(result)
        except BaseException:
            # TFX does so for exceptions, and an interruption is none.
            made = execution_info.output_dict
            left = {key: [artifact for artifact in made[key] if fileio.exists(artifact.uri)] for key in made}
            outputs_utils.remove_output_dirs(left)
            raise
        return result

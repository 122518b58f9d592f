"""The bases of our own components and drivers, and what several executors read in the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.dsl.components.base import base_component
from tfx.dsl.components.base import base_driver as definition
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as execution
from tfx.orchestration.portable import data_types
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from bike_pipeline.lineage.records.run_record import canonical
from bike_pipeline.stages import ROWS_PROPERTY

Artifacts = dict[str, list[types.Artifact]]


def parameters(kind: type, *names: str, optional: bool = False) -> dict[str, ExecutionParameter]:
    """Return parameters of one type for a component's spec."""
    return {name: ExecutionParameter(type=kind, optional=optional) for name in names}


def channels(*, optional: bool = False, **kinds: type[types.Artifact]) -> dict[str, ChannelParameter]:
    """Return inputs or outputs for a component's spec, by their names."""
    return {name: ChannelParameter(type=kind, optional=optional) for name, kind in kinds.items()}


class Component(base_component.BaseComponent):
    """A component of which its class says all: it takes inputs and parameters by name, and makes the outputs."""

    PARAMETERS: dict[str, ExecutionParameter] = {}
    INPUTS: dict[str, ChannelParameter] = {}
    OUTPUTS: dict[str, ChannelParameter] = {}

    def __init_subclass__(cls) -> None:
        """Make the spec, unless the class has one; it refuses what it does not know, and what is missing."""
        if "SPEC_CLASS" not in vars(cls):
            said = {"PARAMETERS": cls.PARAMETERS, "INPUTS": cls.INPUTS, "OUTPUTS": cls.OUTPUTS}
            cls.SPEC_CLASS = type(f"{cls.__name__}Spec", (ComponentSpec,), said)

    def __init__(self, **given: Any) -> None:
        outputs = {name: types.Channel(type=output.type) for name, output in self.SPEC_CLASS.OUTPUTS.items()}
        # Not by super(): a component of TFX beside this base has arguments of its own.
        base_component.BaseComponent.__init__(self, self.SPEC_CLASS(**given, **outputs))


class Driver(definition.BaseDriver, execution.BaseDriver):
    """Runs before the cache is asked: what it puts into the parameters is part of the cache key.

    TFX 1.21 checks for one base class when a component is defined and calls the other.
    """

    def __init__(self, metadata_handle: metadata.Metadata) -> None:
        definition.BaseDriver.__init__(self, metadata_handle)
        execution.BaseDriver.__init__(self, metadata_handle)

    @staticmethod
    def output_with(
        execution_info: data_types.ExecutionInfo, key: str, name: str, value: Mapping[str, Any]
    ) -> driver_output_pb2.DriverOutput:
        """Return a result whose output `key` has plain values as the custom property `name`, for the executor.

        They are no part of the cache key (see `runners.located_metadata`) and have to follow from what is.
        """
        artifact = execution_info.output_dict[key][0].mlmd_artifact
        artifact.custom_properties[name].string_value = canonical(value)
        result = driver_output_pb2.DriverOutput()
        result.output_artifacts[key].artifacts.append(artifact)
        return result


def rows_by_split(examples: types.Artifact) -> dict[str, int]:
    """Return how many rows ExampleGen wrote into each split."""
    found: dict[str, int] = json.loads(examples.get_string_custom_property(ROWS_PROPERTY))
    return found


def schema_file(input_dict: Artifacts) -> str:
    """Return the file of the input `schema`."""
    return str(io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"])))


def schema_of(input_dict: Artifacts) -> schema_pb2.Schema:
    """Return the input `schema`."""
    return io_utils.SchemaReader().read(schema_file(input_dict))

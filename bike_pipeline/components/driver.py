"""The base of our drivers: TFX 1.21 checks for one base class when a component is defined and calls the other."""

from __future__ import annotations

from tfx.dsl.components.base import base_driver as definition
from tfx.orchestration import metadata
from tfx.orchestration.portable import base_driver as execution


class Driver(definition.BaseDriver, execution.BaseDriver):
    """Runs before the cache is asked: what it puts into the parameters is part of the cache key."""

    def __init__(self, metadata_handle: metadata.Metadata) -> None:
        definition.BaseDriver.__init__(self, metadata_handle)
        execution.BaseDriver.__init__(self, metadata_handle)

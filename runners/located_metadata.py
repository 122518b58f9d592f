"""TFX on a workspace that may be moved: its connection to ML Metadata, and its cache keys without the place."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tfx.orchestration import metadata
from tfx.orchestration.portable import cache_utils, launcher

from bike_pipeline.lineage.store.located_store import LocatedStore, Places
from bike_pipeline.settings import PROJECT_ROOT

_PROJECT, _PROJECT_MARK = f"{PROJECT_ROOT}/", "project:/"


class LocatedMetadata(metadata.Metadata):
    """TFX's connection to ML Metadata, whose records do not name the workspace's place; see `located_store`."""

    _store: Any

    def __enter__(self) -> LocatedMetadata:
        super().__enter__()
        self._store = LocatedStore.around(self._store, self._connection_config)
        return self


def _cache_context(
    metadata_handle: metadata.Metadata,
    pipeline_node: Any,
    pipeline_info: Any,
    executor_spec: Any = None,
    input_artifacts: Mapping[str, Any] | None = None,
    output_artifacts: Mapping[str, Any] | None = None,  # noqa: ARG001
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Return TFX's cache context, from paths that are relative to the workspace and to this checkout.

    TFX hashes whole paths, so that a workspace that was moved or copied would be trained and pushed anew. It hashes the
    outputs too, as drivers leave them: what drivers gather there for the executor follows from inputs and parameters,
    but tells of places, such as that of an uploaded file.
    """
    places = getattr(metadata_handle.store, "places", None)

    def short(text: str) -> str:
        return (places.shorten(text) if isinstance(places, Places) else text).replace(_PROJECT, _PROJECT_MARK)

    def placeless(artifacts: Mapping[str, Any] | None) -> dict[str, Any]:
        copies = {key: [copy.deepcopy(artifact) for artifact in listed] for key, listed in (artifacts or {}).items()}
        for artifact in (artifact for listed in copies.values() for artifact in listed):
            proto = artifact.mlmd_artifact
            proto.uri = short(proto.uri)
            for value in (*proto.properties.values(), *proto.custom_properties.values()):
                if value.WhichOneof("value") == "string_value":
                    value.string_value = short(value.string_value)
        return copies

    return cache_utils.get_cache_context(
        metadata_handle,
        pipeline_node,
        pipeline_info,
        executor_spec,
        placeless(input_artifacts),
        None,
        {name: short(value) if isinstance(value, str) else value for name, value in (parameters or {}).items()},
    )


# The launcher asks for the context in the middle of its own work, by the module's name.
launcher.cache_utils = SimpleNamespace(**{**vars(cache_utils), "get_cache_context": _cache_context})

"""Which layer of the model an operator belongs to, so that an error can name it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bike_pipeline.errors import ExportError

KERAS_FILE = Path("assets.extra", "model.keras")
TRANSFORMS = "the transforms before the model"
# What a converter wraps the graph's own names in.
_CALLS = ("StatefulPartitionedCall", "PartitionedCall")


def unsupported(title: str, operators: Iterable[tuple[str, str]], saved_model: Path) -> ExportError:
    """Return the error of a format that lacks operators.

    Args:
        title: what people call the format.
        operators: name of each operator, such as `AsString`, and of its node, such as
            `bike_demand_1/hash_temp_1/AsString`.
        saved_model: folder of the exported SavedModel.
    """
    layers = _layers(saved_model)
    found = sorted({f"{operator} in {_place(node, layers)}" for operator, node in operators})
    return ExportError(
        f"{title} has no operator for {', '.join(found)}",
        where=str(saved_model),
        fix="change that layer so that it uses plain arithmetic, or take this format out of exporting.formats",
    )


def _place(node: str, layers: set[str]) -> str:
    """Return where a node stands: the layer it belongs to, or the transforms."""
    scopes = [part for part in node.split("/")[:-1] if part not in _CALLS]
    for scope in reversed(scopes):
        # Keras numbers the scopes of a layer that is called again.
        for name in (scope, scope.rpartition("_")[0] if scope.rpartition("_")[2].isdigit() else ""):
            if name in layers:
                return f"layer {name}"
    return f"{TRANSFORMS} (node {node})"


def _layers(saved_model: Path) -> set[str]:
    """Return the names of the trained Keras model's layers, read from its file without Keras."""
    path = saved_model / KERAS_FILE
    if not path.is_file():
        return set()
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    return set(_names(config.get("config", {}).get("layers", [])))


def _names(layers: list[dict[str, object]]) -> Iterable[str]:
    for layer in layers:
        config = layer.get("config")
        if isinstance(config, dict):
            yield str(config.get("name", ""))
            inner = config.get("layers", [])
            yield from _names(inner if isinstance(inner, list) else [])

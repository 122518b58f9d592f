"""What every export format does, `export` a model and `load` it again, and what several of them share.

Int8 formats quantize the large dense layers alone. Activations are clipped to what calibration saw. A span of one year
holds neither the next year nor a hurricane, and a model that was calibrated without them answers nonsense there; so
every end of every feature's range stands in a row of its own, beside what an ordinary hour holds.
"""

from __future__ import annotations

import abc
import functools
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.modeling.golden import LAST_YEAR
from bike_pipeline.modeling.loaded_model import LoadedModel

if TYPE_CHECKING:
    from bike_pipeline.exporting.compression.candidates import Trying

Columns = Mapping[str, npt.NDArray[Any]]
Predictions = npt.NDArray[np.float32]
# "float32" formats carry the model's own numbers; all others trade accuracy for size or speed, "compressed" as another
# model that was made of it.
Precision = Literal["float32", "float16", "int8", "compressed"]
# Rows in one call where many are answered: what bounds the memory.
ROWS_PER_CALL = 16_384
# A layer with fewer weights saves nothing worth the error of eight bits.
SMALLEST_LAYER = 1_024
# How many ordinary hours each end of a range is tried with.
ROWS_PER_END = 4


@dataclass(frozen=True)
class Source:
    """The model to export. What several formats begin with is made once, when the first one asks for it.

    Attributes:
        saved_model: folder of the SavedModel, with the trained Keras model in its `assets.extra`.
        calibration: rows of the training span, one array of shape (rows,) for each of the model's inputs; int64 or
            float32. What quantization learns its ranges from.
        compression: what a smaller model is made of; None where none is asked for.
        shared: folder of intermediate files that formats of other processes find too; None for none.
    """

    saved_model: Path
    calibration: Columns
    compression: Trying | None = None
    shared: Path | None = None

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The SavedModel in this process."""
        return LoadedModel(self.saved_model)

    @functools.cached_property
    def frozen(self) -> Any:
        """The signature that takes raw features, as a concrete function whose variables are constants."""
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        return convert_variables_to_constants_v2(self.loaded.signature)


class Loaded(Protocol):
    """An exported model that answers, in this process."""

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,), for any number of rows from 1.

        The columns are arrays of shape (rows,), int64 or float32, one for each of the model's inputs.
        """


class Format(abc.ABC):
    """One export format. Found by its name in the entry-point group `bike_pipeline.export_formats`.

    Attributes:
        name: the name in the settings; also the name of the folder that holds its files.
        title: what people call it, for tables.
        precision: what its numbers are kept in; decides which limits it is held to.
        extra: the optional part of the product that it needs; empty where it needs none.
        file: the file, relative to its folder, that a runtime loads.
        in_process: whether `export` uses TensorFlow alone, so that it may run in the process that has it loaded. Every
            other export runs in a process of its own: a library that crashes there costs one format and not the run.
            An exported model is always loaded and measured in a process of its own.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    precision: ClassVar[Precision] = "float32"
    extra: ClassVar[str] = ""
    file: ClassVar[str]
    in_process: ClassVar[bool] = False

    @abc.abstractmethod
    def export(self, source: Source, folder: Path) -> None:
        """Write the model into `folder`, which exists and is empty.

        Raises:
            ExportError: the format cannot carry the model; it names the operator and the layer.
            MissingExtraError: the optional part it needs is not installed.
        """

    @abc.abstractmethod
    def load(self, folder: Path) -> Loaded:
        """Return the exported model of `folder`, ready to answer on one thread.

        Raises:
            ExportError: the file cannot be loaded.
            MissingExtraError: the optional part it needs is not installed.
        """


def in_parts(answer: Callable[[Columns], Predictions], columns: Columns) -> Predictions:
    """Return the answers to any number of rows, shape (rows,), at most `ROWS_PER_CALL` a call."""
    rows = len(next(iter(columns.values())))
    parts = [
        answer({name: values[start : start + ROWS_PER_CALL] for name, values in columns.items()})
        for start in range(0, rows, ROWS_PER_CALL)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def cannot_load(runtime: str, reason: str, path: Path) -> ExportError:
    """Return the error of a file that its runtime refuses."""
    return ExportError(f"{runtime} cannot load it ({reason})", where=str(path), fix="export the model again")


def layer_of(name: str) -> str:
    """Return the name of an operation in the graph without the calls that TensorFlow wraps it in."""
    return "/".join(part for part in name.split("/") if part not in ("StatefulPartitionedCall", "PartitionedCall"))


def unsupported(title: str, operators: Iterable[tuple[str, str]], saved_model: Path) -> ExportError:
    """Return the error of the format `title`, which lacks operators; it names the layer that each belongs to.

    Operators are told by name, such as `AsString`, and by node, such as `bike_demand_1/hash_temp_1/AsString`.
    """
    path, layers = saved_model / "assets.extra" / "model.keras", set()
    if path.is_file():
        # Read without Keras.
        with zipfile.ZipFile(path) as archive:
            layers = set(_layers(json.loads(archive.read("config.json"))["config"]))
    found = sorted({f"{operator} in {_place(node, layers)}" for operator, node in operators})
    return ExportError(
        f"{title} has no operator for {', '.join(found)}",
        where=str(saved_model),
        fix="change that layer so that it uses plain arithmetic, or take this format out of exporting.formats",
    )


def _place(node: str, layers: set[str]) -> str:
    """Return where a node stands: the layer it belongs to, or the transforms."""
    for scope in reversed(layer_of(node).split("/")[:-1]):
        # Keras numbers the scopes of a layer that is called again.
        for name in (scope, scope.rpartition("_")[0] if scope.rpartition("_")[2].isdigit() else ""):
            if name in layers:
                return f"layer {name}"
    return f"the transforms before the model (node {node})"


def _layers(config: dict[str, Any]) -> Iterable[str]:
    """Yield the names of the layers in a Keras model's configuration, those of models within it too."""
    for layer in config.get("layers", ()):
        yield layer["config"].get("name", "")
        yield from _layers(layer["config"])


def nothing_to_quantize(source: Source, instead: str) -> ExportError:
    """Return the error of a model whose dense layers are all small, with the format to use `instead`."""
    return ExportError(
        f"no dense layer has {SMALLEST_LAYER} weights or more, so there is nothing to quantize",
        where=str(source.saved_model),
        fix=f"use {instead}: it is as small",
    )


def with_extremes(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Return the rows, at least one, followed by `ROWS_PER_END` of them for each end of each feature's range."""
    rows = len(columns[features.MODEL_INPUTS[0].name])
    ends = [
        (feature.name, end)
        for feature in features.MODEL_INPUTS
        for end in (feature.minimum or 0, LAST_YEAR if feature.maximum is None else feature.maximum)
        for _ in range(ROWS_PER_END)
    ]
    # Spread over the span, so that an end meets several seasons and hours.
    chosen = np.linspace(0, rows - 1, len(ends)).astype(np.int64)
    extended = {f.name: np.concatenate([columns[f.name], columns[f.name][chosen]]) for f in features.MODEL_INPUTS}
    for row, (name, end) in enumerate(ends, start=rows):
        extended[name][row] = end
    return extended

"""What every export format does: `export` a model, and `load` it again."""

from __future__ import annotations

import abc
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.loaded_model import LoadedModel

if TYPE_CHECKING:
    from bike_pipeline.exporting.compression.candidates import Trying

Columns = Mapping[str, npt.NDArray[Any]]
Predictions = npt.NDArray[np.float32]
# "float32" formats carry the model's own numbers; all others trade accuracy for size or speed, "compressed" as another
# model that was made of it.
Precision = Literal["float32", "float16", "int8", "compressed"]


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

        Args:
            columns: one array of shape (rows,) for each of the model's inputs; int64 or float32.
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

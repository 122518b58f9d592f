"""Export formats as a plug-in package brings them: each goes wrong in its own way."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source
from bike_pipeline.modeling.loaded_model import LoadedModel

ENTRY_POINTS = "[bike_pipeline.export_formats]\n" + "".join(
    f"{name} = tests.exporting.plugin:{name.title().replace('_', '')}\n"
    for name in (
        "dies_exporting",
        "dies_answering",
        "writes_nothing",
        "slightly_off",
        "no_number",
        "hangs",
        "int8_off",
        "invents",
    )
)


def install(folder: Path) -> None:
    """Lay the plug-in's metadata into a folder, as an installer does; the folder must be on the path."""
    information = folder / "bike_export_plugin-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: bike-export-plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)


class _Constant:
    """Answers as the hour says, so that it needs no library."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def predict(self, columns: Columns) -> Predictions:
        return np.asarray(columns["hr"] * self._factor, np.float32)


class _Format(Format):
    file = "model.bin"

    def export(self, source: Source, folder: Path) -> None:
        assert source.calibration
        (folder / self.file).write_bytes(b"model")

    def load(self, folder: Path) -> _Constant:
        assert (folder / self.file).read_bytes() == b"model"
        return _Constant(1.0)


class DiesExporting(_Format):
    """A library that crashes while it converts."""

    name = title = "dies_exporting"

    def export(self, source: Source, folder: Path) -> None:
        """Crash as a segmentation fault does."""
        del source, folder
        os.kill(os.getpid(), signal.SIGSEGV)


class DiesAnswering(_Format):
    """A runtime that crashes."""

    name = title = "dies_answering"

    def load(self, folder: Path) -> _Constant:
        """Crash with a last word."""
        del folder
        os.write(2, b"corrupted double-linked list\n")
        os.abort()


class WritesNothing(_Format):
    """An exporter that says all is well and leaves no file."""

    name = title = "writes_nothing"

    def export(self, source: Source, folder: Path) -> None:
        """Do nothing."""


class NoNumber(_Format):
    """A runtime whose answers are no numbers."""

    name = title = "no_number"

    def load(self, folder: Path) -> _Constant:
        """Return what answers NaN."""
        del folder
        return _Constant(float("nan"))


class Hangs(_Format):
    """An exporter that never ends."""

    name = title = "hangs"

    def export(self, source: Source, folder: Path) -> None:
        """Sleep."""
        del source, folder
        time.sleep(600)


class _Off:
    def __init__(self, folder: Path, factor: float) -> None:
        self._model = LoadedModel(Path((folder / "model.bin").read_text()))
        self._factor = np.float32(factor)

    def predict(self, columns: Columns) -> Predictions:
        return self._model.predict(columns) * self._factor


class SlightlyOff(_Format):
    """A float32 format that is wrong by one in ten thousand."""

    name = title = "slightly_off"
    factor = 1.0001

    def export(self, source: Source, folder: Path) -> None:
        """Remember the model."""
        (folder / self.file).write_text(str(source.saved_model))

    def load(self, folder: Path) -> _Off:  # type: ignore[override]
        """Return the model, a little wrong."""
        return _Off(folder, self.factor)


class Int8Off(SlightlyOff):
    """The same as an int8 format, which may lose that much."""

    name = title = "int8_off"
    precision = "int8"


class _Invents(_Off):
    def predict(self, columns: Columns) -> Predictions:
        return np.nan_to_num(super().predict(columns))


class Invents(Int8Off):
    """A runtime whose kernels make a number of what is none, as LiteRT's exponential does."""

    name = title = "invents"
    factor = 1.0

    def load(self, folder: Path) -> _Invents:
        """Return the model without its NaN."""
        return _Invents(folder, self.factor)

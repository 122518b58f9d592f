"""The compressed model as a format of its own: what the rule chose, as a LiteRT file, beside the blessed model's own.

It is another model than the SavedModel and not the same one in other numbers, so it is held to the limits of errors on
labels, overall and by slice, and passes TFMA's gate in front of devices as every LiteRT file does.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.compression.candidates import TABLE_FILE, choose
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.exporting.formats.tflite import FILE, Tflite


class Compressed(Tflite):
    """The candidate that the rule chose."""

    name = "compressed"
    title = "compressed model"
    precision = "compressed"
    in_process = True

    def export(self, source: Source, folder: Path) -> None:
        """Make all candidates aside, and keep the winner's file with the table of why."""
        if source.compression is None:
            raise ExportError(
                "the compressed model is trained, which only a run of the pipeline does",
                where="exporting.formats",
                fix="set exporting.compression.methods and run, or try the methods with `bike-pipeline compress`",
            )
        with tempfile.TemporaryDirectory(prefix="bike-compress-") as aside:
            winner = choose(source.compression, source.calibration, Path(aside)).required()
            shutil.copyfile(Path(aside, winner.file), folder / FILE)
            shutil.copyfile(Path(aside, TABLE_FILE), folder / TABLE_FILE)

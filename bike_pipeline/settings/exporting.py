"""What a blessed model is turned into, and what each format is held to."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.exporting import CompressionSettings
from bike_pipeline.settings.section import Count, FormatName, Positive, Section


class ExportingSettings(Section):
    """What a blessed model is turned into, and what each format is held to.

    Attributes:
        formats: names of the formats that every run exports, in their order; `saved_model` is always among them.
        golden_rows: rows that each format must answer as the SavedModel does.
        calibration_rows: rows of the training span that quantization is calibrated with.
        max_relative_difference: of float32 formats, largest |difference| / max(rentals, 1) on a golden row.
        max_mae_increase: of other formats, largest (MAE - SavedModel's MAE) / SavedModel's MAE on the eval split.
        max_slice_mae_increase: the same on the worst slice that has enough rows to decide (`evaluation.min_rows`).
        timeout: seconds that a format may take to be exported, and again to be measured, in a process of its own.
    """

    formats: tuple[FormatName, ...]
    golden_rows: Annotated[int, Field(ge=100)]
    calibration_rows: Count
    max_relative_difference: Positive
    max_mae_increase: Positive
    max_slice_mae_increase: Positive
    compression: CompressionSettings
    timeout: Positive

    @property
    def all_formats(self) -> tuple[str, ...]:
        """What a run exports: the compressed model first if methods are set, so that it is what devices get."""
        return ("compressed", *self.formats) if self.compression.methods else self.formats

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if "saved_model" not in self.formats:
            raise ValueError("formats: saved_model is missing; every other format is held against it")
        if len(set(self.formats)) != len(self.formats):
            raise ValueError("formats: the same format stands there twice")
        if "compressed" in self.formats:
            raise ValueError("formats: compressed is exported if compression.methods names a method; leave it out")
        return self

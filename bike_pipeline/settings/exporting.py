"""What a blessed model is turned into, how smaller ones are made of it, and what each is held to."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, FormatName, Fraction, Positive, Section

Method = Literal["plain", "pruning", "distillation", "quantization_aware"]
Minimized = Literal["size", "compressed_size", "latency"]
# As of `evaluation.ChangeThreshold`, by which the edge gate judges.
Increase = Annotated[float, Field(gt=0.0, lt=1.0)]


class PruningSettings(Section):
    """Magnitude pruning: the share of the dense layers' weights that becomes zero, and the training meanwhile."""

    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)]
    epochs: Count
    learning_rate: Positive


class DistillationSettings(Section):
    """A small student, trained on the blessed model's answers and on the labels.

    Attributes:
        hidden_units: width of each of the student's dense layers.
        embedding_dimensions: largest width of its embeddings.
        learning_rate: peak of the schedule.
        teacher_weight: share of the loss against the blessed model's answers; the rest is against the labels.
    """

    hidden_units: tuple[Count, ...]
    embedding_dimensions: Count
    epochs: Count
    learning_rate: Positive
    teacher_weight: Fraction


class QuantizationAwareSettings(Section):
    """Further training in which the dense layers see themselves in eight bits."""

    epochs: Count
    learning_rate: Positive


class CompressionSettings(Section):
    """Which candidates are made of a blessed model, and the rule that chooses one of them.

    A candidate is a method's model in a format. Among those within both limits the smallest or fastest wins.

    Attributes:
        methods: methods that every run tries beside the plain model; empty: a run makes no candidates.
        formats: formats that each method's model is exported to.
        max_mae_increase: largest (MAE - blessed model's MAE) / blessed model's MAE on the eval split's labels.
        max_slice_mae_increase: the same on the worst slice that has enough rows to decide (`evaluation.min_rows`).
        minimize: what decides among those within the limits: bytes of the model's file, the same after gzip (what a
            device downloads), or the time of one row.
        rounds: how often the candidates' latencies are measured in turns; the median counts.
    """

    methods: tuple[Method, ...]
    formats: tuple[FormatName, ...]
    max_mae_increase: Positive
    max_slice_mae_increase: Positive
    minimize: Minimized
    rounds: Count
    pruning: PruningSettings
    distillation: DistillationSettings
    quantization_aware: QuantizationAwareSettings

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if not self.formats:
            raise ValueError("formats: name at least one, such as tflite_float32")
        if self.methods and (other := [name for name in self.formats if not name.startswith("tflite_")]):
            raise ValueError(
                f"formats: a run chooses what devices get, a LiteRT file, and {other[0]} is none; "
                "`bike-pipeline compress --formats` compares any"
            )
        for name, values in (("methods", self.methods), ("formats", self.formats)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: the same one stands there twice")
        return self


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
    golden_rows: Annotated[int, Field(ge=200)]
    calibration_rows: Count
    max_relative_difference: Positive
    max_mae_increase: Increase
    max_slice_mae_increase: Increase
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

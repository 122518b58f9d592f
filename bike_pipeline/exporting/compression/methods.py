"""The methods by name: each makes another Keras model of the blessed one, with the same inputs and the same output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bike_pipeline.settings.compression import CompressionSettings, Method

if TYPE_CHECKING:
    import keras

    from bike_pipeline.exporting.compression.material import Teacher

PLAIN: Method = "plain"


def compressed(
    method: Method, teacher: Teacher, settings: CompressionSettings, further: dict[str, Any], seed: int
) -> keras.Model:
    """Return the model that a method makes of the blessed one."""
    if method == "pruning":
        from bike_pipeline.exporting.compression import pruning

        return pruning.train(teacher, settings.pruning, further, seed)
    if method == "distillation":
        from bike_pipeline.exporting.compression import distillation

        return distillation.train(teacher, settings.distillation, further, seed)
    if method == "quantization_aware":
        from bike_pipeline.exporting.compression import quantization_aware

        return quantization_aware.train(teacher, settings.quantization_aware, further, seed)
    return teacher.model()

"""The methods by name: each makes another Keras model of the blessed one, with the same inputs and the same output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bike_pipeline.settings.exporting import CompressionSettings, Method

if TYPE_CHECKING:
    import keras

    from bike_pipeline.exporting.compression.material import Teacher

PLAIN: Method = "plain"


def compressed(
    method: Method, teacher: Teacher, settings: CompressionSettings, further: dict[str, Any], seed: int
) -> keras.Model:
    """Return the model that a method makes of the blessed one."""
    if method == PLAIN:
        return teacher.model()
    from bike_pipeline.exporting.compression import distillation, pruning, quantization_aware

    modules: dict[str, Any] = {
        "pruning": pruning,
        "distillation": distillation,
        "quantization_aware": quantization_aware,
    }
    model: keras.Model = modules[method].train(teacher, getattr(settings, method), further, seed)
    return model

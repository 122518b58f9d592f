"""A small teacher and settings that take it in a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bike_pipeline.settings import load_settings
from bike_pipeline.settings.exporting import CompressionSettings, Method

SMALL = (
    "pruning.epochs=3",
    "distillation.epochs=2",
    "distillation.hidden_units=[4]",
    "distillation.embedding_dimensions=2",
    "quantization_aware.epochs=1",
    "rounds=1",
)
# So few rows of a slice decide that the small eval split has slices that do.
MIN_ROWS = {"hour_band": 5, "workingday": 5, "season": 5, "weathersit": 5}
# What a method takes over of the training.
FURTHER: dict[str, Any] = {"batch_size": 64, "weight_decay": 0.02, "holiday_priors": {}}
LOOSE = {"max_mae_increase": 10.0, "max_slice_mae_increase": 10.0}


@pytest.fixture(scope="session")
def small() -> CompressionSettings:
    """The product's settings with few epochs and a tiny student."""
    assignments = [f"exporting.compression.{entry}" for entry in SMALL]
    return load_settings(assignments=tuple(assignments)).exporting.compression


@pytest.fixture(scope="session")
def trying(material: Any, small: CompressionSettings) -> Callable[..., Any]:
    """A function that returns what is tried on the small model, in settings with some changed."""
    from bike_pipeline.exporting.compression.candidates import Trying

    settings = load_settings()
    training = settings.training.model_copy(update={"batch_size": 64, "weight_decay": 0.02})
    evaluation = settings.evaluation.model_copy(update={"min_rows": MIN_ROWS})

    def make(*methods: Method, **changed: Any) -> Any:
        own = small.model_copy(update=changed)
        exporting = settings.exporting.model_copy(update={"compression": own, "timeout": 120.0})
        return Trying(material, methods, exporting, training, evaluation, 3)

    return make


@pytest.fixture(scope="session")
def material(exported: Any) -> Any:
    """The small model with its rows; every fifth of them decides."""
    from bike_pipeline.exporting.compression.candidates import Material

    evaluated = {name: values[::5] for name, values in exported.rows.items()}
    return Material(exported.path, exported.transform_graph, exported.rows, evaluated)


@pytest.fixture(scope="session")
def teacher(material: Any) -> Any:
    """The small model as a teacher."""
    from bike_pipeline.exporting.compression.methods import Teacher

    return Teacher.of(material)


@pytest.fixture(scope="session")
def trained_further(teacher: Any, small: CompressionSettings) -> Callable[..., Any]:
    """A function that returns what a method makes of the teacher."""
    from bike_pipeline.exporting.compression.methods import compressed

    def make(method: Method, settings: CompressionSettings = small) -> Any:
        return compressed(method, teacher, settings, FURTHER, seed=3)

    return make

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


@pytest.fixture(scope="session")
def small() -> CompressionSettings:
    """The product's settings with few epochs and a tiny student."""
    assignments = [f"exporting.compression.{entry}" for entry in SMALL]
    return load_settings(assignments=tuple(assignments)).exporting.compression


@pytest.fixture(scope="session")
def material(exported: Any) -> Any:
    """The small model with its rows; every fifth of them decides."""
    from bike_pipeline.exporting.compression.material import Material

    evaluated = {name: values[::5] for name, values in exported.rows.items()}
    return Material(exported.path, exported.transform_graph, exported.rows, evaluated)


@pytest.fixture(scope="session")
def teacher(material: Any) -> Any:
    """The small model as a teacher."""
    from bike_pipeline.exporting.compression.material import Teacher

    return Teacher.of(material)


@pytest.fixture(scope="session")
def trained_further(teacher: Any, small: CompressionSettings) -> Callable[..., Any]:
    """A function that returns what a method makes of the teacher."""
    from bike_pipeline.exporting.compression.methods import compressed

    def make(method: Method, settings: CompressionSettings = small) -> Any:
        return compressed(method, teacher, settings, {"batch_size": 64, "weight_decay": 0.02}, seed=3)

    return make

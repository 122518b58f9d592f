"""Each method on a small model: what it promises of the weights, and that it comes out the same again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.errors import ExportError
from bike_pipeline.modeling.holidays import NAMES
from tests.exporting.compression.conftest import FURTHER

METHODS = ("plain", "pruning", "distillation", "quantization_aware")


def _weights(model: Any) -> list[Any]:
    return [np.asarray(weight) for weight in model.get_weights()]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_gives_the_same_model_again_with_the_inputs_of_the_blessed_one(
    method: str, teacher: Any, trained_further: Callable[..., Any]
) -> None:
    first, second = (trained_further(method) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(_weights(first), _weights(second), strict=True))
    blessed = teacher.model()
    assert [tensor.name for tensor in first.inputs] == [tensor.name for tensor in blessed.inputs]
    same = [np.array_equal(a, b) for a, b in zip(_weights(first), _weights(blessed), strict=False)]
    assert all(same) == (method == "plain")
    # The next reader of the trained model must find it as it was.
    assert all(np.array_equal(a, b) for a, b in zip(_weights(blessed), _weights(teacher.model()), strict=True))


def test_pruning_leaves_exactly_the_share_of_weights_that_was_asked_for(
    teacher: Any, small: Any, trained_further: Callable[..., Any]
) -> None:
    from bike_pipeline.exporting.compression.methods import prunable, sparsity_of

    assert sparsity_of(teacher.model()) == 0.0
    model = trained_further("pruning")
    for layer in prunable(model):
        kernel = np.asarray(layer.kernel)
        assert (kernel == 0).mean() == pytest.approx(small.pruning.sparsity, abs=2 / kernel.size)
        assert layer.kernel.constraint is None
        assert np.abs(np.asarray(layer.bias)).max() > 0
    assert all(np.isfinite(weight).all() for weight in _weights(model))


def test_weights_are_taken_away_fast_at_first_and_all_of_them_at_the_end() -> None:
    from bike_pipeline.exporting.compression.methods import sparsity_after

    shares = [sparsity_after(epoch, 4, 0.8) for epoch in range(7)]
    assert shares[0] == 0.0
    assert shares[4:] == [0.8] * 3
    steps = np.diff(shares[:5])
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()


def test_a_student_is_smaller_and_learns_from_its_teacher(
    teacher: Any, small: Any, trained_further: Callable[..., Any]
) -> None:
    longer = small.model_copy(update={"distillation": small.distillation.model_copy(update={"epochs": 15})})
    blessed = teacher.answers()

    def distance(settings: Any) -> float:
        student = trained_further("distillation", settings)
        inputs = {tensor.name: teacher.inputs[tensor.name] for tensor in student.inputs}
        answers = np.expm1(np.asarray(student(inputs, training=False)))
        return float(np.abs(answers - blessed).mean())

    student = trained_further("distillation")
    assert student.count_params() < teacher.model().count_params()
    assert distance(longer) < 0.8 * distance(small)


def test_a_student_knows_what_is_known_of_a_holiday_that_no_row_shows(teacher: Any, small: Any) -> None:
    from bike_pipeline.exporting.compression.methods import compressed

    independence = 1 + NAMES.index("independence")
    kinds = teacher.inputs["holiday_kind"]
    untold = replace(teacher, inputs={**teacher.inputs, "holiday_kind": np.where(kinds == independence, 0, kinds)})
    student = compressed("distillation", untold, small, {**FURTHER, "holiday_priors": {"independence": 0.25}}, seed=3)
    row = {tensor.name: teacher.inputs[tensor.name][:1] for tensor in student.inputs}
    usual, holiday = (
        float(student(row | {"holiday_kind": np.array([kind])}, training=False)[0]) for kind in (0, independence)
    )
    assert holiday < usual - 0.7


def test_the_students_loss_weighs_both_targets() -> None:
    from bike_pipeline.exporting.compression.methods import loss_of
    from bike_pipeline.modeling import objective

    label, taught = np.asarray([3.0, 50.0], np.float32), np.asarray([5.0, 40.0], np.float32)
    p = np.log1p(np.asarray([4.0, 44.0], np.float32))
    single = objective.loss_of(label)
    found = float(loss_of(label, 0.25)(np.stack([label, taught], axis=1), p))
    assert found == pytest.approx(0.75 * float(single(label, p)) + 0.25 * float(single(taught, p)), rel=1e-6)


def test_quantization_aware_training_rounds_as_an_eight_bit_layer_does() -> None:
    import keras

    from bike_pipeline.exporting.compression.methods import _InEightBits

    generator = np.random.default_rng(1)
    layer = _InEightBits(3)
    inputs = generator.normal(size=(40, 5)).astype(np.float32)
    layer.build(inputs.shape)
    layer.set_weights([generator.normal(size=(5, 3)).astype(np.float32), np.zeros(3, np.float32)])
    kernel = np.asarray(layer.kernel)
    scale = np.abs(kernel).max(axis=0) / 127
    low, high = inputs.min(), inputs.max()
    step = (high - low) / 255
    rounded = np.round(inputs / step) * step
    expected = rounded @ (np.round(kernel / scale) * scale)
    assert np.allclose(np.asarray(layer(inputs, training=True)), expected, atol=step)
    assert np.allclose(np.asarray(layer(inputs)), inputs @ kernel, atol=1e-5)
    assert keras.layers.Dense in type(layer).__mro__


def test_a_model_without_its_keras_file_cannot_be_trained_further(exported: Any, tmp_path: Path) -> None:
    from bike_pipeline.exporting.compression.methods import Teacher

    shutil.copytree(exported.path, tmp_path / "model")
    (tmp_path / "model" / "assets.extra" / "model.keras").unlink()
    with pytest.raises(ExportError, match=r"model\.keras: the trained Keras model is not there"):
        Teacher(tmp_path / "model", {}, np.zeros(1, np.float32)).model()

"""A broken sensor's NaN or infinity gets NaN from every format; sound rows of the same batch keep their answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bike_pipeline import features
from bike_pipeline.exporting.formats.registry import format_of, names
from bike_pipeline.modeling.golden import are_sound, broken_rows, with_broken_rows
from tests.exporting.test_torch import FORMATS as TORCH
from tests.exporting.test_torch import needs_torch

# tf2onnx and NNCF take seconds each.
SLOW = ("onnx_float32", "onnx_int8", "openvino_float32", "openvino_int8")
# Made by a run that trains it, of any of the formats below; built on a GPU alone.
ELSEWHERE = {"compressed", "tensorrt"}


def marked(name: str) -> Any:
    marks = [pytest.mark.slow] if name in SLOW else [needs_torch] if name in TORCH else []
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def made(full_size: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a loaded format of the full-size model."""
    loaded: dict[str, Any] = {}

    def load(name: str) -> Any:
        if name not in loaded:
            folder = tmp_path_factory.mktemp(name)
            format_of(name).export(full_size.source, folder)
            loaded[name] = format_of(name).load(folder)
        return loaded[name]

    return load


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The LiteRT files that were made already."""
    return {}


@pytest.mark.parametrize("name", [marked(name) for name in names() if name not in ELSEWHERE])
def test_what_is_not_finite_is_answered_with_nan_and_disturbs_no_other_row(
    name: str, full_size: Any, made: Any
) -> None:
    model, broken = made(name), broken_rows()
    numbers = [f for f in features.MODEL_INPUTS if f.kind == "float"]
    assert len(broken["temp"]) == 3 * len(numbers)
    assert np.isnan(model.predict(broken)).all()
    alone = [model.predict({n: v[i : i + 1] for n, v in broken.items()}) for i in range(len(broken["temp"]))]
    assert np.isnan(np.concatenate(alone)).all()

    mixed = with_broken_rows(full_size.golden)
    answers, sound = model.predict(mixed), are_sound(mixed)
    assert (np.isnan(answers) == ~sound).all()
    # A batch with a range of its own, as dynamic quantization has it, would be another batch with such a row in it.
    np.testing.assert_allclose(answers[sound], model.predict(full_size.golden), rtol=1e-4)


@pytest.mark.parametrize("kernels", ["BUILTIN", "BUILTIN_REF", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"])
@pytest.mark.parametrize("name", [name for name in names() if name.startswith("tflite")])
def test_a_device_that_runs_the_raw_file_with_other_kernels_gets_nan_too(
    name: str, kernels: str, full_size: Any, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    if name not in files:
        folder = tmp_path_factory.mktemp(name)
        format_of(name).export(full_size.source, folder)
        files[name] = (folder / format_of(name).file).read_bytes()
    model = Interpreter(model_content=files[name], experimental_op_resolver_type=OpResolverType[kernels])
    mixed = with_broken_rows(full_size.golden)
    answers = model.get_signature_runner("serving_default")(**mixed)[features.LABEL]
    assert (np.isnan(answers) == ~are_sound(mixed)).all()


def test_rows_as_records_of_bytes_are_answered_alike(full_size: Any) -> None:
    import tensorflow as tf

    from bike_pipeline.components.example_shards import encode

    mixed = with_broken_rows(full_size.golden)
    serialized = encode(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in mixed.items()}))
    model = tf.saved_model.load(str(full_size.source.saved_model))
    served = model.signatures["serving_examples"](examples=tf.constant(serialized))
    answers, sound = served[features.LABEL].numpy(), are_sound(mixed)
    assert (np.isnan(answers) == ~sound).all()
    np.testing.assert_allclose(answers[sound], full_size.answers, rtol=1e-5)


def test_what_is_added_for_it_changes_no_bit_of_a_sound_answer(full_size: Any) -> None:
    """The Evaluator judged these numbers: max(exp(x) - 1, 0), and nothing else."""
    import tensorflow as tf

    from bike_pipeline.modeling import saved_model

    zeros = saved_model.zero_or_nan({name: tf.constant(values) for name, values in full_size.golden.items()}).numpy()
    assert zeros.shape == (1_000,)
    assert zeros.tobytes() == bytes(zeros.nbytes)
    assert (full_size.answers + zeros == full_size.answers).all()

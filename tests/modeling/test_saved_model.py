from __future__ import annotations

import gc
import json

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.components.example_shards import encode
from bike_pipeline.modeling import naive_baseline, saved_model, training
from tests.conftest import TRAINING

NAMES = [feature.name for feature in features.MODEL_INPUTS]
CODES = [f.name for f in features.REQUIRED_INPUTS if f.kind == "int" and f.maximum is not None]


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported.path))


def ask(served, rows, inputs=features.MODEL_INPUTS, signature=features.SERVING_ALL_INPUTS):
    tensors = {n: tf.constant(rows[n], spec.dtype) for n, spec in saved_model.input_signature(inputs).items()}
    return served.signatures[signature](**tensors)[features.LABEL].numpy()


def by_examples(served, rows):
    serialized = encode(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in rows.items()}))
    return served.signatures[features.SERVING_EXAMPLES](examples=tf.constant(serialized))[features.LABEL].numpy()


def test_without_the_optional_inputs_every_signature_answers_as_with_their_defaults(served, exported):
    required = {feature.name: exported.rows[feature.name] for feature in features.REQUIRED_INPUTS}
    unknown = {n: np.asarray(values, exported.rows[n].dtype) for n, values in features.with_defaults(required).items()}
    expected = ask(served, unknown)
    default = ask(served, required, features.REQUIRED_INPUTS, features.SERVING_DEFAULT)
    np.testing.assert_allclose(default, expected, rtol=1e-5)
    np.testing.assert_allclose(by_examples(served, required), expected, rtol=1e-5)
    assert (ask(served, {name: exported.rows[name] for name in NAMES}) != expected).any()


def test_both_signatures_and_the_model_in_memory_answer_the_same(served, exported):
    # Those that the state of feedback says nothing of.
    rows = {name: exported.rows[name][exported.rows["yr"] == 0] for name in NAMES}
    raw = ask(served, rows)
    by_example = by_examples(served, rows)
    transform = saved_model.Transform(
        str(exported.transform_graph), NAMES, [tensor.name for tensor in exported.model.inputs]
    )
    log_rentals = exported.model(transform({name: tf.constant(v) for name, v in rows.items()}), training=False)
    assert raw.shape == (len(rows["hr"]),)
    assert raw.dtype == np.float32
    assert np.ptp(raw) > 1
    # Threads share the rows out differently, which moves the last bit.
    np.testing.assert_allclose(raw, by_example, rtol=1e-5)
    np.testing.assert_allclose(raw, np.maximum(np.expm1(log_rentals.numpy()), 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", CODES)
def test_a_code_outside_its_range_is_answered_like_the_nearest_one(served, exported, name):
    rows = {n: exported.rows[n][:50] for n in NAMES}
    feature = features.BY_NAME[name]
    for wild, nearest in ((-1000, feature.minimum), (1000, feature.maximum)):
        far, near = ({**rows, name: np.full(50, int(value), np.int64)} for value in (wild, nearest))
        np.testing.assert_array_equal(ask(served, far), ask(served, near))


@pytest.mark.parametrize("name", features.OPTIONAL_NAMES)
def test_an_optional_input_below_its_range_is_one_that_is_not_known(served, exported, name):
    rows = {n: exported.rows[n][:50] for n in NAMES}
    kind = exported.rows[name].dtype
    unknown, below = ({**rows, name: np.full(50, value, kind)} for value in (0, -1000))
    np.testing.assert_array_equal(ask(served, below), ask(served, unknown))


def test_weather_far_outside_does_not_make_rentals_explode(served, exported):
    rows = {n: exported.rows[n][:50] for n in NAMES}
    wild = ask(served, {**rows, "temp": np.full(50, 1e6, np.float32), "windspeed": np.full(50, -1e6, np.float32)})
    wilder = ask(served, {**rows, "temp": np.full(50, 1e9, np.float32), "windspeed": np.full(50, -1e9, np.float32)})
    np.testing.assert_array_equal(wild, wilder)
    assert np.isfinite(wild).all()


def test_hours_after_the_training_period_stand_at_its_end(served, exported):
    december = {n: exported.rows[n][:50] for n in NAMES}
    december |= {name: np.full(50, value) for name, value in (("yr", 1), ("mnth", 12), ("day", 31))}
    later = december | {"yr": np.full(50, 8)}
    earlier = december | {"yr": np.zeros(50, np.int64)}
    np.testing.assert_array_equal(ask(served, later), ask(served, december))
    assert (ask(served, earlier) != ask(served, december)).any()


def test_rentals_are_never_negative(exported, tmp_path):
    model = keras.models.clone_model(exported.model)
    model.set_weights(exported.model.get_weights())
    head = model.get_layer("riders")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 0, bias * 0 - 5])
    start = training.first_feedback(model, str(exported.transform_graph), TRAINING, None)
    saved_model.write(model, str(exported.transform_graph), str(tmp_path / "model"), {}, start)
    answer = ask(tf.saved_model.load(str(tmp_path / "model")), {n: exported.rows[n][:20] for n in NAMES})
    assert (answer == 0).all()


def test_signature_of_reads_what_was_written(exported):
    kinds = {"int": "int64", "float": "float32"}
    assert saved_model.signature_of(str(exported.path)) == {
        features.SERVING_DEFAULT: {
            "inputs": {f.name: kinds[f.kind] for f in features.REQUIRED_INPUTS},
            "outputs": {features.LABEL: "float32"},
        },
        features.SERVING_ALL_INPUTS: {
            "inputs": {f.name: kinds[f.kind] for f in features.MODEL_INPUTS},
            "outputs": {features.LABEL: "float32"},
        },
        features.SERVING_INTERVALS: {
            "inputs": {f.name: kinds[f.kind] for f in features.MODEL_INPUTS},
            "outputs": dict.fromkeys((features.LABEL, *TRAINING["feedback"]["quantiles"]), "float32"),
        },
        features.SERVING_EXAMPLES: {"inputs": {"examples": "string"}, "outputs": {features.LABEL: "float32"}},
    }


def test_a_model_that_is_let_go_leaves_nothing_behind(exported):
    def graphs():
        gc.collect()
        return sum(type(one).__name__ == "FuncGraph" for one in gc.get_objects())

    tf.saved_model.load(str(exported.path))
    before = graphs()
    loaded = tf.saved_model.load(str(exported.path))
    assert graphs() > before
    del loaded
    assert graphs() == before


def test_the_model_carries_its_keras_file_and_its_reference(exported):
    extra = exported.path / saved_model.EXTRA_FOLDER
    again = keras.saving.load_model(extra / saved_model.KERAS_FILE, compile=False)
    for read, kept in zip(again.get_weights(), exported.model.get_weights(), strict=True):
        np.testing.assert_array_equal(read, kept)
    text = (extra / saved_model.NAIVE_BASELINE_FILE).read_text(encoding="utf-8")
    assert naive_baseline.NaiveBaseline.from_json(text).table.shape == (2, 24)
    assert json.loads(text)

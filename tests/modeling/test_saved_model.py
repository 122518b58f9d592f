from __future__ import annotations

import json

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.components.example_shards import encode
from bike_pipeline.modeling import naive_baseline, saved_model

NAMES = [feature.name for feature in features.MODEL_INPUTS]


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported.path))


def ask(served, rows):
    tensors = {spec.name: tf.constant(rows[spec.name], spec.dtype) for spec in saved_model.input_signature().values()}
    return served.signatures[saved_model.SERVING_DEFAULT](**tensors)[features.LABEL].numpy()


def test_both_signatures_and_the_model_in_memory_answer_the_same(served, exported):
    rows = {name: exported.rows[name] for name in NAMES}
    serialized = encode(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in rows.items()}))
    raw = ask(served, rows)
    by_example = served.signatures[saved_model.SERVING_EXAMPLES](examples=tf.constant(serialized))[features.LABEL]
    transform = saved_model.Transform(
        str(exported.transform_graph), NAMES, [tensor.name for tensor in exported.model.inputs]
    )
    log_rentals = exported.model(transform({name: tf.constant(v) for name, v in rows.items()}), training=False)
    assert raw.shape == (len(rows["hr"]),)
    assert raw.dtype == np.float32
    assert np.ptp(raw) > 1
    # Threads share the rows out differently, which moves the last bit.
    np.testing.assert_allclose(raw, by_example.numpy(), rtol=1e-5)
    np.testing.assert_allclose(raw, np.maximum(np.expm1(log_rentals.numpy()), 0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [f.name for f in features.MODEL_INPUTS if f.kind == "int" and f.maximum is not None])
def test_a_code_outside_its_range_is_answered_like_the_nearest_one(served, exported, name):
    rows = {n: exported.rows[n][:50] for n in NAMES}
    feature = features.BY_NAME[name]
    for wild, nearest in ((-1000, feature.minimum), (1000, feature.maximum)):
        far, near = ({**rows, name: np.full(50, int(value), np.int64)} for value in (wild, nearest))
        np.testing.assert_array_equal(ask(served, far), ask(served, near))


def test_weather_far_outside_does_not_make_rentals_explode(served, exported):
    rows = {n: exported.rows[n][:50] for n in NAMES}
    wild = ask(served, {**rows, "temp": np.full(50, 1e6, np.float32), "windspeed": np.full(50, -1e6, np.float32)})
    wilder = ask(served, {**rows, "temp": np.full(50, 1e9, np.float32), "windspeed": np.full(50, -1e9, np.float32)})
    np.testing.assert_array_equal(wild, wilder)
    assert np.isfinite(wild).all()


def test_hours_after_the_training_period_stand_at_its_end(served, exported):
    december = {n: exported.rows[n][:50] for n in NAMES} | {"yr": np.ones(50, np.int64), "mnth": np.full(50, 12)}
    later = december | {"yr": np.full(50, 8)}
    earlier = december | {"yr": np.zeros(50, np.int64)}
    np.testing.assert_array_equal(ask(served, later), ask(served, december))
    assert (ask(served, earlier) != ask(served, december)).any()


def test_rentals_are_never_negative(exported, tmp_path):
    model = keras.models.clone_model(exported.model)
    model.set_weights(exported.model.get_weights())
    head = model.get_layer("rentals")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 0, bias * 0 - 5])
    saved_model.write(model, str(exported.transform_graph), str(tmp_path / "model"), {})
    answer = ask(tf.saved_model.load(str(tmp_path / "model")), {n: exported.rows[n][:20] for n in NAMES})
    assert (answer == 0).all()


def test_signature_of_reads_what_was_written(exported):
    kinds = {"int": "int64", "float": "float32"}
    assert saved_model.signature_of(str(exported.path)) == {
        saved_model.SERVING_DEFAULT: {
            "inputs": {f.name: kinds[f.kind] for f in features.MODEL_INPUTS},
            "outputs": {features.LABEL: "float32"},
        },
        saved_model.SERVING_EXAMPLES: {"inputs": {"examples": "string"}, "outputs": {features.LABEL: "float32"}},
    }


def test_the_model_carries_its_keras_file_and_its_reference(exported):
    extra = exported.path / saved_model.EXTRA_FOLDER
    again = keras.saving.load_model(extra / saved_model.KERAS_FILE, compile=False)
    for read, kept in zip(again.get_weights(), exported.model.get_weights(), strict=True):
        np.testing.assert_array_equal(read, kept)
    text = (extra / saved_model.NAIVE_BASELINE_FILE).read_text(encoding="utf-8")
    assert naive_baseline.NaiveBaseline.from_json(text).table.shape == (2, 24)
    assert json.loads(text)

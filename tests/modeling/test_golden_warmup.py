"""TF Serving's warm-up requests: for every signature, always the same bytes, and answered by the model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from bike_pipeline import features
from bike_pipeline.modeling import golden, saved_model


def logs_of(path):
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))
    ]


@pytest.fixture(scope="module")
def logs(exported):
    return logs_of(exported.path / saved_model.EXTRA_FOLDER / golden.WARMUP_FILE)


def test_the_model_carries_requests_for_every_signature(logs):
    assert 0 < len(logs) <= golden.MOST_WARMUP_RECORDS == 1_000
    counted = Counter(log.predict_log.request.model_spec.signature_name for log in logs)
    assert set(counted) == {features.SERVING_DEFAULT, features.SERVING_ALL_INPUTS, features.SERVING_EXAMPLES}
    assert len(set(counted.values())) == 1
    # What TF Serving looks at to know what kind of request it is.
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}


def test_the_bytes_are_always_the_same(exported, tmp_path):
    written = (exported.path / saved_model.EXTRA_FOLDER / golden.WARMUP_FILE).read_bytes()
    assert (tmp_path / golden.write_warmup(str(tmp_path))).read_bytes() == written


def test_the_model_answers_every_request_and_the_signatures_of_all_inputs_the_same(exported, logs):
    served = tf.saved_model.load(str(exported.path))
    answers: dict[str, list[np.ndarray]] = {}
    for log in logs:
        request = log.predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        expected = saved_model.signature_of(str(exported.path))[name]["inputs"]
        assert {key: value.dtype.name for key, value in inputs.items()} == expected
        answers.setdefault(name, []).append(served.signatures[name](**inputs)[features.LABEL].numpy())
    default, raw, by_example = (np.concatenate(answers[name]) for name in golden.WARMUP_SIGNATURES)
    assert np.isfinite(default).all()
    assert np.isfinite(raw).all()
    assert len(raw) > 100
    np.testing.assert_allclose(raw, by_example, rtol=1e-5)

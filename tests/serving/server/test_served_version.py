"""What answers for a version, and what keeps a version from being served."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.modeling.golden import are_sound, golden_rows, with_broken_rows
from bike_pipeline.modeling.saved_model import input_signature
from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server import backends, served_version, tensors
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.serving import ServerSettings
from tests.serving.running import row, with_export

GOOD = {"passed": True, "precision": "float32", "latency_us": 10.0, "rows_per_second": 1e6}


def recorded(folder, **formats):
    exports = folder / "assets.extra" / "exports"
    exports.mkdir(parents=True, exist_ok=True)
    (exports / "parity.json").write_text(json.dumps({"formats": formats}))


@pytest.mark.parametrize(
    ("formats", "wanted", "expected"),
    [
        ({"a": GOOD, "b": {**GOOD, "latency_us": 9.0}}, (), ["b", "a"]),
        # The quickest for one row, and not for a batch.
        ({"a": GOOD, "b": {**GOOD, "latency_us": 5.0, "rows_per_second": 1e5}}, (), ["a", "b"]),
        ({"a": {**GOOD, "passed": False}, "b": GOOD}, (), ["b"]),
        ({"a": {**GOOD, "passed": "yes"}}, (), []),
        ({"a": {**GOOD, "precision": "int8"}}, (), []),
        ({"a": {**GOOD, "precision": "int8"}, "b": GOOD}, ("a",), ["a"]),
        ({"saved_model": GOOD}, (), []),
        ({"a": {"passed": True, "precision": "float32"}, "b": GOOD}, (), ["b", "a"]),
    ],
    ids=["latency", "batches", "failed", "no truth", "int8", "int8 wanted", "saved model", "not measured"],
)
def test_the_fastest_export_that_passed_is_chosen(tmp_path, formats, wanted, expected):
    recorded(tmp_path, **formats)
    assert list(backends.exports_by_speed(tmp_path, wanted)) == expected


def test_a_version_without_exports_has_no_candidates(tmp_path):
    assert backends.exports_by_speed(tmp_path, ()) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"formats": {"a": 1}}'], ids=["empty", "list", "number"])
def test_a_damaged_record_of_exports_is_a_broken_version(tmp_path, text):
    recorded(tmp_path)
    (tmp_path / "assets.extra" / "exports" / "parity.json").write_text(text)
    with pytest.raises(StatusError, match=r"parity\.json cannot be read") as caught:
        backends.exports_by_speed(tmp_path, ())
    assert caught.value.code is Code.DATA_LOSS


@pytest.fixture
def version(simple_models, tmp_path):
    """A folder of the simple model of scale 1 that a test may damage."""
    return shutil.copytree(simple_models[1], tmp_path / "1")


def answers_of(version, settings=None):
    loaded = served_version.load(version, settings or ServerSettings())
    backend = loaded.backends["serving_default"]
    rows = [row(8, 0.5), row(3, 0.25)]
    types = {name: tensors.numpy_type(spec.dtype) for name, spec in loaded.signatures["serving_default"].inputs.items()}
    outputs = backend.run({name: np.array([one[name] for one in rows], kind) for name, kind in types.items()})
    return backend.name, outputs["cnt"].tolist()


def test_the_export_answers(version):
    assert answers_of(version) == ("tflite_float32", [58.0, 28.0])


def test_tensorflow_answers_where_it_is_asked_for(version):
    assert answers_of(version, ServerSettings(backends=("saved_model",))) == ("saved_model", [58.0, 28.0])


def test_an_export_that_is_not_the_measured_one_is_passed_over(version, caplog):
    file = version / "assets.extra" / "exports" / "tflite_float32" / "model.tflite"
    file.write_bytes(file.read_bytes() + b"\x00")
    assert answers_of(version) == ("saved_model", [58.0, 28.0])
    assert "the file is not the one that was measured" in caplog.text


def test_an_export_of_an_unknown_format_is_passed_over(version, caplog):
    exports = version / "assets.extra" / "exports"
    record = json.loads((exports / "parity.json").read_text())
    record["formats"]["caffe"] = {**record["formats"]["tflite_float32"], "latency_us": 1.0}
    shutil.copytree(exports / "tflite_float32", exports / "caffe")
    (exports / "parity.json").write_text(json.dumps(record))
    assert answers_of(version) == ("tflite_float32", [58.0, 28.0])
    assert "no export format 'caffe'" in caplog.text


def test_other_answers_to_the_golden_rows_are_a_broken_version(version):
    columns = {name: [value] for name, value in row(8, 0.5).items()}
    golden = version / "assets.extra" / "exports" / "golden.json"
    golden.write_text(json.dumps({"columns": columns, "cnt": [58.0]}))
    assert answers_of(version)[0] == "tflite_float32"
    golden.write_text(json.dumps({"columns": columns, "cnt": [58.2]}))
    with pytest.raises(StatusError, match="answers the golden rows otherwise"):
        served_version.load(version, ServerSettings())
    golden.write_text("{}")
    with pytest.raises(StatusError, match=r"golden\.json cannot be read"):
        served_version.load(version, ServerSettings())


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A model as earlier releases made them: behind its clipping, NaN and infinity are numbers like any other."""
    import tensorflow as tf

    class Earlier(tf.Module):
        @tf.function(input_signature=[input_signature(features.REQUIRED_INPUTS)])
        def rows(self, raw):
            return {
                "cnt": tf.add_n([tf.clip_by_value(tf.cast(value, tf.float32), 0.0, 24.0) for value in raw.values()])
            }

    model, folder = Earlier(), tmp_path_factory.mktemp("earlier")
    tf.saved_model.save(model, str(folder / "1"), {"serving_default": model.rows})
    return with_export(folder / "1", folder / "2")


@pytest.mark.parametrize("rows", [1, 16, 33])
def test_an_export_of_an_earlier_release_still_answers_and_gives_nan_for_what_is_not_finite(earlier, rows, caplog):
    backend = served_version.load(earlier, ServerSettings()).backends["serving_default"]
    assert backend.name == "tflite_float32"
    assert "answers a row that is not finite" in caplog.text
    every = with_broken_rows(golden_rows(200))
    mixed = {feature.name: every[feature.name][1 : rows + 1] for feature in features.REQUIRED_INPUTS}
    sound = are_sound(mixed)
    answers = backend.run(mixed)["cnt"]
    assert (np.isnan(answers) == ~sound).all()
    clipped = sum(np.clip(values.astype(np.float32), 0, 24) for values in mixed.values())
    np.testing.assert_allclose(answers[sound], clipped[sound], rtol=1e-5)


def test_golden_rows_of_a_broken_sensor_are_asked_too(version):
    columns = {name: [value] for name, value in row(8, 0.5).items()}
    broken = {"columns": {**columns, "temp": ["NaN"]}}
    golden = version / "assets.extra" / "exports" / "golden.json"
    golden.write_text(json.dumps({"columns": columns, "cnt": [58.0], "not_finite": broken}))
    assert answers_of(version)[0] == "tflite_float32"
    golden.write_text(json.dumps({"columns": columns, "cnt": [58.0], "not_finite": {"columns": columns}}))
    with pytest.raises(StatusError, match="answers the golden rows otherwise"):
        served_version.load(version, ServerSettings())


def write_warmup(version, *logs, cut=0):
    content = b"".join(struct.pack("<QI", len(log), 0) + log + b"\x00" * 4 for log in logs)
    path = version / served_version.WARM_UP_FILE
    path.write_bytes(content[: len(content) - cut])


def log_of(values, signature=""):
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name, request.model_spec.signature_name = "bike_demand", signature
    for name, value in values.items():
        kind = np.float32 if isinstance(value, float) else np.int64
        tensors.fill(request.inputs[name], np.array([value], kind))
    return log.SerializeToString()


def test_warm_up_requests_are_answered_before_it_serves(version):
    write_warmup(version, log_of(row(8, 0.5)), log_of({"text": 1}, "texts"))
    assert answers_of(version)[1] == [58.0, 28.0]


@pytest.mark.parametrize(
    ("logs", "cut", "message"),
    [
        ([{**row(8, 0.5), "hr": 8.0}], 0, "hr is expected to be int64"),
        ([{"hr": 8}], 0, "other inputs than the signature"),
        ([row(8, 0.5)], 3, "is cut short"),
        ([row(8, 0.5)] * 1001, 0, "Number of warmup records exceeds the maximum"),
    ],
    ids=["type", "inputs", "cut", "many"],
)
def test_a_warm_up_request_that_fails_is_a_broken_version(version, logs, cut, message):
    write_warmup(version, *(log_of(values) for values in logs), cut=cut)
    with pytest.raises(StatusError, match=message):
        served_version.load(version, ServerSettings())


def test_tensorflows_own_record_file_is_read(version):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(version / served_version.WARM_UP_FILE)) as writer:
        writer.write(log_of(row(8, 0.5)))
        writer.write(prediction_log_pb2.PredictionLog().SerializeToString())
    (request,) = served_version.warm_up_requests(version / served_version.WARM_UP_FILE)
    assert request.inputs["hr"].int64_val == [8]


def test_intervals_of_an_export_are_those_of_the_graph(servable_model):
    version = served_version.load(servable_model, ServerSettings.model_validate(load_settings().serving.server))
    backend = version.backends[features.SERVING_INTERVALS]
    assert isinstance(backend, backends.IntervalBackend)
    rows = with_broken_rows(golden_rows(1_000))
    inputs = {f.name: rows[f.name] for f in features.MODEL_INPUTS}
    import tensorflow as tf

    graph = tf.saved_model.load(str(servable_model)).signatures[features.SERVING_INTERVALS]
    expected = {
        name: tensor.numpy() for name, tensor in graph(**{n: tf.constant(v) for n, v in inputs.items()}).items()
    }
    found = backend.run(inputs)
    assert set(found) == set(expected) == set(version.signatures[features.SERVING_INTERVALS].outputs)
    assert len(expected) > 3
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-3, err_msg=name)
        assert np.isnan(values).any()
        assert np.isfinite(values).sum() > 900


def test_a_damaged_state_of_feedback_is_a_broken_version(servable_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(servable_model, folder)
    (folder / "assets.extra" / "feedback.json").write_text("{}")
    with pytest.raises(StatusError, match=r"feedback\.json cannot be read") as caught:
        served_version.load(folder, ServerSettings.model_validate(load_settings().serving.server))
    assert caught.value.code is Code.DATA_LOSS

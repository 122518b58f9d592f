"""Tensors in TF Serving's messages are read and written as TensorFlow does it."""

from __future__ import annotations

import numpy as np
import pytest

from bike_pipeline.serving.protos import tensor_pb2, types_pb2
from bike_pipeline.serving.server import tensors
from bike_pipeline.serving.server.tensors import Signature, TensorSpec
from bike_pipeline.serving.statuses import Code, StatusError

TYPES = [
    "bfloat16", "bool", "complex64", "complex128", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


def values_of(name):
    import tensorflow as tf

    return np.array([[0, 1, 2], [3, 100, 7]]).astype(tf.dtypes.as_dtype(name).as_numpy_dtype)


@pytest.mark.parametrize("name", TYPES)
def test_what_tensorflow_writes_is_read(name):
    import tensorflow as tf

    values = values_of(name)
    for proto in (tf.make_tensor_proto(values), tf.make_tensor_proto(values.tolist(), dtype=name)):
        got = tensors.to_array(proto, "x")
        assert got.dtype == values.dtype
        np.testing.assert_array_equal(got, values)


@pytest.mark.parametrize("name", TYPES)
def test_what_is_written_tensorflow_reads(name):
    import tensorflow as tf

    values = values_of(name)
    np.testing.assert_array_equal(tf.make_ndarray(filled(values)), values)


def test_strings_travel_both_ways():
    import tensorflow as tf

    values = np.array([b"\x00\xff", "ü".encode()], dtype=object)
    assert tensors.to_array(tf.make_tensor_proto(values), "x").tolist() == values.tolist()
    assert tf.make_ndarray(filled(values)).tolist() == values.tolist()


def filled(values):
    proto = tensor_pb2.TensorProto()
    tensors.fill(proto, values)
    return proto


def proto_of(dtype, shape, **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add().size = size
    return proto


def test_fewer_values_than_the_shape_are_filled_up_with_the_last_as_tensorflow_does():
    import tensorflow as tf

    proto = proto_of(types_pb2.DT_INT64, [4], int64_val=[5, 7])
    np.testing.assert_array_equal(tensors.to_array(proto, "x"), tf.make_ndarray(proto))
    assert tensors.to_array(proto_of(types_pb2.DT_FLOAT, [2, 2]), "x").tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "proto",
    [
        proto_of(types_pb2.DT_INT64, [2], tensor_content=b"1234567"),
        proto_of(types_pb2.DT_INT64, [-1], int64_val=[1]),
        proto_of(types_pb2.DT_FLOAT, [1 << 20, 1 << 20], float_val=[1]),
        proto_of(types_pb2.DT_RESOURCE, [1]),
        proto_of(types_pb2.DT_STRING, [1], tensor_content=b"x"),
        tensor_pb2.TensorProto(),
    ],
    ids=["bytes of another length", "open shape", "a shape without values", "no data", "bytes for strings", "empty"],
)
def test_what_is_no_tensor_is_refused(proto):
    with pytest.raises(StatusError, match="tensor parsing error: hum") as caught:
        tensors.to_array(proto, "hum")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_nothing_is_cast():
    spec = TensorSpec(types_pb2.DT_INT64, (-1,))
    with pytest.raises(StatusError, match="hr is expected to be int64 but int32 is provided"):
        tensors.column(filled(np.array([1], np.int32)), spec, "hr")


def test_a_model_that_takes_nothing_but_rows_says_which_input_is_none():
    rows = TensorSpec(types_pb2.DT_INT64, (-1,))
    two = Signature("serving_default", {"hr": rows, "mnth": rows}, {"y": rows}, batches=True)
    for columns, said in (
        ({"hr": np.array([[1]]), "mnth": [1]}, r"input hr is expected to have the shape \[\?\] but has \[1, 1\]"),
        ({"hr": [1, 2], "mnth": [1]}, "Tensor name: mnth has inconsistent batch size: 1 expecting: 2"),
    ):
        assert tensors.rows_of(columns, two) is None
        with pytest.raises(StatusError, match=said):
            raise tensors.unfitting(columns, two)
    assert tensors.rows_of({"hr": [1, 2], "mnth": np.array([3, 4])}, two) == 2


def test_more_dimensions_than_numpy_has_are_an_invalid_argument():
    with pytest.raises(StatusError, match="hum has 65 dimensions, more than 64") as caught:
        tensors.to_array(proto_of(types_pb2.DT_FLOAT, [1] * 65, float_val=[1]), "hum")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert tensors.to_array(proto_of(types_pb2.DT_FLOAT, [1] * 64, float_val=[1]), "hum").ndim == 64


def test_few_values_and_many_and_bytes_are_the_same_column():
    import tensorflow as tf

    spec = TensorSpec(types_pb2.DT_FLOAT, (-1,))
    for count in (1, 16, 17, 1000):
        values = np.linspace(0, 1, count, dtype=np.float32)
        for proto in (filled(values), tf.make_tensor_proto(values)):
            np.testing.assert_array_equal(np.asarray(tensors.column(proto, spec, "x"), np.float32), values)

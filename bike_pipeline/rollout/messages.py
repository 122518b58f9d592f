"""The two messages of TF Serving's configuration files that `tensorflow-serving-api` does not bring.

Names, numbers and types are those of TF Serving's session_bundle_config.proto and monitoring_config.proto, so that
text written here is text that it reads.
"""

from __future__ import annotations

import functools
from typing import Any

_PACKAGE = "tensorflow.serving"
_FILE = "bike_pipeline/tf_serving_files.proto"
_INT64, _STRING = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"
_BATCHING = (
    ("max_batch_size", _INT64),
    ("batch_timeout_micros", _INT64),
    ("max_enqueued_batches", _INT64),
    ("num_batch_threads", _INT64),
    ("thread_pool_name", _STRING),
    ("allowed_batch_sizes", "repeated int64"),
    ("pad_variable_length_inputs", "bool"),
)
_PROMETHEUS = (("enable", "bool"), ("path", "string"))
_MONITORING = (("prometheus_config", f".{_PACKAGE}.PrometheusConfig"),)


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, wrappers_pb2

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=_PACKAGE, syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    messages = (("BatchingParameters", _BATCHING), ("PrometheusConfig", _PROMETHEUS), ("MonitoringConfig", _MONITORING))
    for name, fields in messages:
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in enumerate(fields, 1):
            repeated = kind.startswith("repeated ")
            field = message.field.add(
                name=field_name, number=number, label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            )
            plain = kind.removeprefix("repeated ")
            field.type = {"int64": kinds.TYPE_INT64, "bool": kinds.TYPE_BOOL, "string": kinds.TYPE_STRING}.get(
                plain, kinds.TYPE_MESSAGE
            )
            if field.type == kinds.TYPE_MESSAGE:
                field.type_name = plain
    # A pool of its own: whoever has TF Serving's own protos may load them beside these.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_class(name: str) -> Any:
    """Return the class of `BatchingParameters`, `PrometheusConfig` or `MonitoringConfig`."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))

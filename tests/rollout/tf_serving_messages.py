"""The messages of TF Serving's configuration files that `tensorflow-serving-api` does not bring.

Names, numbers and types are those of TF Serving's session_bundle_config.proto and monitoring_config.proto, so that
text that these read is text that it reads.
"""

from __future__ import annotations

import functools
from typing import Any

_INT64_VALUE = {"type": "TYPE_MESSAGE", "typeName": ".google.protobuf.Int64Value"}
_STRING_VALUE = {"type": "TYPE_MESSAGE", "typeName": ".google.protobuf.StringValue"}
_BOOL, _STRING = {"type": "TYPE_BOOL"}, {"type": "TYPE_STRING"}
# Fields in the order of their numbers.
_MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": _INT64_VALUE,
        "batch_timeout_micros": _INT64_VALUE,
        "max_enqueued_batches": _INT64_VALUE,
        "num_batch_threads": _INT64_VALUE,
        "thread_pool_name": _STRING_VALUE,
        "allowed_batch_sizes": {"type": "TYPE_INT64", "label": "LABEL_REPEATED"},
        "pad_variable_length_inputs": _BOOL,
    },
    "PrometheusConfig": {"enable": _BOOL, "path": _STRING},
    "MonitoringConfig": {
        "prometheus_config": {"type": "TYPE_MESSAGE", "typeName": ".tensorflow.serving.PrometheusConfig"}
    },
}


@functools.cache
def message_class(name: str) -> Any:
    """Return the class of `BatchingParameters`, `PrometheusConfig` or `MonitoringConfig`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, wrappers_pb2

    file = {
        "name": "bike_pipeline/tf_serving_files.proto",
        "package": "tensorflow.serving",
        "syntax": "proto3",
        "dependency": [wrappers_pb2.DESCRIPTOR.name],
        "messageType": [
            {
                "name": message,
                "field": [{"name": f, "number": i, **kind} for i, (f, kind) in enumerate(fields.items(), 1)],
            }
            for message, fields in _MESSAGES.items()
        ],
    }
    # A pool of its own: whoever has TF Serving's own protos may load them beside these.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(json_format.ParseDict(file, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))

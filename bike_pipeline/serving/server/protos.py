"""TF Serving's messages, without importing TensorFlow.

See `bike_pipeline.serving.stubs` for how. Whoever imports TensorFlow later gets it whole, with these same classes.
The `*_service_pb2` modules are left out: those of tensorflow-serving-api 2.19 do not load with protobuf 6.
"""

from __future__ import annotations

from bike_pipeline.serving.stubs import without_tensorflow

with without_tensorflow():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow.core.protobuf import error_codes_pb2, meta_graph_pb2, saved_model_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        predict_pb2,
        prediction_log_pb2,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "error_codes_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "predict_pb2",
    "prediction_log_pb2",
    "regression_pb2",
    "saved_model_pb2",
    "tensor_pb2",
    "types_pb2",
]

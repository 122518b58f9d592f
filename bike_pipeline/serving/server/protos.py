"""TF Serving's messages, without importing TensorFlow.

`tensorflow_serving`'s generated modules import `tensorflow.core.*_pb2`, and Python runs `tensorflow/__init__` before
anything below it: seconds and hundreds of megabytes for a handful of descriptors. While the messages are imported,
TensorFlow's packages are stood in for by empty ones with the same search path. Afterwards the stand-ins are gone and
whoever imports TensorFlow gets it whole, with these same message classes.

The `*_service_pb2` modules are left out: those of tensorflow-serving-api 2.19 do not load with protobuf 6.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGES = tuple(f"tensorflow{below}" for below in ("", ".core", ".core.example", ".core.framework", ".core.protobuf"))


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Let modules below TensorFlow's packages be imported without the packages' own code."""
    spec = None if "tensorflow" in sys.modules else importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        yield
        return
    root = Path(spec.submodule_search_locations[0])
    for name in _PACKAGES:
        stand_in = types.ModuleType(name)
        stand_in.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name in _PACKAGES:
            del sys.modules[name]


with _stand_ins():
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

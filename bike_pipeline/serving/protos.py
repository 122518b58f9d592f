"""TF Serving's protocol buffers and service stubs, without importing TensorFlow.

The modules of `tensorflow-serving-api` import protocol buffers of the package `tensorflow`, and so TensorFlow itself:
seconds of every start for a client that only sends numbers. A package without TensorFlow's own `__init__` stands in its
place while they are imported. Whoever imports TensorFlow later gets the real one, with the same message classes.
The `*_service_pb2` modules are left out: those of tensorflow-serving-api 2.19 do not load with protobuf 6.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Let the modules below the package `tensorflow` be imported without running the package's own code."""
    name = "tensorflow"
    if name in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules[name] = package
    try:
        yield
    finally:
        # Of a package that stayed, a module could be imported without TensorFlow and then begin to import TensorFlow,
        # which needs that module. The modules stay: they are what TensorFlow is to find.
        below = [n for n, m in sys.modules.items() if n.startswith(f"{name}.") and hasattr(m, "__path__")]
        for each in (name, *below):
            del sys.modules[each]


def load(name: str) -> Any:
    """Return a generated module by its full name, such as `tensorflow_serving.apis.predict_pb2`."""
    with _without_tensorflow():
        return importlib.import_module(name)


example_pb2 = load("tensorflow.core.example.example_pb2")
tensor_pb2 = load("tensorflow.core.framework.tensor_pb2")
types_pb2 = load("tensorflow.core.framework.types_pb2")
error_codes_pb2 = load("tensorflow.core.protobuf.error_codes_pb2")
saved_model_pb2 = load("tensorflow.core.protobuf.saved_model_pb2")
classification_pb2 = load("tensorflow_serving.apis.classification_pb2")
get_model_metadata_pb2 = load("tensorflow_serving.apis.get_model_metadata_pb2")
get_model_status_pb2 = load("tensorflow_serving.apis.get_model_status_pb2")
inference_pb2 = load("tensorflow_serving.apis.inference_pb2")
input_pb2 = load("tensorflow_serving.apis.input_pb2")
model_management_pb2 = load("tensorflow_serving.apis.model_management_pb2")
predict_pb2 = load("tensorflow_serving.apis.predict_pb2")
prediction_log_pb2 = load("tensorflow_serving.apis.prediction_log_pb2")
regression_pb2 = load("tensorflow_serving.apis.regression_pb2")
model_server_config_pb2 = load("tensorflow_serving.config.model_server_config_pb2")

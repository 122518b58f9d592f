"""TF Serving's protocol buffers and service stubs, without importing TensorFlow.

The modules of `tensorflow-serving-api` import protocol buffers of the package `tensorflow`, and so TensorFlow itself:
seconds of every start for a client that only sends numbers. A package without TensorFlow's own `__init__` stands in its
place while they are imported. Whoever imports TensorFlow later gets the real one, with the same message classes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Let the modules below the package `tensorflow` be imported without running the package's own code.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
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


def load(*names: str) -> tuple[ModuleType, ...]:
    """Return modules that need TensorFlow's protocol buffers, such as `tensorflow_serving.apis.predict_pb2`.

    Args:
        names: full names of generated modules.

    Raises:
        ModuleNotFoundError: the package `tensorflow-serving-api` or `tensorflow` is not installed.
    """
    with without_tensorflow():
        return tuple(importlib.import_module(name) for name in names)

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
def _bare(name: str) -> Iterator[None]:
    """Let the modules below an installed package be imported without running the package's own code."""
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
        del sys.modules[name]


def load(*names: str) -> tuple[ModuleType, ...]:
    """Return modules that need TensorFlow's protocol buffers, such as `tensorflow_serving.apis.predict_pb2`.

    Args:
        names: full names of generated modules.

    Raises:
        ModuleNotFoundError: the package `tensorflow-serving-api` or `tensorflow` is not installed.
    """
    with _bare("tensorflow"):
        return tuple(importlib.import_module(name) for name in names)

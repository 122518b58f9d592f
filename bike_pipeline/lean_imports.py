"""Keeps libraries out of a run that serve only what a run never does: plots, notebooks, MongoDB, Google's clouds.

Keras, Keras Tuner, NLTK, LightGBM and Beam import them where they are installed and do without them where they are
not. That is decided import by import, each named here with the package that makes it. Anybody else who imports the same
library gets it, and what is imported already stays as it is. Hiding a library from everybody would not be safe: TFMA
swallows the ImportError and goes on with half of its names.

It pays with 0.9 s of the CPU time of each process that imports the pipeline: 11.8 s with it and 12.7 s without, the
means of five alternating pairs. Large libraries are imported without the collector of garbage: 3.6 s in place of 6.7 s,
half of it where the process ends, since the collector passes over what is frozen there too.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import FrameType, ModuleType
from typing import Any

# A module, or with a dot at its end all below a package; and what the names of those begin with who do without it.
Optional = tuple[str, str]
NEVER_USED: tuple[Optional, ...] = (
    ("IPython", "keras.src."),
    ("matplotlib", "keras.src."),
    ("sklearn", "keras.src."),
    ("sklearn", "keras_tuner.src."),
    ("sklearn", "nltk."),
    ("sklearn", "lightgbm.compat"),
    ("bson", "apache_beam.io.mongodbio"),
    ("pymongo", "apache_beam.io.mongodbio"),
)
# Beam does without all of Google's clients, as it does where they are not installed.
GOOGLE_CLOUD: tuple[Optional, ...] = (
    ("google.cloud.", "apache_beam."),
    ("google.api_core", "apache_beam."),
    ("google.auth", "apache_beam."),
)
# What is imported without the collector, whoever imports it.
LARGE = frozenset(
    {
        "apache_beam",
        "keras",
        "tensorflow",
        "tensorflow_data_validation",
        "tensorflow_model_analysis",
        "tensorflow_transform",
    }
)


class _LeanFinder:
    """Says that an optional library is absent to those who do without it; else the other finders answer."""

    def __init__(self, optional: Iterable[Optional]) -> None:
        self._optional = tuple(optional)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave it to the other finders, or raise ModuleNotFoundError if the importer does without the library."""
        wanted = [by for what, by in self._optional if name == what or (what.endswith(".") and name.startswith(what))]
        if wanted and _importer().startswith(tuple(wanted)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return _uncollected_spec(PathFinder.find_spec(name, path, target)) if name in LARGE else None


def _uncollected_spec(spec: ModuleSpec | None) -> ModuleSpec | None:
    """Return a library's spec with a loader that runs it, and all that it imports, without the collector."""
    if spec is None or spec.loader is None:
        return None
    execute = spec.loader.exec_module

    def exec_module(module: ModuleType) -> None:
        with uncollected():
            execute(module)

    spec.loader.exec_module = exec_module  # type: ignore[method-assign]
    return spec


def _importer() -> str:
    """Return the name of the module whose import statement is under way."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the import system tells finders no other way
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and not name.startswith("importlib") and "importlib" not in frame.f_code.co_filename:
            return name
        frame = frame.f_back
    return ""


@contextmanager
def lean_imports(google_cloud: bool) -> Iterator[None]:
    """Import without optional libraries while the block runs, large ones without the collector of garbage.

    With `google_cloud`, Google's clients are left.
    """
    optional = NEVER_USED if google_cloud else (*NEVER_USED, *GOOGLE_CLOUD)
    finder: Any = _LeanFinder(optional)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the collector of cyclic garbage, which then leaves what was imported alone for good.

    TensorFlow and TFX make more than a million objects that live as long as the process. Collected in between, all of
    them are looked through dozens of times: a quarter of the imports' CPU time, for 5 MB of garbage.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Whoever comes here again imports nothing, and leaves garbage of other kinds.
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()

"""Keeps libraries out of a run that serve only what a run never does: plots, notebooks, MongoDB, Google's clouds.

Keras, Keras Tuner, NLTK, LightGBM and Beam import them where they are installed and do without them where they are
not. That is decided import by import, each named here with the package that makes it. Anybody else who imports the same
library gets it, and what is imported already stays as it is. Hiding a library from everybody would not be safe: TFMA
swallows the ImportError and goes on with half of its names.

It pays with 0.9 s of the CPU time of each process that imports the pipeline: 11.8 s with it and 12.7 s without, the
means of five alternating pairs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
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


class _LeanFinder:
    """Says that an optional library is absent to those who do without it; else the other finders answer."""

    def __init__(self, optional: Iterable[Optional]) -> None:
        self._optional = tuple(optional)

    def find_spec(self, name: str, *_: object) -> None:
        """Leave it to the other finders, or raise ModuleNotFoundError if the importer does without the library."""
        wanted = [by for what, by in self._optional if name == what or (what.endswith(".") and name.startswith(what))]
        if wanted and _importer().startswith(tuple(wanted)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


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
    """Import without optional libraries while the block runs; with `google_cloud`, Google's clients are left."""
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

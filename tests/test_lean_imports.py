"""Optional libraries are absent only to those who are known to do without them, and nothing else is missing for it."""

from __future__ import annotations

import gc
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bike_pipeline import lean_imports as module
from bike_pipeline.lean_imports import lean_imports, uncollected

# Prints the public names of the libraries that swallow ImportErrors, and which optional ones were loaded.
NAMES = """
import contextlib, importlib, json, sys
from bike_pipeline.lean_imports import lean_imports
with lean_imports(google_cloud=False) if sys.argv[1] == "lean" else contextlib.nullcontext():
    from tfx import components
    from tfx.orchestration.portable import launcher
    libraries = ("tensorflow_model_analysis", "tensorflow_data_validation", "tensorflow_transform", "tfx.components",
                 "tfx_bsl.public.tfxio", "keras", "tensorflow", "keras_tuner", "nltk")
    names = {name: sorted(n for n in dir(importlib.import_module(name)) if n[0] != "_") for name in libraries}
    optional = ("matplotlib", "pymongo", "google.cloud.storage", "google.cloud.bigquery", "sklearn")
    print(json.dumps([names, [name for name in optional if name in sys.modules]]))
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library, its plugin, and two packages that import both in the way in which optional imports are written."""
    guarded = "try:\n    import library\nexcept ImportError:\n    library = None\n"
    guarded += "try:\n    from library_two.plugin import x\nexcept ImportError:\n    x = None\n"
    for name, content in {"library": "", "library_two": "", "modest": guarded, "eager": guarded}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(content, encoding="utf-8")
    (tmp_path / "library_two" / "plugin.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "NEVER_USED", (("library", "modest"),))
    monkeypatch.setattr(module, "GOOGLE_CLOUD", (("library_two.", "modest"),))
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in ("library", "library_two", "modest", "eager")]:
        del sys.modules[name]


@pytest.mark.usefixtures("packages")
def test_a_library_is_absent_to_those_who_do_without_it() -> None:
    with lean_imports(google_cloud=False):
        modest = importlib.import_module("modest")
        assert (modest.library, modest.x) == (None, None)
        eager = importlib.import_module("eager")
        assert eager.library is not None
        assert eager.x == 1


@pytest.mark.usefixtures("packages")
def test_what_was_asked_for_is_there() -> None:
    with lean_imports(google_cloud=True):
        modest = importlib.import_module("modest")
        assert (modest.library, modest.x) == (None, 1)


@pytest.mark.usefixtures("packages")
def test_what_is_imported_already_stays() -> None:
    importlib.import_module("library")
    with lean_imports(google_cloud=False):
        assert importlib.import_module("modest").library is not None


@pytest.mark.usefixtures("packages")
def test_nothing_is_hidden_after_the_block() -> None:
    before = list(sys.meta_path)
    with pytest.raises(RuntimeError, match="stage"), lean_imports(google_cloud=False):
        raise RuntimeError("a stage failed")
    assert sys.meta_path == before
    assert importlib.import_module("modest").library is not None


@pytest.mark.usefixtures("packages")
def test_the_collector_passes_over_what_was_imported_once() -> None:
    assert gc.isenabled()
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            importlib.import_module("eager")
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > before
        with uncollected():
            kept = [[] for _ in range(1000)]
            importlib.import_module("eager")
        # What a second use leaves behind is collected like everything else.
        assert gc.get_freeze_count() <= frozen
        assert len(kept) == 1000
    finally:
        gc.unfreeze()


@pytest.mark.usefixtures("packages")
def test_a_large_library_is_imported_without_the_collector_and_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("library", "library_two"):
        (tmp_path / name / "__init__.py").write_text("import gc\ncollected = gc.isenabled()\n", encoding="utf-8")
    (tmp_path / "library" / "part.py").touch()
    with (tmp_path / "library" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write("from library import part\n")
    monkeypatch.setattr(module, "LARGE", frozenset({"library"}))
    before = gc.get_freeze_count()
    try:
        with lean_imports(google_cloud=True):
            library, other = importlib.import_module("library"), importlib.import_module("library_two")
            assert (library.collected, other.collected, gc.isenabled()) == (False, True, True)
            assert importlib.reload(library) is library
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("library.absent")
        assert gc.get_freeze_count() > before
        assert gc.isenabled()
    finally:
        gc.unfreeze()


@pytest.mark.usefixtures("packages")
def test_a_large_library_that_is_not_there_is_missing_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", frozenset({"no_such_library"}))
    with lean_imports(google_cloud=True), pytest.raises(ModuleNotFoundError, match="no_such_library"):
        importlib.import_module("no_such_library")


@pytest.mark.slow
def test_no_library_lacks_a_name_for_it() -> None:
    # A TFMA that goes on with half of its names would show here. Beam is left out: it offers its connectors of other
    # languages together with Google's clients or not at all.
    found = {}
    for way in ("lean", "full"):
        done = subprocess.run(
            [sys.executable, "-c", NAMES, way], capture_output=True, text=True, timeout=300, check=True
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])
        assert "Error importing" not in done.stderr
    assert found["lean"][0] == found["full"][0]
    assert found["lean"][1] == []
    # Else the test would have nothing to tell apart.
    assert {"google.cloud.bigquery", "pymongo"} <= set(found["full"][1])

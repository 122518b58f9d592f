from __future__ import annotations

import re
from pathlib import Path

import pytest

from bike_pipeline import source_hash as module
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.source_hash import SourceTree

P = "bike_pipeline"
FILES = {
    "__init__.py": f"from {P} import face\n",
    "face.py": "",
    "features.py": "",
    "errors.py": f"from {P} import told\n",
    "told.py": "",
    "modeling/__init__.py": "",
    "modeling/training.py": f"""
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import {P}.modeling.rows
        from {P}.errors import Oops
        if TYPE_CHECKING:
            from {P}.serving import shown
        else:
            from {P}.modeling import otherwise
        WORKER = ("-m", "{P}.modeling.worker")
        class Trainer:
            def run(self):
                from {P}.modeling.deep.leaf import Leaf
    """,
    "modeling/rows.py": "",
    "modeling/otherwise.py": "",
    "modeling/worker.py": f"from {P} import features as f\n",
    "modeling/unused.py": "",
    "modeling/page.html": "<p>",
    "modeling/data/table.csv": "a\n",
    "modeling/deep/__init__.py": "",
    "modeling/deep/leaf.py": f"from {P}.modeling import training\n",
    "serving/__init__.py": "",
    "serving/shown.py": "",
}
REACHED = [
    "features.py",
    "modeling/__init__.py",
    "modeling/training.py",
    "modeling/rows.py",
    "modeling/otherwise.py",
    "modeling/worker.py",
    "modeling/page.html",
    "modeling/data/table.csv",
    "modeling/deep/__init__.py",
    "modeling/deep/leaf.py",
]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / P
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(re.sub("^ {8}", "", text, flags=re.MULTILINE), encoding="utf-8")
    return root


def hash_of(package: Path, *starts: str) -> str:
    return SourceTree(package).hash_of(*(starts or (f"{P}.modeling.training",)))


def append(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_what_is_reached_counts_and_nothing_else(package: Path, name: str) -> None:
    before = hash_of(package)
    assert re.fullmatch("[0-9a-f]{64}", before)
    append(package / name)
    assert (hash_of(package) != before) == (name in REACHED)


def test_a_new_import_brings_what_it_imports(package: Path) -> None:
    (package / "modeling/rows.py").write_text(f"def f():\n    import {P}.serving.shown\n", encoding="utf-8")
    before = hash_of(package)
    append(package / "serving/shown.py")
    assert hash_of(package) != before


def test_a_file_added_beside_the_modules_of_a_package_counts_and_byte_code_does_not(package: Path) -> None:
    before = hash_of(package)
    (package / "modeling/__pycache__").mkdir()
    (package / "modeling/__pycache__/rows.cpython-311.pyc").write_bytes(b"\0")
    assert hash_of(package) == before
    (package / "modeling/page.css").write_text("p {}", encoding="utf-8")
    assert hash_of(package) != before


def test_the_order_of_the_starts_and_the_place_of_the_package_do_not_matter(package: Path, tmp_path: Path) -> None:
    starts = (f"{P}.features", f"{P}.serving")
    before = hash_of(package, *starts)
    assert hash_of(package, *reversed(starts)) == before
    (tmp_path / "elsewhere").mkdir()
    assert hash_of(package.rename(tmp_path / "elsewhere" / P), *starts) == before


def test_a_plug_in_is_followed_into_its_own_package_and_into_this_one(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "site" / "some_formats"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    (plugin / "format.py").write_text(f"import numpy\nfrom some_formats import own\nimport {P}.serving.shown\n")
    (plugin / "own.py").touch()
    single = tmp_path / "site" / "single_format.py"
    single.touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = SourceTree(package).modules("some_formats.format", "single_format")
    ours = [f"{P}.serving", f"{P}.serving.shown"]
    assert sorted(found) == [*ours, "single_format", "some_formats", "some_formats.format", "some_formats.own"]
    before = hash_of(package, "some_formats.format", "single_format")
    for file in (plugin / "own.py", single, package / "serving/shown.py"):
        append(file)
        after = hash_of(package, "some_formats.format", "single_format")
        assert after != before
        before = after


@pytest.mark.parametrize("start", [f"{P}.nothing", f"{P}.modeling.nothing", "no_such_distribution.format"])
def test_source_that_is_not_there_is_an_error_and_no_hash_of_nothing(package: Path, start: str) -> None:
    with pytest.raises(ConfigurationError, match="source that is not there"):
        hash_of(package, f"{P}.features", start)


def test_a_process_keeps_the_hash_of_what_it_runs(package: Path) -> None:
    tree = SourceTree(package)
    before = tree.hash_of(f"{P}.features")
    append(package / "features.py")
    assert tree.hash_of(f"{P}.features") == before != hash_of(package, f"{P}.features")
    assert module.this_source() is module.this_source()


@pytest.mark.parametrize("name", sorted(module.LEFT_OUT))
def test_what_is_left_out_is_there(name: str) -> None:
    path = module.PACKAGE_ROOT.joinpath(*name.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


CHANGES = {
    "edited": lambda p: append(p / "modeling/rows.py"),
    "added": lambda p: (p / "modeling/new.py").touch(),
    "removed": lambda p: (p / "modeling/unused.py").unlink(),
    "renamed": lambda p: (p / "modeling/unused.py").rename(p / "modeling/z.py"),
    "moved": lambda p: (p / "modeling/unused.py").rename(p / "unused.py"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_whole_tree_is_hashed_with_its_names(package: Path, change: str) -> None:
    before = module.tree_hash(package)
    CHANGES[change](package)
    assert module.tree_hash(package) != before


def test_a_template_counts_for_an_unchanged_run_and_what_python_compiles_does_not(package: Path) -> None:
    before = module.tree_hash(package)
    (package / "modeling" / "__pycache__").mkdir()
    (package / "modeling" / "__pycache__" / "rows.cpython-311.pyc").write_bytes(b"compiled")
    assert module.tree_hash(package) == before
    (package / "modeling" / "page.html").write_text("<p>another")
    assert module.tree_hash(package) != before

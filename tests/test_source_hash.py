from __future__ import annotations

import re

import pytest

from bike_pipeline import source_hash as module
from bike_pipeline.errors import ConfigurationError

ROOMS = ("features.py", "modeling")


@pytest.fixture
def package(tmp_path):
    root = tmp_path / "package"
    (root / "modeling" / "deep").mkdir(parents=True)
    (root / "serving").mkdir()
    for name in ("features.py", "modeling/a.py", "modeling/deep/b.py", "serving/c.py"):
        (root / name).write_text(f"# {name}\n", encoding="utf-8")
    return root


def hash_of(package, *rooms):
    # A process computes each hash once; here the source changes under it.
    module.source_hash.cache_clear()
    return module.source_hash(*(rooms or ROOMS), root=package)


CHANGES = {
    "edited": lambda p: (p / "modeling/a.py").write_text("# modeling/a.py \n", encoding="utf-8"),
    "edited below": lambda p: (p / "modeling/deep/b.py").write_text("", encoding="utf-8"),
    "single file edited": lambda p: (p / "features.py").write_text("x = 1\n", encoding="utf-8"),
    "added": lambda p: (p / "modeling/new.py").write_text("", encoding="utf-8"),
    "removed": lambda p: (p / "modeling/a.py").unlink(),
    "renamed": lambda p: (p / "modeling/a.py").rename(p / "modeling/z.py"),
    "moved": lambda p: (p / "modeling/deep/b.py").rename(p / "modeling/b.py"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_the_named_source_is_another_hash(package, change):
    before = hash_of(package)
    assert re.fullmatch("[0-9a-f]{64}", before)
    CHANGES[change](package)
    assert hash_of(package) != before


def test_other_source_and_compiled_files_do_not_matter(package):
    before = hash_of(package)
    (package / "serving/c.py").write_text("changed\n", encoding="utf-8")
    (package / "modeling/__pycache__").mkdir()
    (package / "modeling/__pycache__/a.cpython-311.pyc").write_bytes(b"\0")
    (package / "modeling/notes.md").write_text("text", encoding="utf-8")
    assert hash_of(package) == before


def test_the_order_of_the_rooms_and_the_place_of_the_package_do_not_matter(package, tmp_path):
    before = hash_of(package)
    assert hash_of(package, *reversed(ROOMS)) == before
    assert hash_of(package.rename(tmp_path / "elsewhere")) == before
    assert hash_of(tmp_path / "elsewhere", "features.py") != before


@pytest.mark.parametrize("room", ["nothing.py", "nowhere", "empty"])
def test_source_that_is_not_there_is_an_error_and_no_hash_of_nothing(package, room):
    (package / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="source that is not there"):
        hash_of(package, "features.py", room)


def test_the_real_package_is_hashed_where_it_lies():
    module.source_hash.cache_clear()
    assert module.source_hash("modeling") != module.source_hash("serving")

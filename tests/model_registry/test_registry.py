from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry import ModelRegistry, layout
from tests.privileges import modes_count

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights")
    return folder


@pytest.fixture
def base(tmp_path):
    return tmp_path / "serving" / "bike_demand"


def seen(base):
    """Return what lies in a base path, but for the lock, which stays."""
    return sorted(path.name for path in base.iterdir() if path.name != ".lock")


def test_a_pushed_version_is_the_model_and_its_record(base, model):
    record = {"model_id": 3, "fingerprint": layout.fingerprint(model)}
    assert ModelRegistry(base).add(model, 17, record) == str(base / "17")
    folder = base / "17"
    assert seen(base) == ["17"]
    assert ModelRegistry(base).push_record(17) == record
    assert ModelRegistry(base).fingerprint(17) == record["fingerprint"]
    assert (folder / "variables" / "data").read_bytes() == b"weights"


def test_versions_are_numbers_in_their_order(base, model):
    for version in (100, 9, 20):
        ModelRegistry(base).add(model, version, {})
    (base / ".incoming-7").mkdir()
    (base / "notes").mkdir()
    (base / "5").write_text("a file", encoding="utf-8")
    assert ModelRegistry(base).versions() == [9, 20, 100]
    assert ModelRegistry(base / "nowhere").versions() == []


def failing(*_args, **_kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("place", ["copy", "record", "sync", "rename"])
def test_a_push_that_fails_leaves_what_was_there_and_nothing_else(base, model, monkeypatch, place):
    ModelRegistry(base).add(model, 1, {"n": 1})
    before = layout.fingerprint(base / "1")
    with monkeypatch.context() as broken:
        if place == "copy":
            copy = shutil.copyfile

            def copy_some(source, target, **options):
                return failing() if Path(source).name == "data" else copy(source, target, **options)

            broken.setattr(shutil, "copyfile", copy_some)
        elif place == "record":
            broken.setattr(Path, "write_text", failing)
        elif place == "sync":
            broken.setattr(os, "fsync", failing)
        else:
            broken.setattr(Path, "rename", failing)
        with pytest.raises(StorageError) as error:
            ModelRegistry(base).add(model, 2, {"n": 2})
    assert "no space left on device" in str(error.value)
    assert seen(base) == ["1"]
    assert layout.fingerprint(base / "1") == before
    assert ModelRegistry(base).push_record(1) == {"n": 1}
    ModelRegistry(base).add(model, 2, {"n": 2})
    assert ModelRegistry(base).versions() == [1, 2]


def test_everything_is_on_disk_before_the_version_appears(base, model, monkeypatch):
    synced, renamed = [], []
    fsync, rename = os.fsync, Path.rename
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (synced.append((Path(f"/proc/self/fd/{fd}").readlink().name, bool(renamed))), fsync(fd)),
    )
    monkeypatch.setattr(Path, "rename", lambda self, to: (renamed.append(to), rename(self, to))[1])
    ModelRegistry(base).add(model, 4, {})
    names = {name for name, after in synced if not after}
    assert {"saved_model.pb", "data", "variables", layout.PUSH_FILE} <= names
    # The folder itself, under the name that it has until then.
    assert renamed == [base / "4"]
    assert [name for name, after in synced if after] == [base.name]


def test_a_push_killed_half_way_is_invisible_and_the_next_one_clears_it_away(base, model):
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom bike_pipeline.model_registry import ModelRegistry\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ModelRegistry(sys.argv[1]).add(sys.argv[2], 5, {})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(base), str(model)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert seen(base) == [".writing"]
    assert ModelRegistry(base).versions() == []
    ModelRegistry(base).add(model, 6, {})
    assert seen(base) == ["6"]


def test_a_version_that_is_there_is_never_overwritten(base, model):
    ModelRegistry(base).add(model, 1, {"n": 1})
    (model / "saved_model.pb").write_bytes(b"another graph")
    with pytest.raises(StorageError, match="there already"):
        ModelRegistry(base).add(model, 1, {"n": 2})
    assert (base / "1" / "saved_model.pb").read_bytes() == b"graph"
    assert ModelRegistry(base).push_record(1) == {"n": 1}
    assert seen(base) == ["1"]


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path, model):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="not a directory"):
        ModelRegistry(tmp_path / "file" / "bike_demand").add(model, 1, {})


def test_a_folder_without_permission_is_one_clear_error(base, model):
    base.mkdir(parents=True)
    base.chmod(0o500)
    with modes_count(), pytest.raises(StorageError, match="permission denied"):
        ModelRegistry(base).add(model, 1, {})
    base.chmod(0o700)
    assert seen(base) == []


def test_the_fingerprint_knows_contents_names_and_places_and_not_the_record(model, tmp_path):
    before = layout.fingerprint(model)
    (model / layout.PUSH_FILE).write_text("{}", encoding="utf-8")
    assert layout.fingerprint(model) == before
    shutil.copytree(model, tmp_path / "copy")
    assert layout.fingerprint(tmp_path / "copy") == before
    changes = (
        lambda f: (f / "saved_model.pb").write_bytes(b"grapH"),
        lambda f: (f / "saved_model.pb").rename(f / "saved_model.pb2"),
        lambda f: (f / "variables" / "data").rename(f / "data"),
        lambda f: (f / "more").write_bytes(b""),
        lambda f: (f / "variables" / "data").unlink(),
    )
    for number, change in enumerate(changes):
        folder = tmp_path / f"changed-{number}"
        shutil.copytree(model, folder)
        change(folder)
        assert layout.fingerprint(folder) != before


def test_push_records_are_absent_or_sound_or_an_error(base, model):
    folder = Path(ModelRegistry(base).add(model, 1, {"n": 1}))
    (folder / layout.PUSH_FILE).write_text('{"n": ', encoding="utf-8")
    with pytest.raises(StorageError, match="push record"):
        ModelRegistry(base).push_record(1)
    (folder / layout.PUSH_FILE).write_text(json.dumps([1]), encoding="utf-8")
    assert ModelRegistry(base).push_record(1) is None
    (folder / layout.PUSH_FILE).unlink()
    assert ModelRegistry(base).push_record(1) is None
    assert ModelRegistry(base).push_record(2) is None

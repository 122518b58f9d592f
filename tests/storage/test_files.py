"""What every place of files promises: a local folder, and object storage with and without exclusive creation."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from bike_pipeline.errors import BusyError, StorageError
from bike_pipeline.storage import remote_files
from bike_pipeline.storage.atomic_files import write_tree
from bike_pipeline.storage.files import Files, open_files
from bike_pipeline.storage.remote_files import RemoteFiles
from tests.conftest import ROOT
from tests.privileges import modes_count

COMMIT = "manifest.json"
CONTENTS = {"train/data.csv": b"rows", COMMIT: b"{}"}


@pytest.fixture(params=["local", "memory", "folder"])
def place(request, tmp_path):
    """A function that opens the same place anew, as another process would."""
    if request.param == "local":
        yield lambda: open_files(tmp_path / "place", 0.1)
    elif request.param == "folder":
        yield lambda: RemoteFiles(fsspec.filesystem("file"), str(tmp_path / "place"))
    else:
        yield lambda: open_files("memory://place")
        fsspec.filesystem("memory").rm("/place", recursive=True)


def publish(files: Files, folder="1", contents=CONTENTS):
    with files.lock():
        files.publish(folder, lambda aside: write_tree(aside, contents), COMMIT)


def test_a_published_folder_is_read_back(place, tmp_path):
    assert place().folders() == place().files() == place().files(deep=True) == []
    assert place().read("1/manifest.json") is None
    publish(place())
    found = place()
    assert found.folders() == ["1"]
    assert (found.files("1"), found.folders("1")) == ([COMMIT], ["train"])
    assert sorted(found.files("1", deep=True)) == sorted(CONTENTS)
    assert found.read("1/train/data.csv") == b"rows"
    (tmp_path / "copy").mkdir()
    found.download("1", tmp_path / "copy")
    found.download("absent", tmp_path / "copy")
    copied = {p.relative_to(tmp_path / "copy").as_posix(): p.read_bytes() for p in (tmp_path / "copy").rglob("*.*")}
    assert copied == CONTENTS


def test_what_is_there_is_never_published_over(place):
    publish(place())
    with pytest.raises(StorageError, match="it is there already"):
        publish(place(), contents={COMMIT: b"other"})
    assert place().read(f"1/{COMMIT}") == b"{}"


def test_a_folder_that_is_not_filled_to_its_end_does_not_count(place):
    def full(aside):
        write_tree(aside, {"train/data.csv": b"rows"})
        raise OSError(28, "No space left on device")

    files = place()
    with files.lock(), pytest.raises(StorageError, match="cannot write it: no space left on device"):
        files.publish("1", full, COMMIT)
    assert place().read(f"1/{COMMIT}") is None
    assert place().folders() == []
    publish(place())
    assert place().folders() == ["1"]


def test_files_are_replaced_extended_and_removed(place):
    files = place()
    with files.lock():
        files.replace("state.json", b"one")
        files.replace("state.json", b"two")
        files.append("log.jsonl", b"a\n")
        files.append("log.jsonl", b"b\n")
    assert (place().read("state.json"), place().read("log.jsonl")) == (b"two", b"a\nb\n")
    publish(place())
    with files.lock():
        files.remove("state.json")
        files.remove("1")
        files.remove("absent")
    assert place().read("state.json") is None
    assert place().folders() == []


def test_a_second_writer_is_told_and_the_lock_ends_with_its_block(place):
    with place().lock(), pytest.raises(BusyError), place().lock():
        pass
    with place().lock():
        pass


@pytest.mark.parametrize("place", ["memory", "folder"], indirect=True)  # the system's own lock cannot be taken over
def test_a_writer_that_was_overtaken_writes_nothing(place, monkeypatch):
    files = place()
    monkeypatch.setattr(remote_files, "MARKER_LIFETIME", remote_files.MARKER_LIFETIME * -1)
    with files.lock():
        with place().lock():
            for write in (files.replace, files.append):
                with pytest.raises(BusyError):
                    write("state.json", b"late")
        assert place().read("state.json") is None


# Where the process dies: on either side of the rename, before the flush, and in the middle of the content.
KILLED = """
import os, signal, sys
from pathlib import Path
from bike_pipeline.storage.atomic_files import write_tree
from bike_pipeline.storage.files import open_files
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
files = open_files(sys.argv[1])
{crash}
with files.lock():
    {change}
"""
CRASHES = {
    "before the flush": "os.fsync = die",
    "before the rename": "Path.rename = Path.replace = die",
    "after the rename": "rename = Path.rename\nPath.rename = lambda s, t: (rename(s, t), die())\n"
    "replace = Path.replace\nPath.replace = lambda s, t: (replace(s, t), die())",
    "within the content": "write = Path.write_bytes\nPath.write_bytes = lambda s, c: (write(s, c[:1]), die())",
}


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("change", ["publish", "replace"])
def test_a_killed_writer_of_a_local_folder_leaves_all_or_nothing_and_no_litter(tmp_path, crash, change):
    place = tmp_path / "place"
    with open_files(place).lock():
        open_files(place).replace("state", b"before")
    changes = {
        "publish": f"files.publish('1', lambda aside: write_tree(aside, {CONTENTS!r}), 'manifest.json')",
        "replace": "files.replace('state', b'after')",
    }
    code = KILLED.format(crash=CRASHES[crash], change=changes[change])
    done = subprocess.run([sys.executable, "-c", code, str(place)], cwd=ROOT, check=False, timeout=60)
    dies = not (change == "replace" and crash == "within the content")
    assert done.returncode == (-signal.SIGKILL if dies else 0)
    happened = crash == "after the rename" or not dies
    files = open_files(place)
    if change == "publish":
        whole = {name: files.read(f"1/{name}") for name in files.files("1", deep=True)}
        assert whole == (CONTENTS if happened else {})
    assert files.read("state") == (b"after" if change == "replace" and happened else b"before")
    with files.lock():
        pass
    assert {path.name for path in place.iterdir()} <= {".lock", "state", "1"}


# On a device this is one file of its own, which carries nothing else of the package.
ON_DEVICES = {"edge/device.py", "edge/updates.py"}


def test_one_module_flushes_to_the_disk_and_one_takes_locks():
    def using(name):
        found = set()
        for path in (ROOT / "bike_pipeline").rglob("*.py"):
            tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if any(getattr(node, "attr", getattr(node, "module", None)) == name for node in tree):
                found.add(path.relative_to(ROOT / "bike_pipeline").as_posix())
        return found

    assert using("fsync") - ON_DEVICES == {"storage/atomic_files.py"}
    assert using("filelock") == {"storage/atomic_files.py"}


def test_a_folder_without_permission_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with modes_count(), pytest.raises(StorageError, match="cannot lock it: permission denied"):
        publish(open_files(tmp_path / "place"))
    tmp_path.chmod(0o700)
    assert not Path(tmp_path / "place").exists()

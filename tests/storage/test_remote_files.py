from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import fsspec
import pytest

from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import BusyError, DataError, MissingExtraError, StorageError
from bike_pipeline.storage.atomic_files import write_tree
from bike_pipeline.storage.remote_files import MARKER, MARKER_LIFETIME, RemoteFiles
from tests.data.making import UPLOAD, check, make_rows


@pytest.fixture
def memory():
    file_system = fsspec.filesystem("memory")
    yield file_system
    if file_system.exists("/company"):
        file_system.rm("/company", recursive=True)


@pytest.fixture(params=["memory", "folder"])
def opened(request, memory, tmp_path):
    """An fsspec file system and a root on it: one that looks before it writes, one that creates exclusively."""
    if request.param == "memory":
        return memory, "/company/spans"
    return fsspec.filesystem("file"), str(tmp_path / "company" / "spans")


def store_on(opened):
    return SpanStore("", files=RemoteFiles(*opened))


def add(store, start="2011-01-01", days=4, seed=0, rows=None):
    return store.add(check(rows or make_rows(start, days, seed=seed)), UPLOAD, eval_fraction=0.2)


def mark(opened, since=None, **fields):
    file_system, root = opened
    file_system.makedirs(root, exist_ok=True)
    since = since or datetime.now(UTC)
    marker = {"token": "other", "host": "far-away", "pid": 7, "since": since.isoformat(), **fields}
    file_system.pipe_file(f"{root}/{MARKER}", json.dumps(marker).encode())


def test_a_remote_store_keeps_the_same_promises(opened):
    store = store_on(opened)
    assert store.spans() == []
    rows = make_rows(days=4)
    rows[3] = rows[3] | {"hum": "7"}
    assert add(store, rows=rows).created
    assert not add(store, rows=rows).created
    assert add(store, "2011-01-02", 1, seed=5).version.version == 2
    assert add(store, "2011-02-01").version.span == 2
    again = store_on(opened)
    assert [(v.span, v.version) for v in again.all_versions()] == [(1, 1), (1, 2), (2, 1)]
    for found in again.all_versions():
        again.verify(found.span, found.version)
    file_system, root = opened
    for uri in again.latest().files("train"):
        assert file_system.cat_file(uri).startswith(b"instant,dteday,")
    assert not file_system.exists(f"{root}/{MARKER}")


def test_an_address_opens_a_remote_store(memory):
    store = SpanStore("memory://company/spans")
    assert store.uri.rstrip("/") == "memory:///company/spans"
    assert add(store).version.uri == "memory:///company/spans/span-0001/version-0001"


def test_a_file_address_is_a_local_store(tmp_path):
    store = SpanStore(f"file://{tmp_path}/my%20spans")
    assert add(store).version.uri == str(tmp_path / "my spans" / "span-0001" / "version-0001")


def test_verify_finds_a_changed_byte(opened):
    store = store_on(opened)
    add(store)
    file_system, root = opened
    path = f"{root}/span-0001/version-0001/eval/data.csv"
    file_system.pipe_file(path, file_system.cat_file(path).replace(b"1", b"2", 1))
    with pytest.raises(DataError, match="the file was changed"):
        store.verify(1, 1)


@pytest.mark.parametrize("point", [1, 2])
def test_a_version_without_a_manifest_does_not_exist_and_is_written_again(opened, monkeypatch, point):
    store = store_on(opened)
    file_system, root = opened
    kind, calls = type(file_system), []
    real = kind.pipe_file

    def stop(self, path, value, **options):
        calls.append(path)
        # The first write of the memory file system is the marker.
        if len([p for p in calls if MARKER not in p]) > point:
            raise KeyboardInterrupt
        return real(self, path, value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "pipe_file", stop)
        patch.setattr(RemoteFiles, "_drop_marker", lambda self: None)  # a killed process drops nothing
        patch.setattr(RemoteFiles, "_create", _create_that_stops(RemoteFiles._create, calls, point))
        with pytest.raises(KeyboardInterrupt):
            add(store)
    assert file_system.find(f"{root}/span-0001")
    assert store.spans() == []
    with pytest.raises(BusyError, match="if that process is dead, remove this file"):
        add(store_on(opened))
    file_system.rm(f"{root}/{MARKER}")
    file_system.pipe_file(f"{root}/span-0001/version-0001/train/left-over.csv", b"old")
    with pytest.raises(DataError, match=r"version 1 of span 1 has no manifest\.json.*did not come to its end"):
        store.check_whole()
    assert add(store_on(opened)).created
    store.check_whole()
    store.verify(1, 1)


def _create_that_stops(real, calls, point):
    def create(self, path, content):
        if MARKER not in path and len([p for p in calls if MARKER not in p]) >= point:
            raise KeyboardInterrupt
        real(self, path, content)

    return create


def test_a_marker_keeps_a_second_writer_out_and_stays(opened):
    mark(opened)
    with pytest.raises(BusyError, match="process 7 on far-away writes there since"):
        add(store_on(opened))
    file_system, root = opened
    assert b"far-away" in file_system.cat_file(f"{root}/{MARKER}")
    assert store_on(opened).spans() == []


def test_an_old_marker_is_taken_over(opened):
    mark(opened, datetime.now(UTC) - MARKER_LIFETIME - timedelta(minutes=1))
    assert add(store_on(opened)).created


def test_a_damaged_marker_is_not_taken_over(opened):
    file_system, root = opened
    mark(opened)
    file_system.pipe_file(f"{root}/{MARKER}", b'{"tok')
    with pytest.raises(BusyError):
        add(store_on(opened))


def test_a_writer_that_was_overtaken_does_not_commit(opened):
    store = store_on(opened)
    files = RemoteFiles(*opened)
    payload = {"train/data.csv": b"x", "manifest.json": b"{}"}
    with files.lock():
        mark(opened)
        with pytest.raises(BusyError, match="far-away"):
            files.publish("span-0001/version-0001", lambda folder: write_tree(folder, payload), "manifest.json")
    assert store.spans() == []
    file_system, root = opened
    assert b"far-away" in file_system.cat_file(f"{root}/{MARKER}")


def test_only_one_of_many_writers_gets_an_exclusive_marker(tmp_path):
    opened = (fsspec.filesystem("file"), str(tmp_path))
    entered, refused, gate = [], [], threading.Barrier(8)

    def write():
        files = RemoteFiles(*opened)
        gate.wait()
        try:
            with files.lock():
                entered.append(files)
                done.wait(10)
        except BusyError:
            refused.append(files)
            if len(refused) == 7:
                done.set()

    done = threading.Event()
    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(entered), len(refused)) == (1, 7)


@pytest.mark.parametrize("operation", ["ls", "cat_file", "pipe_file"])
def test_a_storage_that_fails_is_one_clear_error(memory, monkeypatch, operation):
    store = SpanStore("memory://company/spans")
    add(store)

    def fail(self, *arguments, **options):
        raise RuntimeError("token expired\nrequest id 12")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), operation, fail)
        with pytest.raises(StorageError, match="token expired") as caught:
            add(store, "2011-02-01")
        assert "\n" not in str(caught.value)
    assert store.spans() == [1]
    assert add(store, "2011-02-01").created


def test_a_store_address_without_its_package_says_what_to_install(monkeypatch):
    def absent(url, **options):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingExtraError, match="pip install s3fs"):
        SpanStore("s3://bucket/spans")

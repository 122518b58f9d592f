"""What happens to a local store when its writers are killed, meet each other, or are refused by the system."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import BusyError, DataError, StorageError
from tests.data.making import UPLOAD, check, make_rows, to_csv

ROOT = Path(__file__).resolve().parents[2]

INGEST = """
import sys
from bike_pipeline.data.ingest import ingest
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.settings import load_settings
store, upload, *options = sys.argv[1:]
if "small-files" in options:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
print("ready", flush=True)
sys.stdin.readline()
try:
    result = ingest(load_settings(None, (f"data.store={store}",)), upload)
except BikePipelineError as error:
    print(error)
    raise SystemExit(int(error.exit_code))
print(result.version.span, result.version.version, result.created)
"""

HOLD = """
import sys
from pathlib import Path
from bike_pipeline.storage.files import LocalFiles
with LocalFiles(Path(sys.argv[1]), 5).lock():
    (Path(sys.argv[1]) / ".writing" / "half").mkdir(parents=True)
    print("held", flush=True)
    sys.stdin.readline()
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def add(store, start="2011-01-01", days=4, seed=0):
    return store.add(check(make_rows(start, days, seed=seed)), UPLOAD, eval_fraction=0.2)


def content_of(root):
    return sorted(str(p.relative_to(root)) for p in Path(root).rglob("*") if p.is_file() and p.name != ".lock")


@pytest.mark.slow
def test_an_ingest_killed_at_any_point_leaves_the_last_good_state_and_the_next_one_succeeds():
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        command = [sys.executable, "-m", "tests.data.crashing", folder]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    points = json.loads(done.stdout)
    assert points["first"] > 20
    assert points["correction"] > 20
    assert points["withdrawal"] > 3


def test_ingests_at_once_make_each_version_once(tmp_path):
    uploads = {
        "same": make_rows(days=4),
        "a": make_rows("2011-01-02", 1, seed=1),
        "b": make_rows("2011-01-03", 1, seed=2),
    }
    for name, rows in uploads.items():
        (tmp_path / f"{name}.csv").write_bytes(to_csv(rows))
    store = SpanStore(str(tmp_path / "spans"))
    add(store)
    names = ["same", "a", "b", "a"]
    processes = [start(INGEST, tmp_path / "spans", tmp_path / f"{name}.csv") for name in names]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert said[0] == ["1", "1", "False"]
    assert sorted(answer[2] for answer in (said[1], said[3])) == ["False", "True"]
    assert store.versions(1) == [1, 2, 3]
    expected = [*make_rows(days=1), *uploads["a"], *uploads["b"], *make_rows(days=4)[72:]]
    assert store.read(1, 3).drop_columns("instant").equals(check(expected).accepted.drop_columns("instant"))
    for version in (1, 2, 3):
        store.verify(1, version)


def test_a_second_writer_waits_and_then_says_that_the_store_is_busy(tmp_path):
    holder = start(HOLD, tmp_path)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=r"another process has been writing .*0\.2 seconds"):
            add(SpanStore(str(tmp_path), lock_timeout=0.2))
        assert SpanStore(str(tmp_path)).spans() == []
    finally:
        holder.communicate("\n")
    assert add(SpanStore(str(tmp_path), lock_timeout=5)).created


def test_the_lock_of_a_killed_writer_is_free_and_what_it_left_is_cleared(tmp_path):
    holder = start(HOLD, tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert (tmp_path / ".writing" / "half").is_dir()
    assert add(SpanStore(str(tmp_path), lock_timeout=5)).created
    assert not (tmp_path / ".writing" / "half").exists()


def test_a_file_size_limit_is_one_clear_error_and_leaves_no_half_version(tmp_path):
    (tmp_path / "upload.csv").write_bytes(to_csv(make_rows("2011-02-01", 30)))
    store = SpanStore(str(tmp_path / "spans"))
    add(store)
    before = content_of(tmp_path / "spans")
    process = start(INGEST, tmp_path / "spans", tmp_path / "upload.csv", "small-files")
    said = process.communicate("\n")[0].splitlines()
    assert process.returncode == StorageError.exit_code
    assert len(said) == 2
    assert "cannot write it: file too large" in said[1]
    assert content_of(tmp_path / "spans") == before
    process = start(INGEST, tmp_path / "spans", tmp_path / "upload.csv")
    assert process.communicate("\n")[0].splitlines()[1] == "2 1 True"


@pytest.mark.parametrize("point", range(3))
def test_a_full_disk_is_one_clear_error_and_leaves_no_half_version(tmp_path, monkeypatch, point):
    store = SpanStore(str(tmp_path))
    add(store)
    before = content_of(tmp_path)
    real, calls = Path.write_bytes, []

    def full(path, content):
        calls.append(path)
        if len(calls) > point:
            real(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageError, match=r"cannot write it: no space left on device\. Free some space"):
            add(store, "2011-02-01")
    assert content_of(tmp_path) == before
    assert add(store, "2011-02-01").created


def test_a_store_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"not a directory\. A part of that path is a file"):
        add(SpanStore(str(tmp_path / "file" / "spans")))
    (tmp_path / "other").write_text("not a folder")
    with pytest.raises(StorageError):
        SpanStore(str(tmp_path / "other")).spans()


def test_a_folder_in_the_way_of_a_version_is_one_clear_error_and_stays(tmp_path):
    (tmp_path / "span-0001" / "version-0001").mkdir(parents=True)
    (tmp_path / "span-0001" / "version-0001" / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match=r"has no manifest\.json"):
        add(SpanStore(str(tmp_path)))
    assert content_of(tmp_path) == ["span-0001/version-0001/mine.txt"]


READ_AND_END = """
import sys
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.spans import SpanStore
store, *uploads = sys.argv[1:]
for upload in uploads:
    read_source(upload)
SpanStore(store).verify(1, 1)
"""


def test_a_process_that_ends_right_after_reading_ends_well(tmp_path):
    # Arrow's reading threads made about one such process in three abort (arrow#34314): ten at once leave no anomaly.
    pq.write_table(check(make_rows()).accepted, tmp_path / "upload.parquet")
    (tmp_path / "upload.csv").write_bytes(to_csv(make_rows()))
    add(SpanStore(str(tmp_path / "spans")))
    arguments = (tmp_path / "spans", tmp_path / "upload.parquet", tmp_path / "upload.csv")
    processes = [start(READ_AND_END, *arguments) for _ in range(10)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 10

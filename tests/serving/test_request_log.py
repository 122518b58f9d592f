"""The files of the request log: whole lines whatever happens, bounded, and never those of another server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bike_pipeline.serving import request_log, request_log_files
from bike_pipeline.serving.request_log_files import Place
from tests.monitoring.logged import ROW, entry, packed, write

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_files():
    yield
    request_log_files.files_of.cache_clear()


def names(folder: Path) -> list[str]:
    return [
        json.loads(line)["http"]["request"]["id"] for path in sorted(folder.glob("*.jsonl")) for line in path.open()
    ]


def test_a_full_file_is_followed_by_the_next_and_the_oldest_goes_with_its_records(tmp_path):
    for number in range(10):
        write(tmp_path, *(entry(f"{number}-{n}", ROW) for n in range(5)), most_bytes=6_000, files=3)
    assert len([*tmp_path.glob("*.jsonl")]) == 3
    assert {path.stem for path in tmp_path.glob("*.tfrecord")} == {path.stem for path in tmp_path.glob("*.jsonl")}
    for path in tmp_path.glob("*.jsonl"):
        assert path.stat().st_size + path.with_suffix(".tfrecord").stat().st_size <= 6_000
    assert names(tmp_path)[-1] == "9-4"
    assert len(names(tmp_path)) == 15


def test_a_batch_that_is_larger_than_a_file_has_one_of_its_own(tmp_path):
    for number in range(3):
        write(tmp_path, *(entry(f"{number}-{n}", ROW) for n in range(5)), most_bytes=100, files=9)
    assert len([*tmp_path.glob("*.jsonl")]) == 3


WRITER = """
import resource, sys
from bike_pipeline.serving import request_log, request_log_files
from bike_pipeline.serving.request_log_files import Place
from tests.monitoring.logged import ROW, entry, packed

def write(name):
    return request_log.write(packed(entry(name, *[ROW] * 4)), Place(sys.argv[1], 10**8, 4))

assert not write("first")
# What a full disk does, in the middle of a line: the first bytes are written.
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
problems = [write(f"dropped-{n}") for n in range(3)]
assert all(problems), problems
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert not write("again")
print(problems[0])
"""


def test_where_there_is_no_room_a_batch_is_left_out_as_a_whole_and_the_next_follows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{tmp_path}: file too large")
    assert names(tmp_path) == ["first"] * 4 + ["again"] * 4
    import tensorflow as tf

    records = [str(path) for path in sorted(tmp_path.glob("*.tfrecord"))]
    assert len([*tf.data.TFRecordDataset(records)]) == 2


HOLDER = """
import pickle, sys
from tests.monitoring.logged import ROW, entry, write
from pathlib import Path
write(Path(sys.argv[1]), entry("other", ROW), files=2)
print("there", flush=True)
sys.stdin.read()
write(Path(sys.argv[1]), entry("other-again", ROW), files=2)
"""


def test_two_servers_on_a_folder_have_files_of_their_own_and_take_none_from_each_other(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=-1, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        for number in range(6):
            write(tmp_path, entry(f"{number}", ROW), most_bytes=100, files=2)
        assert "other" in names(tmp_path)
        # A file that is in use is one of those that are kept, so that at least the own one is beside it.
        assert len([*tmp_path.glob("*.jsonl")]) == 2
        other.communicate(timeout=60)
    finally:
        if other.poll() is None:
            other.kill()
            other.wait()
    assert "other-again" in names(tmp_path)
    # Nobody holds it any more.
    for number in range(6):
        write(tmp_path, entry(f"later-{number}", ROW), most_bytes=100, files=2)
    assert "other" not in names(tmp_path)


def test_others_may_not_read_it(tmp_path):
    (path,) = write(tmp_path, entry("a", ROW))
    assert path.stat().st_mode & 0o007 == 0
    assert path.with_suffix(".tfrecord").stat().st_mode & 0o007 == 0


def test_what_is_no_number_is_null(tmp_path):
    (path,) = write(tmp_path, entry("a", {**ROW, "temp": float("nan"), "hum": float("inf")}, answers=[float("nan")]))
    line = json.loads(path.read_bytes())
    assert [line["bike"]["features"][name] for name in ("temp", "hum")] == [None, None]
    assert line["bike"]["answer"] is None


def test_examples_that_are_none_are_a_line_without_features(tmp_path):
    one = entry("a", ROW)
    assert one.about is not None
    about = one.about._replace(types=(("examples", request_log.tensors.STRING),))
    place = Place(str(tmp_path), 10**8, 4)
    assert not request_log.write(packed(one._replace(about=about, columns=[[b"\xff\xff"]])), place)
    (path,) = tmp_path.glob("*.jsonl")
    assert "features" not in json.loads(path.read_bytes())["bike"]

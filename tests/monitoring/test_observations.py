"""Requests and labels in, columns out: the same lines again change nothing, and a kill leaves the state before."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import DataError
from bike_pipeline.monitoring.ingested import Joined
from bike_pipeline.monitoring.observations import ObservationStore
from tests.monitoring.logged import HOUR, MODEL, NOW, ROW, entry, lines, write


@pytest.fixture
def store(tmp_path):
    return ObservationStore(tmp_path / "observations")


def label(store, hours, labels):
    return store.join_labels(np.array(hours), np.array(labels, float))


def test_a_request_of_two_rows_becomes_two_rows_with_what_was_asked_answered_and_measured(store, tmp_path):
    quantiles = np.tile(np.array([-1.0, 0.0, 1.0], np.float32), (20, 1))
    asked = entry("abc", ROW, {**ROW, "hr": 9}, answers=(50.0, 60.0), quantiles=quantiles)
    write(tmp_path / "log", asked)
    added = store.add(tmp_path / "log", MODEL, NOW)
    assert (added.files, added.lines, added.rows, added.known, added.without_day) == (1, 2, 2, 0, 0)
    label(store, [HOUR], [55.0])
    found = store.columns()
    assert list(found["request_id"]) == ["abc", "abc"]
    assert list(found["row"]) == [0, 1]
    assert found["requested_at"].dtype == np.dtype("datetime64[ms]")
    assert list(found["requested_at"]) == [np.datetime64("2026-11-30T12:00")] * 2
    assert list(found["version"]) == [7, 7]
    assert list(found["latency_us"]) == [250.0, 250.0]
    assert list(found["hour"]) == [HOUR, HOUR + 1]
    assert found["answer"].dtype == np.float32
    assert list(found["answer"]) == [50.0, 60.0]
    unit = np.sqrt(50.0 + 7.5**2 + 4.0)
    np.testing.assert_allclose(found["lower"][0], 50.0 - unit, rtol=1e-6)
    np.testing.assert_allclose(found["upper"][0], 50.0 + unit, rtol=1e-6)
    np.testing.assert_array_equal(found["label"], [55.0, np.nan])
    assert not found["corrected"].any()
    for name in ROW:
        assert found[name][0] == ROW[name]
    # What was not sent.
    assert np.isnan(found["temp_mean_24h"]).all()
    wanted = {
        "request_id",
        "row",
        "requested_at",
        "sampling_rate",
        "version",
        "latency_us",
        "hour",
        "answer",
        "lower",
        "upper",
    }
    assert {*found} == wanted | {"label", "corrected"} | {f.name for f in features.MODEL_INPUTS}


def test_the_same_lines_again_and_the_same_file_under_another_name_change_nothing(store, tmp_path):
    (path,) = write(tmp_path / "log", *(entry(f"id-{n}", {**ROW, "hr": n}) for n in range(24)))
    store.add(tmp_path / "log", MODEL, NOW)
    before = store.columns()
    days = sorted((tmp_path / "observations" / "days").iterdir())
    assert store.add(tmp_path / "log", MODEL, NOW).files == 0
    path.rename(path.with_name("again.jsonl"))
    again = store.add(tmp_path / "log", MODEL, NOW)
    assert (again.files, again.rows, again.known) == (1, 0, 24)
    assert sorted((tmp_path / "observations" / "days").iterdir()) == days
    np.testing.assert_equal(store.columns(), before)


def test_what_is_appended_to_a_file_is_added_to_its_day(store, tmp_path):
    write(tmp_path / "log", entry("a", ROW))
    store.add(tmp_path / "log", MODEL, NOW)
    write(tmp_path / "log", entry("b", ROW, at=NOW + dt.timedelta(seconds=1)))
    added = store.add(tmp_path / "log", MODEL, NOW)
    assert (added.rows, added.known) == (1, 1)
    assert list(store.columns()["request_id"]) == ["a", "b"]
    # Who reads meanwhile finds what was there before, until the next change.
    assert len([*(tmp_path / "observations" / "days").iterdir()]) == 2
    label(store, [HOUR], [1])
    assert len([*(tmp_path / "observations" / "days").iterdir()]) == 1


def test_labels_come_late_and_are_corrected(store, tmp_path):
    write(tmp_path / "log", entry("a", *({**ROW, "hr": hour} for hour in range(4))))
    store.add(tmp_path / "log", MODEL, NOW)
    first = HOUR - 8
    assert list(store.hours()["state"]) == ["waiting"] * 4
    assert label(store, [first, first + 1], [10, 20]) == Joined(new=2)
    assert label(store, [first + 1, first + 2], [21, 30]) == Joined(new=1, corrected=1)
    assert label(store, [first + 1], [21]) == Joined(known=1)
    found = store.hours()
    assert list(found["state"]) == ["known", "corrected", "known", "waiting"]
    assert list(found["hour"]) == [first + n for n in range(4)]
    np.testing.assert_array_equal(found["label"], [10, 21, 30, np.nan])
    np.testing.assert_array_equal(store.columns()["corrected"], [False, True, False, False])
    # An hour that is not over.
    early = dt.datetime(2012, 4, 1, 2, 30, tzinfo=dt.UTC)
    assert list(store.hours(now=early)["state"]) == ["known", "corrected", "known", "predicted"]


def test_a_window_is_of_hours_and_where_a_row_has_none_of_requests(store, tmp_path):
    undated = {name: value for name, value in ROW.items() if name != "day"}
    write(tmp_path / "log", entry("dated", ROW, {**ROW, "hr": 9}), entry("undated", undated))
    assert store.add(tmp_path / "log", MODEL, NOW).without_day == 1
    eight, nine = dt.datetime(2012, 4, 1, 8), dt.datetime(2012, 4, 1, 9)
    assert list(store.columns(eight, eight)["hour"]) == [HOUR]
    assert list(store.columns(eight + dt.timedelta(minutes=1), nine)["hour"]) == [HOUR + 1]
    assert list(store.columns(dt.datetime(2026, 11, 30))["hour"]) == [-1]
    assert list(store.hours()["hour"]) == [HOUR, HOUR + 1]


@pytest.mark.parametrize(
    ("changed", "hour"),
    [
        ({"day": 30, "mnth": 2}, -1),
        ({"day": 29, "mnth": 2}, (31 + 28 + 365) * 24 + 8),
        ({"hr": 24}, -1),
        ({"mnth": 13}, -1),
        ({"yr": 2012}, -1),
        ({"day": 0}, -1),
        ({"day": -(2**62)}, -1),
    ],
)
def test_a_date_that_is_none_is_kept_as_it_was_sent_and_joined_to_nothing(store, tmp_path, changed, hour):
    write(tmp_path / "log", entry("a", {**ROW, **changed}))
    store.add(tmp_path / "log", MODEL, NOW)
    found = store.columns()
    assert list(found["hour"]) == [hour]
    assert {name: found[name][0] for name in changed} == changed


def test_failures_are_no_rows_of_the_model_and_are_told(store, tmp_path):
    write(tmp_path / "log", entry("a", ROW), entry("b", code="INVALID_ARGUMENT"))
    assert store.add(tmp_path / "log", MODEL, NOW).failures == 1
    assert list(store.columns()["request_id"]) == ["a"]
    assert list(store.failures()["code"]) == ["INVALID_ARGUMENT"]


def test_a_line_that_contradicts_one_of_its_id_is_set_aside_whichever_came_later(store, tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    (log / "1.jsonl").write_bytes(b"".join(lines(entry("a", ROW, answers=[1.0]))))
    (log / "2.jsonl").write_bytes(b"".join(lines(entry("a", ROW, answers=[2.0]))))
    added = store.add(log, MODEL, NOW)
    assert added.set_aside == {"contradicts a line of the same id": 1}
    (log / "3.jsonl").write_bytes(b"".join(lines(entry("a", ROW, answers=[3.0]))))
    assert store.add(log, MODEL, NOW).set_aside == {"contradicts a line of the same id": 1}
    assert list(store.columns()["answer"]) == [1.0]
    # A client may call two requests the same.
    write(log, entry("a", ROW, answers=[4.0], at=NOW + dt.timedelta(seconds=1)))
    assert not store.add(log, MODEL, NOW).set_aside
    assert list(store.columns()["answer"]) == [1.0, 4.0]


def test_nothing_is_known_at_first(store, tmp_path):
    assert store.add(tmp_path / "none", MODEL, NOW).files == 0
    assert len(store.columns()["label"]) == len(store.hours()["state"]) == 0
    fresh = store.freshness()
    assert (fresh.ingested_at, fresh.requested_at, fresh.labelled_hour) == (NOW, None, None)


def test_freshness(store, tmp_path):
    write(tmp_path / "log", entry("a", ROW))
    store.add(tmp_path / "log", MODEL, NOW)
    label(store, [5, 9], [1, 1])
    fresh = store.freshness()
    assert (fresh.requested_at, fresh.labelled_hour) == (NOW.replace(tzinfo=None), 9)


@pytest.mark.parametrize("kind", ["days/*.parquet", "labels-*.parquet"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_one_error_that_names_it(store, tmp_path, kind, damage):
    write(tmp_path / "log", entry("a", ROW))
    store.add(tmp_path / "log", MODEL, NOW)
    label(store, [HOUR], [1])
    (path,) = (tmp_path / "observations").glob(kind)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if damage == "flip" else content[:-10])
    with pytest.raises(DataError, match=path.name):
        store.columns()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 2}', '{"format": 1}', "\xff"])
def test_a_damaged_manifest_is_one_error(store, tmp_path, content):
    label(store, [HOUR], [1])
    (tmp_path / "observations" / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        store.columns()


def test_a_folder_may_have_any_name(tmp_path):
    folder = tmp_path / "it's [odd] * ? %20"
    write(folder / "log", entry("a", ROW))
    store = ObservationStore(folder / "observations")
    assert store.add(folder / "log", MODEL, NOW).rows == 1
    assert len(store.columns()["answer"]) == 1


DYING = """
import os, sys
from pathlib import Path
import numpy as np
from bike_pipeline.monitoring import observations, request_logs, stored_files
from bike_pipeline.monitoring.observations import ObservationStore
from tests.monitoring.logged import HOUR, MODEL, NOW

folder, step = Path(sys.argv[1]), int(sys.argv[2])
steps = iter(range(1000))

def dying(module, name):
    real = getattr(module, name)
    def call(*arguments, **options):
        if next(steps) == step:
            os._exit(9)
        return real(*arguments, **options)
    setattr(module, name, call)

for module, name in (
    (request_logs, "stage"), (observations, "_parquet"), (stored_files, "sha256_of"),
    (stored_files, "sync_path"), (stored_files, "replace_file"),
):
    dying(module, name)
store = ObservationStore(folder / "observations")
store.add(folder / "log", MODEL, NOW)
store.join_labels(np.array([HOUR, HOUR + 1]), np.array([10.0, 20.0]))
"""


@pytest.mark.slow
def test_whatever_a_change_is_killed_at_the_state_before_it_is_there_and_again_makes_it_whole(tmp_path):
    started = tmp_path / "started"
    write(started / "log", entry("a", ROW))
    ObservationStore(started / "observations").add(started / "log", MODEL, NOW)
    label(ObservationStore(started / "observations"), [HOUR], [1])
    write(started / "log", entry("b", ROW), entry("c", ROW, at=NOW - dt.timedelta(days=1)))
    killed = 0
    for step in range(100):
        folder = tmp_path / str(step)
        shutil.copytree(started, folder)
        command = [sys.executable, "-c", DYING, str(folder), str(step)]
        code = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=120, check=False).returncode
        store = ObservationStore(folder / "observations")
        found = store.columns()
        ids, labels = list(found["request_id"]), {*found["label"]}
        assert (ids, labels) in [(["a"], {1.0}), (["c", "a", "b"], {1.0}), (["c", "a", "b"], {10.0})]
        if code == 0:
            break
        killed += 1
        assert code == 9
        store.add(folder / "log", MODEL, NOW)
        label(store, [HOUR, HOUR + 1], [10, 20])
        assert list(store.columns()["request_id"]) == ["c", "a", "b"]
        assert {*store.columns()["label"]} == {10.0}
        # Nothing new: what was left goes.
        label(store, [HOUR], [10])
        left = {path.name for path in (folder / "observations").rglob("*") if path.is_file()}
        assert len(left) == 5, left
    assert killed > 8


def test_rows_take_no_more_memory_than_they_may(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    one = lines(entry("0123456789abcdef", ROW))[0]
    with (log / "1.jsonl").open("wb") as file:
        for number in range(60_000):
            file.write(one.replace(b"0123456789abcdef", b"%016x" % number))
    code = (
        "import re, sys; from pathlib import Path\n"
        "from bike_pipeline.monitoring.observations import ObservationStore\n"
        "from tests.monitoring.logged import MODEL, NOW\n"
        "store = ObservationStore(Path(sys.argv[1]) / 'observations')\n"
        "print(store.add(Path(sys.argv[1]) / 'log', MODEL, NOW).rows, len(store.columns()['answer']))\n"
        # Not `ru_maxrss`, which begins with that of the process that started this one.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=False
    )
    rows, megabytes = done.stdout.splitlines()[-2:]
    assert rows == "60000 60000"
    assert int(megabytes) < 700


def test_the_rows_of_a_request_are_found_by_its_id_and_no_others(store, tmp_path):
    later = NOW + dt.timedelta(hours=1)
    odd = "a' OR 1=1 --"
    write(
        tmp_path / "log",
        entry(odd, ROW, ROW),
        entry("b", ROW),
        entry(odd, ROW, at=later),
        entry(odd, ROW, code="NOT_FOUND"),
    )
    store.add(tmp_path / "log", MODEL, later)
    label(store, [HOUR], [55.0])
    found = store.request(odd)
    assert list(found["row"]) == [0, 1, 0]
    assert found["requested_at"][2] - found["requested_at"][0] == np.timedelta64(1, "h")
    assert list(found["label"]) == [55.0] * 3
    assert len(store.request("c")["row"]) == 0


def test_of_very_many_rows_whole_requests_are_drawn_and_always_the_same(store, tmp_path):
    asked = [entry(f"id-{n}", ROW, {**ROW, "hr": 9}, answers=(50.0, 60.0)) for n in range(400)]
    write(tmp_path / "log", *asked)
    store.add(tmp_path / "log", MODEL, NOW)
    drawn = store.columns(most=200, names=("request_id", "hour"))
    assert {*drawn} == {"request_id", "hour", "label", "corrected"}
    assert 100 < len(drawn["hour"]) < 320
    _, counts = np.unique(drawn["request_id"], return_counts=True)
    assert {*counts} == {2}
    np.testing.assert_equal(store.columns(most=200, names=("request_id", "hour")), drawn)
    assert len(store.columns(most=800)["hour"]) == 800

"""Corrupt logs: each bad line is counted with its reason and place, and stops nothing."""

from __future__ import annotations

import datetime as dt
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.monitoring import request_logs
from bike_pipeline.monitoring.observations import ObservationStore
from bike_pipeline.monitoring.request_logs import Reading
from tests.monitoring.logged import MODEL, NOW, ROW, entry, lines

GOOD = lines(entry("good-1", ROW), entry("good-2", {**ROW, "hr": 9}))
SOUND: dict[str, Any] = json.loads(lines(entry("changed", ROW))[0])


def changed(path: str, value: Any = None, *, gone: bool = False) -> bytes:
    """Return a sound line with one thing changed."""
    line = json.loads(json.dumps(SOUND))
    *above, last = path.split("/")
    place = line
    for name in above:
        place = place[name]
    if gone:
        del place[last]
    else:
        place[last] = value
    return json.dumps(line).encode() + b"\n"


def later(**ago: float) -> str:
    return (NOW + dt.timedelta(**ago)).isoformat()


BAD = {
    "cut off in the middle, another follows": (SOUND["@timestamp"].encode() + b"\n", "not JSON"),
    "binary": (bytes(range(11, 256)) + b"\n", "not UTF-8"),
    "zeros": (b"\0" * 300 + b"\n", "not JSON"),
    "a text": (b'"a line"\n', "no JSON object"),
    "a list": (b"[1, 2]\n", "no JSON object"),
    "nothing": (b"\n", "empty line"),
    "blanks": (b"  \t \r\n", "empty line"),
    "a bare NaN": (changed("bike/answer", float("nan")), "not JSON"),
    "a bare Infinity": (changed("bike/features/temp", float("inf")), "not JSON"),
    "two lines in one": (GOOD[0].rstrip() + GOOD[1], "not JSON"),
    "UTF-16": (json.dumps(SOUND).encode("utf-16-le").replace(b"\n", b"") + b"\n", "not JSON"),
    "Latin-1": (changed("http/request/id", "x").replace(b'"x"', '"ü"'.encode("latin-1")), "not UTF-8"),
    "deep": (b'{"bike":' * 5000 + b"1" + b"}" * 5000 + b"\n", "not JSON"),
    "huge": (changed("http/request/id", "x" * 100_000), "too long"),
    "huge without an end in sight": (b"x" * 1_000_000 + b"\n", "too long"),
    "no features of the model": (changed("bike/features", {}), "field missing"),
    "a feature too few": (changed("bike/features/hum", gone=True), "field missing"),
    "an unknown feature": (changed("bike/features/cnt_yesterday", 1), "unknown field"),
    "a leak instead of a feature": (
        changed("bike/features", {**{n: v for n, v in ROW.items() if n != "hum"}, "casual": 1}),
        "field missing",
    ),
    "an unknown field": (changed("bike/rentals", 1), "unknown field"),
    "an unknown bound": (changed("bike/interval", {"lower": 1, "middle": 2}), "unknown field"),
    "no name": (changed("http/request/id", gone=True), "field missing"),
    "an empty name": (changed("http/request/id", ""), "wrong type"),
    "a number for a name": (changed("http/request/id", 7), "wrong type"),
    "no event": (changed("event", gone=True), "field missing"),
    "a text for an event": (changed("event", "x"), "wrong type"),
    "a list for the bike": (changed("bike", [1]), "wrong type"),
    "a text for a number": (changed("bike/features/temp", "0.5"), "wrong type"),
    "a truth for a number": (changed("bike/features/holiday", True), "wrong type"),
    "a fraction for a code": (changed("bike/features/hr", 8.5), "wrong type"),
    "nothing for a code": (changed("bike/features/hr", None), "wrong type"),
    "a number of many digits": (changed("bike/features/hr", 10**30), "wrong type"),
    "just above 64 bits": (changed("bike/features/hr", 2**63), "wrong type"),
    "a text for an answer": (changed("bike/answer", "100"), "wrong type"),
    "a list for an interval": (changed("bike/interval", [1, 2]), "wrong type"),
    "a negative duration": (changed("event/duration", -1), "wrong type"),
    "a negative row": (changed("bike/row", -1), "wrong type"),
    "a fraction of a version": (changed("bike/version", 1.5), "wrong type"),
    "another outcome": (changed("event/outcome", "unknown"), "wrong type"),
    "another schema": (changed("bike/schema", 3), "another schema"),
    "no sampling rate": (changed("bike/sampling_rate", gone=True), "field missing"),
    "a sampling rate of none": (changed("bike/sampling_rate", 0.0), "wrong type"),
    "a negative sampling rate": (changed("bike/sampling_rate", -0.5), "wrong type"),
    "a sampling rate of more than all": (changed("bike/sampling_rate", 1.5), "wrong type"),
    "a text for a sampling rate": (changed("bike/sampling_rate", "1"), "wrong type"),
    "nothing for a sampling rate": (changed("bike/sampling_rate", None), "wrong type"),
    "a truth for a schema": (changed("bike/schema", True), "another schema"),
    "next week": (changed("@timestamp", later(days=7)), "in the future"),
    "the year 9999": (changed("@timestamp", "9999-12-31T23:59:59Z"), "in the future"),
    "1970": (changed("@timestamp", "1970-01-01T00:00:00Z"), "too early"),
    "a local time": (changed("@timestamp", "2026-11-30T12:00:00"), "no time zone"),
    "no time": (changed("@timestamp", "yesterday"), "no time"),
    "a month too many": (changed("@timestamp", "2026-13-30T12:00:00Z"), "no time"),
    "a number for a time": (changed("@timestamp", 1796019439), "wrong type"),
}
PASSED_OVER = {
    "another dataset": changed("event/dataset", "nginx.access"),
    "another model": changed("bike/model", "bike_demand_busy"),
    "without features": changed("bike/features", gone=True),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_line_is_set_aside_with_its_place_and_its_neighbours_count(tmp_path, kind):
    content, reason = BAD[kind]
    log = tmp_path / "log"
    log.mkdir()
    (log / "1.jsonl").write_bytes(GOOD[0] + content + GOOD[1])
    store = ObservationStore(tmp_path / "observations")
    added = store.add(log, MODEL, NOW)
    assert (added.rows, added.lines, dict(added.set_aside)) == (2, 3, {reason: 1})
    (told,) = map(json.loads, Path(added.set_aside_in).read_text(encoding="utf-8").splitlines())
    assert (told["file"], told["line"], told["reason"]) == ("1.jsonl", 2, reason)
    assert len(told["excerpt"]) < 1000
    assert list(store.columns()["request_id"]) == ["good-1", "good-2"]


@pytest.mark.parametrize("kind", PASSED_OVER)
def test_what_is_no_observation_is_counted_and_no_fault(tmp_path, kind):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.jsonl").write_bytes(GOOD[0] + PASSED_OVER[kind])
    added = ObservationStore(tmp_path / "observations").add(tmp_path / "log", MODEL, NOW)
    assert (added.rows, dict(added.other), dict(added.set_aside), added.set_aside_in) == (1, {kind: 1}, {}, "")


def read(folder, content, name="1.jsonl"):
    path = folder / name
    path.write_bytes(content)
    reading = Reading()
    tables = [*request_logs.read(path, MODEL, NOW, reading)]
    return sum(table.num_rows for table in tables), dict(reading.reasons)


@pytest.mark.parametrize(
    ("content", "rows", "reasons"),
    [
        (b"", 0, {}),
        (GOOD[0] + GOOD[1][:-1], 1, {"cut off": 1}),
        (GOOD[0] + GOOD[1][:40], 1, {"cut off": 1}),
        (b"\xef\xbb\xbf" + GOOD[0], 1, {}),
        (GOOD[0].replace(b"\n", b"\r\n") + GOOD[1], 2, {}),
        (gzip.compress(GOOD[0] + GOOD[1]), 2, {}),
        (gzip.compress(GOOD[0]) + gzip.compress(GOOD[1]), 2, {}),
        (gzip.compress(GOOD[0] * 1000)[:-20], 0, {"damaged gzip": 1}),
        (gzip.compress(GOOD[0])[:10] + b"\xff" * 40, 0, {"damaged gzip": 1}),
        (b"\x1f\x8b", 0, {"damaged gzip": 1}),
        (json.dumps(SOUND).encode("utf-16"), 0, {"not UTF-8": 1, "not JSON": 1}),
    ],
    # gzip writes the time into its header, so that the bytes are no name that two test processes agree on.
    ids=itertools.count(),
)
def test_files_of_other_forms(tmp_path, content, rows, reasons):
    found, told = read(tmp_path, content)
    if rows or not reasons:
        assert (found, told) == (rows, reasons)
    else:
        # How much of a damaged file can be read is for its form to say.
        assert set(told) <= {"cut off", *reasons}
        assert told


def test_of_very_many_bad_lines_the_first_are_kept_and_all_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(request_logs, "MOST_KEPT", 5)
    reading = Reading()
    path = tmp_path / "1.jsonl"
    path.write_bytes(b"x\n" * 100 + GOOD[0])
    (table,) = request_logs.read(path, MODEL, NOW, reading)
    assert (table.num_rows, reading.reasons["not JSON"], len(reading.bad)) == (1, 100, 5)


def test_what_shippers_add_is_passed_over(tmp_path):
    line = {**SOUND, "agent": {"type": "filebeat"}, "host": {"name": "a"}, "log": {"offset": 3}, "tags": ["x"]}
    line["event"]["ingested"] = "2026-11-30T12:00:00Z"
    assert read(tmp_path, json.dumps(line).encode() + b"\n") == (1, {})

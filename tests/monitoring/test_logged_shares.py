"""Rows that stand for others: the share of requests that was logged, in lines and days of this release and before."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow.parquet as pq
import pytest

from bike_pipeline.monitoring import observations
from bike_pipeline.monitoring.observations import ObservationStore
from tests.monitoring.logged import MODEL, NOW, ROW, entry, lines, write


@pytest.fixture
def store(tmp_path):
    return ObservationStore(tmp_path / "observations")


def test_a_row_says_of_which_share_it_is_and_one_of_a_former_release_of_all(store, tmp_path):
    write(tmp_path / "log", entry("half", ROW, rate=0.5), entry("all", ROW))
    former = json.loads(lines(entry("former", ROW))[0])
    former["bike"]["schema"] = 1
    del former["bike"]["sampling_rate"]
    # What a shipper made of 1.0.
    whole = json.loads(lines(entry("whole", ROW))[0])
    whole["bike"]["sampling_rate"] = 1
    (tmp_path / "log" / "former.jsonl").write_text(f"{json.dumps(former)}\n{json.dumps(whole)}\n")
    assert store.add(tmp_path / "log", MODEL, NOW).rows == 4
    found = store.columns()
    rates = dict(zip(found["request_id"], found["sampling_rate"], strict=True))
    assert rates == {"all": 1.0, "former": 1.0, "half": 0.5, "whole": 1.0}


def test_days_that_a_former_release_took_in_are_read_and_added_to(store, tmp_path, monkeypatch):
    stored = tuple(name for name in observations._STORED if name != "sampling_rate")
    with monkeypatch.context() as former:
        former.setattr(observations, "_STORED", stored)
        write(tmp_path / "log", entry("a", ROW))
        store.add(tmp_path / "log", MODEL, NOW)
    (path,) = (tmp_path / "observations" / "days").glob("*.parquet")
    assert "sampling_rate" not in pq.read_schema(path).names
    assert [*store.columns()["sampling_rate"]] == [1.0]
    write(tmp_path / "log", entry("b", ROW, rate=0.25))
    write(tmp_path / "log", entry("c", ROW, rate=0.25, at=NOW - dt.timedelta(days=1)))
    store.add(tmp_path / "log", MODEL, NOW)
    found = store.columns()
    assert dict(zip(found["request_id"], found["sampling_rate"], strict=True)) == {"a": 1.0, "b": 0.25, "c": 0.25}

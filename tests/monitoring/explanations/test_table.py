"""Where explanations are kept: found again by the command and by an auditor's query, and never changed."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from bike_pipeline.errors import MonitoringError, StorageError
from bike_pipeline.monitoring.explanations.answer import AnswerParts, Part, WhatIf
from bike_pipeline.monitoring.explanations.table import Explained, Explanation, ExplanationTable

OF = Explained(
    "abc'; DROP TABLE part; --", 3, "2026-11-30T12:00:00.000", 7, 16, "f" * 64, "2012-06-01T08:00", "rentals an hour"
)
WHY = AnswerParts(
    0.1 + 0.2, 137.25, (Part("hour", "8:00 on Friday, a working day", 251.0000001), Part("year", "2012", -1e-9)),
    (WhatIf("5 °C warmer", 478.5, -24.0),),
)  # fmt: skip
MADE = Explanation(OF, WHY)
KEY = (OF.request_id, OF.row, OF.requested_at)


@pytest.fixture
def table(tmp_path):
    return ExplanationTable(tmp_path / "new" / "explanations")


def test_nothing_is_there_and_nothing_is_made_before_the_first(table):
    assert table.find(*KEY) is None
    assert not table.path.parent.exists()


def test_what_is_added_is_found_again_to_the_last_bit(table):
    assert table.add(MADE) == MADE
    assert ExplanationTable(table.path.parent).find(*KEY) == MADE
    assert table.find(OF.request_id, 2, OF.requested_at) is None


def test_what_is_there_is_never_changed(table):
    table.add(MADE)
    other = Explanation(OF, AnswerParts(1.0, 1.0, (), ()))
    assert table.add(other) == MADE
    assert table.find(*KEY) == MADE


def test_an_auditor_finds_version_fingerprint_and_parts_by_a_query(table):
    table.add(MADE)
    with closing(sqlite3.connect(table.path)) as database:
        found = database.execute(
            "SELECT e.version, e.model_id, e.fingerprint, p.words, p.value, e.base + sum(p.value) OVER () "
            "FROM explanation e JOIN part p USING (request_id, row, requested_at) "
            "WHERE e.request_id = ? ORDER BY p.place",
            (OF.request_id,),
        ).fetchall()
    assert [one[:4] for one in found] == [(7, 16, "f" * 64, part.words) for part in WHY.parts]
    assert found[0][5] == pytest.approx(WHY.base + sum(part.value for part in WHY.parts))


def test_two_at_once_leave_one(table):
    barrier, found = threading.Barrier(4), []

    def add(number):
        barrier.wait()
        found.append(table.add(Explanation(OF, AnswerParts(float(number), 0.0, (), ()))))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(set(found)) == 1
    assert found[0] == table.find(*KEY)


def test_an_addition_that_is_killed_leaves_nothing(table, monkeypatch):
    insert = ExplanationTable._insert

    def killed(database, name, rows):
        if name == "what_if":
            raise KeyboardInterrupt
        insert(database, name, rows)

    with monkeypatch.context() as patched:
        patched.setattr(ExplanationTable, "_insert", staticmethod(killed))
        with pytest.raises(KeyboardInterrupt):
            table.add(MADE)
    assert table.find(*KEY) is None
    assert table.add(MADE) == MADE


def test_a_file_that_is_no_table_is_told(table):
    table.path.parent.mkdir(parents=True)
    table.path.write_bytes(b"no table at all, but long enough to be read as one" * 40)
    for call in (lambda: table.find(*KEY), lambda: table.add(MADE)):
        with pytest.raises(MonitoringError, match="damaged"):
            call()


def test_a_table_of_another_release_is_told(table):
    table.add(MADE)
    with closing(sqlite3.connect(table.path)) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(MonitoringError, match=r"format 2"):
        table.find(*KEY)


def test_a_folder_in_its_place_is_told(table):
    table.path.mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be read or written"):
        table.find(*KEY)

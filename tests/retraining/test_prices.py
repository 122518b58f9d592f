"""What a decision was worth, told on hours whose errors are known."""

import numpy as np
import pytest

from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.prices import Promotion, price_of
from tests.retraining.conftest import event

# Version 2 served hours from 100 on, version 3 from 200 on.
FIRST, SECOND = Promotion(1, 1000.0, 1, 2, 49, 99), Promotion(3, 3000.0, 2, 3, 99, 199)
HOURS = np.arange(50, 260)
OFF = {1: 9.0, 2: 4.0, 3: 1.0}


def errors(version, chosen):
    return np.full(int(chosen.sum()), OFF[version])


def decision(run=None, at=500.0):
    return {"id": 1, "run": run, "last_at": at, "fired": run is not None}


def price(row, promotions=(FIRST, SECOND), hours=HOURS):
    return price_of(row, promotions, 7.0, hours, errors)


def test_a_promoted_run_is_measured_where_neither_version_knows_a_label_and_no_later_one_serves():
    found = price(decision(run=1))
    assert (found.hours, found.avoided, found.estimate) == (100, 100 * 5.0, "")
    assert (found.before, found.after, found.cpu_seconds) == (1, 2, 7.0)
    newest = price(decision(run=3))
    assert (newest.hours, newest.avoided) == (60, 60 * 3.0)


def test_a_worse_model_has_a_price_below_zero(monkeypatch):
    monkeypatch.setitem(OFF, 2, 10.0)
    assert price(decision(run=1)).avoided == -100.0


@pytest.mark.parametrize("row", [decision(at=2000.0), decision(run=2, at=2000.0)])
def test_what_waited_or_was_refused_is_an_estimate_by_the_next_promoted_model(row):
    found = price(row)
    assert (found.before, found.after) == (2, 3)
    assert (found.hours, found.avoided) == (100, 300.0)
    assert "version 3 of run 3 stands in" in found.estimate


def test_what_a_cluster_does_not_tell_is_no_price_of_nothing():
    found = price_of(decision(run=1), (FIRST, SECOND), None, HOURS, errors)
    assert (found.avoided, found.cpu_seconds) == (500.0, None)


def test_without_labels_or_a_later_model_there_is_no_price():
    assert price(decision(run=3), hours=HOURS[HOURS < 200]) is None
    assert price(decision(at=4000.0)) is None
    assert price(decision(run=1), hours=HOURS[:0]) is None


def test_the_ledger_keeps_the_last_price_of_a_decision(ledger, make_loop):
    ledger.see(event("a"))
    make_loop().work()
    (row,) = ledger.rows(tables.decisions)
    assert row["price"] is None
    for avoided in (1.0, 2.0):
        ledger.set_price(row["id"], {"avoided": avoided})
    (row,) = ledger.rows(tables.decisions)
    assert row["price"] == {"avoided": 2.0}

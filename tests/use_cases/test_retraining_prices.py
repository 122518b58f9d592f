"""Prices once a day: whatever comes of it stands among what triggers say, and nothing of it ends the watch."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from bike_pipeline.errors import DataError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import MANUAL, Event, State
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.retraining import PolicySettings
from bike_pipeline.use_cases import retraining, retraining_prices
from bike_pipeline.use_cases.retraining import open_ledger


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, (f"workspace={tmp_path}",))


@pytest.fixture
def ledger(settings):
    return open_ledger(settings)


@pytest.fixture
def promoted(ledger):
    ledger.see(Event(MANUAL, "somebody", "1"))
    run = ledger.claim(ledger.hold_lease("one", 30), PolicySettings())
    ledger.advance(run, State.PROMOTED, pushed_version=2)


@pytest.fixture
def calls(monkeypatch):
    """What is priced in a thread in place of a process; what it raises or returns is set in the list."""
    made = []

    def price(settings):
        made.append(settings)
        return retraining_prices.Pricing(3, 1, ("run 1: gone",))

    monkeypatch.setattr(retraining_prices, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
    monkeypatch.setattr(retraining_prices, "price", price)
    return made


def said(ledger):
    return [row["note"] for row in ledger.rows(tables.checks, trigger_name="prices")]


def test_nothing_is_priced_before_a_run_was_promoted(settings, ledger, calls):
    retraining_prices.price_daily(settings, ledger)
    assert (calls, said(ledger)) == ([], [])


def test_it_is_priced_once_a_day(settings, ledger, promoted, calls, monkeypatch):
    for _ in range(2):
        retraining_prices.price_daily(settings, ledger)
    assert calls == [settings]
    assert said(ledger) == ["3 decisions have a price, 1 wait for labels or a model; run 1: gone"]
    later = retraining_prices.time.time() + 86_401
    monkeypatch.setattr(retraining_prices.time, "time", lambda: later)
    retraining_prices.price_daily(settings, ledger)
    assert len(calls) == 2


@pytest.mark.parametrize("error", [DataError("the spans are damaged"), BrokenProcessPool("killed")])
def test_an_error_is_told_and_ends_nothing(settings, ledger, promoted, calls, monkeypatch, error):
    def broken(_):
        raise error

    monkeypatch.setattr(retraining_prices, "price", broken)
    retraining_prices.price_daily(settings, ledger)
    (note,) = said(ledger)
    assert "the spans are damaged" in note or "triggers price" in note


def test_a_promoted_version_without_one_before_it_has_no_price(settings, ledger, promoted):
    found = retraining_prices.price(settings)
    assert (found.priced, found.waiting, found.problems) == (0, 1, ())


def test_a_look_at_what_nobody_ever_watched_makes_no_ledger(tmp_path):
    settings = load_settings(assignments=(f"workspace={tmp_path / 'workspace'}",))
    assert retraining.triggers(settings).events == ()
    for look in (retraining.explain_trigger, retraining.retry, retraining.drop):
        with pytest.raises(DataError, match="there is no ledger yet"):
            look(settings, "abc")
    with pytest.raises(DataError, match="there is no ledger yet"):
        retraining_prices.price(settings)
    assert not (tmp_path / "workspace").exists()

"""Few new rows are not worth a run of their own, and never stand in the way of one."""

import io

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from bike_pipeline.retraining.events import CONCEPT_DRIFT, MANUAL, Event, State
from bike_pipeline.retraining.uploads import Uploads
from bike_pipeline.settings.retraining import PolicySettings
from tests.retraining.conftest import event


def test_few_rows_wait_for_more_and_the_reason_says_for_how_many(ledger, make_loop, executor):
    loop = make_loop(least_new_rows=300)
    ledger.see(event("a", rows=168))
    assert loop.work() is None
    assert "168 new rows wait; for a run of their own retraining.policy.least_new_rows asks for 300" in _reason(ledger)
    ledger.see(event("b", rows=168))
    run = loop.work()
    assert len(run.events) == 2
    assert executor.calls.count("train 1") == 1


def test_the_default_lets_half_the_embedded_data_run_at_once(ledger, make_loop):
    ledger.see(event("bike-2012.csv", rows=8734))
    assert make_loop(least_new_rows=PolicySettings().least_new_rows).work().state is State.PROMOTED


@pytest.mark.parametrize("trigger", [CONCEPT_DRIFT, MANUAL])
def test_few_rows_join_a_run_that_takes_place_anyway(ledger, make_loop, trigger):
    ledger.see(event("a", rows=1))
    ledger.see(event("b", trigger=trigger, source="here"))
    assert len(make_loop(least_new_rows=100).work().events) == 2


def test_what_a_person_brings_and_what_nobody_counted_is_worth_a_run(ledger, make_loop):
    ledger.see(event("a", trigger=MANUAL, source="here", rows=1))
    loop = make_loop(least_new_rows=100)
    assert loop.work() is not None
    ledger.see(event("b"))
    assert loop.work() is not None


def test_rows_that_were_refused_with_others_need_no_others_again(ledger, make_loop, executor):
    executor.poisoned = {event("poison").digest}
    for name in ("poison", "good"):
        ledger.see(event(name, rows=400))
    loop = make_loop(least_new_rows=700)
    while loop.work() is not None:
        pass
    assert ledger.find(event("good").identity).state is State.PROMOTED
    assert ledger.find(event("poison").identity).state is State.REFUSED


def _reason(ledger):
    from bike_pipeline.retraining import ledger_tables as tables

    return ledger.rows(tables.decisions)[-1]["reason"]


@pytest.mark.parametrize(("name", "rows"), [("a.csv", 5), ("a.parquet", 5), ("a.csv.gz", 0), ("broken.parquet", 0)])
def test_an_upload_knows_its_rows_where_they_can_be_counted(tmp_path, name, rows):
    table = pa.table({"cnt": range(5)})
    buffer = io.BytesIO()
    if name == "a.parquet":
        pq.write_table(table, buffer)
    else:
        pc.write_csv(table, buffer)
    buffer.seek(0)
    kept = Uploads(tmp_path).store(buffer, name, 10_000, lambda sha, path: Event("storage", "here", sha, upload=path))
    assert kept.rows == rows

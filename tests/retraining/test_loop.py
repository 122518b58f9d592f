"""What becomes of events: one run for one change, whatever goes wrong, and a reason for what did not fire."""

import pytest

from bike_pipeline.errors import BusyError, StageError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.triggers import Look, Note
from tests.retraining.conftest import event


def test_a_change_goes_all_the_way_and_its_states_are_on_record(ledger, make_loop, executor):
    assert ledger.see(event("a"))
    run = make_loop().work()
    assert (run.state, executor.promoted) == (State.PROMOTED, [100])
    one = ledger.find(event("a").identity)
    passed = [row["after"] for row in ledger.rows(tables.transitions, subject=f"event {one.identity}")]
    assert passed == ["seen", "claimed", "ingested", "trained", "promoted"]
    assert run.facts["spans"] == [[2, 1]]
    assert make_loop().work() is None


def test_the_same_content_from_the_same_place_is_one_change_whatever_its_name(ledger, make_loop, executor):
    ledger.see(event("a"))
    make_loop().work()
    renamed = event("a").__class__(**{**vars(event("a")), "name": "b.csv"})
    assert not ledger.see(renamed)
    assert make_loop().work() is None
    assert ledger.find(renamed.identity).sightings == 2
    assert ledger.see(event("a", source="gs://elsewhere"))


def test_all_that_came_during_a_run_joins_the_next_one(ledger, make_loop, executor):
    ledger.see(event("a"))
    real = executor.train

    def train(run, trained):
        if run.number == 1:
            for name in ("b", "c"):
                ledger.see(event(name))
            assert ledger.claim(run.fence, make_loop()._settings.policy) is None
        return real(run, trained)

    executor.train = train
    loop = make_loop()
    first, second = loop.work(), loop.work()
    assert len(first.events) == 1
    assert set(second.events) == {event("b").identity, event("c").identity}
    assert loop.work() is None
    waited = ledger.rows(tables.decisions, identity=event("b").identity)
    assert [row["fired"] for row in waited] == [False, True]
    assert "run 1 is under way" in waited[0]["reason"]


def test_rows_that_are_refused_leave_their_run_and_the_others_go_on(ledger, make_loop, executor):
    executor.bad_rows = {event("bad").digest}
    ledger.see(event("bad"))
    ledger.see(event("good"))
    run = make_loop().work()
    assert run.state is State.PROMOTED
    assert ledger.find(event("bad").identity).state is State.REFUSED
    assert ledger.find(event("good").identity).state is State.PROMOTED


def test_a_run_whose_events_are_all_refused_does_not_train(ledger, make_loop, executor):
    executor.bad_rows = {event("bad").digest}
    ledger.see(event("bad"))
    assert make_loop().work().state is State.REFUSED
    assert executor.calls == ["ingest bad"]


def test_a_poisoned_upload_is_taken_back_and_a_sound_one_beside_it_gets_a_run_of_its_own(ledger, make_loop, executor):
    executor.poisoned = {event("poison").digest}
    for name in ("poison", "good", "fine"):
        ledger.see(event(name))
    loop = make_loop()
    states = []
    while (run := loop.work()) is not None:
        states.append(run.state)
    assert states.count(State.REFUSED) == 2
    assert ledger.find(event("poison").identity).state is State.REFUSED
    for name in ("good", "fine"):
        assert ledger.find(event(name).identity).state is State.PROMOTED
    assert executor.rows() == {event("good").digest, event("fine").digest}


def test_what_fails_is_tried_again_later_and_is_dead_in_the_end(ledger, make_loop, executor, clock):
    executor.error = StageError("the disk was slow")
    ledger.see(event("a"))
    loop = make_loop()
    for attempt, wait in ((1, 30), (2, 60)):
        assert loop.work().state is State.FAILED
        assert loop.work() is None
        clock.now += wait - 1
        assert loop.work() is None
        assert ledger.find(event("a").identity).attempts == attempt
        clock.now += 1
    loop.work()
    assert ledger.find(event("a").identity).state is State.DEAD
    clock.now += 1e6
    assert loop.work() is None
    executor.error = None
    ledger.retry(event("a").identity)
    assert loop.work().state is State.PROMOTED


def test_a_candidate_that_is_not_blessed_is_refused_and_not_trained_again(ledger, make_loop, executor):
    executor.blessed = False
    ledger.see(event("a"))
    loop = make_loop()
    run = loop.work()
    assert (run.state, run.why, executor.promoted) == (State.REFUSED, "not blessed: MAE", [])
    assert not ledger.see(event("a"))
    assert loop.work() is None


def test_a_promotion_that_waits_for_a_person_stops_no_other_run(ledger, make_loop, executor):
    executor.waits = "`bike-pipeline promote` does that"
    ledger.see(event("a"))
    loop = make_loop()
    assert loop.work().state is State.JUDGED
    ledger.see(event("b"))
    assert loop.work().state is State.JUDGED
    loop.release()
    executor.promoted.append(101)
    # Whoever works then, under a lease of its own.
    assert make_loop("another").work() is None
    assert [run.state for run in ledger.runs()] == [State.REFUSED, State.PROMOTED]
    assert ledger.runs()[0].why == "superseded by run 2"


def test_a_rollout_that_was_ended_refuses_its_run(ledger, make_loop, executor):
    executor.waits = "not promoted at once: version 100 is being rolled out as canary"
    ledger.see(event("a"))
    loop = make_loop()
    assert loop.work().why == executor.waits
    executor.aborted[100] = "the rollout of version 100 was ended: error share"
    assert loop.work() is None
    assert [(run.state, run.why) for run in ledger.runs()] == [(State.REFUSED, executor.aborted[100])]


def test_of_two_processes_one_works_and_the_other_takes_over_where_it_dies(ledger, make_loop, executor, clock):
    ledger.see(event("a"))
    one, two = make_loop("one"), make_loop("two")
    assert one.hold() is not None
    assert two.work() is None
    run = ledger.claim(one.hold(), one._settings.policy)
    clock.now += 31
    assert two.work().number == run.number
    with pytest.raises(BusyError, match="taken over"):
        ledger.advance(run, State.INGESTED)
    assert ledger.runs()[0].state is State.PROMOTED


def test_runs_that_cause_each_other_end(ledger, make_loop):
    loop = make_loop()
    hops, runs = 0, 0
    while True:
        ledger.see(event(f"caused-{hops}", "code", hops=hops))
        run = loop.work()
        if run is None:
            break
        runs, hops = runs + 1, run.facts["hops"]
    assert runs == 4
    dead = ledger.find(event("caused-4", "code").identity)
    assert dead.state is State.DEAD
    assert "caused each other" in dead.why


def test_what_does_not_fire_has_a_reason(ledger, make_loop, clock):
    loop = make_loop(debounce_seconds=10, cool_down_seconds={"code": 600}, runs_per_day=2)
    ledger.see(event("a", "code"))
    why = []

    def waits(name):
        assert loop.work() is None
        why.append(ledger.rows(tables.decisions, identity=event(name, "code").identity)[-1]["reason"])

    waits("a")
    clock.now += 10
    assert loop.work() is not None
    ledger.see(event("b", "code"))
    clock.now += 10
    waits("b")
    clock.now += 600
    ledger.pause("the shop is closed")
    waits("b")
    ledger.pause("")
    assert loop.work() is not None
    ledger.see(event("c", "code"))
    clock.now += 1000
    waits("c")
    assert [text.split(":")[0].split(";")[0] for text in why] == [
        "debounced",
        "cools down",
        "paused",
        "2 runs began within a day",
    ]
    ledger.see(event("now", "manual"))
    assert loop.work().events == (event("now", "manual").identity,)


def test_a_clock_that_is_set_back_keeps_nothing_waiting(ledger, make_loop, clock):
    loop = make_loop(debounce_seconds=60, cool_down_seconds={"code": 600})
    ledger.see(event("a", "code"))
    clock.now += 60
    assert loop.work() is not None
    clock.now -= 100_000
    ledger.see(event("b", "code"))
    clock.now += 60
    assert make_loop("another").work() is not None


class Saying:
    name = "saying"
    every_seconds = 5.0

    def __init__(self, looks):
        self.looks = looks

    def look(self):
        found = self.looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


def test_a_trigger_that_cannot_look_is_told_and_asked_again(ledger, make_loop, clock):
    trigger = Saying([StageError("the bucket is away"), Look((event("a"),), (Note("s3://bucket", "one file is new"),))])
    loop = make_loop(triggers=[trigger])
    assert loop.poll() == 0
    assert "the bucket is away" in ledger.rows(tables.checks)[0]["note"]
    assert loop.poll() == 0
    clock.now += 5
    assert loop.poll() == 1


def test_what_a_trigger_sees_all_the_time_is_seen_once_and_so_not_debounced_for_ever(ledger, make_loop, clock):
    same = Look((event("a", "code"),), ())
    loop = make_loop(triggers=[Saying([same] * 9)], debounce_seconds=20)
    for _ in range(4):
        loop.poll()
        clock.now += 5
    assert loop.work() is not None

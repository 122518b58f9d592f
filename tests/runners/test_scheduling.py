"""Stages run as soon as they can, beside each other where the graph allows it, and failures stop what comes after."""

from __future__ import annotations

import threading

import pytest

from bike_pipeline import progress
from bike_pipeline.errors import StageError
from bike_pipeline.runners.scheduling import run_in_order

DIAMOND = {"read": [], "left": ["read"], "right": ["read"], "join": ["left", "right"]}


def test_every_stage_runs_once_after_those_before_it_and_results_keep_the_order():
    log = []
    assert run_in_order(DIAMOND, lambda name: log.append(name) or name.upper(), 1) == ["READ", "LEFT", "RIGHT", "JOIN"]
    assert log == ["read", "left", "right", "join"]


def test_independent_stages_meet_each_other():
    meeting = threading.Barrier(2, timeout=60)
    threads = {}

    def launch(name):
        threads[name] = threading.current_thread()
        if name in ("left", "right"):
            meeting.wait()
        return name

    assert run_in_order(DIAMOND, launch, 2) == list(DIAMOND)
    assert threads["left"] is not threads["right"]
    # Alone, a stage runs where an interruption reaches it.
    assert threads["read"] is threads["join"] is threading.main_thread()


def test_a_stage_does_not_wait_for_one_it_does_not_need():
    slow_may_end = threading.Event()

    def launch(name):
        if name == "slow":
            assert slow_may_end.wait(60)
        if name == "after quick":
            slow_may_end.set()
        return name

    stages = {"slow": [], "quick": [], "after quick": ["quick"], "end": ["slow", "after quick"]}
    assert run_in_order(stages, launch, 2) == list(stages)


@pytest.mark.parametrize("at_once", [1, 2])
def test_never_more_stages_at_once_than_allowed(at_once):
    running, most, turn = set(), [], threading.Lock()

    def launch(name):
        with turn:
            running.add(name)
            most.append(len(running))
        threading.Event().wait(0.02)
        with turn:
            running.remove(name)

    run_in_order({str(number): [] for number in range(6)}, launch, at_once)
    assert max(most) == at_once


def test_after_a_failure_running_stages_end_and_no_other_one_starts():
    failed, log = threading.Event(), []

    def launch(name):
        if name == "left":
            failed.set()
            raise StageError("left is broken")
        if name == "right":
            assert failed.wait(60)
            threading.Event().wait(0.05)
        log.append(name)

    with pytest.raises(StageError, match="left is broken"):
        run_in_order({**DIAMOND, "last": ["right"]}, launch, 2)
    assert log == ["read", "right"]


def test_the_first_of_two_failures_is_reported():
    first = threading.Event()

    def launch(name):
        if name == "left":
            first.set()
            raise StageError("first")
        assert first.wait(60)
        threading.Event().wait(0.05)
        raise StageError("second")

    with pytest.raises(StageError, match="first"):
        run_in_order({"left": [], "right": []}, launch, 2)


def test_a_stage_that_fails_alone_is_reported_and_nothing_follows():
    log = []

    def launch(name):
        log.append(name)
        raise StageError("broken")

    with pytest.raises(StageError, match="broken"):
        run_in_order(DIAMOND, launch, 2)
    assert log == ["read"]


@pytest.mark.parametrize("stages", [{"a": ["b"], "b": ["a"]}, {"a": ["nobody"]}])
def test_stages_that_can_never_run_are_named(stages):
    with pytest.raises(ValueError, match="wait for each other or for unknown ones: a"):
        run_in_order(stages, lambda name: name, 2)


def test_each_stage_hears_its_own_reports_only():
    heard = {"left": [], "right": []}
    meeting = threading.Barrier(2, timeout=60)

    def launch(name):
        with progress.listening(lambda fraction, text: heard[name].append((fraction, text))):
            meeting.wait()
            progress.report(2.0, name)
            meeting.wait()

    run_in_order({"left": [], "right": []}, launch, 2)
    progress.report(1.0, "nobody listens")
    assert heard == {"left": [(1.0, "left")], "right": [(1.0, "right")]}

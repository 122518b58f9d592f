"""What a rollout does at each verdict, from made logs: all of it in the promotion log, at any moment of a crash."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from bike_pipeline.errors import BusyError, ModelError, MonitoringError, ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.rollout import promotion
from bike_pipeline.rollout.delivery import controller
from bike_pipeline.rollout.delivery.controller import Delivery
from bike_pipeline.rollout.delivery.evidence import Evidence, Latency, Share, TrackEvidence
from bike_pipeline.rollout.delivery.judging import Verdict
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.settings import load_settings
from tests.rollout.delivery.logged import CANDIDATE, MODEL, QUICK, STABLE
from tests.rollout.delivery.rolling import rolling

__all__ = ["rolling"]


def test_a_sound_canary_goes_step_by_step_until_it_is_promoted(rolling):
    rolling.start()
    shares = []
    for _ in range(3):
        rolling.ask()
        found = rolling.delivery().step()
        shares.append((found.verdict, found.change.action, found.change.share))
    assert shares == [
        (Verdict.CONTINUE, "shift", 10.0),
        (Verdict.CONTINUE, "shift", 50.0),
        (Verdict.PROMOTE, "promote", None),
    ]
    assert rolling.registry.deployment().labels == {"stable": CANDIDATE}
    assert "error share passed: 0 of 60" in rolling.registry.history()[-1].reason


def test_without_traffic_nothing_goes_on_however_long_it_takes(rolling):
    rolling.start()
    rolling.logs.ask(500, rolling.now(), track="stable")
    rolling.later = dt.timedelta(days=3)
    found = rolling.delivery().step()
    assert (found.verdict, found.change) == (Verdict.NO_TRAFFIC, None)


def test_too_few_requests_are_held_and_said_not_to_be_judged(rolling):
    rolling.start()
    rolling.ask(20)
    found = rolling.delivery().step()
    assert (found.verdict, found.change) == (Verdict.HOLD, None)
    assert "error share not judged: 0 of 20" in found.reason


def test_errors_end_a_rollout_with_the_figures_in_the_log(rolling):
    rolling.start()
    rolling.ask(60, failed=10)
    found = rolling.delivery().step()
    assert found.verdict == Verdict.ROLLBACK
    assert found.change.action == "abort"
    assert "10 of 60" in found.change.reason
    assert rolling.registry.deployment().labels == {"stable": STABLE}
    assert rolling.delivery().step().verdict == Verdict.NO_ROLLOUT


def test_the_first_requests_alone_end_it_if_all_of_them_fail(rolling):
    rolling.start()
    rolling.ask(3, failed=3)
    assert rolling.delivery().step().change.action == "abort"


def test_answers_that_are_no_number_end_it(rolling):
    rolling.start()
    rolling.ask(60, answer=None)
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action) == (Verdict.NOT_FINITE, "abort")


def test_slow_answers_end_it(rolling):
    rolling.start()
    rolling.ask(60, milliseconds=50.0)
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert "latency failed: p99" in found.reason


def test_other_answers_end_it(rolling):
    rolling.start()
    rolling.ask(60, answer=400.0)
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert "prediction difference failed: 60 of 60" in found.reason


def test_errors_behind_hours_of_sound_requests_end_it_within_a_window(rolling):
    rolling.start()
    rolling.ask(3000)
    rolling.later = dt.timedelta(hours=3)
    late = rolling.now() - dt.timedelta(seconds=20)
    rolling.logs.ask(30, late, track="stable")
    rolling.logs.ask(30, late, failed=8)
    slow = QUICK.model_copy(update={"steps": tuple(s.model_copy(update={"minutes": 600}) for s in QUICK.steps)})
    found = rolling.delivery(slow).step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert "8 of 30" in found.reason


def test_slow_answers_behind_hours_of_sound_requests_end_it_within_a_window(rolling):
    rolling.start()
    rolling.ask(3000)
    rolling.later = dt.timedelta(hours=3)
    late = rolling.now() - dt.timedelta(seconds=20)
    rolling.logs.ask(150, late, track="stable")
    rolling.logs.ask(30, late, milliseconds=80.0)
    many = QUICK.model_copy(update={"steps": tuple(s.model_copy(update={"requests": 3000}) for s in QUICK.steps)})
    found = rolling.delivery(many).step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert "30 of 30, 1.00% may be above" in found.reason


def test_a_process_that_dies_behind_its_change_leaves_the_servers_to_the_next(rolling, monkeypatch):
    rolling.start()
    rolling.ask(60, failed=30)
    shares = []

    def dies(*_):
        shares.append(rolling.registry.deployment().shares)
        if len(shares) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(controller, "roll_out", dies)
    with pytest.raises(KeyboardInterrupt):
        rolling.delivery().step()
    assert rolling.delivery().step().verdict == Verdict.NO_ROLLOUT
    assert shares == [{}, {}]


class Scripted:
    """A reader whose evidence is drawn: sound, too little, none, bad, no numbers, or no answer."""

    def __init__(self, drawn):
        self._drawn, self.last = drawn, ""

    def read(self, _tracked, _first, _last):
        # Both windows of a look see the same.
        if not self.last:
            self.last = self._drawn.choice(["sound"] * 6 + ["few", "none", "bad", "broken", "odd", "silent"])
        if self.last == "silent":
            raise MonitoringError("nobody answers")
        requests = {"few": 3, "none": 0}.get(self.last, 60)
        latency = Latency.of(np.full(requests, 2.0))
        errors, nothing = 30 * (self.last == "bad"), 9 * (self.last == "broken")
        candidate = TrackEvidence(requests, math.nan if self.last == "odd" else errors, requests, nothing, latency)
        return Evidence(candidate, TrackEvidence(60, 0, 60, 0, Latency.of(np.full(60, 2.0))), Share(0, requests))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_in_whatever_order_only_what_is_sound_goes_on(rolling, monkeypatch, seed):
    drawn = random.Random(seed)
    rolling.start()
    told = []

    def roll_out(*_):
        told.append(1)
        if drawn.random() < 0.2:
            raise drawn.choice([ServerError("it does not follow"), KeyboardInterrupt()])

    monkeypatch.setattr(controller, "roll_out", roll_out)
    delivery, reader = None, None
    for _ in range(60):
        if delivery is None or drawn.random() < 0.3:
            # Another process takes over.
            reader = Scripted(drawn)
            delivery = rolling.delivery(drawn.choice([QUICK, QUICK.model_copy(update={"approval": (50.0,)})]))
            delivery._reader = reader
        before, revision = rolling.registry.deployment(), rolling.registry.deployment().revision
        rolling.later = dt.timedelta(seconds=drawn.choice([30, 30, 30, 90, -600, 86_400]))
        reader.last = ""
        with contextlib.suppress(KeyboardInterrupt):
            delivery.step(drawn.choice(["", "", "", "fine"]))
        after = rolling.registry.deployment()
        # A step is one change, or none.
        assert after.revision - revision in (0, 1)
        if "canary" not in before.shares:
            assert after.revision == revision
            continue
        share = before.shares["canary"]
        expected = {
            "sound": [{"canary": {1.0: 10.0, 10.0: 50.0, 50.0: None}[share]}, before.shares],
            "bad": [{}],
            "broken": [{}],
        }.get(reader.last, [before.shares])
        assert after.shares in [{k: v for k, v in one.items() if v is not None} for one in expected]
        if after.labels["stable"] == CANDIDATE:
            assert (share, reader.last) == (50.0, "sound")
        elif not after.shares:
            assert reader.last in ("bad", "broken")
    assert told


def test_a_step_lasts_its_minutes(rolling):
    rolling.start()
    rolling.ask()
    slow = QUICK.model_copy(update={"steps": tuple(s.model_copy(update={"minutes": 1}) for s in QUICK.steps)})
    assert rolling.delivery(slow).step().verdict == Verdict.HOLD
    rolling.later = dt.timedelta(seconds=61)
    assert rolling.delivery(slow).step().verdict == Verdict.CONTINUE


def test_a_clock_that_goes_back_lets_nothing_pass(rolling):
    rolling.start()
    rolling.ask()
    rolling.later = -dt.timedelta(hours=1)
    assert rolling.delivery().step().change is None


def test_an_approval_is_waited_for_and_lets_the_step_go_on(rolling):
    rolling.start()
    rolling.ask()
    asked = QUICK.model_copy(update={"approval": (10.0,)})
    found = rolling.delivery(asked).step()
    assert (found.verdict, found.change) == (Verdict.WAITS, None)
    found = rolling.delivery(asked).step("looked at by two people")
    assert found.change.share == 10.0
    assert "approved (looked at by two people)" in found.change.reason


def test_an_approval_does_not_help_a_step_that_is_not_sound(rolling):
    rolling.start()
    rolling.ask(60, failed=1)
    asked = QUICK.model_copy(update={"approval": (10.0,)})
    assert rolling.delivery(asked).step("let it go").change is None


def test_two_controllers_at_once_make_a_step_once(rolling):
    rolling.start()
    rolling.ask()
    barrier = Barrier(2, timeout=60)

    class Together(Delivery):
        def look(self):
            found = super().look()
            # Both have judged the same revision.
            barrier.wait()
            return found

    def step(_):
        delivery = rolling.delivery()
        delivery.__class__ = Together
        return delivery.step()

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(step, range(2)))
    assert sorted(look.verdict for look in found) == [Verdict.CONTINUE, Verdict.HOLD]
    assert rolling.registry.deployment().shares == {"canary": 10.0}


def test_a_change_by_an_old_revision_is_refused(rolling):
    revision = rolling.registry.deployment().revision
    rolling.start()
    with pytest.raises(BusyError, match="no longer at"):
        ModelRegistry(rolling.base, revision=revision).abort("canary", "late")
    assert rolling.registry.deployment().shares == {"canary": 1.0}


def test_a_candidate_whose_files_changed_is_not_promoted(rolling):
    rolling.start(percent=50)
    rolling.ask()
    rolling.registry.folder(CANDIDATE).joinpath("push.json").unlink()
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert rolling.registry.serving() == STABLE


def test_a_second_rollout_is_refused(rolling):
    rolling.start()
    with pytest.raises(ModelError, match="version 2 is being rolled out as canary"):
        rolling.start("shadow")


def test_nothing_is_started_where_nothing_is_stable(tmp_path):
    from tests.rollout.making import push

    base = tmp_path / "serving" / MODEL
    ModelRegistry(base).begin()
    push(base, CANDIDATE)
    with pytest.raises(ModelError, match="nothing is stable"):
        promotion.start(str(base), CANDIDATE, "canary", 1, RolloutTargets.of(load_settings()), "")

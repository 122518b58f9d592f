"""What becomes of a shadow, of a version that refuses, and of servers that log no answers, from made logs."""

from __future__ import annotations

import datetime as dt

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.rollout.delivery import controller
from bike_pipeline.rollout.delivery.judging import Verdict
from bike_pipeline.rollout.delivery.position import position_of
from tests.rollout.delivery.logged import CANDIDATE, QUICK, STABLE, access, answered
from tests.rollout.delivery.rolling import rolling

__all__ = ["rolling"]


def shadowed(rolling):
    """Ask the stable version, and its shadow the very same."""
    since = position_of(rolling.registry).since + dt.timedelta(milliseconds=1)
    moments = [since + dt.timedelta(microseconds=number) for number in range(60)]
    rolling.logs.add(
        [access(f"s{number}", "stable", at) for number, at in enumerate(moments)],
        [answered(f"s{n}", version, at) for n, at in enumerate(moments) for version in (STABLE, CANDIDATE)],
    )


def test_a_shadow_that_passed_goes_on_as_a_canary_step_by_step(rolling):
    rolling.start("shadow", 100)
    shadowed(rolling)
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action, found.change.label) == (Verdict.CONTINUE, "shift", "canary")
    # One change, so that no moment has it both copied to and answering, or neither.
    assert rolling.registry.deployment().shares == {"canary": 1.0}
    assert rolling.registry.deployment().labels == {"stable": STABLE, "canary": CANDIDATE}
    assert "shadow at 100 % is sound: error share passed: 0 of 60" in found.change.reason
    assert ModelRegistry(rolling.base).history()[-1] == found.change
    for share in (10.0, 50.0):
        rolling.ask()
        assert rolling.delivery().step().change.share == share
    rolling.ask()
    assert rolling.delivery().step().verdict == Verdict.PROMOTE
    assert rolling.registry.deployment().labels == {"stable": CANDIDATE}


def test_a_shadow_is_promoted_at_once_only_where_the_settings_say_so(rolling):
    rolling.start("shadow", 100)
    shadowed(rolling)
    at_once = QUICK.model_copy(update={"after_shadow": "stable"})
    waits = at_once.model_copy(update={"approval": (100.0,)})
    assert rolling.delivery(waits).step().verdict == Verdict.WAITS
    assert rolling.delivery(QUICK.model_copy(update={"approval": (1.0,)})).step().verdict == Verdict.WAITS
    assert rolling.delivery(at_once).step().verdict == Verdict.PROMOTE


def test_the_step_that_a_canary_has_is_not_left_out_however_safe_it_seems_by_now(rolling):
    assert [step.percent for step in controller.plan_of("canary", QUICK, 1.0)] == [10, 50]
    assert [step.percent for step in controller.plan_of("canary", QUICK, 1.0, 1.0)] == [1, 10, 50]


def test_a_version_that_refuses_what_the_stable_one_answers_is_rolled_back(rolling):
    rolling.start()
    rolling.ask(60, refused=60)
    found = rolling.delivery().step()
    assert (found.verdict, found.change.action) == (Verdict.ROLLBACK, "abort")
    assert "client errors failed: 60 of 60 refused with 4xx, 0 of 60 of the stable version" in found.change.reason


def test_requests_that_both_versions_refuse_are_the_clients_and_are_said_to_be(rolling):
    rolling.start()
    since = position_of(rolling.registry).since + dt.timedelta(milliseconds=1)
    rolling.logs.ask(60, since, track="stable", refused=60)
    rolling.logs.ask(30, since, refused=30)
    found = rolling.delivery().step()
    assert (found.verdict, found.change) == (Verdict.HOLD, None)
    assert found.reason.startswith("only client errors: all 30 requests to canary and 60 to stable are refused")


def test_servers_without_a_request_log_hold_and_say_what_to_set_or_go_on_by_it(rolling):
    rolling.start()
    since = position_of(rolling.registry).since + dt.timedelta(milliseconds=1)
    for track in ("stable", "canary"):
        rolling.logs.add([access(f"{track}-{n}", track, since) for n in range(60)])
    found = rolling.delivery().step()
    assert (found.verdict, found.change) == (Verdict.HOLD, None)
    assert "answers not judged: no server logs what it answers; with rollout.require_answers: false" in found.reason
    allowed = QUICK.model_copy(update={"require_answers": False})
    found = rolling.delivery(allowed).step()
    assert (found.verdict, found.change.share) == (Verdict.CONTINUE, 10.0)
    for words in ("error share passed: 0 of 60", "latency passed", "answers not judged", "difference not judged"):
        assert words in found.change.reason
    # What is slow or fails goes back as ever.
    since = position_of(rolling.registry).since + dt.timedelta(milliseconds=1)
    rolling.logs.add([access(f"later-{n}", "stable", since) for n in range(60)])
    rolling.logs.add([access(f"slow-{n}", "canary", since, milliseconds=50.0) for n in range(60)])
    assert rolling.delivery(allowed).step().verdict == Verdict.ROLLBACK


def test_of_a_shadow_whose_server_logs_nothing_it_is_said(rolling):
    rolling.start("shadow", 100)
    since = position_of(rolling.registry).since + dt.timedelta(milliseconds=1)
    rolling.logs.add([access(f"s{n}", "stable", since) for n in range(60)])
    found = rolling.delivery().step()
    assert (found.verdict, found.change) == (Verdict.NO_TRAFFIC, None)
    assert "its server keeps no request log" in found.reason

"""A push that starts a rollout in place of promoting at once, and what the loop of retraining makes of it."""

from __future__ import annotations

import json

import pytest

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.retraining.events import State
from bike_pipeline.rollout import promotion
from bike_pipeline.rollout.delivery.position import position_of
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases.retraining_executor import PipelineExecutor
from tests.rollout.delivery.logged import CANDIDATE, STABLE, base_path
from tests.rollout.making import push


def settings_of(folder, *assignments):
    return load_settings(None, (f"workspace={folder}", "serving.promotion.validation.enabled=false", *assignments))


@pytest.mark.parametrize(("kind", "percent"), [("canary", 1.0), ("shadow", 100.0), ("challenger", 50.0)])
def test_a_push_starts_a_rollout_where_the_settings_say_so(tmp_path, kind, percent):
    base = base_path(tmp_path)
    targets = RolloutTargets.of(settings_of(tmp_path, f"rollout.automatic={kind}"))
    assert f"version 2 is being rolled out as {kind}" in promotion.after_push(base, CANDIDATE, targets)
    # A run that is answered from the cache says it again, and changes nothing.
    revision = ModelRegistry(base).deployment().revision
    assert f"version 2 is being rolled out as {kind}" in promotion.after_push(base, CANDIDATE, targets)
    assert ModelRegistry(base).deployment().revision == revision
    assert ModelRegistry(base).deployment().labels == {"stable": STABLE, kind: CANDIDATE}
    assert ModelRegistry(base).deployment().shares == {kind: percent}


def test_without_the_setting_a_push_promotes_at_once_and_no_stage_is_asked_anew(tmp_path):
    base = base_path(tmp_path)
    targets = RolloutTargets.of(settings_of(tmp_path))
    assert promotion.after_push(base, CANDIDATE, targets) == ""
    assert ModelRegistry(base).serving() == CANDIDATE
    # What stands in the parameters of a stage is part of its cache key.
    assert {"rollout", "percent"}.isdisjoint(json.loads(targets.to_json()))
    other = RolloutTargets.of(settings_of(tmp_path, "rollout.automatic=canary"))
    assert RolloutTargets.model_validate_json(other.to_json()).rollout == "canary"


def test_the_first_version_of_all_is_promoted_at_once(tmp_path):
    base = tmp_path / "serving" / "bike_demand"
    ModelRegistry(base).begin()
    push(base, 1)
    assert promotion.after_push(base, 1, RolloutTargets.of(settings_of(tmp_path, "rollout.automatic=canary"))) == ""
    assert ModelRegistry(base).serving() == 1


def test_a_newer_version_ends_the_rollout_of_an_older_one(tmp_path):
    base = base_path(tmp_path)
    targets = RolloutTargets.of(settings_of(tmp_path, "rollout.automatic=canary"))
    promotion.after_push(base, CANDIDATE, targets)
    push(ModelRegistry(base).local, 3)
    assert "version 3 is being rolled out" in promotion.after_push(base, 3, targets)
    assert [(c.action, c.to_version, c.reason) for c in ModelRegistry(base).history()[-3:-1]] == [
        ("abort", CANDIDATE, "version 3 is newer"),
        ("validate", 3, "validation is switched off"),
    ]
    assert position_of(ModelRegistry(base)).version == 3


class AnyRun:
    number, reason = 7, "code changed"


def test_the_loop_waits_for_the_rollout_and_learns_of_its_end(tmp_path):
    base, settings = base_path(tmp_path), settings_of(tmp_path, "rollout.automatic=canary")
    executor = PipelineExecutor(settings)
    assert "is being rolled out as canary" in executor.promote(AnyRun, CANDIDATE)
    assert executor.settled(CANDIDATE) is None
    ModelRegistry(base).shift(CANDIDATE, "canary", 10, "1 % is sound")
    assert executor.settled(CANDIDATE) is None
    ModelRegistry(base).abort("canary", "rollback at 10 %: error share failed")
    state, why = executor.settled(CANDIDATE)
    assert state is State.REFUSED
    assert "the rollout of version 2 was ended: rollback at 10 %: error share failed" in why


def test_the_loop_learns_of_a_promotion(tmp_path):
    base, settings = base_path(tmp_path), settings_of(tmp_path, "rollout.automatic=canary")
    executor = PipelineExecutor(settings)
    executor.promote(AnyRun, CANDIDATE)
    ModelRegistry(base).promote(CANDIDATE, reason="50 % is sound")
    state, why = executor.settled(CANDIDATE)
    assert state is State.PROMOTED
    assert "50 % is sound" in why

"""How safe a candidate seems, and how slowly it then goes."""

from __future__ import annotations

import pytest

from bike_pipeline.rollout.delivery.controller import plan_of
from bike_pipeline.rollout.delivery.evidence import Share
from bike_pipeline.rollout.delivery.safety import safety_of
from bike_pipeline.settings.rollout import RolloutSettings


def decision(value, slicing="overall", upper=0.05, high=None, binding=True):
    return {
        "kind": "change", "metric": "mae", "slicing": slicing, "slice": "", "value": value, "upper": upper,
        "high": high, "binding": binding,
    }  # fmt: skip


def parts(*arguments):
    return {part.name: part.value for part in safety_of(*arguments).parts}


def test_without_evidence_a_candidate_is_not_safe_at_all_and_each_missing_part_is_named():
    found = safety_of(None, None, None)
    assert found.score == 0.0
    assert all(part.value is None and part.why for part in found.parts)


def test_the_score_is_the_mean_of_its_parts():
    gates = {"decisions": [decision(-0.1, high=-0.02), decision(0.025, "season"), decision(0.0, "season")]}
    found = safety_of(gates, Share(10, 100), 1)
    assert {part.name: part.value for part in found.parts} == {
        "paired comparison": 1.0,
        "worst slice": 0.5,
        "shadow agreement": 0.9,
        "data health": 0.5,
    }
    assert found.score == pytest.approx((1.0 + 0.5 + 0.9 + 0.5) / 4)


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (decision(0.05), 0.0),
        (decision(9.0), 0.0),
        # The interval's upper end counts, where there is one.
        (decision(-0.2, high=0.04), 0.2),
        (decision(None), 0.0),
        (decision(float("nan")), 0.0),
        (decision(0.01, binding=False), None),
        ({**decision(0.01), "kind": "value"}, None),
    ],
)
def test_a_comparison_is_the_part_of_its_limit_that_is_left(made, value):
    assert parts({"decisions": [made]}, None, None)["paired comparison"] == pytest.approx(value)


def test_a_shadow_without_answers_is_no_evidence():
    assert parts(None, Share(0, 0), None)["shadow agreement"] is None


def minutes(safety, label="canary"):
    return [(step.percent, step.minutes, step.requests) for step in plan_of(label, RolloutSettings(), safety)]


def test_the_less_safe_a_candidate_is_the_slower_it_goes():
    assert minutes(0.0) == [(1.0, 40.0, 800), (10.0, 40.0, 4000), (50.0, 120.0, 8000)]
    assert minutes(0.5) == [(1.0, 25.0, 500), (10.0, 25.0, 2500), (50.0, 75.0, 5000)]
    assert minutes(1.0) == [(10.0, 10.0, 1000), (50.0, 30.0, 2000)]


def test_a_shadow_sees_everything_and_a_test_keeps_its_share():
    assert minutes(0.0, "shadow") == [(100.0, 120.0, 8000)]
    assert minutes(1.0, "challenger") == [(50.0, 30.0, 2000)]

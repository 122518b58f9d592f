"""The rule on made-up figures: limits first, then the smallest or fastest; what is missing never passes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bike_pipeline.exporting.compression.rule import Candidate, decide

GOOD: dict[str, Any] = {
    "size_bytes": 80_000,
    "compressed_bytes": 60_000,
    "latency_us": 20.0,
    "mae": 30.0,
    "mae_increase": 0.0,
    "worst_slice": "hour_band 6",
    "worst_slice_mae_increase": 0.0,
}


def _candidate(method: str, **changed: Any) -> Candidate:
    return Candidate(method, "tflite_float32", f"{method}/model.tflite", **{**GOOD, **changed})


PLAIN = _candidate("plain")


@pytest.mark.parametrize(
    ("minimize", "changed"),
    [
        ("size", {"size_bytes": 20_000}),
        ("compressed_size", {"compressed_bytes": 20_000}),
        ("latency", {"latency_us": 10.0}),
    ],
)
def test_the_least_of_what_is_minimized_wins(minimize: str, changed: dict[str, Any], small: Any) -> None:
    settings = small.model_copy(update={"minimize": minimize})
    other = _candidate("distillation", **changed)
    choice = decide([PLAIN, other], settings)
    assert choice.winner is other
    assert "the winner" in choice.reasons["plain tflite_float32"]
    for elsewhere in {"size", "compressed_size", "latency"} - {minimize}:
        assert decide([PLAIN, other], small.model_copy(update={"minimize": elsewhere})).winner is PLAIN


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mae_increase": 0.0101}, "MAE +1.01% overall, at most +1.00%"),
        ({"worst_slice_mae_increase": 0.031}, "MAE +3.10% on hour_band 6, at most +3.00%"),
        ({"mae_increase": math.nan}, "MAE +nan% overall"),
        ({"mae_increase": None}, "MAE unknown overall"),
        ({"worst_slice_mae_increase": math.inf}, "on hour_band 6"),
        ({"error": "the operator Foo cannot be converted"}, "the operator Foo cannot be converted"),
    ],
)
def test_a_candidate_outside_a_limit_loses_whatever_its_size(changed: dict[str, Any], said: str, small: Any) -> None:
    lost = _candidate("pruning", size_bytes=1, **changed)
    choice = decide([lost, PLAIN], small)
    assert choice.winner is PLAIN
    assert said in choice.reasons[lost.name]


def test_limits_include_their_own_value_and_a_gain_is_no_loss(small: Any) -> None:
    edge = _candidate("pruning", size_bytes=9, mae_increase=0.01, worst_slice_mae_increase=0.03)
    better = _candidate("distillation", size_bytes=8, mae_increase=-0.2, worst_slice_mae_increase=-0.1)
    assert decide([PLAIN, edge], small).winner is edge
    assert decide([PLAIN, edge, better], small).winner is better


def test_of_equals_the_smaller_error_wins_then_the_first(small: Any) -> None:
    better, same = _candidate("pruning", mae_increase=-0.01), _candidate("quantization_aware")
    assert decide([PLAIN, better], small).winner is better
    choice = decide([PLAIN, same], small)
    assert choice.winner is PLAIN
    assert choice.reasons[same.name] == "size: as much, and no smaller MAE"


def test_a_candidate_without_a_size_never_wins_over_one_that_has_it(small: Any) -> None:
    assert decide([_candidate("pruning", size_bytes=None), PLAIN], small).winner is PLAIN


def test_slices_without_enough_rows_do_not_decide(small: Any) -> None:
    few = _candidate("pruning", size_bytes=9, worst_slice="", worst_slice_mae_increase=None)
    assert decide([PLAIN, few], small).winner is few


def test_where_nothing_is_within_the_limits_nothing_wins(small: Any) -> None:
    choice = decide([_candidate("plain", mae_increase=0.5), _candidate("pruning", error="no")], small)
    assert choice.winner is None
    assert set(choice.reasons) == {"plain tflite_float32", "pruning tflite_float32"}

"""Taking turns: each call in each round, on one core, and the cores given back."""

from __future__ import annotations

import os

import pytest

from bike_pipeline.exporting.acceptance import measurements


def test_every_call_has_a_median_in_every_round_and_they_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "SECONDS", 0.001)
    called: list[str] = []
    found = measurements.medians_by_round({name: (lambda name=name: called.append(name)) for name in ("a", "b")}, 3)
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}
    assert all(value >= 0 for values in found.values() for value in values)
    turns = [name for place, name in enumerate(called) if not place or called[place - 1] != name]
    assert turns == ["a", "b"] * 4


def test_one_core_is_used_and_all_are_given_back() -> None:
    before = os.sched_getaffinity(0)

    def fail() -> None:
        with measurements.one_core() as core:
            assert os.sched_getaffinity(0) == {core}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.sched_getaffinity(0) == before

"""The verdicts of the serving benchmark: each goal can be missed, and missing evidence is no success."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import plots, serving
from benchmarks.serving import Measured
from benchmarks.serving_measures import Drained, Memory, Round, Swaps

GOOD = Round(per_second=8000.0, p50=1.0, p90=2.0, p99=5.0, errors=0, cpu=0.1)
FIRST = Measured(
    backend="tflite_float32",
    busy=0.1,
    rest=[GOOD, replace(GOOD, per_second=9000.0), replace(GOOD, per_second=100.0)],
    fastapi=[replace(GOOD, per_second=1000.0), replace(GOOD, per_second=900.0), replace(GOOD, per_second=20.0)],
    constant=[replace(GOOD, per_second=16000.0), replace(GOOD, per_second=10000.0), replace(GOOD, per_second=190.0)],
    single=[GOOD],
    constant_single=[replace(GOOD, p50=0.5)],
    half=[GOOD],
    unlogged=[GOOD],
    grpc=[replace(GOOD, per_second=2000.0)],
    constant_grpc=[replace(GOOD, per_second=3000.0)],
    swaps=Swaps(100, 10, 10, (), 0, 0, 30.0),
    memory=Memory((0, 10, 50, 100), (90.0, 100.0, 103.0, 104.0), 0),
    drained=Drained(8, 8, 0, 1.0),
)


def missed(measured):
    return [goal.what for goal in serving.goals(measured) if not goal.met]


def test_all_met():
    assert missed(FIRST) == []
    assert serving.ratios(FIRST.rest, FIRST.fastapi) == [8.0, 10.0, 5.0]
    assert "MISSED" not in serving.table(serving.goals(FIRST))
    assert "FastAPI, same file" in serving.rounds_table(FIRST)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fastapi": [replace(GOOD, per_second=2700.0)] * 3}, "REST / FastAPI, same file"),
        ({"constant": [replace(GOOD, per_second=16100.0)] * 3}, "REST / aiohttp's constant"),
        ({"constant_grpc": [replace(GOOD, per_second=4001.0)]}, "gRPC / grpc.aio's constant"),
        ({"constant_single": [replace(GOOD, p50=0.19)]}, "one client, p50 / the constant's"),
        ({"half": [replace(GOOD, p99=5.1)]}, "p99 at half of the peak / at it"),
        ({"unlogged": [replace(GOOD, p99=4.5)]}, "p99 with the request log / without"),
        ({"grpc": [replace(GOOD, per_second=2000.0, errors=1)]}, "requests without an answer"),
        ({"swaps": Swaps(99, 10, 10, (), 0, 0, 30.0)}, "hot swaps under load"),
        ({"swaps": Swaps(100, 10, 10, ("away",), 1, 0, 30.0)}, "hot swaps under load"),
        ({"swaps": Swaps(100, 10, 10, (), 0, 1, 30.0)}, "hot swaps under load"),
        ({"drained": Drained(8, 7, 0, 1.0)}, "SIGTERM drains"),
        ({"drained": Drained(8, 8, 1, 1.0)}, "SIGTERM drains"),
        ({"drained": Drained(0, 0, 0, 1.0)}, "SIGTERM drains"),
        ({"memory": Memory((0, 10, 100), (90.0, 100.0, 106.0), 0)}, "memory over 100 requests"),
        ({"memory": Memory((0, 10, 100), (90.0, 100.0, 100.0), 1)}, "memory over 100 requests"),
    ],
)
def test_each_goal_can_be_missed(change, what):
    found = replace(FIRST, **change)
    assert missed(found) == [what]
    assert "MISSED" in serving.table(serving.goals(found))


def test_a_slower_machine_meets_the_same_goals():
    """All figures ten times as slow: no goal names a time or a number of requests a second."""
    loads = ("rest", "fastapi", "constant", "single", "constant_single", "half", "unlogged", "grpc", "constant_grpc")
    slower = {
        name: [
            replace(one, per_second=one.per_second / 10, p50=one.p50 * 10, p99=one.p99 * 10)
            for one in getattr(FIRST, name)
        ]
        for name in loads
    }
    assert missed(replace(FIRST, **slower)) == []


def test_the_picture_is_drawn(tmp_path):
    plots.draw_serving(FIRST, tmp_path / "serving.png")
    assert (tmp_path / "serving.png").read_bytes().startswith(b"\x89PNG")


def test_without_load_generators_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.load.generators.find", lambda name: None)
    with pytest.raises(SystemExit, match="make load-generators"):
        serving.main(["--workspace", str(tmp_path)])

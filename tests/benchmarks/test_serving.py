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
    peer=[replace(GOOD, per_second=1000.0), replace(GOOD, per_second=900.0), replace(GOOD, per_second=20.0)],
    single=[GOOD],
    half=[GOOD],
    grpc=[GOOD],
    swaps=Swaps(100, 10, 10, (), 0, 0, 30.0),
    memory=Memory((0, 10, 50, 100), (90.0, 100.0, 103.0, 104.0), 0),
    drained=Drained(8, 8, 0, 1.0),
)


def missed(measured):
    return [goal.what for goal in serving.goals(measured) if not goal.met]


def test_all_met():
    assert missed(FIRST) == []
    assert serving.ratios(FIRST) == [8.0, 10.0, 5.0]
    assert "MISSED" not in serving.table(serving.goals(FIRST))
    assert "FastAPI, 64 clients" in serving.rounds_table(FIRST)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"rest": [replace(GOOD, per_second=4999.0)], "peer": [replace(GOOD, per_second=10.0)]}, "REST, 64 clients"),
        ({"single": [replace(GOOD, p50=1.5)]}, "REST, one client, p50"),
        ({"half": [replace(GOOD, p99=15.0)]}, "REST, half of the peak, p99"),
        ({"grpc": [replace(GOOD, per_second=2999.0)]}, "gRPC, 64 clients"),
        ({"peer": [replace(GOOD, per_second=2000.0)] * 3}, "REST against FastAPI"),
        ({"grpc": [replace(GOOD, errors=1)]}, "requests without an answer"),
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


def test_the_picture_is_drawn(tmp_path):
    plots.draw_serving(FIRST, tmp_path / "serving.png")
    assert (tmp_path / "serving.png").read_bytes().startswith(b"\x89PNG")


def test_without_load_generators_nothing_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr("bike_pipeline.serving.load.generators.find", lambda name: None)
    with pytest.raises(SystemExit, match="make load-generators"):
        serving.main(["--workspace", str(tmp_path)])

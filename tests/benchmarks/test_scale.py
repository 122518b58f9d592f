"""The scale benchmark: rows that the contract accepts, and goals that are not reached by what was not measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import Check, Cost, bend, checks, fixed, marginal, unjudged


def cost(stage: str, who: str, rows: int, cpu: float, needed: float = 50.0) -> Cost:
    return Cost(stage, who, rows, cpu, cpu, 900.0, 900.0 + needed)


def test_the_rows_pass_the_contract_are_alike_and_are_the_same_every_time(tmp_path: Path) -> None:
    import pyarrow.compute as pc

    from benchmarks.scale_rows import make_rows
    from bike_pipeline.data.contract import check_rows
    from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
    from bike_pipeline.data.sources.content import read_parquet
    from bike_pipeline.data.sources.registry import read_source

    rows = make_rows(60_000)
    assert rows.equals(make_rows(60_000))
    assert make_rows(25_000).num_rows == 25_000
    import pyarrow.parquet as pq

    pq.write_table(rows, tmp_path / "rows.parquet")
    checked = check_rows(read_parquet((tmp_path / "rows.parquet").read_bytes(), "rows.parquet"))
    assert (checked.total, checked.rejected.num_rows, checked.reasons) == (60_000, 0, {})
    real, _ = read_source(str(EMBEDDED_FILE))
    embedded = check_rows(real).accepted
    for name in ("hr", "temp", "hum", "windspeed", "workingday", "weathersit", "mnth"):
        assert pc.mean(rows[name]).as_py() == pytest.approx(pc.mean(embedded[name]).as_py(), rel=0.02), name
        assert pc.stddev(rows[name]).as_py() == pytest.approx(pc.stddev(embedded[name]).as_py(), rel=0.02), name


def test_fixed_cost_and_cost_of_a_row_are_told_apart() -> None:
    straight = [cost("Transform", "direct", rows, 2.0 + rows * 3e-6) for rows in scale.SIZES]
    assert marginal(*straight[-2:]) == pytest.approx(3e-6)
    assert fixed(straight) == pytest.approx(2.0)
    assert bend(straight) == pytest.approx(1.0)
    square = [cost("Transform", "direct", rows, 2.0 + (rows * 1e-6) ** 2) for rows in scale.SIZES]
    assert bend(square) > 4.5


def test_growth_of_too_few_sizes_or_of_nothing_measurable_is_not_told() -> None:
    straight = [cost("Transform", "direct", rows, 2.0 + rows * 3e-6) for rows in scale.SIZES]
    assert math.isnan(bend(straight[:2]))
    assert math.isnan(fixed(straight[:1]))
    assert math.isnan(bend([straight[0], cost("Transform", "direct", 250_000, 1.9), straight[2]]))


def measured(per_row: float, memory: tuple[float, float, float]) -> list[Cost]:
    """Costs of every stage, a peer at 1 µs a row with them."""
    return [
        found
        for stage in scale.STAGES
        for rows, needed in zip(scale.SIZES, memory, strict=True)
        for found in (
            cost(stage, "memory", rows, rows * per_row, needed),
            cost(stage, "direct", rows, rows * per_row, needed),
            cost(stage, "peer", rows, rows * 1e-6, needed),
        )
    ]


def test_every_goal_is_judged() -> None:
    good = checks(measured(2e-6, (20.0, 60.0, 150.0)))
    assert all(check.reached for check in good)
    for stage in scale.STAGES:
        assert [check.measured for check in good if check.what.startswith(f"{stage}: CPU time / peer")] == [
            pytest.approx(2.0)
        ]
    slow = {check.what.partition(":")[0] for check in checks(measured(4e-6, (20.0, 60.0, 150.0))) if not check.reached}
    assert slow == set(scale.STAGES)
    hungry = [check for check in checks(measured(2e-6, (20.0, 60.0, 161.0))) if not check.reached]
    assert {check.what.partition(",")[0] for check in hungry} == set(scale.BEAM_STAGES)
    assert {check.limit for check in hungry} == {160.0}
    bent = [cost("ingest", "memory", rows, (rows * 1e-6) ** 2) for rows in scale.SIZES]
    assert [check.reached for check in checks(bent)] == [False]


def test_transform_is_judged_by_a_further_row_too() -> None:
    costs = [cost("Transform", "memory", rows, 5.0 + rows * 2e-6) for rows in scale.SIZES]
    costs += [cost("Transform", "peer", rows, rows * 1e-6) for rows in scale.SIZES]
    found = {check.what: check for check in checks(costs)}
    assert not found["Transform: CPU time / peer's at 1,000,000 rows"].reached
    assert found["Transform: CPU time of a further row / peer's"].measured == pytest.approx(2.0)


def test_what_the_sizes_cannot_show_is_told() -> None:
    assert unjudged(scale.SIZES) == []
    assert [told.partition(":")[0] for told in unjudged([10_000, 250_000])] == [
        "CPU time beside the peers', and a whole run",
        "growth",
        "memory",
    ]


def test_what_was_not_measured_is_not_reached() -> None:
    assert not Check("anything", math.nan, 3.0).reached


def test_a_stage_that_fails_is_told_and_ends_the_benchmark(tmp_path: Path) -> None:
    with (
        scale.server(tmp_path / "log") as process,
        pytest.raises(SystemExit, match=r"ingest \(peer\) failed at 5 rows"),
    ):
        scale.run_stage(process, "ingest", "peer", "peer", tmp_path / "nothing", 5)


@pytest.mark.slow
def test_a_small_run_measures_every_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["scale.py", "--rows", "3000", "--no-end-to-end", "--keep", str(tmp_path / "data")])
    assert scale.main() == 0
    import json

    costs = json.loads((tmp_path / "results" / "scale.json").read_text())["costs"]
    assert {(c["stage"], c["who"]) for c in costs} == {
        *((stage, who) for stage in scale.STAGES for who in ("memory", "peer")),
        *((stage, "direct") for stage in scale.BEAM_STAGES),
        *((stage, "parquet") for stage in ("ingest", "ExampleGen")),
        ("ExampleGen", "columns"),
    }
    assert all(c["cpu"] > 0 and c["peak"] >= c["resident"] > 0 for c in costs)
    assert "not judged  growth" in capsys.readouterr().out
    assert (tmp_path / "results" / "scale.png").stat().st_size > 10_000


def test_a_whole_run_is_held_against_its_peers_and_not_against_a_time() -> None:
    peers = [cost(stage, scale.PEER, scale.GOAL_ROWS, 2.0) for stage in scale.STAGES]
    limit = 2.0 * len(scale.STAGES) * scale.LARGEST_END_TO_END
    assert scale.end_to_end_check(peers, limit).reached
    assert not scale.end_to_end_check(peers, 1.01 * limit).reached
    # As fast on a machine ten times as slow.
    slower = [cost(stage, scale.PEER, scale.GOAL_ROWS, 20.0) for stage in scale.STAGES]
    assert scale.end_to_end_check(slower, 10 * limit).reached
    assert not scale.end_to_end_check(peers[1:], 0.1).reached

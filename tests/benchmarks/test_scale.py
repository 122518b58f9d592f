"""The scale benchmark: rows that the contract accepts, and goals that are not reached by what was not measured."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import Check, Cost, checks, exponent


def cost(stage: str, who: str, rows: int, cpu: float, needed: float = 50.0) -> Cost:
    return Cost(stage, who, rows, cpu, cpu, 900.0, 900.0 + needed)


def test_the_rows_pass_the_contract_are_alike_and_are_the_same_every_time(tmp_path: Path) -> None:
    import pyarrow.compute as pc

    from benchmarks.scale_rows import make_rows
    from bike_pipeline.data.contract import check_rows
    from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
    from bike_pipeline.data.sources.parquet_file import read_parquet
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


def test_growth_is_taken_between_the_two_largest_sizes() -> None:
    linear = [cost("Transform", "direct", rows, cpu) for rows, cpu in ((10**4, 2.0), (10**5, 2.5), (10**6, 25.0))]
    assert exponent(linear) == pytest.approx(1.0)
    assert math.isnan(exponent(linear[:1]))


def test_every_goal_is_judged() -> None:
    costs = [
        cost("StatisticsGen", "memory", 10**6, 2.0),
        cost("StatisticsGen", "peer", 10**6, 0.5),
        cost("StatisticsGen", "direct", 10**6, 2.0),
        cost("StatisticsGen", "direct", 10**7, 60.0, 400.0),
    ]
    missed = [check for check in checks(costs) if not check.reached]
    assert [check.what.split(",")[0].split(":")[0] for check in missed] == ["StatisticsGen"] * 3
    assert [round(check.measured, 2) for check in missed] == [4.0, 1.48, 400.0]
    better = [cost(c.stage, c.who, c.rows, 1.0 * c.rows / 10**6, 60.0) for c in costs]
    assert all(check.reached for check in checks(better))


def test_what_was_not_measured_is_not_reached() -> None:
    assert not Check("anything", math.nan, 3.0).reached


@pytest.mark.slow
def test_a_small_run_measures_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["scale.py", "--rows", "3000", "--no-end-to-end", "--keep", str(tmp_path / "data")])
    assert scale.main() == 0
    import json

    measured = json.loads((tmp_path / "results" / "scale.json").read_text())["costs"]
    assert {(c["stage"], c["who"]) for c in measured} == {
        *((stage, who) for stage in scale.STAGES for who in ("memory", "peer")),
        *((stage, "direct") for stage in scale.BEAM_STAGES),
    }
    assert (tmp_path / "results" / "scale.png").stat().st_size > 10_000

"""The arithmetic of what many cities cost, on units that a head can follow, and copies that are models of their own."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import fleet, predict_batch
from bike_pipeline.model_registry import ModelRegistry

UNITS = fleet.Units(
    run=25.2, update=3.6, version_mb=2.0, cold_seconds=1.5,
    model_mb=10.0, server_mb=100.0, request_ms=0.864, logged_bytes=1000.0, logged_gzip=100.0,
)  # fmt: skip


def cells(name: str) -> list[float]:
    line = next(line for line in fleet.table(UNITS, 672) if line.startswith(f"| {name}"))
    return [float(cell.replace(",", "")) for cell in line.strip("| ").split(" | ")[1:]]


def test_the_table_follows_from_the_units():
    assert cells("registry") == [0.01, 0.1, 1.0, 10.0]
    assert cells("memory of servers") == [0.11, 0.2, 1.1, 10.1]
    assert cells("cold start") == [1.5, 15.0, 150.0, 1500.0]
    assert cells("cores that answer") == [0.0, 0.0, 0.01, 0.1]
    assert cells("updates by labels") == [0.0, 0.01, 0.1, 1.0]
    assert cells("request logs") == [0.3, 3.0, 30.0, 300.0]


def test_a_run_for_many_new_rows_comes_less_often_than_one_each_week_and_that_less_than_each_upload():
    rates = [
        fleet.runs_of_a_year(policy, 100, 672, np.random.default_rng(1)) / 100
        for policy in ("every upload", "each week", "672 new rows")
    ]
    assert rates[0] == pytest.approx(0.95, abs=0.01)
    assert rates[1] == pytest.approx(1 / 7, abs=0.01)
    assert rates[2] == pytest.approx(1 / 28, abs=0.003)


def test_rows_for_a_batch_are_hours_of_the_data_and_as_many_as_asked(tmp_path):
    import pyarrow.parquet as pq

    predict_batch.write_rows(tmp_path / "in" / "rows.parquet", 1234)
    rows = pq.read_table(tmp_path / "in" / "rows.parquet")
    assert rows.num_rows == 1234
    assert rows["dteday"].to_pylist() == sorted(rows["dteday"].to_pylist())


def test_the_models_of_a_fleet_are_versions_with_manifests_of_their_own(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"a graph")
    listed = fleet.fleet_of(tmp_path / "base", model, 3)
    assert listed.read_text(encoding="utf-8").count("base_path") == 3
    for number in range(3):
        assert ModelRegistry(tmp_path / "base" / f"city-{number}").verify(1).problem == ""

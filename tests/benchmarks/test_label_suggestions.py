"""The benchmark's parts, ways and table; one budget on few rows for real."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import label_suggestions, plots
from benchmarks.quality.protocols import Table, read
from bike_pipeline.data.embedded_dataset import embedded_bytes
from tests.conftest import TRAINING


@pytest.fixture(scope="module")
def table() -> Table:
    return read(embedded_bytes())


def test_what_tests_is_never_labelled_and_nothing_is_of_the_first_year(table: Table) -> None:
    pool, tests = label_suggestions.parts_of(table)
    every = np.concatenate([pool, *tests.values()])
    assert sorted(every) == np.flatnonzero(table["yr"] == 1).tolist()
    assert not set(table["dteday"][pool]) & set(table["dteday"][tests["held-back days"]])
    assert table["dteday"][pool].max() <= table["dteday"][tests["last fifth"]].min()


def test_both_ways_begin_alike_and_end_with_a_curve(table: Table, tmp_path) -> None:
    few = {name: values[::20] for name, values in table.items()}
    training = {**TRAINING, "architecture": "trees"}
    records = [
        record for way in label_suggestions.WAYS for record in label_suggestions.curve(few, way, training, 7, (230,))
    ]
    assert len(records) == 2 * 2 * 2
    start = {(r["way"], r["test"]): r["rmse"] for r in records if r["labels"] == label_suggestions.FIRST}
    end = {(r["way"], r["test"]): r["rmse"] for r in records if r["labels"] == 230}
    for test in ("held-back days", "last fifth"):
        assert start["suggested", test] == start["random", test]
        assert end["suggested", test] != end["random", test]
    plots.draw_labels(records, tmp_path / "labels.png")
    assert (tmp_path / "labels.png").stat().st_size > 10_000


def test_the_table_counts_the_seeds_in_which_suggestions_are_better() -> None:
    scores = {("suggested", 1): 10.0, ("random", 1): 12.0, ("suggested", 2): 11.0, ("random", 2): 9.0}
    records = [
        {"way": way, "seed": seed, "labels": 300, "test": "t", "rmse": value, "rmsle": value / 100}
        for (way, seed), value in scores.items()
    ]
    row = label_suggestions.table_of(records).splitlines()[-1]
    assert row.startswith("| t | 300 | 10.5 ± 0.5 | 10.5 ± 1.5 | 1 of 2 seeds | 0.105 ± 0.005 | 0.105 ± 0.015 |")

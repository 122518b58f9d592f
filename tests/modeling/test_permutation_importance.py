"""What a model's error hangs on, on models whose inner workings are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bike_pipeline.modeling.permutation_importance import permutation_importance

ROWS = 4000
RNG = np.random.default_rng(3)
COLUMNS = {name: RNG.normal(size=ROWS) for name in ("strong", "weak", "unused")}


def model(columns: Any) -> Any:
    return 10.0 * columns["strong"] + 2.0 * columns["weak"]


def explained(predict: Any = model, seed: int = 1) -> dict[str, Any]:
    return permutation_importance(predict, COLUMNS, model(COLUMNS), ("unused", "weak", "strong"), 4, seed)


def test_the_increase_is_the_error_that_a_shuffled_input_makes() -> None:
    found = explained()
    assert [entry["name"] for entry in found["inputs"]] == ["strong", "weak", "unused"]
    strong, weak, unused = (entry["mae_increase"] for entry in found["inputs"])
    # The mean |a - b| of two standard normal numbers is 2 / √π.
    assert strong == pytest.approx(10 * 2 / np.pi**0.5, rel=0.05)
    assert weak == pytest.approx(2 * 2 / np.pi**0.5, rel=0.05)
    assert unused == 0.0
    assert (found["mae"], found["rows"], found["repeats"], found["seed"]) == (0.0, ROWS, 4, 1)


def test_a_seed_gives_the_same_numbers_and_the_columns_stay_as_they_are() -> None:
    before = {name: values.copy() for name, values in COLUMNS.items()}
    assert explained() == explained()
    assert explained(seed=2) != explained()
    assert all((COLUMNS[name] == values).all() for name, values in before.items())


def test_an_input_that_helps_by_chance_only_may_have_a_negative_increase() -> None:
    # The model believes in a column that has nothing to do with the label.
    found = permutation_importance(
        lambda columns: model(columns) + 5 * columns["unused"] * (columns["strong"] > 0),
        COLUMNS,
        model(COLUMNS) - 5 * COLUMNS["unused"] * (COLUMNS["strong"] > 0),
        ("unused",),
        3,
        1,
    )
    assert found["inputs"][0]["mae_increase"] < 0


def test_what_is_no_number_is_none_and_comes_last() -> None:
    found = explained(lambda columns: np.where((columns["weak"] == COLUMNS["weak"]).all(), model(columns), np.nan))
    assert found["inputs"][-1] == {"name": "weak", "mae_increase": None, "std": None}

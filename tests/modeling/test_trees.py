"""Boosted trees in the graph: LightGBM's own decisions, for any float32, and the same trees for the same rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROUNDS, DEPTH = 60, 5


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    """Numbers on a grid, codes and others, (3000, 6) float32, and a positive label with noise."""
    generator = np.random.default_rng(3)
    columns = [
        generator.normal(size=3_000),
        np.round(generator.normal(size=3_000), 1),
        generator.integers(0, 24, 3_000),
        generator.integers(0, 2, 3_000),
        generator.uniform(0, 1e-3, 3_000),
        np.full(3_000, 7.0),
    ]
    matrix = np.column_stack(columns).astype(np.float32)
    mean = np.exp(matrix[:, 0] + 0.2 * matrix[:, 2] * matrix[:, 3])
    return matrix, 1.0 + generator.poisson(mean)


def fitted(rows: tuple[Any, Any], objective: str, **changes: Any) -> Any:
    from bike_pipeline.modeling import trees

    how = {"rounds": ROUNDS, "depth": DEPTH, "learning_rate": 0.1, "seed": 5} | changes
    return trees.boosted(*rows, objective, **how)


@pytest.fixture(scope="module")
def boosters(rows: tuple[Any, Any]) -> list[Any]:
    from bike_pipeline.modeling import trees

    return [fitted(rows, trees.POISSON), fitted(rows, trees.LOG)]


def near_thresholds(forest: Any) -> Any:
    """Return rows whose numbers are a threshold, or the float32 before or after it."""
    generator = np.random.default_rng(9)
    found = []
    for column in range(6):
        values = forest.thresholds[forest.columns == column]
        values = np.concatenate(
            [values, np.nextafter(values, np.float32(-np.inf)), np.nextafter(values, np.float32(9))]
        )
        found.append(generator.choice(values if len(values) else np.zeros(1, np.float32), 4_000))
    return np.column_stack(found).astype(np.float32)


@pytest.mark.parametrize("ensemble", [0, 1])
def test_every_tree_answers_with_the_leaf_that_lightgbm_comes_to(
    rows: tuple[Any, Any], boosters: list[Any], ensemble: int
) -> None:
    from bike_pipeline.modeling.trees import Forest, Trees

    forest = Forest.of(boosters[ensemble : ensemble + 1], DEPTH)
    # Of as many ensembles as there are trees, the sums are single leaves.
    alone = Trees.of(replace(forest, starts=np.zeros(ROUNDS, np.float32)))
    random = np.random.default_rng(1).normal(scale=10.0, size=(3_000, 6)).astype(np.float32)
    for matrix in (rows[0], random, near_thresholds(forest)):
        leaves = np.stack(
            [
                boosters[ensemble].predict(matrix, start_iteration=tree, num_iteration=1, raw_score=True)
                for tree in range(ROUNDS)
            ],
            axis=1,
        )
        leaves[:, 0] -= forest.starts[0]
        found = alone(matrix).numpy()
        np.testing.assert_allclose(found[:, 0], leaves[:, 0], rtol=0, atol=1e-7)
        assert (found[:, 1:] == leaves[:, 1:].astype(np.float32)).all()
        assert len(np.unique(found)) > ROUNDS


def test_the_sums_are_lightgbms_answers(rows: tuple[Any, Any], boosters: list[Any]) -> None:
    from bike_pipeline.modeling.trees import Forest, Trees

    found = Trees.of(Forest.of(boosters, DEPTH))(rows[0]).numpy()
    expected = np.stack([booster.predict(rows[0], raw_score=True) for booster in boosters], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.std(axis=0).min() > 0.5


def test_the_same_rows_give_the_same_trees_to_the_byte(rows: tuple[Any, Any], boosters: list[Any]) -> None:
    from bike_pipeline.modeling import trees

    again = [fitted(rows, trees.POISSON), fitted(rows, trees.LOG)]
    assert [b.model_to_string() for b in again] == [b.model_to_string() for b in boosters]
    other = fitted(rows, trees.POISSON, seed=6)
    assert other.model_to_string() != boosters[0].model_to_string()


@pytest.mark.parametrize("depth", [1, 3])
def test_no_tree_is_deeper_than_allowed(rows: tuple[Any, Any], depth: int) -> None:
    from bike_pipeline.modeling import trees

    booster = fitted(rows, trees.POISSON, depth=depth)
    found = trees.Trees.of(trees.Forest.of([booster], depth))(rows[0]).numpy()[:, 0]
    np.testing.assert_allclose(found, booster.predict(rows[0], raw_score=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 10])
def test_of_too_few_rows_to_split_the_answer_is_their_mean(count: int, boosters: list[Any]) -> None:
    from bike_pipeline.modeling import trees

    matrix = np.arange(6 * count, dtype=np.float32).reshape(count, 6)
    small = fitted((matrix, np.arange(1.0, count + 1.0)), trees.POISSON)
    # Beside an ensemble of many trees, the lonely tree stands for itself.
    found = trees.Trees.of(trees.Forest.of([small, boosters[1]], DEPTH))(matrix).numpy()
    np.testing.assert_allclose(found[:, 0], np.log((count + 1.0) / 2.0), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], boosters[1].predict(matrix, raw_score=True), rtol=1e-6, atol=1e-6)


def test_a_saved_layer_answers_as_before(rows: tuple[Any, Any], boosters: list[Any], tmp_path: Path) -> None:
    import keras

    from bike_pipeline.modeling.trees import Forest, Trees

    matrix = keras.Input((6,))
    model = keras.Model(matrix, Trees.of(Forest.of(boosters, DEPTH), name="trees")(matrix))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert (again(rows[0]).numpy() == model(rows[0]).numpy()).all()
    assert model.trainable_variables == []


def test_a_machine_without_the_runtime_of_lightgbm_is_told_what_to_install(
    rows: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bike_pipeline.errors import InstallationError
    from bike_pipeline.modeling import trees

    class Missing:
        @staticmethod
        def find_spec(name: str, *_: Any) -> None:
            if name == "lightgbm":
                raise OSError("libgomp.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "lightgbm")
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    with pytest.raises(InstallationError, match=r"libgomp\.so\.1.*apt install libgomp1"):
        fitted(rows, trees.POISSON)

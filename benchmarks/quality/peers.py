"""The peers: gradient-boosted trees of four libraries, each with columns and objective chosen inside the training rows.

`python -m benchmarks.quality.peers --out FILE PROTOCOL…` runs in an environment that has the libraries (see `make
benchmark-quality`), and writes the answers of each peer to each split. The first peer takes the raw columns and no
choice: what an afternoon gives. Where a library's choice is another, it runs with the columns that suit the test, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import columns
from benchmarks.quality.protocols import FORWARD, Array, Rows, Split, Table, inner_splits, read, splits

SEED = 20110101
UNTUNED = "LightGBM, raw columns"
# Columns, label without growth, and whether the label is log(1 + rentals) (else Poisson).
RECIPES = {
    "raw": ("raw", False, False),
    "enriched": ("enriched", False, False),
    "enriched, log": ("enriched", False, True),
    "detrended": ("detrended", True, False),
    "detrended, log": ("detrended", True, True),
}


def _lightgbm(log: bool, seed: int) -> Any:
    import lightgbm

    return lightgbm.LGBMRegressor(
        objective="l2" if log else "poisson", n_estimators=800, learning_rate=0.05, num_leaves=31,
        subsample=0.8, subsample_freq=1, colsample_bytree=0.8, n_jobs=1, verbose=-1, random_state=seed,
    )  # fmt: skip


def _xgboost(log: bool, seed: int) -> Any:
    import xgboost

    return xgboost.XGBRegressor(
        objective="reg:squarederror" if log else "count:poisson", n_estimators=600, learning_rate=0.05, max_depth=6,
        subsample=0.8, colsample_bytree=0.8, n_jobs=1, random_state=seed,
    )  # fmt: skip


def _catboost(log: bool, seed: int) -> Any:
    import catboost

    return catboost.CatBoostRegressor(
        loss_function="RMSE" if log else "Poisson", iterations=1500, learning_rate=0.08, depth=6, thread_count=1,
        verbose=False, allow_writing_files=False, random_seed=seed,
    )  # fmt: skip


def _histogram(log: bool, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        loss="squared_error" if log else "poisson", max_iter=600, learning_rate=0.05, random_state=seed
    )


MAKERS: dict[str, Callable[[bool, int], Any]] = {
    "LightGBM": _lightgbm,
    "XGBoost": _xgboost,
    "CatBoost": _catboost,
    "HistGradientBoosting": _histogram,
}


class Bench:
    """The data set, ready for any split."""

    def __init__(self, table: Table) -> None:
        """Make the columns that depend on no split."""
        self.table, self.made = table, columns.enriched(table)

    def answers(self, maker: Callable[[bool, int], Any], recipe: str, split: Split) -> Array:
        """Return the rentals that a model of the recipe expects in the test rows, trained on the others."""
        chosen, detrend, log = RECIPES[recipe]
        names = columns.RAW if chosen == "raw" else [n for n in self.made if chosen != "detrended" or n != "yr"]
        matrix = np.column_stack([self.made[name] for name in names])
        level = columns.growth(self.table, self.made, split.train) if detrend else np.ones(len(matrix))
        label = (self.table["cnt"] / level)[split.train]
        model = maker(log, SEED)
        model.fit(matrix[split.train], np.log1p(label) if log else label)
        found = np.asarray(model.predict(matrix[split.test]), np.float64)
        rentals: Array = np.maximum(np.expm1(found) if log else found, 0.0) * level[split.test]
        return rentals

    def chosen(self, maker: Callable[[bool, int], Any], protocol: str, train: Rows) -> dict[str, float]:
        """Return each recipe's RMSE on the inner splits of the training rows, best first."""
        inner = inner_splits(self.table, protocol, train)
        errors = {
            recipe: float(np.mean([_rmse(self.table["cnt"][s.test], self.answers(maker, recipe, s)) for s in inner]))
            for recipe in RECIPES
        }
        return dict(sorted(errors.items(), key=lambda item: item[1]))


def _rmse(label: Array, answers: Array) -> float:
    return float(np.sqrt(np.mean((label - answers) ** 2)))


def run(table: Table, protocol: str) -> Iterator[dict[str, Any]]:
    """Yield each peer's answers to the splits of a protocol, its choice, and its seconds of processor."""
    bench = Bench(table)
    parts = splits(table, protocol)
    fixed = "detrended" if protocol in FORWARD else "enriched"
    for name, maker in [(UNTUNED, _lightgbm), *MAKERS.items()]:
        began = time.process_time()
        # A choice for all splits: that of the first one's training rows, which are rows of every other, too.
        inner = {"raw": float("nan")} if name == UNTUNED else bench.chosen(maker, protocol, parts[0].train)
        choice_seconds = time.process_time() - began
        chosen = next(iter(inner))
        recipes = {name: chosen}
        if name != UNTUNED and chosen != fixed:
            # What the test years are known to reward, whatever the training rows say of it.
            recipes[f"{name}, {fixed}"] = fixed
        for contestant, recipe in recipes.items():
            began = time.process_time()
            found = [bench.answers(maker, recipe, split).tolist() for split in parts]
            yield {
                "protocol": protocol, "name": contestant, "recipe": recipe, "inner": inner, "answers": found,
                "choice_seconds": choice_seconds, "seconds": time.process_time() - began,
            }  # fmt: skip


def main(run: Callable[[Table, str], Iterator[dict[str, Any]]] = run) -> None:
    """Run the protocols with these peers and write one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("protocols", nargs="+")
    args = parser.parse_args()
    table = read(args.data.read_bytes())
    with args.out.open("w") as file:
        for protocol in args.protocols:
            for found in run(table, protocol):
                file.write(json.dumps(found) + "\n")
                file.flush()
                print(f"{protocol} {found['name']}: {found['recipe']}, {found['seconds']:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()

"""The peers: gradient-boosted trees of four libraries, each with columns and objective chosen inside the training rows.

`python -m benchmarks.quality.peers --out FILE PROTOCOL…` runs in an environment that has the libraries (see `make
benchmark-quality`), and writes the answers of each peer to each split. The first peer takes the raw columns and no
choice: what an afternoon gives. Where a library's choice is another, it runs with the columns that suit the test, too.
One hour ahead each has the labels of the 24 hours before as columns, and a model by its own quantile loss for each
quantile.
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
from benchmarks.quality.protocols import (
    FORWARD,
    HOUR_AHEAD,
    QUANTILES,
    Array,
    Rows,
    Split,
    Table,
    inner_splits,
    read,
    splits,
)

SEED = 20110101
UNTUNED = "LightGBM, raw columns"
# Columns, what the label is divided by, and whether it is log(1 + rentals) (else Poisson).
RECIPES = {
    "raw": ("raw", None, False),
    "enriched": ("enriched", None, False),
    "enriched, log": ("enriched", None, True),
    "detrended": ("detrended", "growth", False),
    "detrended, log": ("detrended", "growth", True),
}
HOUR_AHEAD_RECIPES = {
    "last day": ("last day", None, False),
    "last day, log": ("last day", None, True),
    "over last day": ("last day", "last day", False),
    "over last day, log": ("last day", "last day", True),
}


def recipes_of(protocol: str) -> dict[str, tuple[str, str | None, bool]]:
    """Return the recipes that a protocol chooses among."""
    return HOUR_AHEAD_RECIPES if protocol == HOUR_AHEAD else RECIPES


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


def _quantile_lightgbm(level: float, seed: int) -> Any:
    return _lightgbm(log=True, seed=seed).set_params(objective="quantile", alpha=level)


def _quantile_xgboost(level: float, seed: int) -> Any:
    return _xgboost(log=True, seed=seed).set_params(objective="reg:quantileerror", quantile_alpha=level)


def _quantile_catboost(level: float, seed: int) -> Any:
    return _catboost(log=True, seed=seed).set_params(loss_function=f"Quantile:alpha={level}")


def _quantile_histogram(level: float, seed: int) -> Any:
    return _histogram(log=True, seed=seed).set_params(loss="quantile", quantile=level)


QUANTILE_MAKERS: dict[str, Callable[[float, int], Any]] = {
    "LightGBM": _quantile_lightgbm,
    "XGBoost": _quantile_xgboost,
    "CatBoost": _quantile_catboost,
    "HistGradientBoosting": _quantile_histogram,
}


class Bench:
    """The data set, ready for any split."""

    def __init__(self, table: Table) -> None:
        """Make the columns that depend on no split."""
        self.table, self.made = table, columns.enriched(table)
        self.lags, self.last_day = columns.last_day(table)

    def answers(self, maker: Callable[[bool, int], Any], recipe: str, split: Split) -> Array:
        """Return the rentals that a model of the recipe expects in the test rows, trained on the others."""
        return self._answers(maker((RECIPES | HOUR_AHEAD_RECIPES)[recipe][2], SEED), recipe, split)

    def quantiles(self, maker: Callable[[float, int], Any], recipe: str, split: Split) -> Array:
        """Return the `QUANTILES` that models of the recipe expect in the test rows, (rows, quantiles), rising."""
        return np.sort(np.column_stack([self._answers(maker(q, SEED), recipe, split) for q in QUANTILES]), axis=1)

    def _answers(self, model: Any, recipe: str, split: Split) -> Array:
        chosen, divided_by, log = (RECIPES | HOUR_AHEAD_RECIPES)[recipe]
        names = columns.RAW if chosen == "raw" else [n for n in self.made if chosen == "enriched" or n != "yr"]
        matrix = np.column_stack([self.made[name] for name in names])
        level = np.ones(len(matrix))
        if divided_by == "growth":
            level = columns.growth(self.table, self.made, split.train)
        elif divided_by == "last day":
            level = self.last_day / self.last_day[split.train].mean()
        if chosen == "last day":
            lags = np.column_stack([*self.lags.values(), self.last_day])
            matrix = np.hstack([matrix, lags / level[:, None]])
        label = (self.table["cnt"] / level)[split.train]
        model.fit(matrix[split.train], np.log1p(label) if log else label)
        found = np.asarray(model.predict(matrix[split.test]), np.float64)
        rentals: Array = np.maximum(np.expm1(found) if log else found, 0.0) * level[split.test]
        return rentals

    def chosen(self, maker: Callable[[bool, int], Any], protocol: str, train: Rows) -> dict[str, float]:
        """Return each recipe's RMSE on the inner splits of the training rows, best first."""
        inner = inner_splits(self.table, protocol, train)
        errors = {
            recipe: float(np.mean([_rmse(self.table["cnt"][s.test], self.answers(maker, recipe, s)) for s in inner]))
            for recipe in recipes_of(protocol)
        }
        return dict(sorted(errors.items(), key=lambda item: item[1]))


def _rmse(label: Array, answers: Array) -> float:
    return float(np.sqrt(np.mean((label - answers) ** 2)))


def run(table: Table, protocol: str) -> Iterator[dict[str, Any]]:
    """Yield each peer's answers to the splits of a protocol, its choice, and its seconds of processor."""
    bench = Bench(table)
    parts = splits(table, protocol)
    fixed = "detrended" if protocol in FORWARD else "enriched"
    makers = MAKERS if protocol == HOUR_AHEAD else {UNTUNED: _lightgbm, **MAKERS}
    for name, maker in makers.items():
        began = time.process_time()
        # A choice for all splits: that of the first one's training rows, which are rows of every other, too.
        inner = {"raw": float("nan")} if name == UNTUNED else bench.chosen(maker, protocol, parts[0].train)
        choice_seconds = time.process_time() - began
        chosen = next(iter(inner))
        recipes = {name: chosen}
        if name != UNTUNED and protocol != HOUR_AHEAD and chosen != fixed:
            # What the test years are known to reward, whatever the training rows say of it.
            recipes[f"{name}, {fixed}"] = fixed
        for contestant, recipe in recipes.items():
            began = time.process_time()
            found = [bench.answers(maker, recipe, split).tolist() for split in parts]
            seconds = time.process_time() - began
            quantiles = None
            if protocol == HOUR_AHEAD:
                quantiles = bench.quantiles(QUANTILE_MAKERS[name], recipe, parts[0]).tolist()
            yield {
                "protocol": protocol, "name": contestant, "recipe": recipe, "inner": inner, "answers": found,
                "quantiles": quantiles, "choice_seconds": choice_seconds, "seconds": seconds,
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

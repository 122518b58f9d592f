"""AutoML as peers: FLAML and AutoGluon, given the training rows of a split and some seconds, and nothing else.

`python -m benchmarks.quality.automl --out FILE PROTOCOL…` runs in an environment that has both (see `make
benchmark-automl`). They choose models, parameters and ensembles by their own validation inside the training rows, in
time order where the protocol goes forward and the library can. Each gets the raw columns, as a user hands them over,
and the columns that suit the test, as the other peers do. One hour ahead AutoGluon is asked for quantiles, too, in a
training of its own for each; FLAML knows none.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.quality import peers
from benchmarks.quality.peers import Bench
from benchmarks.quality.protocols import FORWARD, HOUR_AHEAD, QUANTILES, Array, Table, splits

# Of wall time for one split; a month of P5 gets a quarter, since there are twelve.
SECONDS = 60


class _Flaml:
    def __init__(self, seconds: float, seed: int, forward: bool) -> None:
        self._settings = {
            "task": "regression", "metric": "rmse", "time_budget": seconds, "seed": seed, "n_jobs": 1, "verbose": 0,
            "estimator_list": ["lgbm", "xgboost", "catboost", "rf", "extra_tree"],
            "eval_method": "holdout" if forward else "cv", "split_type": "time" if forward else "uniform",
        }  # fmt: skip

    def fit(self, matrix: Array, label: Array) -> None:
        from flaml import AutoML

        self._model = AutoML()
        self._model.fit(matrix, label, **self._settings)

    def predict(self, matrix: Array) -> Array:
        found: Array = self._model.predict(matrix)
        return found


class _AutoGluon:
    def __init__(self, seconds: float, level: float | None = None) -> None:
        # Its seeds are its own, and the same in every run.
        self._seconds, self._kind = seconds, dict[str, Any](problem_type="regression")
        if level is not None:
            self._kind = {"problem_type": "quantile", "quantile_levels": [level]}

    def _frame(self, matrix: Array) -> Any:
        import pandas as pd

        return pd.DataFrame(matrix, columns=[f"column_{index}" for index in range(matrix.shape[1])])

    def fit(self, matrix: Array, label: Array) -> None:
        from autogluon.tabular import TabularPredictor

        self._folder = tempfile.TemporaryDirectory(prefix="bike-automl-")
        predictor = TabularPredictor("cnt", **self._kind, path=self._folder.name, verbosity=0)
        self._model = predictor.fit(
            self._frame(matrix).assign(cnt=label),
            time_limit=self._seconds,
            num_cpus=1,
            excluded_model_types=["NN_TORCH"],
        )

    def predict(self, matrix: Array) -> Array:
        found: Array = self._model.predict(self._frame(matrix)).to_numpy().reshape(len(matrix))
        self._folder.cleanup()
        return found


def run(table: Table, protocol: str, seconds: float = SECONDS) -> Iterator[dict[str, Any]]:
    """Yield each library's answers to the splits of a protocol, as `peers.run` does."""
    warnings.filterwarnings("ignore")
    # AutoGluon tells of every library that it could use besides.
    logging.disable(logging.WARNING)
    bench, parts, forward = Bench(table), splits(table, protocol), protocol in FORWARD
    budget = seconds / 4 if len(parts) > 1 else seconds
    suited = ("raw", "detrended" if forward else "enriched")
    if protocol == HOUR_AHEAD:
        suited = ("last day", "over last day")
    makers: dict[str, Callable[[bool, int], Any]] = {
        "FLAML": lambda _, seed: _Flaml(budget, seed, forward),
        "AutoGluon": lambda *_: _AutoGluon(budget),
    }
    for name, maker in makers.items():
        for recipe in suited:
            began = time.process_time()
            found = [bench.answers(maker, recipe, split).tolist() for split in parts]
            seconds_taken, quantiles = time.process_time() - began, None
            if protocol == HOUR_AHEAD and name == "AutoGluon":
                made = bench.quantiles(lambda level, _: _AutoGluon(budget / len(QUANTILES), level), recipe, parts[0])
                quantiles = made.tolist()
            yield {
                "protocol": protocol, "name": f"{name}, {recipe}", "recipe": recipe, "inner": {}, "answers": found,
                "quantiles": quantiles, "choice_seconds": 0.0, "seconds": seconds_taken,
            }  # fmt: skip


if __name__ == "__main__":
    peers.main(run)

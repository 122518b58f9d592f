"""The floor: the same ingest, statistics, transform, training and evaluation in polars and Keras, with no pipeline.

No lineage, no cache, no schema, no gate, no baseline, no served signature: what a notebook would do with the same rows
and the same number of steps. Nothing that keeps all those can cost less. Run as a program of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HOUR_BANDS = (0, 6, 10, 16, 20)
SLICINGS = ("hour_band", "workingday", "season", "weathersit")
PREDICT_BATCH = 4096


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        began = time.monotonic()
        yield
        self.stages[name] = time.monotonic() - began


def read(version: Path) -> Any:
    """Return a version's rows as (train, eval) data frames."""
    import polars as pl

    return tuple(pl.read_csv(sorted((version / split).glob("*.csv"))) for split in ("train", "eval"))


def statistics(frame: Any) -> dict[str, Any]:
    """Return what the product's statistics hold of each column: counts, moments, quantiles, histograms, top values."""
    import polars as pl

    found: dict[str, Any] = {}
    for name in frame.columns:
        column = frame[name]
        entry: dict[str, Any] = {"missing": column.null_count(), "unique": column.n_unique()}
        if column.dtype.is_numeric():
            entry |= {"mean": column.mean(), "deviation": column.std(), "zeros": (column == 0).sum()}
            entry["deciles"] = [column.quantile(step / 10) for step in range(11)]
            entry["histogram"] = column.hist(bin_count=10).to_dict(as_series=False)
        else:
            entry["top"] = column.value_counts(sort=True).head(20).to_dict(as_series=False)
            entry["length"] = column.cast(pl.String).str.len_chars().mean()
        found[name] = entry
    return found


def raw(frame: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the raw columns of rows in the order of time, with the weather of the hours before."""
    import polars as pl

    from benchmarks import model_columns

    numbers = {name: frame[name].to_numpy() for name in frame.columns if frame[name].dtype.is_numeric()}
    hours = frame["dteday"].str.to_date().cast(pl.Int64).to_numpy() * 24 + numbers["hr"]
    return model_columns.raw(numbers, hours)


def evaluate(frame: Any, predicted: npt.NDArray[Any]) -> dict[str, list[dict[str, Any]]]:
    """Return MAE, RMSE, RMSLE, bias and calibration, overall and by slice."""
    import polars as pl

    label, guess = pl.col("cnt").cast(pl.Float64), pl.col("predicted")
    metrics = [
        pl.len().alias("rows"),
        (guess - label).abs().mean().alias("mae"),
        ((guess - label) ** 2).mean().sqrt().alias("rmse"),
        ((guess.log1p() - label.log1p()) ** 2).mean().sqrt().alias("rmsle"),
        ((guess - label).sum() / label.sum()).alias("bias"),
        (guess.sum() / label.sum()).alias("calibration"),
    ]
    starts = np.asarray(HOUR_BANDS)
    band = starts[np.searchsorted(starts, frame["hr"].to_numpy(), side="right") - 1]
    rows = frame.with_columns(predicted=pl.Series(predicted.astype(np.float64)), hour_band=pl.Series(band))
    found = {"overall": rows.select(metrics).to_dicts()}
    for slicing in SLICINGS:
        found[slicing] = rows.group_by(slicing).agg(metrics).sort(slicing).to_dicts()
    return found


def main() -> None:
    """Do all of it once and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", type=Path, required=True, help="folder of the span's version")
    parser.add_argument("--settings", type=Path, required=True, help="the product's settings as JSON")
    parser.add_argument("--report", type=Path, required=True, help="where to write metrics and seconds by stage")
    arguments = parser.parse_args()
    settings = json.loads(arguments.settings.read_text(encoding="utf-8"))
    clock = Clock()
    with clock.stage("imports"):
        import polars  # noqa: F401 - the time it takes is what is measured

        from benchmarks import model_columns
        from benchmarks.floor import model as modeling
        from bike_pipeline.modeling import preprocessing
    with clock.stage("ingest"):
        train, evaluated = read(arguments.version)
    with clock.stage("statistics"):
        described = {"train": statistics(train), "eval": statistics(evaluated)}
    with clock.stage("transform"):
        rows = raw(train)
        learnt = preprocessing.LearntSums.of(rows).learnt()
        columns, labels = model_columns.inputs_and_labels(preprocessing.transformed_columns(rows, learnt))
    with clock.stage("training"):
        model = modeling.train(columns, labels, settings["training"], settings["seed"])
    with clock.stage("evaluation"):
        columns = preprocessing.transformed_columns(raw(evaluated), learnt)
        inputs = {tensor.name: columns[tensor.name] for tensor in model.inputs}
        output = np.asarray(model.predict(inputs, batch_size=PREDICT_BATCH, verbose=0), np.float64)
        metrics = evaluate(evaluated, np.maximum(np.expm1(output), 0.0))
    report = {"metrics": metrics, "stages": clock.stages, "statistics": described}
    arguments.report.write_text(json.dumps(report, default=str), encoding="utf-8")


if __name__ == "__main__":
    main()

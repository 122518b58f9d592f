"""What a user would write instead of each stage: polars for data, Keras for training, numpy for metrics.

Each function prepares (imports, open files) and returns the work. Files go to `peer-*` in the same folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], Any]
SLICES = ("hr", "workingday", "season", "weathersit")


def ingest(folder: Path) -> Work:
    """polars: read the upload, check every rule of the row contract, split by days, write both splits as CSV."""
    import polars as pl

    from bike_pipeline import features

    def work() -> None:
        rows = pl.read_parquet(folder / "upload.parquet")
        day = pl.col("dteday").cast(pl.Date)
        rules = [
            (day.dt.year() - features.FIRST_YEAR == pl.col("yr")),
            day.dt.month() == pl.col("mnth"),
            day.dt.weekday() % 7 == pl.col("weekday"),
            pl.col("casual") + pl.col("registered") == pl.col("cnt"),
            (pl.col("weekday").is_between(1, 5) & (pl.col("holiday") == 0)).cast(pl.Int64) == pl.col("workingday"),
            (day.cast(pl.Int64) * 24 + pl.col("hr")).diff().fill_null(1) > 0,
        ]
        for feature in features.FEATURES:
            if feature.minimum is not None:
                rules.append(pl.col(feature.name) >= feature.minimum)
            if feature.maximum is not None:
                rules.append(pl.col(feature.name) <= feature.maximum)
        good = rows.filter(pl.all_horizontal(rules))
        days = good["dteday"].unique().sort()
        cut = days[int(len(days) * 0.8)]
        good.filter(pl.col("dteday") < cut).write_csv(folder / "peer-train.csv")
        good.filter(pl.col("dteday") >= cut).write_csv(folder / "peer-eval.csv")

    return work


def ExampleGen(folder: Path) -> Work:  # noqa: N802 (the stage's name)
    """CSV by polars, tf.Examples by tfx_bsl's encoder and TensorFlow's writer: gzipped tf.Examples, as ours writes."""
    import polars as pl
    import pyarrow as pa
    import tensorflow as tf
    from tfx_bsl.coders import example_coder

    def work() -> None:
        encoder = example_coder.RecordBatchToExamplesEncoder()
        for split in ("train", "eval"):
            rows = pl.read_csv(folder / f"peer-{split}.csv", schema_overrides={"dteday": pl.String})
            rows = rows.with_columns(pl.col(pl.Float64).cast(pl.Float32), pl.col("dteday").cast(pl.Binary))
            with tf.io.TFRecordWriter(str(folder / f"peer-{split}.gz"), "GZIP") as writer:
                for part in rows.iter_slices(65_536):
                    table = part.to_arrow()
                    offsets = pa.array(range(len(part) + 1), pa.int64())
                    lists = [
                        pa.LargeListArray.from_arrays(offsets, column.combine_chunks()) for column in table.columns
                    ]
                    for example in encoder.encode(pa.RecordBatch.from_arrays(lists, table.column_names)):
                        writer.write(example)

    return work


def columns_only(folder: Path) -> Work:
    """polars: the CSV files as gzipped Parquet, for whom columns are enough; what the other peers read."""
    import polars as pl

    def work() -> None:
        for split in ("train", "eval"):
            rows = pl.read_csv(folder / f"peer-{split}.csv", try_parse_dates=True)
            rows.write_parquet(folder / f"peer-{split}.parquet", compression="gzip")

    return work


def StatisticsGen(folder: Path) -> Work:  # noqa: N802
    """polars: per column counts, moments, extremes, zeros, ten quantiles and a histogram; top values of the date."""
    import polars as pl

    def work() -> list[Any]:
        found: list[Any] = []
        for split in ("train", "eval"):
            rows = pl.read_parquet(folder / f"peer-{split}.parquet")
            numbers = [name for name, kind in rows.schema.items() if kind.is_numeric()]
            column = pl.col(numbers)
            found.append(
                rows.select(
                    column.count().name.suffix(" count"),
                    column.null_count().name.suffix(" missing"),
                    column.mean().name.suffix(" mean"),
                    column.std().name.suffix(" std"),
                    column.min().name.suffix(" min"),
                    column.max().name.suffix(" max"),
                    (column == 0).sum().name.suffix(" zeros"),
                    *(column.quantile(q / 10).name.suffix(f" {q}") for q in range(11)),
                )
            )
            found += [rows[name].hist(bin_count=10) for name in numbers]
            found.append(rows["dteday"].cast(pl.String).value_counts(sort=True).head(20))
        return found

    return work


def Transform(folder: Path) -> Work:  # noqa: N802
    """The model's columns of all training rows at once, from memory, by the product's functions without a pipeline."""
    return lambda: _inputs(folder)


def _inputs(folder: Path) -> tuple[dict[str, Any], Any]:
    import polars as pl

    from benchmarks import model_columns
    from bike_pipeline.modeling import preprocessing

    rows = pl.read_parquet(folder / "peer-train.parquet")
    hours = rows["dteday"].cast(pl.Date).cast(pl.Int64).to_numpy() * 24 + rows["hr"].to_numpy()
    raw = model_columns.raw({n: rows[n].to_numpy() for n in rows.columns if rows[n].dtype.is_numeric()}, hours)
    learnt = preprocessing.LearntSums.of(raw).learnt()
    return model_columns.inputs_and_labels(preprocessing.transformed_columns(raw, learnt))


def Trainer(folder: Path) -> Work:  # noqa: N802
    """Keras: one epoch of `fit` of the same model on the same inputs in memory, and `save`."""
    import keras
    import numpy as np

    from bike_pipeline.modeling import architectures
    from bike_pipeline.modeling.trend import Trend
    from bike_pipeline.settings import load_settings

    training = load_settings().training

    def work() -> None:
        columns, labels = _inputs(folder)
        label = np.log1p(labels[:, 0])
        trend = Trend.fit(columns, labels)
        model = architectures.build(training.model_dump(), trend)
        inputs = {tensor.name: columns[tensor.name] for tensor in model.inputs}
        optimizer = keras.optimizers.AdamW(training.learning_rate, weight_decay=training.weight_decay)
        model.compile(optimizer, "mse")
        model.fit(inputs, label, batch_size=training.batch_size, epochs=1, verbose=0)
        whole = architectures.with_trees(model, training.model_dump(), trend, columns, labels[:, 0], seed=1)
        whole.save(folder / "peer.keras")

    return work


def Evaluator(folder: Path) -> Work:  # noqa: N802
    """The served model on the eval rows from memory, numpy and polars for its metrics overall and on every slice."""
    import numpy as np
    import polars as pl
    import tensorflow as tf

    from bike_pipeline import features

    def work() -> list[Any]:
        rows = pl.read_parquet(folder / "peer-eval.parquet")
        kinds = {"int": np.int64, "float": np.float32}
        inputs = {f.name: rows[f.name].to_numpy().astype(kinds[f.kind]) for f in features.REQUIRED_INPUTS}
        metrics = []
        for _ in ("candidate", "baseline"):
            served = tf.saved_model.load(str(folder / "model" / "Format-Serving")).signatures["serving_default"]
            parts = [
                served(**{name: tf.constant(values[at : at + 65_536]) for name, values in inputs.items()})["cnt"]
                for at in range(0, len(rows), 65_536)
            ]
            error = rows.with_columns(p=pl.Series(np.concatenate([part.numpy() for part in parts]).ravel()))
            difference = pl.col("p") - pl.col("cnt")
            taken = [
                pl.len(),
                difference.abs().mean().alias("mae"),
                (difference**2).mean().sqrt().alias("rmse"),
                ((pl.col("p").log1p() - pl.col("cnt").log1p()) ** 2).mean().sqrt().alias("rmsle"),
                (difference.sum() / pl.col("cnt").sum()).alias("bias"),
                (pl.col("p").sum() / pl.col("cnt").sum()).alias("calibration"),
            ]
            metrics += [error.select(taken), *(error.group_by(name).agg(taken) for name in SLICES)]
        return metrics

    return work

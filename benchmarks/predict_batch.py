"""Millions of rows answered as files: rows a second and memory at three sizes, beside the strongest plain predictor.

The product does the work as a process, `bike-pipeline predict-batch`; its peers are processes of a few lines over the
same Parquet file, with the same exports of the same version, without checks, ids, partitions, quantiles or a restart:
pyarrow with the C export (the fastest), with LiteRT, and LightGBM with as many trees of the same depth, asked alone.
Rates are of CPU seconds on one core, so that other work on the machine counts little. Exit code 1 where a goal is
missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.processes import timed
from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.exporting.formats.registry import format_of
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.settings import load_settings

SIZES = (1_000_000, 5_000_000, 10_000_000)
# Goals: rows a CPU second of one core; how much the memory at the largest size may exceed that at the smallest.
RATE_GOAL, GROWTH_GOAL = 200_000, 1.15
_PART, _SEED = 500_000, 2012
_PEERS = ("c_source", "tflite_float32", "lightgbm")
_TYPES = {"int": np.int64, "float": np.float32}
_INPUTS = [feature.name for feature in features.MODEL_INPUTS]
_TREES, _LEAVES, _DEPTH = 400, 64, 6


def write_rows(path: Path, rows: int) -> None:
    """Write hours of the embedded data drawn at random, in the order of time, as Parquet."""
    hours = pa.csv.read_csv(pa.BufferReader(embedded_bytes()))
    generator = np.random.default_rng(_SEED)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, hours.schema) as writer:
        for start in range(0, rows, _PART):
            drawn = np.sort(generator.integers(len(hours), size=min(_PART, rows - start)))
            writer.write_table(hours.take(pa.array(drawn)))


def peer(kind: str, exports: Path, source: Path, target: Path) -> None:
    """Answer a Parquet file the plain way, batches in, one column out; print the CPU seconds of the model."""
    model: Any = _lightgbm() if kind == "lightgbm" else format_of(kind).load(exports / kind)
    spent, began = 0.0, 0.0
    schema = pa.schema([("predicted_cnt", pa.float32())])
    with pq.ParquetWriter(target, schema) as writer:
        for batch in pq.ParquetFile(source).iter_batches(65_536):
            days = np.asarray(batch["dteday"].cast(pa.string()).to_numpy(zero_copy_only=False), "datetime64[D]")
            sent = {name: batch[name].to_numpy() for name in batch.schema.names if name in _INPUTS}
            sent["day"] = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
            nothing = np.zeros(len(batch))
            columns = {f.name: sent.get(f.name, nothing).astype(_TYPES[f.kind]) for f in features.MODEL_INPUTS}
            began = time.process_time()
            parts = [
                model.predict({n: c[at : at + 1024] for n, c in columns.items()}) for at in range(0, len(batch), 1024)
            ]
            spent += time.process_time() - began
            writer.write_table(pa.table([np.concatenate(parts).astype(np.float32)], schema=schema))
    print(json.dumps({"model": spent}))


def _lightgbm() -> Any:
    import lightgbm

    hours = pa.csv.read_csv(pa.BufferReader(embedded_bytes()))
    names = [f.name for f in features.REQUIRED_INPUTS]
    rows = np.column_stack([hours[name].to_numpy() for name in names])
    chosen = {"num_leaves": _LEAVES, "max_depth": _DEPTH, "verbose": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train(chosen, lightgbm.Dataset(rows, hours["cnt"].to_numpy()), num_boost_round=_TREES)

    class Trees:
        def predict(self, columns: dict[str, Any]) -> Any:
            return booster.predict(np.column_stack([columns[name] for name in names]), num_threads=1)

    return Trees()


def measure(folder: Path, workspace: Path, sizes: Sequence[int]) -> dict[str, Any]:
    """Return rates and memory by who answered, and by size."""
    registry = ModelRegistry(load_settings(None, (f"workspace={workspace}",)).serving_path)
    version = registry.serving()
    if version is None:
        raise SystemExit(f"error: no model is served in {workspace}: run `bike-pipeline run` first")
    exports = registry.folder(version) / "assets.extra" / "exports"
    found: dict[str, Any] = {}
    for rows in (1, *sizes):
        source = folder / f"{rows}" / "rows.parquet"
        write_rows(source, rows)
        command = ["-m", "bike_pipeline.cli", "predict-batch", str(source), "--output", str(folder / f"out-{rows}")]
        took = timed([sys.executable, *command, "--set", f"workspace={workspace}"], folder / "batch.log")
        found[f"predict-batch {rows:,}"] = {"rows": rows, "cpu": took.cpu, "memory": took.memory, "wall": took.wall}
        print(f"predict-batch {rows:,}: {took}", file=sys.stderr, flush=True)
    source = folder / f"{sizes[0]}" / "rows.parquet"
    for kind in _PEERS:
        log = folder / f"{kind}.log"
        arguments = ["--peer", kind, str(exports), str(source), str(folder / f"{kind}.parquet")]
        took = timed([sys.executable, "-m", "benchmarks.predict_batch", *arguments], log)
        model = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["model"]
        found[f"pyarrow and {kind}"] = {
            "rows": sizes[0], "cpu": took.cpu, "memory": took.memory, "wall": took.wall, "model": model,
        }  # fmt: skip
        print(f"{kind}: {took}, model {model:.1f} s", file=sys.stderr, flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default=",".join(map(str, SIZES)), help="sizes, ascending")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"), help="where a version is served")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--peer", nargs=4, metavar=("KIND", "EXPORTS", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peer:
        kind, *paths = options.peer
        peer(kind, *map(Path, paths))
        return 0
    sizes = [int(size) for size in options.rows.split(",")]
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-batch-") as name:
        found = measure(Path(name), options.workspace.absolute(), sizes)
    start, large = found["predict-batch 1"], found[f"predict-batch {sizes[-1]:,}"]
    small = found[f"predict-batch {sizes[0]:,}"]
    print(f"{'':36s}{'CPU s':>9s}{'rows/CPU s':>12s}{'of the model':>14s}{'memory MB':>11s}")
    for who, one in found.items():
        model = f"{one['rows'] / one['model']:14,.0f}" if "model" in one else f"{'':14s}"
        print(f"{who:36s}{one['cpu']:9.1f}{one['rows'] / one['cpu']:12,.0f}{model}{one['memory']:11,.0f}")
    # What a process costs that answers one row: imports, Beam, the compiler.
    rate = large["rows"] / (large["cpu"] - start["cpu"])
    growth = large["memory"] / small["memory"]
    met = rate >= RATE_GOAL and growth <= GROWTH_GOAL
    print(
        f"{rate:,.0f} rows a CPU second after the start, at least {RATE_GOAL:,}; memory at {sizes[-1]:,} rows "
        f"{growth:.2f} times that at {sizes[0]:,}, at most {GROWTH_GOAL}: {'met' if met else 'MISSED'}"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**found, "rate": rate, "growth": growth}, indent=2), encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

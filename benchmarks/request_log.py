"""A million logged requests taken in, joined and reported: seconds and memory, against their goals.

The log is written by the code of the server's writer, of the hours of 2012 as they were. Exit code 1 where a goal is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import Timing, timed
from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.serving import request_log
from bike_pipeline.serving.protos import types_pb2
from bike_pipeline.serving.request_log_files import Place

MILLION = 1_000_000
SECONDS_GOAL, MEMORY_GOAL = 60.0, 1000.0
_BATCH = 1000
# A request each few seconds, in nanoseconds since 1970: the clients of a month, all of whose days are over.
_PERIOD = 30 * 86_400 * 1_000_000_000
_SEED = 2012
_TYPES = {"int": (types_pb2.DT_INT64, int), "float": (types_pb2.DT_FLOAT, float)}
_WANTED = [feature for feature in features.MODEL_INPUTS if feature in features.REQUIRED_INPUTS or feature.name == "day"]


def _hours() -> tuple[list[tuple[Any, ...]], np.ndarray[Any, Any]]:
    """Return the inputs of the hours of 2012 as a request has them, and their labels."""
    header, *lines = embedded_bytes().decode().splitlines()
    names = header.split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    later = [{**row, "day": row["dteday"][-2:]} for row in rows if row["yr"] == "1"]
    kinds = [(feature.name, _TYPES[feature.kind][1]) for feature in _WANTED]
    return [tuple(kind(row[n]) for n, kind in kinds) for row in later], np.array([float(r["cnt"]) for r in later])


def write_log(folder: Path, requests: int) -> int:
    """Write requests of one row about hours drawn at random; return how many megabytes of lines they are."""
    hours, labels = _hours()
    types = tuple((feature.name, _TYPES[feature.kind][0]) for feature in _WANTED)
    generator = np.random.default_rng(_SEED)
    asked = generator.integers(len(hours), size=requests)
    answers = (labels[asked] * np.exp(generator.normal(0.0, 0.2, requests))).astype(np.float32)
    began = time.time_ns() - _PERIOD - 86_400 * 1_000_000_000 + np.arange(requests) * (_PERIOD // requests)
    place = Place(str(folder), 64_000_000, 1000)
    about = {0: (1, "serving_all_inputs", "tflite_float32", types, None)}
    for start in range(0, requests, _BATCH):
        entries = []
        for number in range(start, min(start + _BATCH, requests)):
            answer = (("cnt", "<f4", (1,), answers[number : number + 1].tobytes()),)
            entry = (int(began[number]), 400_000, f"r{number:08d}", "http", "bike_demand", "OK", 1.0)
            entries.append(pickle.dumps((entry, 0, hours[asked[number]], answer)))
        if problem := request_log.write(pickle.dumps((about, entries)), place):
            raise SystemExit(f"error: {problem}")
    return sum(path.stat().st_size for path in folder.glob("*.jsonl")) // 1_000_000


def measure(folder: Path, requests: int) -> dict[str, Timing]:
    """Return what each command took, on a log that is written first."""
    workspace = folder / "workspace"
    source = folder / "rides.csv"
    source.write_bytes(embedded_bytes())

    def run(name: str, *arguments: str, codes: Sequence[int] = (0,)) -> Timing:
        command = [sys.executable, "-m", "bike_pipeline.cli", *arguments, "--set", f"workspace={workspace}"]
        return timed(command, folder / f"{name}.log", codes)

    run("data", "data", "ingest", str(source))
    megabytes = write_log(workspace / "monitoring" / "requests", requests)
    print(f"{requests:,} requests are {megabytes:,} MB of lines", file=sys.stderr, flush=True)
    return {
        "monitor ingest": run("ingest", "monitor", "ingest"),
        # The verdict is its exit code.
        "monitor run": run("run", "monitor", "run", "--until", "2012-12-31", codes=(0, 22, 23)),
        "monitor ingest, nothing new": run("again", "monitor", "ingest"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=MILLION, help="logged requests (default a million)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.requests < 1:
        parser.error("--requests must be at least 1")
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-requests-") as name:
        found = measure(Path(name), options.requests)
    print(f"{'':30s}{'wall s':>9s}{'CPU s':>9s}{'memory MB':>11s}")
    for command, one in found.items():
        print(f"{command:30s}{one.wall:9.1f}{one.cpu:9.1f}{one.memory:11,.0f}")
    seconds = found["monitor ingest"].wall + found["monitor run"].wall
    memory = max(one.memory for one in found.values())
    met = seconds <= SECONDS_GOAL and memory <= MEMORY_GOAL
    print(
        f"taken in, joined and reported in {seconds:.0f} s of at most {SECONDS_GOAL:g} and {memory:,.0f} MB of at most "
        f"{MEMORY_GOAL:,.0f}: {'met' if met else 'MISSED'}"
    )
    if busy > (os.cpu_count() or 1) / 2:
        print(f"other processes kept the machine busy (load {busy:.1f}): only CPU seconds and memory hold")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {command: {"wall": one.wall, "cpu": one.cpu, "memory": one.memory} for command, one in found.items()}
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

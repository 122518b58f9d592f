"""Every goal of the exported formats in one run on one trained model.

The product itself does the work, as processes: `bike-pipeline run` trains on the first half of the embedded data,
`bike-pipeline export --formats all` writes every format and holds it against the SavedModel on golden rows and on the
labels of the eval split. Latencies are then taken in a further process that is kept on one core, all formats in turns,
so that a machine that gets slower slows all of them. Exit code 1 where a goal is missed or could not be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.processes import ROOT

SAVED_MODEL, LITERT, LITERT_INT8, C_SOURCE = "saved_model", "tflite_float32", "tflite_int8", "c_source"
SIGNATURE = "saved_model, tensors ready"
# Goals: largest relative difference, losses of MAE, ratio of the SavedModel to LiteRT, bytes.
DIFFERENCE, LOSS, SLICE_LOSS, FASTER, FLOAT_BYTES, INT8_BYTES = 1e-5, 0.01, 0.03, 12.0, 400_000, 280_000
# Without these the goals mean nothing; other formats count where what they need is installed.
NEEDED = (SAVED_MODEL, LITERT, LITERT_INT8, C_SOURCE, "onnx_float32", "onnx_int8", "openvino_float32", "openvino_int8")


@dataclass(frozen=True)
class Goal:
    """A goal and the figures that it is held against.

    Attributes:
        name: what is measured.
        limit: the largest passing figure; with `at_least` the smallest.
        figures: one a round, or a single one; empty where it could not be measured.
        unit: of limit and figures: "", "kB" or "%".
        at_least: whether more is better.
    """

    name: str
    limit: float
    figures: tuple[float, ...]
    unit: str = ""
    at_least: bool = False

    @property
    def median(self) -> float:
        """The figure to quote; not a number where it could not be measured."""
        return statistics.median(self.figures) if self.figures else math.nan

    @property
    def reached(self) -> bool:
        """Whether the goal is reached; what was not measured never is."""
        return self.median >= self.limit if self.at_least else self.median <= self.limit

    def cells(self) -> tuple[str, str, str]:
        """Return limit, figure and verdict as text."""
        limit = f"{'at least' if self.at_least else 'at most'} {_shown(self.limit, self.unit)}"
        measured = _shown(self.median, self.unit) if self.figures else "not measured"
        return limit, measured, "reached" if self.reached else "MISSED"


def _shown(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.2%}"
    if unit == "kB":
        return f"{value / 1000:,.1f} kB"
    number = f"{value:.1e}" if 0 < abs(value) < 0.01 else f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{number} {unit}".rstrip()


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        formats: by name what `parity.json` says of each format.
        seconds: one row, by format the median of each round; the SavedModel also as `SIGNATURE`, which leaves out the
            making of its tensors.
    """

    formats: dict[str, dict[str, Any]]
    seconds: dict[str, list[float]]


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Return the ratio of each round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def goals(measured: Measured) -> list[Goal]:
    """Hold the figures against the goals."""
    formats, seconds = measured.formats, measured.seconds

    def figure(name: str, key: str) -> tuple[float, ...]:
        value = formats.get(name, {}).get(key)
        return () if value is None else (float(value),)

    def difference(name: str) -> tuple[float, ...]:
        parity = formats.get(name, {}).get("parity") or {}
        value = parity.get("max_relative_difference")
        return () if value is None else (float(value),)

    counted = [name for name in {**dict.fromkeys(NEEDED), **formats} if name in NEEDED or name in seconds]
    precision = {name: formats.get(name, {}).get("precision") or _expected(name) for name in counted}
    found = [
        Goal(f"{name}: largest relative difference", DIFFERENCE, difference(name))
        for name in counted
        if precision[name] == "float32" and name != SAVED_MODEL
    ]
    for name in counted:
        if precision[name] == "int8":
            found.append(Goal(f"{name}: MAE lost", LOSS, figure(name, "mae_increase"), "%"))
            found.append(
                Goal(f"{name}: MAE lost, worst slice", SLICE_LOSS, figure(name, "worst_slice_mae_increase"), "%")
            )
    # The faster way to call the SavedModel is the one to beat.
    called = [values for name in (SAVED_MODEL, SIGNATURE) if (values := seconds.get(name))]
    fastest = tuple(min(round_) for round_ in zip(*called, strict=True)) if called else ()
    litert, c_source = seconds.get(LITERT, []), seconds.get(C_SOURCE, [])
    found += [
        Goal("SavedModel from Python / LiteRT", FASTER, ratios(fastest, litert) if litert else (), at_least=True),
        Goal("C source / LiteRT: one row", 1.0, ratios(c_source, litert) if litert and c_source else ()),
        Goal("LiteRT float32: size", FLOAT_BYTES, figure(LITERT, "size_bytes"), "kB"),
        Goal("LiteRT int8: size", INT8_BYTES, figure(LITERT_INT8, "size_bytes"), "kB"),
    ]
    return found


def _expected(name: str) -> str:
    return "int8" if name.endswith("int8") else "float32"


def goal_table(found: Sequence[Goal]) -> str:
    """Return the goals as text."""
    lines = [f"{'goal':44s} {'limit':>18s} {'measured':>14s}"]
    for goal in found:
        limit, measured, verdict = goal.cells()
        lines.append(f"{goal.name:44s} {limit:>18s} {measured:>14s}  {verdict}")
    return "\n".join(lines)


def format_table(measured: Measured) -> str:
    """Return the formats as text: size, differences, and the row's median over all rounds with their range."""
    lines = [f"{'format':24s} {'size kB':>8s} {'difference':>11s} {'MAE':>7s} {'one row, µs (rounds)':>26s}"]
    for name, entry in measured.formats.items():
        if entry.get("size_bytes") is None:
            lines.append(f"{name:24s} not measured: {entry.get('reason', '')}")
            continue
        values = [value * 1e6 for value in measured.seconds.get(name, ())]
        row = f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})" if values else "-"
        difference = (entry.get("parity") or {}).get("max_relative_difference")
        apart = "-" if difference is None else f"{difference:.1e}"
        mae = "-" if entry.get("mae") is None else f"{entry['mae']:.2f}"
        lines.append(f"{name:24s} {entry['size_bytes'] / 1000:8.1f} {apart:>11s} {mae:>7s} {row:>26s}")
    if values := [value * 1e6 for value in measured.seconds.get(SIGNATURE, ())]:
        lines.append(f"{SIGNATURE:52s} {statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})".rstrip())
    return "\n".join(lines)


def _done(command: Sequence[str], log: Path, allowed: Sequence[int] = (0,)) -> str:
    """Run a command to its end and return its output.

    Raises:
        SystemExit: it ended with a code that is not allowed; the log is named.
    """
    with log.open("ab") as errors:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, env=environment)
        errors.write(done.stdout)
    if done.returncode not in allowed:
        raise SystemExit(f"error: `{' '.join(command[:4])} …` ended with {done.returncode}; its output: {log}")
    return done.stdout.decode()


def measure(rounds: int, folder: Path) -> Measured:
    """Train one model, export it to every format, and measure all of them.

    Args:
        rounds: how often the formats take turns.
        folder: an empty folder to work in.

    Raises:
        SystemExit: training or measuring failed.
    """
    from bike_pipeline.errors import ExitCode

    log, workspace, exports = folder / "output.log", f"workspace={folder / 'workspace'}", folder / "exports"
    product = [sys.executable, "-m", "bike_pipeline.cli"]
    print("training …", file=sys.stderr, flush=True)
    _done([*product, "run", "--demo", "first", "--set", workspace, "--set", "exporting.formats=[saved_model]"], log)
    print("exporting every format …", file=sys.stderr, flush=True)
    # A format whose extra is not installed ends the command with that code; it is told in the table.
    export = [*product, "export", "--formats", "all", "--output", str(exports), "--set", workspace]
    _done(export, log, allowed=(0, int(ExitCode.EXPORT)))
    formats = json.loads((exports / "parity.json").read_text(encoding="utf-8"))["formats"]
    print("taking turns …", file=sys.stderr, flush=True)
    names = [name for name, entry in formats.items() if entry.get("size_bytes") is not None]
    turns = [sys.executable, "-m", "benchmarks.exports", "--turns", str(exports), "--rounds", str(rounds), *names]
    return Measured(formats, json.loads(_done(turns, log).splitlines()[-1]))


def take_turns(exports: Path, names: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Return the median seconds of one row, by format one a round, on one core.

    Args:
        exports: a folder with a folder for each format.
        names: the formats to measure.
        rounds: how often all of them take their turn.
    """
    from bike_pipeline.exporting.acceptance.measurements import medians_by_round, one_core

    # Threads that a library starts inherit the core, so it is taken before any of them is imported.
    with one_core():
        from bike_pipeline import features
        from bike_pipeline.exporting.formats import registry
        from bike_pipeline.modeling.golden import golden_rows

        row = {name: values[:1] for name, values in golden_rows(1000).items()}
        loaded = {name: registry.format_of(name).load(exports / name) for name in names}
        calls: dict[str, Callable[[], object]] = {
            name: (lambda model=model: model.predict(row)) for name, model in loaded.items()
        }
        if SAVED_MODEL in names:
            import tensorflow as tf

            model = tf.saved_model.load(str(exports / SAVED_MODEL))
            signature = model.signatures[features.SERVING_ALL_INPUTS]
            tensors = {name: tf.constant(values) for name, values in row.items()}

            def answer() -> object:
                return signature(**tensors)["cnt"].numpy()

            calls[SIGNATURE] = answer
        return medians_by_round(calls, rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often the formats take turns (default 7)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw sizes and latencies into this PNG file")
    parser.add_argument("--turns", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("formats", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.turns:
        print(json.dumps(take_turns(options.turns, options.formats, options.rounds)))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="bike-pipeline-benchmark-"))
    measured = measure(options.rounds, folder)
    shutil.rmtree(folder)
    found = goals(measured)
    print(format_table(measured), goal_table(found), sep="\n\n")
    if options.json:
        told = [{**asdict(g), "median": _plain(g.median), "reached": g.reached} for g in found]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**asdict(measured), "goals": told}, indent=2), encoding="utf-8")
    if options.plot:
        plots.draw_formats(_bars(measured), options.plot)
    return 0 if all(goal.reached for goal in found) else 1


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bars(measured: Measured) -> Mapping[str, tuple[float, float]]:
    """Return size in kB and µs of one row of each format that has both."""
    return {
        name: (entry["size_bytes"] / 1000, statistics.median(measured.seconds[name]) * 1e6)
        for name, entry in measured.formats.items()
        if entry.get("size_bytes") is not None and measured.seconds.get(name)
    }


if __name__ == "__main__":
    sys.exit(main())

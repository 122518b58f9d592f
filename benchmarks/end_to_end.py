"""Our `run` against the plain TFX way, as whole processes with imports, on the first half of the embedded data.

Both do the same work: same rows, features, architecture, number of steps, slices, metrics, signatures. They take turns,
so that a machine that gets slower slows both, and the ratio of each pair is what counts. Exit code 1 where the goal is
missed or one of the two is not sound (no pushed model, or a quality unlike the other's).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.5
# The two train with other random numbers: so far apart may their errors be.
QUALITY_TOLERANCE = 0.1
OURS, PLAIN, AGAIN = "bike-pipeline run", "plain TFX", "bike-pipeline run, nothing changed"


@dataclass(frozen=True)
class Timing:
    """One process: wall and CPU time in seconds (children included), largest resident memory in MB."""

    wall: float
    cpu: float
    memory: float


@dataclass(frozen=True)
class Comparison:
    """Ratios ours / plain of one figure, pair by pair."""

    figure: str
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        """The ratio to quote."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.median <= GOAL


def timed(command: Sequence[str], log: Path) -> Timing:
    """Run a command to its end, with its output in `log`.

    Raises:
        SystemExit: it failed; the log is named and kept.
    """
    with log.open("ab") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: `{' '.join(command[:4])} …` ended with {process.returncode}; its output: {log}")
    return Timing(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(ours: Sequence[Timing], plain: Sequence[Timing]) -> list[Comparison]:
    """Return the ratios of CPU and wall time, pair by pair."""
    pairs = list(zip(ours, plain, strict=True))
    return [
        Comparison("CPU", tuple(a.cpu / b.cpu for a, b in pairs)),
        Comparison("wall", tuple(a.wall / b.wall for a, b in pairs)),
    ]


def table(timings: dict[str, list[Timing]], comparisons: Sequence[Comparison]) -> str:
    """Return the figures as text: median and range of each, then the ratios and whether the goal is reached."""
    lines = [f"{'':36s} {'wall s':>22s} {'CPU s':>22s} {'memory MB':>10s}"]
    for name, runs in timings.items():
        figures = ([t.wall for t in runs], [t.cpu for t in runs])
        cells = [f"{statistics.median(f):6.1f} ({min(f):.1f}-{max(f):.1f})" for f in figures]
        lines.append(f"{name:36s} {cells[0]:>22s} {cells[1]:>22s} {max(t.memory for t in runs):10.0f}")
    lines.append("")
    for comparison in comparisons:
        pairs = ", ".join(f"{ratio:.2f}" for ratio in comparison.ratios)
        verdict = "reached" if comparison.reached else "MISSED"
        lines.append(
            f"{comparison.figure:4s} ours / plain: {comparison.median:.2f} (pairs {pairs}); goal {GOAL}: {verdict}"
        )
    return "\n".join(lines)


def sound(ours_mae: float, plain_mae: float) -> bool:
    """Return whether the two models are equally good, so that the comparison means something."""
    return abs(ours_mae - plain_mae) <= QUALITY_TOLERANCE * max(ours_mae, plain_mae)


def stage_seconds(metadata_file: Path) -> dict[str, float]:
    """Return the seconds of each stage of a workspace's first run, from ML Metadata."""
    from bike_pipeline.lineage.store import Lineage, open_store

    first = Lineage(open_store(metadata_file)).runs()[0]
    return {stage.name: stage.seconds for stage in first.stages}


def _plain_mae(workspace: Path) -> float:
    import tensorflow_model_analysis as tfma

    folder = max((workspace / "artifacts" / "Evaluator" / "evaluation").iterdir(), key=lambda path: int(path.name))
    for record in tfma.load_metrics(str(folder)):
        for entry in record.metric_keys_and_values:
            if not record.slice_key.single_slice_keys and entry.key.name == "mean_absolute_error":
                return float(entry.value.double_value.value)
    raise SystemExit(f"error: the plain pipeline's evaluation holds no overall MAE: {folder}")


def measure(
    runs: int, folder: Path
) -> tuple[dict[str, list[Timing]], dict[str, dict[str, float]], tuple[float, float]]:
    """Run both `runs` times in turns; return timings, seconds by stage of the last pair, and both models' MAE."""
    from bike_pipeline.data.demo import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.log_capture import captured
    from bike_pipeline.settings import load_settings

    store = folder / "spans"
    settings = load_settings(assignments=(f"data.store={store}",))
    ingest(settings, str(split_demo(folder / "uploads")[0]))
    (folder / "settings.json").write_text(settings.model_dump_json(), encoding="utf-8")
    script = [sys.executable, str(ROOT / "benchmarks" / "plain_tfx" / "pipeline.py"), "--spans", str(store)]
    script += ["--schema", str(settings.schema_path), "--settings", str(folder / "settings.json")]
    timings: dict[str, list[Timing]] = {OURS: [], PLAIN: [], AGAIN: []}
    log = folder / "output.log"
    for number in range(1, runs + 1):
        print(f"pair {number} of {runs} …", file=sys.stderr, flush=True)
        ours, plain = folder / f"ours-{number}", folder / f"plain-{number}"
        command = [sys.executable, "-m", "bike_pipeline.cli", "run", "--set", f"workspace={ours}"]
        command += ["--set", f"data.store={store}"]
        plain.mkdir()
        timings[OURS].append(timed(command, log))
        timings[PLAIN].append(timed([*script, "--workspace", str(plain)], log))
        timings[AGAIN].append(timed(command, log))
        if not any((plain / "serving").glob("*/saved_model.pb")):
            raise SystemExit(f"error: the plain pipeline pushed no model; its output: {log}")
    stages = {OURS: stage_seconds(ours / "metadata.sqlite"), PLAIN: stage_seconds(plain / "metadata.sqlite")}
    from bike_pipeline.lineage.store import Lineage, open_store

    mae = Lineage(open_store(ours / "metadata.sqlite")).models()[-1].metrics["mae"]
    with captured(log):
        plain_mae = _plain_mae(plain)
    return timings, stages, (mae, plain_mae)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="pairs to run (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    folder = Path(tempfile.mkdtemp(prefix="bike-pipeline-benchmark-"))
    timings, stages, (ours_mae, plain_mae) = measure(options.runs, folder)
    shutil.rmtree(folder)
    comparisons = compare(timings[OURS], timings[PLAIN])
    print(table(timings, comparisons))
    print(f"\n{'seconds by stage (last pair)':36s} {'ours':>8s} {'plain':>8s}")
    for name in {**stages[OURS], **stages[PLAIN]}:
        cells = [f"{stages[who][name]:8.1f}" if name in stages[who] else f"{'-':>8s}" for who in (OURS, PLAIN)]
        print(f"{name:36s} {cells[0]} {cells[1]}")
    print(f"\nMAE on the eval split: ours {ours_mae:.1f}, plain {plain_mae:.1f}")
    if options.json:
        figures = {name: [asdict(timing) for timing in runs] for name, runs in timings.items()}
        ratios = {c.figure: c.ratios for c in comparisons}
        content = {
            "timings": figures,
            "ratios": ratios,
            "stages": stages,
            "mae": {"ours": ours_mae, "plain": plain_mae},
        }
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if not sound(ours_mae, plain_mae):
        print("the two models are not equally good: the comparison means nothing", file=sys.stderr)
        return 1
    return 0 if all(comparison.reached for comparison in comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())

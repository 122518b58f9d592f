"""Cost of each stage from ten thousand to ten million rows, per engine, beside what a user would pick instead.

Every stage and every peer runs in a process of its own on one core; CPU seconds count, after the imports, so that other
work on the machine disturbs little. Ours and the peer take turns in the same run. Exit code 1 where a goal is missed:
each stage at most 3 times its peer at a million rows, growth no faster than the rows, memory of the Beam stages bounded
by their bundles, and a million rows from upload to verdict within 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.scale_rows import write_upload  # noqa: E402
from benchmarks.scale_stages import STAGES  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PEER, MEMORY = "peer", "memory"
BEAM_STAGES = ("ExampleGen", "StatisticsGen", "Transform", "Evaluator")
GOAL_ROWS = 1_000_000
LARGEST_RATIO = 3.0
LARGEST_EXPONENT = 1.1
# Peak memory above what the imports hold may grow by so much, as a factor or in MB, from one size to the largest.
LARGEST_GROWTH, SMALL_MB = 1.5, 100.0
END_TO_END_SECONDS = 600.0


@dataclass(frozen=True)
class Cost:
    """One stage by one engine at one size.

    Attributes:
        stage: the stage.
        who: "memory", a name of a Beam engine, or "peer".
        rows: rows of the upload.
        cpu: CPU seconds after the imports.
        wall: wall seconds after the imports.
        resident: memory that the imports hold, MB.
        peak: largest resident memory, MB.
    """

    stage: str
    who: str
    rows: int
    cpu: float
    wall: float
    resident: float
    peak: float

    @property
    def needed(self) -> float:
        """Memory above what the imports hold, MB."""
        return max(self.peak - self.resident, 0.0)


@dataclass(frozen=True)
class Check:
    """One goal: what was measured, against what, and whether it is reached."""

    what: str
    measured: float
    limit: float

    @property
    def reached(self) -> bool:
        """Whether the goal is reached; what was not measured is missed."""
        return math.isfinite(self.measured) and self.measured <= self.limit


def exponent(costs: Sequence[Cost]) -> float:
    """Return b of cpu ∝ rows^b between the two largest sizes, where fixed costs count least; NaN for one size."""
    ordered = sorted(costs, key=lambda cost: cost.rows)[-2:]
    if len(ordered) < 2:
        return math.nan
    small, large = ordered
    return math.log(large.cpu / small.cpu) / math.log(large.rows / small.rows)


def checks(costs: Sequence[Cost]) -> list[Check]:
    """Return every goal that the sizes allow to be judged."""
    found = []
    engines = sorted({cost.who for cost in costs} - {PEER})
    for stage in STAGES:
        at_goal = {c.who: c for c in costs if c.stage == stage and c.rows == GOAL_ROWS}
        if PEER in at_goal and MEMORY in at_goal:
            ratio = at_goal[MEMORY].cpu / at_goal[PEER].cpu
            found.append(Check(f"{stage}: CPU time / peer's at {GOAL_ROWS:,} rows", ratio, LARGEST_RATIO))
        for who in engines:
            mine = sorted((c for c in costs if (c.stage, c.who) == (stage, who)), key=lambda cost: cost.rows)
            if len(mine) < 2:
                continue
            found.append(Check(f"{stage}, {who}: growth, rows to the power of", exponent(mine), LARGEST_EXPONENT))
            # Below a bundle's size a stage needs less than a bundle; only sizes above can show what does not grow.
            if stage in BEAM_STAGES and mine[-2].rows >= GOAL_ROWS:
                limit = max(mine[-2].needed * LARGEST_GROWTH, mine[-2].needed + SMALL_MB)
                what = f"{stage}, {who}: MB at {mine[-1].rows:,} rows, from {mine[-2].needed:.0f}"
                found.append(Check(what, mine[-1].needed, limit))
    return found


def run_stage(stage: str, who: str, engine: str, folder: Path, rows: int) -> Cost:
    """Run a stage or its peer in a process of its own.

    Raises:
        SystemExit: it failed; its output is shown.
    """
    core = min(os.sched_getaffinity(0))
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scale_stages.py"), stage, engine, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if result.returncode:
        raise SystemExit(f"error: {stage} ({who}) failed at {rows:,} rows:\n{result.stderr[-3000:]}")
    return Cost(stage, who, rows, **json.loads(result.stdout.splitlines()[-1]))


def end_to_end(folder: Path) -> float:
    """Return the wall seconds of ingest and a whole run of the pipeline on the folder's upload, on every core."""
    command = [sys.executable, "-m", "bike_pipeline.cli"]
    place = folder / "workspace"
    shutil.rmtree(place, ignore_errors=True)
    began = time.monotonic()
    for arguments in (["data", "ingest", str(folder / "upload.parquet")], ["run"]):
        result = subprocess.run(
            [*command, *arguments, "--set", f"workspace={place}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        # 6: the run came to its end and the candidate was not good enough.
        if result.returncode not in {0, 6}:
            raise SystemExit(f"error: {arguments[0]} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return time.monotonic() - began


def table(costs: Sequence[Cost]) -> str:
    """Return all costs as a table."""
    lines = [f"{'stage':<14} {'by':<8} {'rows':>10} {'CPU s':>8} {'rows/CPU s':>11} {'MB':>7} {'MB above imports':>17}"]
    for stage in STAGES:
        for cost in sorted((c for c in costs if c.stage == stage), key=lambda c: (c.rows, c.who)):
            speed = cost.rows / cost.cpu
            name = f"{stage:<14} {cost.who:<8} {cost.rows:>10,}"
            lines += [f"{name} {cost.cpu:>8.2f} {speed:>11,.0f} {cost.peak:>7,.0f} {cost.needed:>17,.0f}"]
    return "\n".join(lines)


def plot(costs: Sequence[Cost], path: Path) -> None:
    """Draw CPU seconds over rows, a panel a stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7), sharex=True, sharey=True)
    for axis, stage in zip(axes.flat, STAGES, strict=True):
        for who in sorted({c.who for c in costs if c.stage == stage}):
            mine = sorted((c for c in costs if (c.stage, c.who) == (stage, who)), key=lambda c: c.rows)
            style = "k--" if who == PEER else "o-"
            axis.loglog([c.rows for c in mine], [c.cpu for c in mine], style, label=who)
        axis.set_title(stage)
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend()
    figure.supxlabel("rows")
    figure.supylabel("CPU seconds on one core, without imports")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Measure, print, write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes, separated by commas")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to measure; they need those before them")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="NAME=FLAGS",
        help="another Beam engine, such as 'flink=--runner=FlinkRunner --flink_master=localhost:8081'",
    )
    parser.add_argument("--no-end-to-end", action="store_true", help="leave out the whole run of a million rows")
    parser.add_argument("--keep", type=Path, help="use this folder and leave it")
    options = parser.parse_args()
    engines = {MEMORY: MEMORY, "direct": "direct", **dict(e.partition("=")[::2] for e in options.engine), PEER: PEER}
    folder = options.keep or Path(tempfile.mkdtemp(prefix="scale-"))
    costs: list[Cost] = []
    seconds = math.nan
    for rows in sorted(int(text) for text in options.rows.split(",")):
        place = folder / str(rows)
        place.mkdir(parents=True, exist_ok=True)
        write_upload(rows, place / "upload.parquet")
        for stage in options.stages.split(","):
            for who, engine in engines.items():
                # The ingest is no stage of the pipeline and knows no engine.
                if stage in {"ingest", "Trainer"} and who not in {MEMORY, PEER}:
                    continue
                costs.append(run_stage(stage, who, engine, place, rows))
                print(f"{stage} by {who}, {rows:,} rows: {costs[-1].cpu:.2f} CPU s", file=sys.stderr, flush=True)
        if rows == GOAL_ROWS and not options.no_end_to_end:
            seconds = end_to_end(place)
        if not options.keep:
            shutil.rmtree(place)
    print(table(costs))
    found = checks(costs)
    if not math.isnan(seconds):
        found.append(Check(f"wall seconds from upload to verdict, {GOAL_ROWS:,} rows", seconds, END_TO_END_SECONDS))
    print()
    for check in found:
        word = "reached" if check.reached else "MISSED"
        print(f"{word:<8} {check.what}: {check.measured:.2f} (limit {check.limit:.2f})")
    RESULTS.mkdir(exist_ok=True)
    content = {"costs": [asdict(c) for c in costs], "checks": [{**asdict(c), "reached": c.reached} for c in found]}
    (RESULTS / "scale.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    plot(costs, RESULTS / "scale.png")
    print(f"\nwritten: {RESULTS / 'scale.json'} and scale.png")
    return 0 if all(check.reached for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())

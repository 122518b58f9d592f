"""Cost of each stage from ten thousand to ten million rows, per engine, beside what a user would pick instead.

Every stage and every peer runs in a process of its own on one core; CPU seconds count, after the imports, so that other
work on the machine disturbs little. Ours and the peer take turns in the same run. Exit code 1 where a goal is missed:
each stage at most 3 times its peer at a million rows; what a further row costs no more than at smaller sizes; memory of
the Beam stages bounded by their bundles; and a million rows from upload to verdict for at most 10 times the peers' CPU
time together: whole processes with their imports, gates, exports and the push.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.scale_rows import write_upload  # noqa: E402
from benchmarks.scale_stages import COLUMNS_ONLY, DIRECT, MEMORY, PARQUET, PEER, STAGES  # noqa: E402
from bike_pipeline.data.rows import ROWS_PER_FILE  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
BEAM_STAGES = ("ExampleGen", "StatisticsGen", "Transform", "Evaluator")
GOAL_ROWS = 1_000_000
# A stored file full, so that memory can be compared; and enough rows for their cost to stand out from the fixed one.
SIZES = (10_000, 250_000, GOAL_ROWS)
LARGEST_RATIO = 3.0
# A further row may cost so many times what it costs between the sizes before: 1 is linear, 5 would be quadratic.
LARGEST_BEND = 1.5
# Peak memory above what the imports hold may grow by so much, as a factor or in MB, from one size to the largest.
LARGEST_GROWTH, SMALL_MB = 1.5, 100.0
# A whole run on all cores, in the CPU time of the peers of its stages.
LARGEST_END_TO_END = 10.0


@dataclass(frozen=True)
class Cost:
    """One stage by one engine at one size.

    Attributes:
        stage: the stage.
        who: "memory" (in the stage's process), "parquet" (the same, on spans stored as Parquet), "direct" or another
            Beam engine, "peer", or "columns" (a peer that writes no tf.Examples).
        rows: rows of the upload.
        cpu: CPU seconds after the imports.
        wall: wall seconds after the imports.
        resident: anonymous memory that the imports hold, MB.
        peak: largest anonymous memory, MB.
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


def of(costs: Sequence[Cost], stage: str, who: str) -> list[Cost]:
    """Return the costs of one stage by one engine, from the smallest size on."""
    return sorted((c for c in costs if (c.stage, c.who) == (stage, who)), key=lambda c: c.rows)


def marginal(small: Cost, large: Cost) -> float:
    """Return the CPU seconds of a further row between two sizes."""
    return (large.cpu - small.cpu) / (large.rows - small.rows)


def fixed(costs: Sequence[Cost]) -> float:
    """Return the CPU seconds that do not depend on the rows, from the two largest sizes of one stage; NaN for one."""
    return costs[-1].cpu - marginal(*costs[-2:]) * costs[-1].rows if len(costs) > 1 else math.nan


def bend(costs: Sequence[Cost]) -> float:
    """Return how much more a row costs between the two largest sizes of one stage than between those before.

    NaN where that cannot be told: of fewer than three sizes, or where the smaller sizes' rows cost nothing measurable.
    """
    if len(costs) < 3:
        return math.nan
    before = marginal(*costs[-3:-1])
    return marginal(*costs[-2:]) / before if before > 0 else math.nan


def checks(costs: Sequence[Cost]) -> list[Check]:
    """Return every goal that the sizes allow to be judged."""
    found = []
    for stage in STAGES:
        ours, peers = of(costs, stage, MEMORY), of(costs, stage, PEER)
        for mine, theirs in zip(ours, peers, strict=False):
            if mine.rows == theirs.rows == GOAL_ROWS:
                what = f"{stage}: CPU time / peer's at {GOAL_ROWS:,} rows"
                found.append(Check(what, mine.cpu / theirs.cpu, LARGEST_RATIO))
        # TFT builds and saves its graph however few the rows; what a row costs is told beside it.
        if stage == "Transform" and len(ours) > 1 and len(peers) > 1:
            ratio = marginal(*ours[-2:]) / marginal(*peers[-2:])
            found.append(Check(f"{stage}: CPU time of a further row / peer's", ratio, LARGEST_RATIO))
    for stage in STAGES:
        for who in sorted({cost.who for cost in costs} - {PEER, COLUMNS_ONLY}):
            mine = of(costs, stage, who)
            if len(mine) > 2:
                what = f"{stage}, {who}: a further row's CPU time / that at smaller sizes"
                found.append(Check(what, bend(mine), LARGEST_BEND))
            # Below a file's size a stage needs less than a file; only sizes above can show what does not grow.
            if stage in BEAM_STAGES and len(mine) > 1 and mine[-2].rows >= ROWS_PER_FILE:
                limit = max(mine[-2].needed * LARGEST_GROWTH, mine[-2].needed + SMALL_MB)
                what = f"{stage}, {who}: MB at {mine[-1].rows:,} rows, {mine[-2].needed:.0f} at {mine[-2].rows:,}"
                found.append(Check(what, mine[-1].needed, limit))
    return found


def unjudged(sizes: Sequence[int]) -> list[str]:
    """Return what cannot be judged of these sizes, a sentence each."""
    told = []
    if GOAL_ROWS not in sizes:
        told.append(f"CPU time beside the peers', and a whole run: {GOAL_ROWS:,} rows are not among the sizes")
    if len(sizes) < 3:
        told.append("growth: it takes three sizes")
    if sum(size >= ROWS_PER_FILE for size in sizes) < 2:
        told.append(f"memory: it takes two sizes of {ROWS_PER_FILE:,} rows or more")
    return told


@contextmanager
def server(log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the process that imports once and forks one a measurement; it and they use one core."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "scale_stages.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        try:
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait()


def run_stage(process: subprocess.Popen[str], stage: str, who: str, engine: str, folder: Path, rows: int) -> Cost:
    """Have a stage or its peer run in a process of its own.

    Raises:
        SystemExit: it failed; why is shown.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps({"stage": stage, "who": engine, "folder": str(folder)}), file=process.stdin, flush=True)
    answer: dict[str, Any] = json.loads(process.stdout.readline() or '{"error": "the server of stages ended"}')
    if "error" in answer:
        raise SystemExit(f"error: {stage} ({who}) failed at {rows:,} rows:\n{answer['error'][-3000:]}")
    return Cost(stage, who, rows, **answer)


def engines_of(stage: str, others: dict[str, str]) -> dict[str, str]:
    """Return what a stage is measured with, and how it is called: itself, the user's other Beam engines, its peers."""
    beam = {DIRECT: DIRECT, **others} if stage in BEAM_STAGES else {}
    stored = {PARQUET: PARQUET} if stage in {"ingest", "ExampleGen"} else {}
    columns = {COLUMNS_ONLY: COLUMNS_ONLY} if stage == "ExampleGen" else {}
    return {MEMORY: MEMORY, **stored, **beam, PEER: PEER, **columns}


def end_to_end(folder: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of ingest and a whole run of the pipeline on the folder's upload, on every core."""
    command = [sys.executable, "-m", "bike_pipeline.cli"]
    # The rows are copies of two real years, so that rows repeat and each second year's end meets another year's start.
    copied = [f"gate.severities.{kind}=ignore" for kind in ("REPEATED_ROWS", "LABEL_STEP", "LABEL_WEEK_LEVEL")]
    place = folder / "workspace"
    shutil.rmtree(place, ignore_errors=True)
    began, before = time.monotonic(), _children_cpu()
    for arguments in (["data", "ingest", str(folder / "upload.parquet")], ["run"]):
        result = subprocess.run(
            [*command, *arguments, *(word for a in (f"workspace={place}", *copied) for word in ("--set", a))],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        # 6: the run came to its end and the candidate was not good enough.
        if result.returncode not in {0, 6}:
            raise SystemExit(f"error: {arguments[0]} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return time.monotonic() - began, _children_cpu() - before


def _children_cpu() -> float:
    """Return the CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def end_to_end_check(costs: Sequence[Cost], cpu: float) -> Check:
    """Hold a whole run against the peers of all its stages together; missed where one of them was not measured."""
    peers = [cost.cpu for stage in STAGES for cost in of(costs, stage, PEER) if cost.rows == GOAL_ROWS]
    ratio = cpu / sum(peers) if len(peers) == len(STAGES) else math.nan
    return Check(f"CPU time from upload to verdict / all peers', {GOAL_ROWS:,} rows", ratio, LARGEST_END_TO_END)


def table(costs: Sequence[Cost]) -> str:
    """Return all costs as a table, and what is fixed and what is a row's of each stage and engine."""
    lines = [f"{'stage':<14} {'by':<8} {'rows':>10} {'CPU s':>8} {'rows/CPU s':>11} {'MB':>7} {'MB above imports':>17}"]
    for stage in STAGES:
        for cost in sorted((c for c in costs if c.stage == stage), key=lambda c: (c.rows, c.who)):
            speed = cost.rows / cost.cpu
            name = f"{stage:<14} {cost.who:<8} {cost.rows:>10,}"
            lines += [f"{name} {cost.cpu:>8.2f} {speed:>11,.0f} {cost.peak:>7,.0f} {cost.needed:>17,.0f}"]
    lines += ["", f"{'stage':<14} {'by':<8} {'fixed CPU s':>11} {'µs a further row':>17} {'/ that before':>14}"]
    for stage in STAGES:
        for who in sorted({c.who for c in costs if c.stage == stage}):
            mine = of(costs, stage, who)
            if len(mine) > 1:
                row, bent = marginal(*mine[-2:]) * 1e6, bend(mine)
                lines += [f"{stage:<14} {who:<8} {fixed(mine):>11.2f} {row:>17.2f} {bent:>14.2f}"]
    return "\n".join(lines)


def plot(costs: Sequence[Cost], path: Path) -> None:
    """Draw CPU seconds over rows, a panel a stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(13, 7), sharex=True, sharey=True)
    for axis, stage in zip(axes.flat, STAGES, strict=True):
        for who in sorted({c.who for c in costs if c.stage == stage}):
            mine = of(costs, stage, who)
            style = {PEER: "k--", COLUMNS_ONLY: "k:"}.get(who, "o-")
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
    parser.add_argument("--rows", default=",".join(map(str, SIZES)), help="sizes, separated by commas")
    parser.add_argument("--stages", default=",".join(STAGES), help="stages to measure; they need those before them")
    parser.add_argument(
        "--by", help="measure by these alone, such as memory,direct; they need what is stored before them"
    )
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
    others = dict(e.partition("=")[::2] for e in options.engine)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="scale-"))
    folder.mkdir(parents=True, exist_ok=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    costs: list[Cost] = []
    seconds = cpu = math.nan
    sizes = sorted(int(text) for text in options.rows.split(","))
    with server(RESULTS / "scale.log") as process:
        for rows in sizes:
            place = folder / str(rows)
            place.mkdir(parents=True, exist_ok=True)
            write_upload(rows, place / "upload.parquet")
            for stage in options.stages.split(","):
                for who, engine in engines_of(stage, others).items():
                    if options.by and who not in options.by.split(","):
                        continue
                    costs.append(run_stage(process, stage, who, engine, place, rows))
                    print(f"{stage} by {who}, {rows:,} rows: {costs[-1].cpu:.2f} CPU s", file=sys.stderr, flush=True)
            if rows == GOAL_ROWS and not options.no_end_to_end:
                seconds, cpu = end_to_end(place)
                print(f"a whole run of {rows:,} rows: {seconds:.0f} s, {cpu:.0f} CPU s", file=sys.stderr, flush=True)
            if not options.keep:
                shutil.rmtree(place)
    if not options.keep:
        shutil.rmtree(folder)
    print(table(costs))
    found = checks(costs)
    if not math.isnan(cpu):
        found.append(end_to_end_check(costs, cpu))
        print(f"\na whole run of {GOAL_ROWS:,} rows, upload to verdict: {seconds:.0f} s, {cpu:.0f} CPU s")
    print()
    for check in found:
        word = "reached" if check.reached else "MISSED"
        print(f"{word:<8} {check.what}: {check.measured:.2f} (limit {check.limit:.2f})")
    for told in unjudged(sizes):
        print(f"not judged  {told}")
    content = {"costs": [asdict(c) for c in costs], "checks": [{**asdict(c), "reached": c.reached} for c in found]}
    (RESULTS / "scale.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    plot(costs, RESULTS / "scale.png")
    print(f"\nwritten: {RESULTS / 'scale.json'} and scale.png")
    return 0 if all(check.reached for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())

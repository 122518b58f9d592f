"""Our `run` against the plain TFX way and against the floor, as whole processes with imports, on the embedded data.

All three do the same work: same rows, features, architecture, number of steps, metrics and slices. The plain way is
the pipeline as TFX's guide teaches it (`plain_tfx/`), the floor is polars and Keras with no pipeline at all (`floor/`).
They take turns, so that a machine that gets slower slows all, and the ratios of each round are what counts. Then the
run with nothing changed, the run as it is by default, with exports, and the second half of the data as a second span.
Exit code 1 where a goal is missed or a model is not as good as the others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import plots
from benchmarks.processes import ROOT, Timing, timed

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

OURS, PLAIN, FLOOR = "bike-pipeline run", "plain TFX", "floor (polars + Keras)"
EXPORTING = "bike-pipeline run, with exports"
AGAIN, SECOND = "bike-pipeline run, unchanged", "bike-pipeline run, second span"
# Which share of another's time may be taken: who, of whom, of which time, at most. With exports is the default run.
GOALS = (
    (OURS, PLAIN, "CPU", 0.25),
    (OURS, PLAIN, "wall", 0.25),
    (EXPORTING, FLOOR, "CPU", 2.0),
    (EXPORTING, FLOOR, "wall", 1.5),
    (AGAIN, OURS, "wall", 0.1),
)
# They train with other random numbers: so far apart may their errors be.
QUALITY_TOLERANCE = 0.1
# What stands between them in docs/benchmarks.md is written by `--page`.
MARKS = ("<!-- generated: whole run -->", "<!-- end -->")
IMPORTS, REST = "imports and start", "between and after the stages"


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        timings: every process by its name, one a round.
        stages: seconds by stage of the last round, with the time before the first and after the last one.
        second: state and seconds by stage of the run on the second span.
        mae: mean absolute error of the three models on the eval split of the first half, in rentals.
    """

    timings: dict[str, list[Timing]]
    stages: dict[str, dict[str, float]]
    second: dict[str, tuple[str, float]]
    mae: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """A goal, and the figures of each round that it is held against."""

    goal: str
    limit: float
    figures: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.figures)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached."""
        return self.median <= self.limit

    def __str__(self) -> str:
        """The verdict as a line."""
        rounds = ", ".join(f"{figure:.2f}" for figure in self.figures)
        said = "reached" if self.reached else "MISSED"
        return f"{self.goal}: {self.median:.2f} (rounds {rounds}); at most {self.limit:g}: {said}"


def verdicts(timings: dict[str, list[Timing]]) -> list[Verdict]:
    """Hold the figures against the goals, round by round."""
    return [
        Verdict(
            f"{time}, {who} / {other}",
            limit,
            tuple(
                getattr(a, time.lower()) / getattr(b, time.lower())
                for a, b in zip(timings[who], timings[other], strict=True)
            ),
        )
        for who, other, time, limit in GOALS
    ]


def table(timings: dict[str, list[Timing]]) -> str:
    """Return the figures as text: median and range of each."""
    lines = [f"{'':32s} {'wall s':>20s} {'CPU s':>20s} {'memory MB':>10s}"]
    for name, runs in timings.items():
        figures = ([t.wall for t in runs], [t.cpu for t in runs])
        cells = [f"{statistics.median(f):6.1f} ({min(f):.1f}-{max(f):.1f})" for f in figures]
        lines.append(f"{name:32s} {cells[0]:>20s} {cells[1]:>20s} {max(t.memory for t in runs):10.0f}")
    return "\n".join(lines)


def stage_table(stages: dict[str, dict[str, float]]) -> str:
    """Return the seconds by part of the work as text, one column a contestant."""
    parts = {name: plots.parts_of(found) for name, found in stages.items()}
    lines = [f"{'seconds (last round)':32s}" + "".join(f"{name:>36s}" for name in stages)]
    lines.extend(f"{part:32s}" + "".join(f"{found[part]:36.1f}" for found in parts.values()) for part in plots.PARTS)
    return "\n".join(lines)


def second_span_table(first: dict[str, float], second: dict[str, tuple[str, float]]) -> str:
    """Return what the second span made work again, beside what the same stages took on the first."""
    lines = [f"{'the second span':32s} {'state':>8s} {'s':>6s} {'first span, s':>14s}"]
    for name, (state, seconds) in second.items():
        lines.append(f"{name:32s} {state:>8s} {seconds:6.1f} {first.get(name, 0.0):14.1f}")
    return "\n".join(lines)


def markdown(measured: Measured) -> str:
    """Return the figures as the tables of docs/benchmarks.md."""
    lines = ["| | wall s | CPU s | memory MB |", "|---|---|---|---|"]
    for name, runs in measured.timings.items():
        wall, cpu = (statistics.median(getattr(t, time) for t in runs) for time in ("wall", "cpu"))
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {max(t.memory for t in runs):,.0f} |")
    lines += ["", "| goal | median | rounds | at most | |", "|---|---|---|---|---|"]
    for verdict in verdicts(measured.timings):
        rounds = ", ".join(f"{figure:.2f}" for figure in verdict.figures)
        reached = "reached" if verdict.reached else "**missed**"
        lines.append(f"| {verdict.goal} | {verdict.median:.2f} | {rounds} | {verdict.limit:g} | {reached} |")
    parts = {name: plots.parts_of(found) for name, found in measured.stages.items()}
    lines += ["", f"| wall seconds | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    lines += [f"| {part} | {' | '.join(f'{found[part]:.1f}' for found in parts.values())} |" for part in plots.PARTS]
    lines += ["", "| stage | second span | s | first span, s |", "|---|---|---|---|"]
    first = measured.stages[OURS]
    lines += [f"| {n} | {state} | {s:.1f} | {first.get(n, 0.0):.1f} |" for n, (state, s) in measured.second.items()]
    mae = ", ".join(f"{name} {error:.1f}" for name, error in measured.mae.items())
    return "\n".join([*lines, "", f"MAE on the eval split: {mae}."])


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the page's two marks of generated text."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    if not after:
        raise SystemExit(f"error: {page} lacks the marks {' and '.join(MARKS)}")
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


def sound(mae: dict[str, float]) -> bool:
    """Return whether the models are equally good, so that the comparison means something."""
    errors = list(mae.values())
    return max(errors) - min(errors) <= QUALITY_TOLERANCE * max(errors)


def stage_seconds(metadata_file: Path, timing: Timing) -> dict[str, float]:
    """Return the seconds of each stage of a workspace's first run, and of what lies before, between and after them."""
    from bike_pipeline.lineage.store.connection import open_at
    from bike_pipeline.lineage.store.metadata_store import Lineage

    lineage = Lineage(open_at(f"sqlite://{metadata_file}"))
    run = lineage.runs()[0]
    executions = lineage.store.get_executions_by_id([stage.execution_id for stage in run.stages])
    first = min(execution.create_time_since_epoch for execution in executions) / 1000
    found = {IMPORTS: first - timing.began, **{stage.name: stage.seconds for stage in run.stages}}
    return {**found, REST: max(0.0, timing.wall - sum(found.values()))}


def _plain_mae(workspace: Path) -> float:
    import tensorflow_model_analysis as tfma

    folder = max((workspace / "artifacts" / "Evaluator" / "evaluation").iterdir(), key=lambda path: int(path.name))
    for record in tfma.load_metrics(str(folder)):
        for entry in record.metric_keys_and_values:
            if not record.slice_key.single_slice_keys and entry.key.name == "mean_absolute_error":
                return float(entry.value.double_value.value)
    raise SystemExit(f"error: the plain pipeline's evaluation holds no overall MAE: {folder}")


def _commands(folder: Path, settings: Settings, version: str, number: int) -> dict[str, list[str]]:
    """Return the command of each contestant for one round, with folders of its own."""
    ours, plain = folder / f"ours-{number}", folder / f"plain-{number}"
    plain.mkdir()
    written = ["--settings", str(folder / "settings.json")]
    run = [sys.executable, "-m", "bike_pipeline.cli", "run", "--set", f"workspace={ours}"]
    # The others export nothing: against them, what a run does for devices is left out.
    run += ["--set", f"data.store={settings.store_uri}"]
    exporting = [word.replace(str(ours), f"{ours}-exporting") for word in run]
    run += ["--set", "exporting.formats=[saved_model]"]
    script = [sys.executable, str(ROOT / "benchmarks" / "plain_tfx" / "pipeline.py"), "--spans", settings.store_uri]
    script += ["--schema", str(settings.schema_path), "--workspace", str(plain), *written]
    floor = [sys.executable, str(ROOT / "benchmarks" / "floor" / "pipeline.py"), "--version", version]
    floor += ["--report", str(folder / f"floor-{number}.json"), *written]
    # The unchanged run stands right behind the one that it repeats, and what is compared beside each other.
    return {PLAIN: script, OURS: run, AGAIN: run, EXPORTING: exporting, FLOOR: floor}


def measure(rounds: int, folder: Path) -> Measured:
    """Run all contestants `rounds` times in turns, then the second span once."""
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.store.connection import open_at
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.log_capture import captured
    from bike_pipeline.settings import load_settings

    settings = load_settings(assignments=(f"data.store={folder / 'spans'}",))
    halves = split_demo(folder / "uploads")
    ingest(settings, str(halves[0]))
    (folder / "settings.json").write_text(settings.model_dump_json(), encoding="utf-8")
    version = SpanStore(settings.store_uri).latest().uri
    timings: dict[str, list[Timing]] = {name: [] for name in (OURS, EXPORTING, PLAIN, FLOOR, AGAIN, SECOND)}
    log = folder / "output.log"
    for number in range(1, rounds + 1):
        print(f"round {number} of {rounds} …", file=sys.stderr, flush=True)
        commands = _commands(folder, settings, version, number)
        for name, command in commands.items():
            timings[name].append(timed(command, log))
        if not any((folder / f"plain-{number}" / "serving").glob("*/saved_model.pb")):
            raise SystemExit(f"error: the plain pipeline pushed no model; its output: {log}")
    ours, plain = (folder / f"{name}-{rounds}" for name in ("ours", "plain"))
    stages = {
        OURS: stage_seconds(ours / "metadata.sqlite", timings[OURS][-1]),
        EXPORTING: stage_seconds(folder / f"ours-{rounds}-exporting" / "metadata.sqlite", timings[EXPORTING][-1]),
        PLAIN: stage_seconds(plain / "metadata.sqlite", timings[PLAIN][-1]),
    }
    floor = json.loads((folder / f"floor-{rounds}.json").read_text(encoding="utf-8"))
    stages[FLOOR] = {IMPORTS: floor["stages"].pop("imports"), **floor["stages"]}
    stages[FLOOR][REST] = timings[FLOOR][-1].wall - sum(stages[FLOOR].values())
    mae = {OURS: Lineage(open_at(f"sqlite://{ours}/metadata.sqlite")).models()[-1].metrics["mae"]}
    mae[FLOOR] = floor["metrics"]["overall"][0]["mae"]
    with captured(log):
        mae[PLAIN] = _plain_mae(plain)
    print("the second span …", file=sys.stderr, flush=True)
    ingest(settings, str(halves[1]))
    timings[SECOND].append(timed(commands[OURS], log))
    run = Lineage(open_at(f"sqlite://{ours}/metadata.sqlite")).runs()[-1]
    return Measured(timings, stages, {stage.name: (stage.state, stage.seconds) for stage in run.stages}, mae)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds to run (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw where each second goes into this PNG file")
    parser.add_argument("--page", type=Path, help="write the tables into this page, docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    folder = Path(tempfile.mkdtemp(prefix="bike-pipeline-benchmark-"))
    measured = measure(options.rounds, folder)
    shutil.rmtree(folder)
    reached = verdicts(measured.timings)
    print(table(measured.timings), stage_table(measured.stages), sep="\n\n")
    print("", second_span_table(measured.stages[OURS], measured.second), sep="\n")
    print("\nMAE on the eval split: " + ", ".join(f"{name} {error:.1f}" for name, error in measured.mae.items()))
    print("", *reached, sep="\n")
    if options.json:
        content = {**asdict(measured), "verdicts": [{**asdict(v), "reached": v.reached} for v in reached]}
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if options.page:
        put_into(options.page, markdown(measured))
    if options.plot:
        plots.draw_stages(measured.stages, options.plot)
    if not sound(measured.mae):
        print("the models are not equally good: the comparison means nothing", file=sys.stderr)
        return 1
    return 0 if all(verdict.reached for verdict in reached) else 1


if __name__ == "__main__":
    sys.exit(main())

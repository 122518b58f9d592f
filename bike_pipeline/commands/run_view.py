"""What a person sees of a run: a live table in a terminal, plain lines elsewhere, and the result at the end."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bike_pipeline import features
from bike_pipeline.commands.shared import METRIC_NAMES, table
from bike_pipeline.run_events import RunObserver, RunResult, StageResult

if TYPE_CHECKING:
    from bike_pipeline.use_cases.run import CompletedRun, IngestedHalf

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✔", "green"),
    "cached": ("=", "blue"),
    "failed": ("✘", "bold red"),
}
_WORST_SLICES = 5
# Metrics beside their baseline.
_SHOWN = 4
_NEXT_STEPS = (
    ("make retrain", "the second half arrives: train again, against this model"),
    ("bike-pipeline models", "what was trained, blessed and served"),
    ("bike-pipeline runs", "what ran, and how it ended"),
    ("bike-pipeline data ingest YOUR.csv", "the next span, from your own rows"),
)
_EXAMPLE = (
    '{"dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1, '
    '"temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2}'
)


def view_on(console: Console, *, silent: bool = False) -> AbstractContextManager[RunObserver]:
    """Return what shows a run on a console while it goes on."""
    if silent:
        return nullcontext(RunObserver())
    return TableView(console) if console.is_terminal else nullcontext(LinesView(console))


class LinesView(RunObserver):
    """One line a finished stage, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def loading(self) -> None:
        self._console.print("loading TensorFlow and TFX …")

    def planned(self, stages: list[str]) -> None:
        self._console.print(f"{len(stages)} stages: {' → '.join(stages)}", soft_wrap=True)

    def finished(self, result: StageResult) -> None:
        line = f"{result.name:18s} {result.state:8s} {result.seconds:7.1f} s  {result.outcome}"
        self._console.print(Text(line.rstrip()), soft_wrap=True)


class TableView(RunObserver):
    """A table of all stages that is drawn anew while they work."""

    def __init__(self, console: Console) -> None:
        self._rows: dict[str, StageResult] = {}
        self._began = time.monotonic()
        # When each running stage began, and its last report.
        self._running: dict[str, tuple[float, str]] = {}
        self._doing = "looking for what has changed"
        # What libraries write to the standard streams belongs into the log file, not above the table.
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> TableView:
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._running = {}
        self._live.__exit__(*error)

    def loading(self) -> None:
        self._doing = "loading TensorFlow and TFX"

    def planned(self, stages: list[str]) -> None:
        self._rows = {name: StageResult(name, 0, "waiting", 0.0, "") for name in stages}

    def started(self, stage: str) -> None:
        self._running[stage] = (time.monotonic(), "")

    def progressed(self, stage: str, fraction: float, text: str) -> None:
        filled = round(fraction * 10)
        began, _ = self._running.get(stage, (time.monotonic(), ""))
        self._running[stage] = (began, f"{'━' * filled}{'╌' * (10 - filled)} {text}")

    def finished(self, result: StageResult) -> None:
        self._running.pop(result.name, None)
        self._rows[result.name] = result

    def _render(self) -> RenderableType:
        if not self._rows:
            return Text(f"▶ {self._doing} … {time.monotonic() - self._began:.0f} s", style="cyan")
        rows = []
        # The table is drawn by a thread of its own while stages come and go.
        running = dict(self._running)
        for name, row in self._rows.items():
            state, seconds, note = row.state, row.seconds, row.outcome
            if name in running:
                began, note = running[name]
                state, seconds = "running", time.monotonic() - began
            mark, style = _MARKS[state]
            shown = f"{seconds:.1f}" if state != "waiting" else ""
            rows.append((Text(f"{mark} {name}", style=style), Text(state, style=style), shown, Text(note)))
        return table(("stage", "state", "seconds", "what came out"), rows, right=("seconds",))


def ingested_half(half: IngestedHalf) -> list[RenderableType]:
    """Return what became of a half of the embedded data."""
    verb = "ingested" if half.created else "already there:"
    where = f"span {half.span} version {half.version}, {half.rows:,} rows"
    return [f"half {half.number} of the embedded data {verb} as {where}", *([half.tracking] if half.tracking else [])]


def outcome(result: CompletedRun) -> list[RenderableType]:
    """Return how a run ended: its tables, what serves now, and what can be done next."""
    shown = [result_tables(result), ""]
    version, serving = result.pushed_version, result.promoted_version
    if version is None:
        shown.append(Text("not pushed: the candidate is not blessed; the serving model stays", style="bold red"))
    else:
        state = "serving" if serving == version else "pushed"
        verb = "pushed" if result.newly_pushed else f"nothing new: {state} already"
        shown.append(Text(f"{verb}: version {version} in {result.destination}", style="bold green"))
        if serving != version:
            still = f"version {serving} serves" if serving is not None else "no version serves"
            promote = f"`bike-pipeline promote {version}` promotes this one"
            shown.append(Text(f"not promoted: {still}; {promote}", style="bold yellow"))
        shown.append("next:")
        first_span = any(stage.outcome.startswith("span 1 ") for stage in result.stages)
        shown += [f"  {step:42s} {meaning}" for step, meaning in (_NEXT_STEPS if first_span else _NEXT_STEPS[1:])]
        shown.append(f"  bike-pipeline predict '{_EXAMPLE}'")
    return [*shown, *([result.tracking] if result.tracking else [])]


def result_tables(result: RunResult) -> RenderableType:
    """Return candidate against baseline, overall and on the worst slices, and every gate's decision."""
    report: Any = result.decisions
    candidate = {(row["slicing"], row["slice"]): row for row in report["candidate_metrics"]}
    baseline = {(row["slicing"], row["slice"]): row for row in report["baseline_metrics"]}
    return Group(
        Text(f"\ncandidate against the baseline ({report['baseline']['reason']})", style="bold"),
        _comparison(candidate, baseline),
        *_changes(report),
        Text("\ngates", style="bold"),
        _decisions(report),
    )


def _comparison(candidate: dict[Any, Any], baseline: dict[Any, Any]) -> Table:
    # With a baseline the numbers just fit into 80 columns; in less they are folded, never cut.
    made = Table(box=None, pad_edge=False, collapse_padding=bool(baseline))
    made.add_column("rows of the eval split", overflow="fold")
    made.add_column("rows", justify="right", overflow="fold")
    shown = features.answer_measured(candidate["overall", ""]).metrics[:_SHOWN]
    for metric in shown:
        made.add_column(METRIC_NAMES[metric], justify="right", overflow="fold")
        if baseline:
            made.add_column("baseline", justify="right", style="dim", overflow="fold")
    slices = sorted((k for k in candidate if k[0] != "overall"), key=lambda k: -_error_of(candidate[k], shown[0]))
    for key in [("overall", ""), *slices[:_WORST_SLICES]]:
        row = candidate[key]
        cells = [features.slice_name(*key), f"{row['rows']:,.0f}"]
        for metric in shown:
            cells.append(_number(metric, row.get(metric)))
            if baseline:
                cells.append(_number(metric, baseline.get(key, {}).get(metric)))
        made.add_row(*cells, style="bold" if key[0] == "overall" else None)
    return made


def _changes(report: Any) -> list[RenderableType]:
    """Return how sure each change against the baseline is, overall and on the slices that got worse most."""
    changes = [d for d in report["decisions"] if d["kind"] == "change" and d.get("low") is not None]
    worst = report.get("worst_slice")
    # Where all got better, the worst one is no fault.
    better = worst and (worst.get("change") or 0.0) < 0
    title = "the slice that got least better, of those that decide" if better else "worst slice of those that decide"
    notes = [Text(f"{title}: {worst['reason']}")] if worst else []
    if backtest := report.get("backtest"):
        notes.append(Text(f"intervals and feedback on the eval split: {backtest['reason']}"))
    if not changes:
        return [*notes]
    overall = [d for d in changes if d["slicing"] == "overall"]
    slices = sorted((d for d in changes if d["slicing"] != "overall"), key=lambda d: -d["value"])
    title = f"change against the baseline, its {report['confidence']:.0%} interval by weeks or days, and what that says"
    rows = []
    for d in overall + slices[:_WORST_SLICES]:
        name = f"{METRIC_NAMES[d['metric']]} {features.slice_name(d['slicing'], d['slice'])}"
        blocks = f"{d['blocks']} {'weeks' if d['block_days'] > 1 else 'days'}"
        rows.append((name, f"{d['value']:+.1%}", f"{d['low']:+.1%} to {d['high']:+.1%}", blocks, d["word"]))
    made = table(("name", "change", "interval", "blocks", "word"), rows, header=False)
    return [Text(f"\n{title}", style="bold"), made, *notes]


def _error_of(row: Any, metric: str) -> float:
    """Return a slice's error; one that is not a number is the worst."""
    return math.inf if row[metric] is None else float(row[metric])


def _decisions(report: Any) -> Table:
    decisions = report["decisions"]
    passed = Text("✔ passed", style="green")
    note = Text("· note", style="yellow")
    failed = [d for d in decisions if not d["passed"] and d["binding"]]
    rows = [(Text("✘ failed", style="bold red"), Text(d["reason"])) for d in failed]
    rows += [(passed, Text(d["reason"])) for d in decisions if d["slicing"] == "overall" and d["passed"]]
    slices = [d for d in decisions if d["slicing"] != "overall" and d["passed"] and d["binding"]]
    if slices:
        rows.append((passed, Text(f"{len(slices)} limits on slices")))
    not_judged: dict[str, list[str]] = {}
    for decision in decisions:
        if decision["passed"] or decision["binding"]:
            continue
        if why := decision.get("note"):
            not_judged.setdefault(why, []).append(features.slice_name(decision["slicing"], decision["slice"]))
        else:
            rows.append((note, Text(decision["reason"])))
    rows += [(note, Text(f"not judged: {', '.join(names)}: {why}")) for why, names in not_judged.items()]
    warning = "bold yellow"
    rows += [(Text("! WARNING", style=warning), Text(w, style=warning)) for w in report.get("warnings") or ()]
    return table(("mark", "reason"), rows, header=False)


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric == "bias":
        return f"{value:+.1%}"
    return f"{value:.1f}" if metric in ("mae", "rmse") else f"{value:.3f}"

"""What a person sees of a run: a live table in a terminal, plain lines elsewhere, and the result at the end."""

from __future__ import annotations

import math
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bike_pipeline import features
from bike_pipeline.run_events import RunResult, StageResult

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▶", "bold cyan"),
    "done": ("✔", "green"),
    "cached": ("=", "blue"),
    "failed": ("✘", "bold red"),
}
METRIC_NAMES = {"mae": "MAE", "rmse": "RMSE", "rmsle": "RMSLE", "bias": "bias", "calibration": "calibration"}
WORST_SLICES = 5


class LinesView:
    """One line a finished stage, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        """Print to `console`."""
        self._console = console

    def __enter__(self) -> LinesView:
        """Say nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left open."""

    def loading(self) -> None:
        """Say that the start takes a while."""
        self._console.print("loading TensorFlow and TFX …")

    def planned(self, stages: list[str]) -> None:
        """Say how many stages there are."""
        self._console.print(f"{len(stages)} stages: {' → '.join(stages)}", soft_wrap=True)

    def started(self, stage: str) -> None:
        """Say nothing: the line comes when the stage is over."""

    def progressed(self, stage: str, fraction: float, text: str) -> None:
        """Say nothing: lines are for what is over."""

    def finished(self, result: StageResult) -> None:
        """Print the stage's line."""
        line = f"{result.name:18s} {result.state:8s} {result.seconds:7.1f} s  {result.outcome}"
        self._console.print(Text(line.rstrip()), soft_wrap=True)


class SilentView(LinesView):
    """Says nothing; the result is printed as JSON."""

    def __enter__(self) -> SilentView:
        """Say nothing."""
        return self

    def loading(self) -> None:
        """Say nothing."""

    def planned(self, stages: list[str]) -> None:
        """Say nothing."""

    def finished(self, result: StageResult) -> None:
        """Say nothing."""


class TableView:
    """A table of all stages that is drawn anew while they work."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._rows: dict[str, StageResult] = {}
        self._began = time.monotonic()
        # When each running stage began, and what it last said of itself.
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
        """Begin to draw."""
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Draw a last time and leave the table standing."""
        self._running = {}
        self._live.__exit__(*error)

    def loading(self) -> None:
        """Show that the start takes a while."""
        self._doing = "loading TensorFlow and TFX"

    def planned(self, stages: list[str]) -> None:
        """Show every stage as waiting."""
        self._rows = {name: StageResult(name, 0, "waiting", 0.0, "") for name in stages}

    def started(self, stage: str) -> None:
        """Show a stage as running."""
        self._running[stage] = (time.monotonic(), "")

    def progressed(self, stage: str, fraction: float, text: str) -> None:
        """Show what a running stage is doing."""
        filled = round(fraction * 10)
        began, _ = self._running.get(stage, (time.monotonic(), ""))
        self._running[stage] = (began, f"{'━' * filled}{'╌' * (10 - filled)} {text}")

    def finished(self, result: StageResult) -> None:
        """Show how a stage ended."""
        self._running.pop(result.name, None)
        self._rows[result.name] = result

    def _render(self) -> RenderableType:
        if not self._rows:
            return Text(f"▶ {self._doing} … {time.monotonic() - self._began:.0f} s", style="cyan")
        table = Table(box=None, pad_edge=False)
        table.add_column("stage")
        table.add_column("state")
        table.add_column("seconds", justify="right")
        table.add_column("what came out", overflow="fold")
        # The table is drawn by a thread of its own while stages come and go.
        running = dict(self._running)
        for name, row in self._rows.items():
            state, seconds, note = row.state, row.seconds, row.outcome
            if name in running:
                began, note = running[name]
                state, seconds = "running", time.monotonic() - began
            mark, style = _MARKS[state]
            shown = f"{seconds:.1f}" if state != "waiting" else ""
            table.add_row(Text(f"{mark} {name}", style=style), Text(state, style=style), shown, Text(note))
        return table


def result_tables(result: RunResult) -> RenderableType:
    """Return candidate against baseline, overall and on the worst slices, and every gate's decision."""
    report: Any = result.decisions
    candidate = {(row["slicing"], row["slice"]): row for row in report["candidate_metrics"]}
    baseline = {(row["slicing"], row["slice"]): row for row in report["baseline_metrics"]}
    return Group(
        Text(f"\ncandidate against the baseline ({report['baseline']['reason']})", style="bold"),
        _comparison(candidate, baseline),
        Text("\ngates", style="bold"),
        _decisions(report),
    )


def _comparison(candidate: dict[Any, Any], baseline: dict[Any, Any]) -> Table:
    # With a baseline the numbers just fit into 80 columns; in less they are folded, never cut.
    table = Table(box=None, pad_edge=False, collapse_padding=bool(baseline))
    table.add_column("rows of the eval split", overflow="fold")
    table.add_column("rows", justify="right", overflow="fold")
    for metric in ("mae", "rmse", "rmsle", "bias"):
        table.add_column(METRIC_NAMES[metric], justify="right", overflow="fold")
        if baseline:
            table.add_column("baseline", justify="right", style="dim", overflow="fold")
    slices = sorted((k for k in candidate if k[0] != "overall"), key=lambda k: -_error_of(candidate[k]))
    for key in [("overall", ""), *slices[:WORST_SLICES]]:
        row = candidate[key]
        cells = [features.slice_name(*key), f"{row['rows']:,.0f}"]
        for metric in ("mae", "rmse", "rmsle", "bias"):
            cells.append(_number(metric, row.get(metric)))
            if baseline:
                cells.append(_number(metric, baseline.get(key, {}).get(metric)))
        table.add_row(*cells, style="bold" if key[0] == "overall" else None)
    return table


def _error_of(row: Any) -> float:
    """Return a slice's MAE; one that is not a number is the worst."""
    return math.inf if row["mae"] is None else float(row["mae"])


def _decisions(report: Any) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("mark")
    table.add_column("reason", overflow="fold")
    decisions = report["decisions"]
    failed = [d for d in decisions if not d["passed"] and d["binding"]]
    overall = [d for d in decisions if d["slicing"] == "overall" and d["passed"]]
    reported = [d for d in decisions if not d["passed"] and not d["binding"]]
    for decision in failed:
        table.add_row(Text("✘ failed", style="bold red"), Text(decision["reason"]))
    for decision in overall:
        table.add_row(Text("✔ passed", style="green"), Text(decision["reason"]))
    slices = [d for d in decisions if d["slicing"] != "overall" and d["passed"] and d["binding"]]
    if slices:
        table.add_row(Text("✔ passed", style="green"), Text(f"{len(slices)} limits on slices"))
    not_judged: dict[str, list[str]] = {}
    for decision in reported:
        if note := decision.get("note"):
            not_judged.setdefault(note, []).append(features.slice_name(decision["slicing"], decision["slice"]))
        else:
            table.add_row(Text("· note", style="yellow"), Text(decision["reason"]))
    for note, names in not_judged.items():
        table.add_row(Text("· note", style="yellow"), Text(f"not judged: {', '.join(names)}: {note}"))
    for warning in report.get("warnings") or ():
        table.add_row(Text("! WARNING", style="bold yellow"), Text(warning, style="bold yellow"))
    return table


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    if metric == "bias":
        return f"{value:+.1%}"
    return f"{value:.3f}" if metric == "rmsle" else f"{value:.1f}"

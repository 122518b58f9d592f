"""How good the model is: the served model and gradient-boosted trees of four libraries on six protocols, in one run.

The served model is this project's own transforms, architecture and training with the settings of configs/base.yaml, for
three seeds (P5: one). The peers run in an environment of their own and choose columns and objective inside the training
rows. Exit code 1 if the served model misses what it must reach, or any peer of the run is better. What the same models
answer a client that sends no optional input is a row of its own, which is not judged. What they answer with labels that
come 1, 7 and 14 days late has limits of its own and no peer. Intervals of 90 % are judged by their score, and by the
share of labels that they hold, overall and on each slice of the gate. One hour ahead (P6) the served model is asked
with the labels of the last 24 hours, as the peers are; it has no limits there but the best peer's scores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import plots
from benchmarks.processes import ROOT
from benchmarks.quality import hour_ahead, later_labels, served
from benchmarks.quality.hour_ahead import QuantileScores
from benchmarks.quality.later_labels import Intervals
from benchmarks.quality.protocols import FORWARD, HOUR_AHEAD, Array, Split, Table, inner_splits, read, splits
from benchmarks.quality.scores import NO_LIMIT, Scores, Verdict, mean, scores, verdicts

if TYPE_CHECKING:
    from bike_pipeline.settings.training import TrainingSettings

PROTOCOLS = ("P1", "P2", "P3", "P4", "P5", HOUR_AHEAD)
SEEDS = (20110101, 20110102, 20110103)
SERVED = "served model"
REQUIRED_ONLY = "served model, without the optional inputs"
LAST_DAY = "served model, last 24 hours known"
# What makes the environment of each kind of peers.
TARGETS = {"peers": "benchmark-quality", "automl": "benchmark-automl"}


def of_splits(table: Table, parts: Sequence[Split], answers: Sequence[Sequence[float]]) -> Scores:
    """Return the mean scores of the answers to the test rows of each split."""
    return mean([scores(table["cnt"][s.test], np.asarray(a)) for s, a in zip(parts, answers, strict=True)])


def run_peers(python: str, peers: str, data: Path, protocols: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the peers, "peers" or "automl" of `benchmarks.quality`, answer; SystemExit if they cannot run."""
    with tempfile.TemporaryDirectory(prefix="bike-quality-") as folder:
        out = Path(folder) / "peers.jsonl"
        command = [python, "-m", f"benchmarks.quality.{peers}", "--data", str(data), "--out", str(out), *protocols]
        # A thread each, as the served model's trees have: some libraries have no setting for it.
        if subprocess.run(command, cwd=ROOT, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode:
            raise SystemExit(f"error: the {peers} did not run; `make {TARGETS[peers]}` makes their environment")
        return [json.loads(line) for line in out.read_text().splitlines()]


@dataclass
class Served:
    """What the served model did on a protocol.

    Attributes:
        scores: of each seed, by row of the table: `SERVED`, `REQUIRED_ONLY`, and with labels that come late.
        seconds: of processor, for a training.
        intervals: those of the first seed; None where the protocol has none.
        quantiles: (rows, quantiles) of the first seed by row of the table; one hour ahead alone.
    """

    scores: dict[str, list[Scores]]
    seconds: float
    intervals: Intervals | None = None
    quantiles: dict[str, Array] = field(default_factory=dict)


def fed_back(late: int) -> str:
    """Return the name of the row with labels that come so many days late."""
    return f"{SERVED}, labels {late} day{'s' if late > 1 else ''} late"


def run_served(table: Table, protocol: str, settings: TrainingSettings) -> Served:
    """Return what the served model does; all rows are of the same trained models."""
    parts, seconds, found = splits(table, protocol), [], dict[str, list[Scores]]()
    training, intervals, quantiles = settings.model_dump(mode="json"), None, dict[str, Array]()
    for seed in SEEDS[:1] if protocol == "P5" else SEEDS:
        answers = [served.answers(table, split, training, seed) for split in parts]
        rentals = [a.rentals.tolist() for a in answers]
        rows = {SERVED: rentals, REQUIRED_ONLY: [a.without_optional.tolist() for a in answers]}
        for of, late in later_labels.LIMITS:
            if of == protocol:
                rows[fed_back(late)] = later_labels.fed_back(table, parts, rentals, settings.feedback, late)
        if protocol == HOUR_AHEAD:
            by_days, last_day = hour_ahead.answers(table, parts[0].test, rentals[0], settings.feedback)
            for name, moved in ((fed_back(1), by_days), (LAST_DAY, last_day)):
                rows[name] = [moved.rentals.tolist()]
                quantiles.setdefault(name, moved.quantiles)
        for name, values in rows.items():
            found.setdefault(name, []).append(of_splits(table, parts, values))
        seconds.append(sum(a.seconds for a in answers))
        print(f"{protocol} {SERVED}, seed {seed}: RMSE {found[SERVED][-1].rmse:.1f}", file=sys.stderr)
        if intervals is None and protocol in later_labels.INTERVAL_SCORES:
            intervals = _intervals(table, protocol, parts[0], answers[0].rentals, settings)
    return Served(found, float(np.mean(seconds)), intervals, quantiles)


def _intervals(table: Table, protocol: str, split: Split, rentals: Array, settings: TrainingSettings) -> Intervals:
    if protocol in FORWARD:
        return later_labels.of_replay(table, split.test, rentals.tolist(), settings.feedback)
    inner = inner_splits(table, protocol, split.train)[0]
    held_out = served.answers(table, inner, settings.model_dump(mode="json"), SEEDS[0]).rentals
    return later_labels.of_held_out(table, split.test, rentals, inner.test, held_out, settings.feedback)


def table_of(protocol: str, rows: dict[str, tuple[Scores, str, float]]) -> str:
    """Return a protocol's contestants as a table, best RMSE first."""
    lines = [f"{protocol:41} {'RMSE':>7} {'MAE':>7} {'RMSLE':>7} {'R²':>6} {'bias':>7} {'CPU s':>7}  columns"]
    for name, (found, recipe, seconds) in sorted(rows.items(), key=lambda item: item[1][0].rmse):
        lines.append(
            f"{name:41} {found.rmse:7.1f} {found.mae:7.1f} {found.rmsle:7.3f} {found.r2:6.3f} {found.bias:+7.1%} "
            f"{seconds:7.1f}  {recipe}"
        )
    return "\n".join(lines)


def judged_of(protocol: str, rows: dict[str, Scores]) -> list[Verdict]:
    """Return the verdicts on the served model among a protocol's rows: all that are not its own are its peers."""
    peers = {name: result for name, result in rows.items() if not name.startswith(SERVED)}
    found = verdicts(protocol, rows.get(LAST_DAY if protocol == HOUR_AHEAD else SERVED), peers)
    for (of, late), (must, goal) in later_labels.LIMITS.items():
        if of == protocol:
            figure = rows[name].rmse if (name := fed_back(late)) in rows else math.nan
            found.append(Verdict(f"{protocol} RMSE, labels {late} late", figure, must, goal, None, needs_peer=False))
    return found


def judged_intervals(protocol: str, intervals: Intervals | None) -> list[Verdict]:
    """Return the verdicts on the intervals of a protocol that has limits for them."""
    if protocol not in later_labels.INTERVAL_SCORES:
        return []
    limit, slices = later_labels.INTERVAL_SCORES[protocol], later_labels.SLICE_COVERAGE_ERROR
    score, error, worst = math.nan, math.nan, math.nan
    if intervals:
        score, error, worst = intervals.score, abs(intervals.coverage - 0.9), abs(intervals.worst[1] - 0.9)
    judged = (
        ("interval score", score, limit),
        ("coverage error", error, later_labels.COVERAGE_ERROR),
        ("worst slice's", worst, slices),
    )
    return [Verdict(f"{protocol} {name}", value, most, most, None, needs_peer=False) for name, value, most in judged]


def scores_of_quantiles(table: Table, found: Mapping[str, Array]) -> dict[str, QuantileScores]:
    """Return how the quantiles of each contestant did one hour ahead, on the rows that all have quantiles of."""
    if not found:
        return {}
    (split,) = splits(table, HOUR_AHEAD)
    known = np.all([np.isfinite(quantiles).all(axis=1) for quantiles in found.values()], axis=0)
    return {name: hour_ahead.quantile_scores(table, split.test, quantiles, known) for name, quantiles in found.items()}


def judged_quantiles(found: Mapping[str, QuantileScores]) -> list[Verdict]:
    """Return the verdicts on the served model's quantiles one hour ahead."""
    own = found.get(LAST_DAY)
    peers = {name: result for name, result in found.items() if not name.startswith(SERVED)}
    judged = []
    for place, score in enumerate(("pinball", "interval score")):
        figures = {name: (one.pinball, one.intervals.score)[place] for name, one in peers.items()}
        best = min(figures.items(), key=lambda peer: peer[1]) if figures else None
        figure = math.nan if own is None else (own.pinball, own.intervals.score)[place]
        judged.append(Verdict(f"{HOUR_AHEAD} {score}", figure, *NO_LIMIT, best))
    error, most = math.nan if own is None else abs(own.intervals.coverage - 0.9), later_labels.COVERAGE_ERROR
    return [*judged, Verdict(f"{HOUR_AHEAD} coverage error", error, most, most, None, needs_peer=False)]


def quantile_table(found: Mapping[str, QuantileScores]) -> str:
    """Return the quantiles of each contestant one hour ahead as a table, best pinball loss first."""
    lines = [f"{HOUR_AHEAD + ', quantiles':41} {'pinball':>8} {'coverage':>9} {'width':>7} {'score':>7}"]
    for name, (pinball, one) in sorted(found.items(), key=lambda item: item[1].pinball):
        lines.append(f"{name:41} {pinball:8.2f} {one.coverage:9.1%} {one.width:7.1f} {one.score:7.1f}")
    return "\n".join(lines)


def interval_table(found: Mapping[str, Intervals | None]) -> str:
    """Return the intervals of each protocol as a table."""
    lines = [f"{'intervals of 90 %':20} {'coverage':>9} {'width':>7} {'score':>7}  slice furthest from 90 %"]
    for protocol, one in found.items():
        if one:
            name, coverage = one.worst
            lines.append(f"{protocol:20} {one.coverage:9.1%} {one.width:7.1f} {one.score:7.1f}  {name} {coverage:.1%}")
    return "\n".join(lines)


def verdict_table(found: Sequence[Verdict]) -> str:
    """Return the verdicts as a table."""
    lines = [f"{'':22} {SERVED:>12} {'must':>8} {'goal':>8}  {'best peer':30} verdict"]
    for verdict in found:
        peer = "none ran" if verdict.needs_peer else ""
        peer = peer if verdict.best_peer is None else f"{verdict.best_peer[1]:.4g} {verdict.best_peer[0]}"
        lines.append(
            f"{verdict.name:22} {verdict.figure:12.4g} {verdict.must:8g} {verdict.goal:8g}  {peer:30} {verdict.word}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the protocols, print the tables, and end with 1 if the served model is not good enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the peers' libraries")
    parser.add_argument("--peers", choices=TARGETS, default="peers", help="trees, or AutoML")
    parser.add_argument("--protocols", default=",".join(PROTOCOLS), help="some of %(default)s")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--plot", type=Path, help="file for the picture (PNG)")
    args = parser.parse_args()
    protocols = args.protocols.split(",")
    if unknown := sorted(set(protocols) - set(PROTOCOLS)):
        raise SystemExit(f"error: {', '.join(unknown)} is no protocol; there are {', '.join(PROTOCOLS)}")

    from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE, embedded_bytes
    from bike_pipeline.settings import load_settings

    table = read(embedded_bytes())
    training = load_settings().training
    own = {protocol: run_served(table, protocol, training) for protocol in protocols}
    found = {
        protocol: {name: (mean(every), "its own", one.seconds) for name, every in one.scores.items()}
        for protocol, one in own.items()
    }
    quantiles = {name: rows for one in own.values() for name, rows in one.quantiles.items()}
    for peer in run_peers(args.peers_python, args.peers, EMBEDDED_FILE, protocols):
        parts = splits(table, peer["protocol"])
        result = of_splits(table, parts, peer["answers"])
        found[peer["protocol"]][peer["name"]] = (result, peer["recipe"], peer["seconds"])
        if peer["quantiles"]:
            quantiles[peer["name"]] = np.asarray(peer["quantiles"])
    judged = []
    for protocol in protocols:
        print(f"\n{table_of(protocol, found[protocol])}")
        judged += judged_of(protocol, {name: result for name, (result, _, _) in found[protocol].items()})
        judged += judged_intervals(protocol, own[protocol].intervals)
    print(f"\n{interval_table({protocol: one.intervals for protocol, one in own.items()})}")
    of_quantiles = scores_of_quantiles(table, quantiles)
    if HOUR_AHEAD in protocols:
        print(f"\n{quantile_table(of_quantiles)}")
        judged += judged_quantiles(of_quantiles)
    print(f"\n{verdict_table(judged)}")
    if args.json:
        figures = {
            protocol: {
                name: {**asdict(s), "columns": recipe, "cpu_seconds": t} for name, (s, recipe, t) in rows.items()
            }
            for protocol, rows in found.items()
        }
        seeds = {protocol: [asdict(score) for score in one.scores[SERVED]] for protocol, one in own.items()}
        intervals = {protocol: one.intervals and asdict(one.intervals) for protocol, one in own.items()}
        ahead = {name: {"pinball": one.pinball, **asdict(one.intervals)} for name, one in of_quantiles.items()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps(
                {"scores": figures, "served_by_seed": seeds, "intervals": intervals, "quantiles": ahead}, indent=1
            )
            + "\n"
        )
    if args.plot:
        plots.draw_quality({p: {n: s.rmse for n, (s, _, _) in rows.items()} for p, rows in found.items()}, args.plot)
    if not all(verdict.reached for verdict in judged):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""How good the model is: the served model and gradient-boosted trees of four libraries on five protocols, in one run.

The served model is this project's own transforms, architecture and training with the settings of configs/base.yaml, for
three seeds (P5: one). The peers run in an environment of their own and choose columns and objective inside the training
rows. Exit code 1 if the served model misses what it must reach, or any peer of the run is better. What the same models
answer a client that sends no optional input is a row of its own, which is not judged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import plots
from benchmarks.processes import ROOT
from benchmarks.quality import served
from benchmarks.quality.protocols import Split, Table, read, splits
from benchmarks.quality.scores import Scores, Verdict, mean, scores, verdicts

PROTOCOLS = ("P1", "P2", "P3", "P4", "P5")
SEEDS = (20110101, 20110102, 20110103)
SERVED = "served model"
REQUIRED_ONLY = "served model, without the optional inputs"
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
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit(f"error: the {peers} did not run; `make {TARGETS[peers]}` makes their environment")
        return [json.loads(line) for line in out.read_text().splitlines()]


def run_served(table: Table, protocol: str, training: dict[str, Any]) -> tuple[dict[str, list[Scores]], float]:
    """Return the scores of each seed by row of the table, `SERVED` and `REQUIRED_ONLY`, and the seconds of a training.

    Both rows are of the same trained models.
    """
    parts, seconds = splits(table, protocol), []
    of_seeds: dict[str, list[Scores]] = {SERVED: [], REQUIRED_ONLY: []}
    for seed in SEEDS[:1] if protocol == "P5" else SEEDS:
        answers = [served.answers(table, split, training, seed) for split in parts]
        of_seeds[SERVED].append(of_splits(table, parts, [a.rentals.tolist() for a in answers]))
        of_seeds[REQUIRED_ONLY].append(of_splits(table, parts, [a.without_optional.tolist() for a in answers]))
        seconds.append(sum(a.seconds for a in answers))
        rmse = of_seeds[SERVED][-1].rmse
        print(f"{protocol} {SERVED}, seed {seed}: RMSE {rmse:.1f}, {seconds[-1]:.1f} s", file=sys.stderr)
    return of_seeds, float(np.mean(seconds))


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
    """Return the verdicts on the served model among a protocol's rows: all others but `REQUIRED_ONLY` are its peers."""
    peers = {name: result for name, result in rows.items() if name not in (SERVED, REQUIRED_ONLY)}
    return verdicts(protocol, rows.get(SERVED), peers)


def verdict_table(found: Sequence[Verdict]) -> str:
    """Return the verdicts as a table."""
    lines = [f"{'':10} {SERVED:>12} {'must':>8} {'goal':>8}  {'best peer':30} verdict"]
    for verdict in found:
        peer = "none ran" if verdict.best_peer is None else f"{verdict.best_peer[1]:.4g} {verdict.best_peer[0]}"
        lines.append(
            f"{verdict.name:10} {verdict.figure:12.4g} {verdict.must:8g} {verdict.goal:8g}  {peer:30} {verdict.word}"
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
    training = load_settings().training.model_dump(mode="json")
    found: dict[str, dict[str, tuple[Scores, str, float]]] = {}
    of_seeds: dict[str, dict[str, list[Scores]]] = {}
    for protocol in protocols:
        of_seeds[protocol], seconds = run_served(table, protocol, training)
        found[protocol] = {name: (mean(every), "its own", seconds) for name, every in of_seeds[protocol].items()}
    for peer in run_peers(args.peers_python, args.peers, EMBEDDED_FILE, protocols):
        parts = splits(table, peer["protocol"])
        result = of_splits(table, parts, peer["answers"])
        found[peer["protocol"]][peer["name"]] = (result, peer["recipe"], peer["seconds"])
    judged = []
    for protocol in protocols:
        print(f"\n{table_of(protocol, found[protocol])}")
        judged += judged_of(protocol, {name: result for name, (result, _, _) in found[protocol].items()})
    print(f"\n{verdict_table(judged)}")
    if args.json:
        figures = {
            protocol: {
                name: {**asdict(s), "columns": recipe, "cpu_seconds": t} for name, (s, recipe, t) in rows.items()
            }
            for protocol, rows in found.items()
        }
        seeds = {protocol: [asdict(one) for one in every[SERVED]] for protocol, every in of_seeds.items()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"scores": figures, "served_by_seed": seeds}, indent=1) + "\n")
    if args.plot:
        plots.draw_quality({p: {n: s.rmse for n, (s, _, _) in rows.items()} for p, rows in found.items()}, args.plot)
    if not all(verdict.reached for verdict in judged):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""What suggested labels are worth: a model that is trained on hours that were suggested or drawn at random.

Of the second year a fifth of its days and its last fifth are held back; the rest is the pool. Each seed draws the first
labelled hours, from which both ways go on, and trains at every budget with the settings of configs/base.yaml but for
the architecture: `trees`, since the network of `blend` makes too few steps on some hundred rows to tell anything.
Nothing is judged: the table says who wins. How hours are suggested was chosen on the first year.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import plots
from benchmarks.quality import served
from benchmarks.quality.protocols import Rows, Split, Table, read
from benchmarks.quality.scores import scores
from bike_pipeline.modeling import label_suggestion

FIRST = 200
BUDGETS = (300, 400, 600, 800)
WAYS = ("suggested", "random")
SEED = 20110101


class Parts(NamedTuple):
    """Places in the table: hours that may be labelled, and those that test, (rows,) int64 each."""

    pool: Rows
    tests: dict[str, Rows]


def parts_of(table: Table) -> Parts:
    """Return the second year's pool, its held-back days and its last fifth."""
    rows = np.flatnonzero(table["yr"] == 1)
    before, after = np.split(rows, [int(0.8 * len(rows))])
    days = np.unique(table["dteday"][before])
    held = np.random.default_rng(SEED).choice(days, len(days) // 5, replace=False)
    is_held = np.isin(table["dteday"][before], held)
    return Parts(before[~is_held], {"held-back days": before[is_held], "last fifth": after})


def more(way: str, raw: dict[str, Any], labelled: Rows, pool: Rows, count: int, training: Any, seed: int) -> Rows:
    """Return the labelled places with `count` more of the pool."""
    left = np.setdiff1d(pool, labelled)
    if way == "random":
        return np.concatenate(
            [labelled, np.random.default_rng([seed, len(labelled)]).choice(left, count, replace=False)]
        )
    known, asked = ({name: values[places] for name, values in raw.items()} for places in (np.sort(labelled), left))
    return np.concatenate([labelled, left[label_suggestion.suggest(known, asked, count, training, seed).chosen]])


def curve(table: Table, way: str, training: dict[str, Any], seed: int, budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Return RMSE and RMSLE of the model on each test at each budget, as records."""
    pool, tests = parts_of(table)
    raw, found = served.raw(table), []
    labelled = np.random.default_rng(seed).choice(pool, FIRST, replace=False)
    for budget in (FIRST, *budgets):
        if budget > FIRST:
            labelled = more(way, raw, labelled, pool, budget - len(labelled), training, seed)
        test = np.concatenate(list(tests.values()))
        answers = served.answers(table, Split(np.sort(labelled), test), training, seed).rentals
        for name, own in zip(tests, np.split(answers, [len(tests["held-back days"])]), strict=True):
            result = scores(table["cnt"][tests[name]], own)
            record = {"way": way, "seed": seed, "labels": budget, "test": name}
            found.append({**record, "rmse": result.rmse, "rmsle": result.rmsle})
    return found


def mean_of(records: Sequence[dict[str, Any]], score: str, **of: Any) -> tuple[float, float]:
    """Return mean and standard error of a score over the seeds of those records that are `of` something."""
    values = [one[score] for one in records if all(one[key] == value for key, value in of.items())]
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def table_of(records: Sequence[dict[str, Any]]) -> str:
    """Return the means as a table in Markdown, and in how many seeds suggested hours taught more."""
    lines = [
        "| test | labels | RMSE suggested | random | better in | RMSLE suggested | random | better in |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for test in dict.fromkeys(one["test"] for one in records):
        for labels in dict.fromkeys(one["labels"] for one in records if one["labels"] > FIRST):
            cells = []
            for score, digits in (("rmse", 1), ("rmsle", 3)):
                own, other = (
                    {o["seed"]: o[score] for o in records if (o["way"], o["test"], o["labels"]) == (way, test, labels)}
                    for way in WAYS
                )
                means = [mean_of(records, score, way=way, test=test, labels=labels) for way in WAYS]
                cells += [f"{mean:.{digits}f} ± {error:.{digits}f}" for mean, error in means]
                cells.append(f"{sum(own[seed] < other[seed] for seed in own)} of {len(own)} seeds")
            lines.append(f"| {test} | {labels} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure both ways for every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="repetitions (%(default)s)")
    parser.add_argument("--architecture", default="trees", help="training.architecture (%(default)s)")
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--plot", type=Path, help="file for the picture (PNG)")
    args = parser.parse_args()
    from bike_pipeline.data.embedded_dataset import embedded_bytes
    from bike_pipeline.settings import load_settings

    table = read(embedded_bytes())
    settings = load_settings(assignments=(f"training.architecture={args.architecture}",))
    training = settings.training.model_dump(mode="json")
    records: list[dict[str, Any]] = []
    for seed in range(SEED, SEED + args.seeds):
        for way in WAYS:
            records += curve(table, way, training, seed, BUDGETS)
            print(f"seed {seed}, {way}: RMSE {records[-2]['rmse']:.1f} of held-back days at the end", file=sys.stderr)
    print(table_of(records))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(records, indent=1) + "\n")
    if args.plot:
        plots.draw_labels(records, args.plot)


if __name__ == "__main__":
    main()

"""Changes of known cause, put into real rows: what the monitor has to tell apart.

A third of the weeks of both years trains a model, a third is its reference and a third is observed, in turns, so that
nothing but chance lies between them: four weeks in a row of those that are observed, and the reference of the same
three months. An injection changes what was observed in one way and draws from a seed how much.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.quality import served
from benchmarks.quality.protocols import Table, read
from bike_pipeline import features
from bike_pipeline.monitoring import attribution

Array = Any
Columns = dict[str, Array]
Injection = Callable[[Columns, Columns, np.random.Generator], Columns]
# Weeks from which four observed ones begin.
STARTS = 93
_DAY = 24


class Watched:
    """A model and rows that it never saw, as the monitor sees them.

    Attributes:
        rows: by what they are for, "reference" or "observed", the model's inputs, hour, label and answer.
    """

    def __init__(self, table: Table, training: Mapping[str, Any], seed: int = 7) -> None:
        """Train on every third week of the table."""
        from bike_pipeline.modeling import preprocessing
        from bike_pipeline.modeling import training as trainer

        rows = served.raw(table)
        hours = (table["dteday"] * _DAY + table["hr"]).astype(np.int64)
        week = hours // (7 * _DAY) % 3
        train = {name: values[week == 0] for name, values in rows.items()}
        self._learnt = preprocessing.LearntSums.of(train).learnt()
        transformed = preprocessing.transformed_columns(train, self._learnt)
        self._model, _ = trainer.train_transformed(transformed, dict(training), seed)
        self.rows: dict[str, Columns] = {}
        for place, name in enumerate(("reference", "observed"), 1):
            part = {f.name: rows[f.name][week == place] for f in features.MODEL_INPUTS}
            label = rows[features.LABEL][week == place].astype(np.float64)
            self.rows[name] = {**part, "hour": hours[week == place], "label": label, "answer": self.predict(part)}

    def predict(self, columns: Mapping[str, Array]) -> Array:
        """Return the answers to raw inputs, (rows,)."""
        from bike_pipeline.modeling import preprocessing

        kinds = {"int": np.int64, "float": np.float32}
        asked = {f.name: np.asarray(columns[f.name]).astype(kinds[f.kind]) for f in features.MODEL_INPUTS}
        labels = dict.fromkeys(features.LABELS, np.zeros(len(asked["hr"]), np.int64))
        found = preprocessing.transformed_columns({**asked, **labels}, self._learnt)
        logarithm = self._model({tensor.name: found[tensor.name] for tensor in self._model.inputs}, training=False)
        return np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)

    def window(self, start: int) -> tuple[Columns, Columns]:
        """Return four weeks that are observed, from one of `STARTS`, and the weeks of reference around them."""
        found = []
        for name, before, after in (("observed", 0, 12), ("reference", 3, 15)):
            week = self.rows[name]["hour"] // (7 * _DAY)
            chosen = (week >= start - before) & (week < start + after)
            found.append({n: v[chosen] for n, v in self.rows[name].items()})
        return found[0], found[1]


def level(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows whose labels are times a factor, from 0.6 to 1.6 and not near 1."""
    factor = rng.choice([rng.uniform(0.6, 0.8), rng.uniform(1.25, 1.6)])
    return {**rows, "label": np.round(rows["label"] * factor)}


def _labels_at(rows: Columns, hours: Array) -> Array:
    """Return the labels of other hours; those of the row itself where there is no such hour."""
    known = dict(zip(rows["hour"].tolist(), rows["label"].tolist(), strict=True))
    return np.array([known.get(int(h), own) for h, own in zip(hours, rows["label"], strict=True)])


def later_commuters(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows whose working days' rush hours come some hours earlier or later."""
    shift = int(rng.choice([-2, -1, 1, 2]))
    rush = (rows["workingday"] > 0) & np.isin(rows["hr"], (*range(5, 11), *range(15, 21)))
    return {**rows, "label": np.where(rush, _labels_at(rows, rows["hour"] - shift), rows["label"])}


def weekend_swapped(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows whose Saturdays are rented as Mondays and Mondays as Saturdays, and maybe Sundays and Tuesdays."""
    pairs = {6: 2, 1: -2, **({0: 2, 2: -2} if rng.random() < 0.5 else {})}
    ahead = np.array([pairs.get(int(day), 0) for day in rows["weekday"]])
    return {**rows, "label": _labels_at(rows, rows["hour"] + ahead * _DAY)}


def other_weather(rows: Columns, other: Columns, rng: np.random.Generator) -> Columns:
    """Return as many rows of rain, of winter, or of the warm months if there is winter, in place of the rows."""
    is_winter = np.isin(rows["mnth"], (11, 12, 1, 2, 3)).mean() > 0.5
    warm, cold = np.isin(other["mnth"], range(5, 11)), np.isin(other["mnth"], (12, 1, 2))
    chosen = other["weathersit"] >= 3 if rng.random() < 0.3 else warm if is_winter else cold
    return _taken(other, rng.choice(np.flatnonzero(chosen), len(rows["hr"])))


def _taken(rows: Columns, places: Any) -> Columns:
    return {name: values[places] for name, values in rows.items()}


def fahrenheit(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows with °F sent for °C, in all rows or from some day on."""
    wrong = rows["hour"] >= np.quantile(rows["hour"], rng.choice([0.0, 0.3, 0.6]))
    found = dict(rows)
    for name, degrees, offset in (("temp", 47.0, 8.0), ("atemp", 66.0, 16.0)):
        sent = ((rows[name] * degrees - offset) * 1.8 + 32 + offset) / degrees
        found[name] = np.where(wrong, sent, rows[name]).astype(np.float32)
    return found


def stuck(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows whose thermometer, or whose hygrometer, stands still from some hour on."""
    names = [("temp", "atemp"), ("hum",)][int(rng.integers(2))]
    start = int(rng.integers(len(rows["hr"]) // 2))
    found = dict(rows)
    for name in names:
        found[name] = np.where(np.arange(len(rows[name])) >= start, rows[name][start], rows[name])
    return found


def swapped(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows with two weather columns swapped."""
    a, b = [("hum", "windspeed"), ("temp", "hum"), ("temp", "windspeed"), ("atemp", "hum")][int(rng.integers(4))]
    return {**rows, a: rows[b], b: rows[a]}


def clock(rows: Columns, _other: Columns, rng: np.random.Generator) -> Columns:
    """Return rows with labels of some hours before or after."""
    return {**rows, "label": _labels_at(rows, rows["hour"] + int(rng.choice([-5, -4, -1, 1, 4, 5])))}


# By name: what is put in, and the cause that it is.
INJECTIONS: dict[str, tuple[Injection, attribution.Cause]] = {
    "level": (level, attribution.LEVEL),
    "commuting hours": (later_commuters, attribution.PATTERN),
    "weekend": (weekend_swapped, attribution.PATTERN),
    "weather": (other_weather, attribution.INPUTS),
    "°F": (fahrenheit, attribution.FAULT),
    "stuck": (stuck, attribution.FAULT),
    "swapped": (swapped, attribution.FAULT),
    "clock": (clock, attribution.FAULT),
}
# So often each is drawn.
SHARES = {"level": 5, "commuting hours": 3, "weekend": 2, "weather": 5, "°F": 2, "stuck": 1, "swapped": 1, "clock": 1}


def attributed(watched: Watched, seed: int) -> tuple[str, attribution.Cause, attribution.Attribution]:
    """Return the injection of a seed, its cause, and what the change of error is attributed to."""
    rng = np.random.default_rng(seed)
    name = str(rng.choice(list(SHARES), p=np.array(list(SHARES.values())) / sum(SHARES.values())))
    inject, cause = INJECTIONS[name]
    rows, reference = watched.window(int(rng.integers(STARTS)))
    # Rows that come in are of other hours than those that tell what errors are elsewhere, and of the same days.
    odd, elsewhere = (_taken(watched.rows["reference"], slice(start, None, 2)) for start in (1, 0))
    rows = inject(rows, odd, rng)
    rows["answer"] = watched.predict(rows)
    return name, cause, attribution.attribute(rows, reference, watched.predict, elsewhere)


def main() -> None:
    """Print how often the right cause is found, by what was put in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="injections (%(default)s)")
    parser.add_argument("--first", type=int, default=20_000, help="the first seed (%(default)s)")
    args = parser.parse_args()
    from bike_pipeline.data.embedded_dataset import embedded_bytes
    from bike_pipeline.settings import load_settings

    training = load_settings(assignments=("training.architecture=trees",)).training
    watched = Watched(read(embedded_bytes()), training.model_dump(mode="json"))
    right: dict[str, list[bool]] = {}
    for seed in range(args.first, args.first + args.seeds):
        name, cause, found = attributed(watched, seed)
        right.setdefault(name, []).append(found.cause == cause)
    for name, hits in sorted(right.items()):
        print(f"{name:16} {sum(hits):4} of {len(hits)}")
    print(f"{'all':16} {sum(map(sum, right.values())):4} of {args.seeds}")


if __name__ == "__main__":
    main()

"""Wrong values in what was sent, or in the labels: found by hard checks, named in words, and repaired where possible.

Weather that is only unusual is no fault: a check needs a value that cannot be, one that contradicts the row's date, a
sensor that does not move, a clock that is off, or a mistake (°F for °C, two columns swapped) that, taken back, brings
the rows among those of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.data.calendar_sums import WEATHER, calendar_of
from bike_pipeline.modeling import feedback

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]

_MEANS = {f.name: f.name.partition("_mean_")[0] for f in features.OPTIONAL_INPUTS if "_mean_" in f.name}
_FIRST_DAY = int(feedback.FIRST_DAY.astype(np.int64))
# A sensor stands still for longer than it ever did in the reference, and for so many hours at least.
_STILL_HOURS = 18
# Squared distances in the reference's weather of a month: what one row in a hundred exceeds (χ², four degrees of
# freedom), by how much a mistake that is taken back must bring a row nearer, and how often a mistake must explain the
# rows that are strange before it counts at all.
_ORDINARY, _NEARER, _EXPLAINS, _FEWEST_HOURS = 13.3, 15.0, 0.4, 12
# Farther away than a row of the reference in a thousand by so much, a row is no weather that was ever seen.
_RARE, _BEYOND = 0.999, 3.0
# Labels that lie so many hours off are looked for, and by what share the error must then fall, on each kind of day.
_LAGS, _LAG_GAIN = (*range(-12, 0), *range(1, 13)), 0.2
# Weather is late or early by this at least, since mornings move by an hour with the season; and how sure that must be,
# in standard errors over the days.
_WEATHER_LAGS, _SURE = (*range(-8, -1), *range(2, 9)), 4.0
_FEWEST_DAYS = 5
# Beyond it one value is as far from any weather as another.
_ABSURD = 9.0
# Rows of the reference that stand for one whose values are lost, and the spread of a column by which they are near.
_NEIGHBOURS = 8
_SPREAD = {"temp": 0.1, "atemp": 0.1, "hum": 0.2, "windspeed": 0.12, "temp_mean_24h": 0.1, "hum_mean_3h": 0.2}


def _celsius(values: Array, degrees: float, offset: float) -> Array:
    """Return normalized °C, (t + offset) / degrees, of values that were made of °F."""
    bounded = np.clip(values, -_ABSURD, _ABSURD)
    return ((bounded * degrees - offset - 32.0) / 1.8 + offset) / degrees


def _of_fahrenheit(columns: Columns) -> dict[str, Array]:
    found = {"temp": _celsius(columns["temp"], 47.0, 8.0), "atemp": _celsius(columns["atemp"], 66.0, 16.0)}
    means = [name for name, of in _MEANS.items() if of == "temp"]
    # 0 stands for a mean that was not sent.
    return found | {n: np.where(columns[n] > 0, _celsius(columns[n], 47.0, 8.0), 0.0) for n in means}


def _swapped(one: str, other: str) -> Callable[[Columns], dict[str, Array]]:
    return lambda columns: {one: columns[other], other: columns[one]}


_MISTAKES: dict[str, Callable[[Columns], dict[str, Array]]] = {
    "°F where °C is asked for": _of_fahrenheit,
    **{f"{a} and {b} swapped": _swapped(a, b) for place, a in enumerate(WEATHER) for b in WEATHER[place + 1 :]},
}


@dataclass
class Faults:
    """What is wrong with labelled rows.

    Attributes:
        wrong: by column, which rows hold a wrong value of it, (rows,) bool each.
        sound: by column, what belongs there, (rows,); NaN where only the rest of the row can tell.
        counts: rows by what is wrong, in words.
        rows: rows with any fault, (rows,) bool.
    """

    rows: Array = field(default_factory=lambda: np.zeros(0, bool))
    wrong: dict[str, Array] = field(default_factory=dict)
    sound: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """What is wrong, in words; "" if nothing is."""
        return ", ".join(f"{what} in {rows} of {len(self.rows)} rows" for what, rows in self.counts.items())

    def add(self, what: str, rows: Array, sound: Mapping[str, Array | float]) -> None:
        """Note a fault of some rows, and what belongs in each column; a row's first fault of a column counts."""
        rows = rows & ~np.all([self.wrong.get(name, np.zeros(len(rows), bool)) for name in sound], axis=0)
        if not rows.any():
            return
        self.counts[what] = int(rows.sum())
        self.rows = self.rows | rows
        for name, values in sound.items():
            before = self.wrong.get(name, np.zeros(len(rows), bool))
            known = self.sound.setdefault(name, np.full(len(rows), np.nan))
            self.sound[name] = np.where(rows & ~before, values, known)
            self.wrong[name] = before | rows

    def repaired(self, columns: Columns, reference: Columns) -> dict[str, Array]:
        """Return the rows with what belongs there; what only the rest of a row can tell is as in rows like it."""
        found = {name: np.asarray(values) for name, values in columns.items()}
        for name, wrong in self.wrong.items():
            kept = np.where(wrong, self.sound[name], found[name])
            found[name] = kept.astype(np.asarray(reference[name]).dtype) if np.isfinite(kept).all() else kept
        lost = {name: wrong & ~np.isfinite(self.sound[name]) for name, wrong in self.wrong.items()}
        table = np.array([*lost.values()], bool).reshape(len(lost), len(self.rows))
        for pattern in np.unique(table[:, table.any(axis=0)], axis=1).T:
            names = [name for name, is_lost in zip(lost, pattern, strict=True) if is_lost]
            _fill(found, np.flatnonzero((table == pattern[:, None]).all(axis=0)), names, reference)
        return found


def _fill(found: dict[str, Array], rows: Array, names: list[str], reference: Columns) -> None:
    """Give `rows` the mean, or the middle code, that the rows of the reference nearest to them have of `names`."""
    from scipy.spatial import cKDTree

    def place(columns: Columns, chosen: Any) -> Array:
        def turn(name: str, length: float) -> list[Array]:
            angle = np.asarray(columns[name], np.float64)[chosen] * (2 * np.pi / length)
            return [np.sin(angle), np.cos(angle)]

        scaled = [np.asarray(columns[n], np.float64)[chosen] / s for n, s in _SPREAD.items() if n not in names]
        turns = [turn(n, length) for n, length in (("hr", 24.0), ("mnth", 12.0)) if n not in names]
        placed: Array = np.nan_to_num(np.column_stack([*scaled, *(part for pair in turns for part in pair)]))
        return placed

    tree = cKDTree(place(reference, slice(None)))
    count = min(_NEIGHBOURS, tree.n)
    near = tree.query(place(found, rows), k=count)[1].reshape(len(rows), count)
    for name in names:
        values = np.asarray(reference[name], np.float64)[near]
        coded = features.BY_NAME[name].kind == "int"
        filled = np.array(found[name], np.float64)
        filled[rows] = np.round(np.median(values, axis=1)) if coded else values.mean(axis=1)
        found[name] = filled if np.isnan(filled).any() else filled.astype(np.asarray(reference[name]).dtype)


def faults_of(columns: Columns, reference: Columns) -> Faults:
    """Return what is wrong with labelled rows, beside those of a reference."""
    found = Faults(np.zeros(len(columns["label"]), bool))
    for check in (_mistakes, _impossible, _against_the_date, _still, _strange, _late_weather, _late_labels):
        check(found, columns, reference)
    return found


def is_out_of_range(feature: features.Feature, values: Array) -> Array:
    """Return which values the feature cannot have, (rows,); one that a client need not send may be absent."""
    values = np.asarray(values, np.float64)
    low, high = (-np.inf if feature.minimum is None else feature.minimum), feature.maximum or np.inf
    fits = (values >= low) & (values <= high)
    if feature.kind == "int":
        fits &= values == np.floor(values)
    if feature.default is not None:
        fits |= is_absent(values)
    found: Array = ~fits
    return found


def is_absent(values: Array) -> Array:
    """Return which values of an optional input stand for none, (rows,)."""
    found: Array = np.isnan(values) | (values <= 0.0)
    return found


def _impossible(found: Faults, columns: Columns, _reference: Columns) -> None:
    for feature in features.MODEL_INPUTS:
        wrong = is_out_of_range(feature, columns[feature.name])
        found.add(f"{feature.name} out of its range", wrong, {feature.name: np.nan})


def _against_the_date(found: Faults, columns: Columns, _reference: Columns) -> None:
    dated = np.asarray(columns["hour"]) >= 0
    days = np.where(dated, np.asarray(columns["hour"]) // feedback.HOURS_A_DAY, 0) + _FIRST_DAY
    weekday = calendar_of(days)["weekday"]
    found.add("weekday not that of the date", dated & (columns["weekday"] != weekday), {"weekday": weekday})
    working = ((weekday >= 1) & (weekday <= 5) & (np.asarray(columns["holiday"]) == 0)).astype(np.int64)
    wrong = dated & (columns["workingday"] != working)
    found.add("workingday against weekday and holiday", wrong, {"workingday": working})


def unmoved_hours(columns: Columns, name: str) -> npt.NDArray[np.int64]:
    """Return for how many hours on end the value of each row stands, (rows,).

    An hour whose requests differ ends that, and so does one that nobody asked about.
    """
    order = np.argsort(columns["hour"], kind="stable")
    values, hours = np.asarray(columns[name])[order], np.asarray(columns["hour"])[order]
    moved = np.ones(len(hours), bool)
    moved[1:] = (values[1:] != values[:-1]) | (np.diff(hours) > 1)
    run = np.cumsum(moved) - 1
    moved[1:] |= np.diff(hours) > 0
    found = np.zeros(len(hours), np.int64)
    found[order] = np.bincount(run, moved).astype(np.int64)[run]
    return found


def _still(found: Faults, columns: Columns, reference: Columns) -> None:
    for name in WEATHER:
        longest = max(_STILL_HOURS, float(np.quantile(unmoved_hours(reference, name), _RARE)))
        found.add(f"{name} does not move", unmoved_hours(columns, name) > longest, {name: np.nan})


class _Weather:
    """The weather of a reference: its mean by month, and how columns vary together around it."""

    def __init__(self, reference: Columns) -> None:
        table, month = self._table(reference), np.asarray(reference["mnth"], np.int64)
        self._mean = np.array([self._of_season(table, month, m) for m in range(1, 13)])
        self._inverse = np.linalg.pinv(np.cov((table - self._mean[month - 1]).T))
        self.rare = float(np.quantile(self.distances(reference), _RARE))

    @staticmethod
    def _of_season(table: Array, month: Array, wanted: int) -> Array:
        apart = np.abs(month - wanted)
        near = np.minimum(apart, 12 - apart)
        mean: Array = table[near <= max(1, int(near.min()))].mean(axis=0)
        return mean

    @staticmethod
    def _table(columns: Columns) -> Array:
        return np.column_stack([np.asarray(columns[name], np.float64) for name in WEATHER])

    def distances(self, columns: Columns) -> Array:
        """Return the squared distance of rows from the weather of their month, (rows,), in covariances."""
        month = np.clip(np.nan_to_num(np.asarray(columns["mnth"], np.float64)), 1, 12).astype(np.int64)
        sent = np.clip(np.nan_to_num(self._table(columns), nan=_ABSURD), -_ABSURD, _ABSURD)
        off = sent - self._mean[month - 1]
        found: Array = np.einsum("ij,jk,ik->i", off, self._inverse, off)
        return found

    def are_strange(self, distances: Array) -> Array:
        """Return which rows are farther away than any mistake or the reference explains, (rows,)."""
        found: Array = distances > max(_BEYOND * self.rare, _ORDINARY + _NEARER)
        return found


def _mistakes(found: Faults, columns: Columns, reference: Columns) -> None:
    """Note the mistake that explains most strange rows."""
    weather = _Weather(reference)
    far = weather.distances(columns)
    strange = weather.are_strange(far)
    name, rows, sound = "", np.zeros(len(far), bool), {}
    for what, undo in _MISTAKES.items():
        undone = undo(columns)
        near = weather.distances({**columns, **undone})
        explained = (far - near > _NEARER) & (near < _ORDINARY)
        if explained.sum() > rows.sum():
            name, rows, sound = what, explained, undone
    if rows.sum() >= max(_FEWEST_HOURS, _EXPLAINS * (strange | rows).sum()):
        found.add(name, _in_a_stretch(rows, columns), sound)


def _strange(found: Faults, columns: Columns, reference: Columns) -> None:
    """Note weather that was never seen, where nothing says which value is wrong."""
    weather = _Weather(reference)
    strange = weather.are_strange(weather.distances(columns))
    found.add("weather that never was", strange & ~found.rows, dict.fromkeys(WEATHER, np.nan))


def _in_a_stretch(rows: Array, columns: Columns) -> Array:
    """Return the rows from the first to the last if most between are among them: a feed keeps its mistakes."""
    hours = np.asarray(columns["hour"])
    within = (hours >= hours[rows].min()) & (hours <= hours[rows].max())
    return within if rows[within].mean() >= _EXPLAINS else rows


def _at(columns: Columns, name: str, lag: int) -> Array:
    """Return what a column is `lag` hours after each row, (rows,); NaN where there is no such row."""
    hours = np.asarray(columns["hour"])
    order = np.argsort(hours, kind="stable")
    place = np.minimum(np.searchsorted(hours[order], hours + lag), len(hours) - 1)
    there = (hours[order][place] == hours + lag) & (hours >= 0)
    return np.where(there, np.asarray(columns[name], np.float64)[order][place], np.nan)


def _late_weather(found: Faults, columns: Columns, reference: Columns) -> None:
    """Note weather that belongs to other hours, as of a client that sends UTC for local time."""
    hour, months = np.asarray(reference["hr"], np.int64), np.unique(np.asarray(columns["mnth"]))
    season = np.isin(reference["mnth"], months) & (np.asarray(reference["hour"]) >= 0)
    days = np.asarray(reference["hour"]) // feedback.HOURS_A_DAY
    if not season.any() or found.rows.mean() > _EXPLAINS:
        return
    profile = _mean_by(hour[season], _of_day_mean(np.asarray(reference["temp"], np.float64), days)[season], 24)
    rows = ~found.rows
    days = np.asarray(columns["hour"])[rows] // feedback.HOURS_A_DAY
    own = _of_day_mean(np.asarray(columns["temp"], np.float64)[rows], days)
    hour = np.asarray(columns["hr"])[rows].astype(np.int64)
    places = np.unique(days, return_inverse=True)[1]
    squares = {lag: _mean_by(places, (own - profile[(hour - lag) % 24]) ** 2) for lag in (0, *_WEATHER_LAGS)}
    best = min(squares, key=lambda lag: float(squares[lag].mean()))
    gain = squares[0] - squares[best]
    if best == 0 or len(gain) < _FEWEST_DAYS or gain.mean() < _SURE * gain.std(ddof=1) / np.sqrt(len(gain)):
        return
    sound = {name: _at(columns, name, best) for name in (*WEATHER, "weathersit", *_MEANS)}
    found.add(f"weather {abs(best)} hours too {'late' if best > 0 else 'early'}", rows, sound)


def _mean_by(places: Array, values: Array, size: int = 0) -> Array:
    return np.bincount(places, values, size) / np.maximum(np.bincount(places, minlength=size), 1)


def _of_day_mean(values: Array, days: Array) -> Array:
    places = np.unique(days, return_inverse=True)[1]
    found: Array = values - _mean_by(places, values)[places]
    return found


def _late_labels(found: Faults, columns: Columns, _reference: Columns) -> None:
    """Note labels that belong to other hours: the error falls on every kind of day once they are moved back."""
    answer, working = np.asarray(columns["answer"], np.float64), np.asarray(columns["workingday"]) > 0

    def gains(lag: int) -> Iterable[float]:
        moved = _at(columns, "label", lag)
        for kind in (working, ~working):
            rows = kind & np.isfinite(moved)
            if rows.sum() < 2 * feedback.HOURS_A_DAY:
                yield 0.0
                continue
            now, then = (float(np.abs(v[rows] - answer[rows]).mean()) for v in (columns["label"], moved))
            yield 1.0 - then / now if now else 0.0

    best = max(_LAGS, key=lambda lag: sum(gains(lag)))
    if min(gains(best)) > _LAG_GAIN:
        moved = _at(columns, "label", best)
        rows = np.isfinite(moved)
        found.add(f"labels {abs(best)} hours too {'late' if best > 0 else 'early'}", rows, {"label": moved})

"""Why the error of a model changed: inputs, level, pattern or a fault of the data, in parts that add up to the change.

The change between a reference and what was observed is seen as four that may each have happened or not: other inputs, a
common factor of the label (level), another way in which labels lie around the answers (pattern: hours, kinds of day,
and whatever is neither of the others), and wrong values in what was sent. Each of the sixteen worlds has an error, by
re-weighting: the errors of one set of rows stand at the inputs of the other, those of the nearest rows of the same
kind, in the unit that errors have around so many rentals (`feedback.unit_of`). A part is its cause's Shapley value
(Shapley 1953), the mean of what the cause adds over all orders in which the four can have come, as Zhang et al. 2023
("Why did the model fail?", ICML) do it for distributions; so no order is chosen, and nothing is left over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback
from bike_pipeline.monitoring.faults import Faults, faults_of

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]
Predict = Callable[[Columns], Array]
Cause = Literal["inputs moved", "level moved", "pattern moved", "data fault"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
INPUTS, LEVEL, PATTERN, FAULT = CAUSES
HOURS_A_DAY = feedback.HOURS_A_DAY
# More rows tell no more.
_MOST_ROWS = 20_000
# With fewer labelled rows on either side nothing is attributed: two days.
FEWEST_ROWS = 48
# Rows that stand for one of the other side, and what makes them near.
_DONORS, _FAR = 24, 2.0
_NEAR_BY = ("hr", "mnth", "temp", "hum", "weathersit", "workingday")
# The share of faulty rows that is many, and of the reference's error that is clear.
MANY, _CLEAR = 0.1, 0.5
# Parts are multiples of this many rentals a day, so that they add up to the last bit in any order.
_GRAIN = 2.0**-20


@dataclass(frozen=True)
class Attribution:
    """A change of error and its parts, in rentals a day: 24 times the mean absolute error of an hour.

    Attributes:
        reference: error of the reference, as it is.
        observed: error of what was observed.
        parts: by cause; they add up to `whole` exactly. Empty if nothing can be told, and `reason` says why.
        level: the factor by which labels lie above what the reference lets expect; 1 for none.
        expected: what the reference's errors come to at the observed inputs.
        faults: what was found wrong with the rows that were sent.
        rows: labelled rows that were observed, 0 if nothing can be told.
        reason: in words.
        seen: of each row of `rows`, (rows,): "hour", "label" and "answer" as they are, "sound_label" and "sound_answer"
            without faults, "expected", what the reference's error is at such inputs, in rentals an hour, and what
            remedies group by.
    """

    reference: float
    observed: float
    parts: Mapping[Cause, float]
    level: float
    expected: float
    faults: Faults
    rows: int
    reason: str = ""
    seen: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)

    @property
    def whole(self) -> float:
        """The whole change, in rentals a day."""
        return self.observed - self.reference

    @property
    def cause(self) -> Cause | None:
        """The cause of the largest part; None if nothing can be told.

        What is certainly wrong with many rows goes before what only may be, unless that is clear: the weeks of a year
        differ by chance in all parts but this one.
        """
        ranked: list[Cause] = sorted(self.parts, key=lambda cause: -abs(self.parts[cause]))
        if ranked and self.faults.rows.mean() >= MANY and abs(self.parts[ranked[0]]) < _CLEAR * self.reference:
            return FAULT
        return ranked[0] if ranked else None

    def plain(self) -> dict[str, Any]:
        """Return it as plain values: "words", "cause", "parts" with "cause" and "rentals_a_day", and the rest."""
        parts = [{"cause": cause, "rentals_a_day": part} for cause, part in self.parts.items()]
        numbers = {n: getattr(self, n) for n in ("reference", "observed", "whole", "level", "expected", "rows")}
        words = f"Of {self.whole:+,.0f} rentals a day of error: {self.reason}." if self.parts else self.reason
        return {"words": words, "cause": self.cause, "parts": parts, **numbers}


def known_of(columns: Columns) -> dict[str, Array]:
    """Return the rows whose label is known and whose answer is a number; of very many evenly some."""
    known = np.flatnonzero(np.isfinite(columns["label"]) & np.isfinite(columns["answer"]))
    known = known[:: max(1, -(-len(known) // _MOST_ROWS))]
    found = {name: np.asarray(values)[known] for name, values in columns.items()}
    # What was not sent may stand there as no number.
    for feature in features.OPTIONAL_INPUTS:
        found[feature.name] = np.nan_to_num(found[feature.name], nan=feature.default or 0.0)
    return found


def attribute(observed: Columns, reference: Columns, predict: Predict, elsewhere: Columns | None = None) -> Attribution:
    """Return the parts of the change of error from a reference to what was observed.

    The reference must be rows that the model did not learn from, or its memory is taken for a change of pattern.

    Args:
        observed: columns of answered rows, with "label" and "answer"; rows that wait for a label do not count.
        reference: the same of the reference.
        predict: from the model's inputs to its answers, (rows,); asked what it would have answered without the faults.
        elsewhere: further rows that the model did not learn from, of any season; they tell what errors are at inputs
            that the reference hardly has.
    """
    seen, known = known_of(observed), known_of(reference)
    support = known if elsewhere is None else known_of(elsewhere)
    rows, reference_rows = len(seen["label"]), len(known["label"])
    if min(rows, reference_rows) < FEWEST_ROWS:
        reason = f"{rows} labelled rows and {reference_rows} of the reference, where {FEWEST_ROWS} are needed of both"
        return Attribution(math.nan, math.nan, {}, math.nan, math.nan, Faults(), 0, reason)
    faults = faults_of(seen, support)
    given, whole = np.asarray(seen["answer"], np.float64), seen
    answers = given.copy()
    if faults.rows.any():
        whole = faults.repaired(seen, support)
        asked = {f.name: whole[f.name][faults.rows] for f in features.MODEL_INPUTS}
        answers[faults.rows] = predict(asked)
        # What is wrong with a label counts as if the answer were as far off, on the other side.
        given = given - (seen["label"] - whole["label"])
    worlds = _Worlds(_Side.of(whole, answers, given), _Side.of(known), _Side.of(support))
    values = {world: HOURS_A_DAY * worlds.error(world) for world in _subsets(CAUSES)}
    # Errors of a million times a million rentals have fewer digits behind the point.
    grain = max(_GRAIN, 2.0 ** (math.frexp(max(values.values()))[1] - 44))
    before, after = (round(values[world] / grain) * grain for world in (frozenset[str](), frozenset(CAUSES)))
    parts = {cause: round(_shapley(values, cause) / grain) * grain for cause in CAUSES}
    # What rounding leaves, some millionths of a rental, goes to the largest.
    largest = max(parts, key=lambda cause: abs(parts[cause]))
    parts[largest] += (after - before) - math.fsum(parts.values())
    expected = worlds.errors(frozenset({INPUTS}))
    own = {"label": seen["label"], "answer": seen["answer"], "sound_label": whole["label"], "sound_answer": answers}
    own |= {"hour": seen["hour"], **{name: whole[name] for name in feedback.GROUPED_BY}}
    mean = HOURS_A_DAY * float(np.average(expected, weights=worlds.observed.weights))
    level = math.exp(worlds.level)
    told = _told(parts, faults)
    return Attribution(before, after, parts, level, mean, faults, rows, told, {**own, "expected": expected})


def _told(parts: Mapping[Cause, float], faults: Faults) -> str:
    ranked = sorted(parts, key=lambda cause: -abs(parts[cause]))
    said = ", ".join(f"{cause} {parts[cause]:+,.0f}" for cause in ranked)
    return f"{said} rentals a day" + (f"; {faults.reason}" if faults.reason else "")


def _subsets(causes: tuple[str, ...]) -> list[frozenset[str]]:
    return [frozenset(some) for size in range(len(causes) + 1) for some in combinations(causes, size)]


def _shapley(values: Mapping[frozenset[str], float], cause: str) -> float:
    """Return the mean of what a cause adds over all orders of the causes."""
    count, total = len(CAUSES), 0.0
    for world in values:
        if cause not in world:
            orders = math.factorial(len(world)) * math.factorial(count - len(world) - 1)
            total += orders / math.factorial(count) * (values[world | {cause}] - values[world])
    return total


@dataclass(frozen=True)
class _Side:
    """Rows of the reference or of what was observed, (rows,) each.

    Attributes:
        sound: what the model answers to sound inputs.
        unit: of errors around that (`feedback.unit_of`).
        label: rentals.
        shift: how far the answer that was given is from `sound`, in units.
        weights: an hour counts once, however often it was asked for.
        kinds: of working day or not, rain or none; only rows of a kind are alike.
        places: where rows lie by what errors hang on, (rows, dimensions), so that one apart is far.
    """

    sound: Array
    unit: Array
    label: Array
    shift: Array
    weights: Array
    kinds: Array
    places: Array

    @classmethod
    def of(cls, columns: Columns, sound: Array | None = None, given: Array | None = None) -> _Side:
        values = {name: np.asarray(columns[name], np.float64) for name in _NEAR_BY}
        answers = np.maximum(np.asarray(columns["answer"] if sound is None else sound, np.float64), 0.0)
        unit = feedback.unit_of(answers)
        shift = np.zeros(len(unit)) if given is None else (given - answers) / unit
        hour, month = values["hr"] * (np.pi / 12), values["mnth"] * (np.pi / 6)
        turns = [2 * np.sin(hour), 2 * np.cos(hour), np.sin(month), np.cos(month)]
        places: Array = np.column_stack([*turns, values["temp"] / 0.2, values["hum"] / 0.3, np.log(unit) / 0.4])
        kinds: Array = (values["weathersit"] >= feedback.RAIN) * 2 + (values["workingday"] > 0)
        _, asked, counts = np.unique(columns["hour"], return_inverse=True, return_counts=True)
        return cls(answers, unit, np.asarray(columns["label"], np.float64), shift, 1.0 / counts[asked], kinds, places)

    def errors(self, level: float) -> Array:
        """Return how far labels are from sound answers once the level is taken away, in units."""
        return (self.label * math.exp(-level) - self.sound) / self.unit

    def nearest(self, rows: _Side) -> tuple[Array, Array]:
        """Return which rows of this side stand for each of the other's, (rows, donors), and how far they are."""
        from scipy.spatial import cKDTree

        found = np.empty((len(rows.unit), _DONORS), np.int64)
        far = np.full(len(rows.unit), np.inf)
        for kind in np.unique(rows.kinds):
            here, alike = np.flatnonzero(rows.kinds == kind), np.flatnonzero(self.kinds == kind)
            is_there = len(alike) >= _DONORS
            alike = alike if is_there else np.arange(len(self.kinds))
            away, near = cKDTree(self.places[alike]).query(rows.places[here], k=_DONORS)
            found[here] = alike[near]
            if is_there:
                far[here] = away.mean(axis=1)
        return found, far


@dataclass
class _Worlds:
    observed: _Side
    reference: _Side
    elsewhere: _Side
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self._unmoved, _ = self.elsewhere.nearest(self.observed)
        self._moved, far = self.observed.nearest(self.reference)
        # Of inputs that were not observed nobody knows whether their pattern has moved, and so it has not.
        self._is_seen = (far < _FAR)[:, None]
        errors = self.elsewhere.errors(0.0)[self._unmoved]
        expected = np.maximum(self.observed.sound[:, None] + self.observed.unit[:, None] * errors, 0.0).mean(axis=1)
        sums = (float(values @ self.observed.weights) for values in (self.observed.label, expected))
        labels, expected_labels = (total + feedback.PRIOR_RENTALS for total in sums)
        self.level = math.log(labels / expected_labels)

    def error(self, world: frozenset[str]) -> float:
        """Return the mean absolute error of an hour in a world where some of the causes have happened."""
        rows = self.observed if INPUTS in world else self.reference
        return float(np.average(self.errors(world), weights=rows.weights))

    def errors(self, world: frozenset[str]) -> Array:
        """Return the absolute error of each row of a world, (rows,)."""
        rows = self.observed if INPUTS in world else self.reference
        if rows is self.observed:
            errors = rows.errors(self.level)[:, None] if PATTERN in world else self.elsewhere.errors(0.0)[self._unmoved]
            shifts = rows.shift[:, None]
        else:
            errors = rows.errors(0.0)[:, None]
            if PATTERN in world:
                errors = np.where(self._is_seen, self.observed.errors(self.level)[self._moved], errors)
            shifts = self.observed.shift[self._moved]
        sound, unit = rows.sound[:, None], rows.unit[:, None]
        labels = np.maximum(sound + unit * errors, 0.0) * math.exp(self.level if LEVEL in world else 0.0)
        found: Array = np.abs(labels - (sound + unit * shifts * (FAULT in world))).mean(axis=1)
        return found

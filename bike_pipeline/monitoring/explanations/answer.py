"""Why a request was answered as it was: Shapley values of what was asked, and what another question would have got.

The inputs are taken in groups that a person knows, since those of a group go together: the hour with its kind of day,
all temperatures. A value is what a group adds on average over all orders in which the groups of the request can take
the place of those of other rows (interventional SHAP; Lundberg and Lee 2017). With all coalitions asked, kernel SHAP is
exact and draws nothing, so that the same request has the same values for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.modeling.input_groups import GROUPS, words
from bike_pipeline.monitoring.columns import Array, Columns

Predict = Callable[[Columns], Array]
Row = Mapping[str, float]

# Rows that stand for all others, evenly over the training rows.
BACKGROUND_ROWS = 64
# Values are multiples of it, so that they add up to the last bit; answers are float32.
_GRAIN = 2.0**-20
# How far the same version may be from what it answered on another runtime, as a share and in rentals.
_RELATIVE, _ABSOLUTE = 1e-3, 0.05


@dataclass(frozen=True)
class Part:
    """What a group of inputs adds to an answer: its name, what was asked in words, the value in the answer's unit."""

    group: str
    words: str
    value: float


@dataclass(frozen=True)
class WhatIf:
    """Another question: what is different, in words, its answer, and how much more that is."""

    words: str
    answer: float
    change: float


@dataclass(frozen=True)
class AnswerParts:
    """Why a row was answered as it was.

    Attributes:
        answer: what was answered, in the answer's unit.
        base: the mean answer to the background, from which the parts lead to `answer` exactly.
        parts: the largest first.
        what_ifs: answers to other questions.
    """

    answer: float
    base: float
    parts: tuple[Part, ...]
    what_ifs: tuple[WhatIf, ...]


def parts_of(predict: Predict, row: Row, background: Columns, answered: float) -> AnswerParts:
    """Return why a row was answered as it was.

    Args:
        predict: from the model's inputs to its answers, (rows,): the version that answered.
        row: the inputs of the row, as they were sent.
        background: rows that stand for all others, by input.
        answered: what was answered.

    Raises:
        ModelError: the version answers something else now, so that nothing would be explained.
        MissingExtraError: the extra `monitoring` is not installed.
    """
    from bike_pipeline import extras

    extras.require("monitoring", "explaining an answer")
    import shap

    def game(coalitions: Array) -> Array:
        """Return the mean answer where the groups of each coalition are the row's, (coalitions,)."""
        count, others = len(coalitions), len(background["hr"])
        taken = {name: np.tile(np.asarray(background[name]), count) for name in background}
        for place, names in enumerate(GROUPS.values()):
            own = np.repeat(coalitions[:, place] > 0, others)
            taken |= {name: np.where(own, row[name], taken[name]) for name in names}
        answers = np.asarray(predict(taken), np.float64).reshape(count, others)
        return np.asarray(answers.mean(axis=1))

    groups = len(GROUPS)
    explainer = shap.KernelExplainer(game, np.zeros((1, groups)))
    values = np.asarray(explainer.shap_values(np.ones((1, groups)), nsamples=2**groups, l1_reg=False, silent=True))[0]
    now = float(predict(_as_columns(row))[0])
    if not abs(now - answered) <= _ABSOLUTE + _RELATIVE * abs(answered):
        raise ModelError(
            f"the version that answered {answered:.2f} answers {now:.2f} to the same row",
            fix="its files or the record of the request were changed: `bike-pipeline verify` tells which",
        )
    rounded = [round(float(value) / _GRAIN) * _GRAIN for value in values]
    parts = [Part(name, words(name, row), value) for name, value in zip(GROUPS, rounded, strict=True)]
    parts.sort(key=lambda part: -abs(part.value))
    # What another runtime and rounding leave, which is less than anybody sees, belongs to no group.
    return AnswerParts(answered, answered - math.fsum(rounded), tuple(parts), what_ifs(predict, row, answered))


def background_of(columns: Columns, most: int = BACKGROUND_ROWS) -> dict[str, Array]:
    """Return the rows, at most so many, that stand for all rows of the training, evenly among them."""
    rows = len(columns["hr"])
    places = np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64))
    return {feature.name: np.asarray(columns[feature.name])[places] for feature in features.MODEL_INPUTS}


def _as_columns(row: Row) -> dict[str, Array]:
    return {feature.name: np.asarray([row[feature.name]]) for feature in features.MODEL_INPUTS}


def what_ifs(predict: Predict, row: Row, answered: float) -> tuple[WhatIf, ...]:
    """Return what other questions would have got; those that would leave the range of an input are not asked."""
    asked = {words: {**row, **changes} for words, changes in _questions(row) if _valid(changes)}
    columns = [_as_columns(other) for other in asked.values()]
    table = {feature.name: np.concatenate([one[feature.name] for one in columns]) for feature in features.MODEL_INPUTS}
    answers = np.asarray(predict(table), np.float64)
    return tuple(WhatIf(words, float(a), float(a) - answered) for words, a in zip(asked, answers, strict=True))


def _valid(changes: Mapping[str, float]) -> bool:
    known = [(features.BY_NAME[name], value) for name, value in changes.items()]
    return all((f.minimum or 0.0) <= value <= (math.inf if f.maximum is None else f.maximum) for f, value in known)


def _questions(row: Row) -> list[tuple[str, dict[str, float]]]:
    """Return what is different, in words, and the inputs that it changes."""

    def moved(group: str, by: float) -> dict[str, float]:
        # A mean that was not sent stays away.
        sent = [name for name in GROUPS[group] if not (name in features.OPTIONAL_NAMES and row[name] <= 0)]
        return {name: row[name] + by / features.PHYSICAL[name.partition("_mean_")[0]][0] for name in sent}

    def weather(code: float) -> dict[str, float]:
        return {"weathersit": code, **{n: code for n in GROUPS["weather"][1:] if row[n] > 0}}

    other_day: dict[str, float] = (
        {"workingday": 0, "weekday": 0} if row["workingday"] else {"workingday": 1, "weekday": 3, "holiday": 0}
    )
    return [
        ("5 °C warmer", moved("temperature", 5.0)),
        ("5 °C colder", moved("temperature", -5.0)),
        ("20 % more humidity", moved("humidity", 20.0)),
        ("15 km/h more wind", moved("wind", 15.0)),
        ("clear" if row["weathersit"] >= 3 else "light rain", weather(1 if row["weathersit"] >= 3 else 3)),
        ("no working day" if row["workingday"] else "a working day", other_day),
        ("an hour earlier", {"hr": row["hr"] - 1}),
        ("an hour later", {"hr": row["hr"] + 1}),
    ]

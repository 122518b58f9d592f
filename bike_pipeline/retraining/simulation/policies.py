"""When each policy would have trained, and what it would have cost: sums over what every model's scores say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bike_pipeline.retraining.events import CONCEPT_DRIFT, STORAGE, Event, RecordedEvent, State
from bike_pipeline.retraining.policy import Standing, decide
from bike_pipeline.retraining.simulation.plan import FIRST_WEEKS, WEEK_DAYS
from bike_pipeline.retraining.simulation.scores import Scores
from bike_pipeline.settings.retraining import PolicySettings

NEVER, ALWAYS, DRIFT, THIS, ORACLE = "never", "always", "drift", "this policy", "oracle"
_DAY = 86_400.0
# Whether to train at the beginning of a week: of the week, and whether a drift is told then.
Policy = Callable[[int, bool], bool]


@dataclass(frozen=True)
class Simulated:
    """What policies are compared on.

    Attributes:
        scores: of the model that can be trained at the beginning of a week, for each week with new rows.
        hours: that are asked about, by week, (weeks,).
        uploads: rows of each upload that is accepted at the beginning of a week, by the week.
    """

    scores: Mapping[int, Scores]
    hours: npt.NDArray[np.int64]
    uploads: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Outcome:
    """What a policy comes to over all simulated hours.

    Attributes:
        policy: its name.
        trained: the weeks at whose beginning it trained a model, without the first one, which all have.
        cpu_seconds: of these trainings.
        mae: mean absolute error in rentals an hour.
        rmse: root of the mean squared error.
        avoided: rentals of absolute error less than `never` makes.
        avoided_per_cpu_second: of these; 0 where nothing was spent.
        served: by week, the week whose model answers.
    """

    policy: str
    trained: list[int]
    cpu_seconds: float
    mae: float
    rmse: float
    avoided: float
    avoided_per_cpu_second: float
    served: dict[int, int]


class SettingsPolicy:
    """The loop's own decisions, `policy.decide`, on the events that triggers would make."""

    def __init__(self, settings: PolicySettings, uploads: Mapping[int, Sequence[int]]) -> None:
        """Decide by these settings on uploads of so many rows each, by the week in which they come."""
        self._settings, self._uploads = settings, uploads
        self._waiting: list[RecordedEvent] = []
        self._claims: list[float] = []
        self._last_of: dict[str, float] = {}

    def __call__(self, week: int, drifted: bool) -> bool:
        now = week * WEEK_DAYS * _DAY
        seen = [
            Event(STORAGE, "uploads", f"{week}.{number}", reason="new rows", rows=rows)
            for number, rows in enumerate(self._uploads.get(week, ()))
        ]
        if drifted and not any(one.event.trigger == CONCEPT_DRIFT for one in self._waiting):
            seen.append(Event(CONCEPT_DRIFT, "monitor", str(week), reason="the level has changed"))
        self._waiting += [
            RecordedEvent(event, State.SEEN, "", now, now, 1, 0, None, None, alone=False) for event in seen
        ]
        standing = Standing(now, claims=self._claims, last_of=self._last_of)
        fired = {one.identity for one in decide(self._waiting, standing, self._settings) if one.fired}
        if fired:
            self._claims.append(now)
            self._last_of |= {one.event.trigger: now for one in self._waiting if one.identity in fired}
            self._waiting = [one for one in self._waiting if one.identity not in fired]
        return bool(fired)


def outcome(of: Simulated, name: str, policy: Policy, weeks: Iterable[int] | None = None) -> Outcome:
    """Return what a policy comes to; a run that finds no new rows makes no other model, and costs nothing."""
    served, newest, trained = FIRST_WEEKS, FIRST_WEEKS, list[int]()
    by_week = {}
    for week in weeks or range(FIRST_WEEKS, len(of.hours)):
        newest = week if week in of.scores else newest
        if policy(week, bool(of.scores[served].drift[week])) and newest != served:
            served = newest
            trained.append(newest)
        by_week[week] = served
    return _outcome(of, name, trained, by_week)


def _outcome(of: Simulated, name: str, trained: list[int], by_week: dict[int, int]) -> Outcome:
    absolute = sum(of.scores[model].absolute[week] for week, model in by_week.items())
    squared = sum(of.scores[model].squared[week] for week, model in by_week.items())
    avoided = float(sum(of.scores[FIRST_WEEKS].absolute[week] for week in by_week) - absolute)
    hours = sum(int(of.hours[week]) for week in by_week)
    spent = sum(of.scores[week].cpu_seconds for week in trained)
    price = avoided / spent if spent else 0.0
    return Outcome(name, trained, spent, absolute / hours, math.sqrt(squared / hours), avoided, price, by_week)


def every_days(days: int) -> Policy:
    """Return the policy that trains every so many days, at the beginning of a week."""
    last = FIRST_WEEKS

    def due(week: int, _: bool) -> bool:
        nonlocal last
        if (week - last) * WEEK_DAYS < days:
            return False
        last = week
        return True

    return due


def oracle(of: Simulated, most: int) -> Outcome:
    """Return the best that so many trainings can come to, with every label known in advance."""
    weeks, models = range(FIRST_WEEKS, len(of.hours)), sorted(of.scores)
    sums = [np.cumsum(of.scores[model].absolute) for model in models]
    # The cheapest way to each model with so many trainings, and the places of the models on it.
    best = {0: (0.0, [0])}
    found: list[tuple[float, list[int]]] = []
    for count in range(most + 1):
        reached: dict[int, tuple[float, list[int]]] = {}
        for place, (cost, chosen) in best.items():
            before = sums[place][models[place] - 1]
            found.append((cost + sums[place][-1] - before, chosen))
            for later in range(place + 1, len(models)):
                total = cost + sums[place][models[later] - 1] - before
                if count < most and (later not in reached or total < reached[later][0]):
                    reached[later] = (total, [*chosen, later])
        best = reached
    chosen = [models[place] for place in min(found)[1]]
    by_week = {week: max(model for model in chosen if model <= week) for week in weeks}
    return _outcome(of, ORACLE, chosen[1:], by_week)

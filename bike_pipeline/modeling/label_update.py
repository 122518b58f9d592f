"""What an upload of labels changes of those that a model knows, and which of its days are out of bounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback, holidays
from bike_pipeline.modeling.feedback import HOURS_A_DAY, Labels
from bike_pipeline.modeling.feedback_record import Feedback

_FIRST = datetime(features.FIRST_YEAR, 1, 1)


def moment(hour: int) -> str:
    """Return an hour since 1 January of `features.FIRST_YEAR` as ISO 8601, local time."""
    return (_FIRST + timedelta(hours=int(hour))).isoformat(timespec="minutes")


def hour_of(moment: datetime) -> int:
    """Return a local time in hours since 1 January of `features.FIRST_YEAR`."""
    return int((moment - _FIRST) // timedelta(hours=1))


@dataclass(frozen=True)
class LabelCounts:
    """What became of the hours of an upload.

    Attributes:
        new: their label was not known.
        corrected: it was known as another number, and the upload's counts.
        known: it was known already.
        trained: the model learnt from them, so that they tell nothing of it.
        too_old: the newest label is too much later for them to count.
    """

    new: int
    corrected: int
    known: int
    trained: int
    too_old: int


@dataclass(frozen=True)
class OutlierDay:
    """A day whose rentals are so far from the answers that it counts only up to the bound of a day.

    Attributes:
        day: ISO 8601.
        hours: how many of it have a label.
        rentals: what was rented in them.
        expected: what the model answered for them, with the labels of the days before.
    """

    day: str
    hours: int
    rentals: float
    expected: float


def changes(known: Labels, upload: Labels, first: int) -> tuple[Labels, LabelCounts]:
    """Return the labels of an upload that change something, and how many hours do what.

    Args:
        known: those that the model knows.
        upload: those of the upload.
        first: the first hour that the model did not learn from.
    """
    newest = max((int(labels.hours[-1]) for labels in (known, upload) if len(labels.hours)), default=first)
    trained = upload.hours < first
    too_old = ~trained & (upload.hours <= newest - feedback.WINDOW_DAYS * HOURS_A_DAY)
    places = np.minimum(np.searchsorted(known.hours, upload.hours), max(len(known.hours) - 1, 0))
    left = ~trained & ~too_old
    there = left & (known.hours[places] == upload.hours) if len(known.hours) else np.zeros_like(left)
    same = there & (known.rentals[places] == upload.rentals) if len(known.hours) else there
    counted = (left & ~there, there & ~same, same, trained, too_old)
    return upload[left & ~same], LabelCounts(*(int(rows.sum()) for rows in counted))


def outlier_days(after: Feedback, hours: npt.NDArray[np.int64]) -> list[OutlierDay]:
    """Return the days of some hours whose labels are beyond `feedback.DAY_LIMIT`, each by the labels before it.

    Great holidays are left out, as they teach nothing.
    """
    labels, days = after.labels, after.labels.hours // HOURS_A_DAY
    # The state follows the days one by one, however late their labels are.
    answers = feedback.corrected(labels, after.settings.model_copy(update={"label_delay_days": 1}))
    found = []
    for day in np.unique(hours // HOURS_A_DAY):
        rows = days == day
        rentals, expected = float(labels.rentals[rows].sum()), float(answers[rows].sum())
        says = np.log((rentals + feedback.PRIOR_RENTALS) / (expected + feedback.PRIOR_RENTALS))
        teaches = rows.any() and not holidays.is_dated(feedback.FIRST_DAY + np.array([day]))[0]
        if teaches and abs(says) > feedback.DAY_LIMIT:
            found.append(OutlierDay(moment(int(day) * HOURS_A_DAY)[:10], int(rows.sum()), rentals, expected))
    return found


def bounded_groups(after: Feedback) -> int:
    """Return how many groups of hours have a level at `feedback.LARGEST_LEVEL`, beyond which none goes."""
    return int((np.abs(after.state.levels) >= feedback.LARGEST_LEVEL).sum())

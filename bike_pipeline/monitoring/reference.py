"""What a window of requests is compared with: the same weeks of earlier years, else what the model was trained on.

A window against a whole year would find a change in every month: that of the season.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback
from bike_pipeline.modeling.feedback import FIRST_DAY, HOURS_A_DAY, Labels
from bike_pipeline.modeling.label_update import hour_of, moment
from bike_pipeline.monitoring.columns import Array, Columns, Window, rows_in, take

if TYPE_CHECKING:
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.modeling.feedback_record import Feedback

# The weather of a date is that of the two weeks around it.
AROUND_DAYS = 14
YEAR_DAYS = 365.2425
# The same weeks are those of an earlier year only where it has so much of them.
FEWEST_SHARE = 0.5


class Compared(NamedTuple):
    """Rows that a window is compared with, and which they are, in words."""

    columns: dict[str, Array]
    words: str


@dataclass(frozen=True)
class Reference:
    """What is known beside the requests.

    Attributes:
        columns: labelled hours of the spans with their optional inputs, rising by `hour`; the columns of observations
            without what only requests have.
        first_untrained: the first hour that the version which serves did not learn from; None if that is not known.
        feedback: what that version keeps of its labels; None for a model that keeps none.
        version: its number; None if nothing serves.
        predict: answers raw columns in rentals, (rows,); None where the model is not asked.
        schema: the curated schema, whose comparators say how far requests may be from rows of the same hours; None to
            leave that out.
    """

    columns: Columns
    first_untrained: int | None = None
    feedback: Feedback | None = None
    version: int | None = None
    predict: Callable[[Columns], Array] | None = None
    schema: Path | None = None
    _found: dict[Window, Compared] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_spans(
        cls,
        store: SpanStore,
        first_untrained: int | None = None,
        feedback: Feedback | None = None,
        version: int | None = None,
        predict: Callable[[Columns], Array] | None = None,
        schema: Path | None = None,
    ) -> Self:
        """Return the newest version of every span of a store; an empty store gives a reference without rows.

        Raises:
            DataError: a span cannot be read.
        """
        import pyarrow as pa

        from bike_pipeline.data.past_weather import with_optional_inputs
        from bike_pipeline.data.rows import hours_of

        spans = store.spans()
        if not spans:
            names = (*(feature.name for feature in features.MODEL_INPUTS), "hour", "label", "season")
            return cls({name: np.zeros(0) for name in names}, first_untrained, feedback, version, predict, schema)
        versions = [store.latest(span) for span in spans]
        table = with_optional_inputs(pa.concat_tables([store.read(one.span, one.version) for one in versions]))
        epoch = int(FIRST_DAY.astype("datetime64[h]").astype(np.int64))
        columns: dict[str, Array] = {
            feature.name: table.column(feature.name).to_numpy() for feature in features.MODEL_INPUTS
        }
        columns["season"] = table.column("season").to_numpy()
        columns["hour"] = hours_of(table) - epoch
        columns["label"] = table.column(features.LABEL).to_numpy().astype(np.float64)
        order = np.argsort(columns["hour"], kind="stable")
        return cls(take(columns, order), first_untrained, feedback, version, predict, schema)

    def of(self, window: Window) -> Compared:
        """Return what a window is compared with."""
        if window not in self._found:
            self._found[window] = self._same_weeks(window) or self._training(window)
        return self._found[window]

    def same_hours(self, window: Window) -> Compared:
        """Return what the spans hold of the window itself."""
        return Compared(rows_in(self.columns, window), "the spans' rows of the same hours")

    def _same_weeks(self, window: Window) -> Compared | None:
        hours, found, years = np.asarray(self.columns["hour"]), np.zeros(len(self.columns["hour"]), bool), list[str]()
        first, last = hour_of(window[0]), hour_of(window[1])
        around = AROUND_DAYS * HOURS_A_DAY
        for back in range(1, window[0].year - features.FIRST_YEAR + 1):
            shift = round(back * YEAR_DAYS) * HOURS_A_DAY
            weeks = (hours >= first - shift - around) & (hours <= last - shift + around)
            if weeks.sum() >= FEWEST_SHARE * (last - first + 1 + 2 * around):
                found |= weeks
                years.append(str(window[0].year - back))
        if not years:
            return None
        return Compared(take(self.columns, found), f"the same weeks of {' and '.join(years)}, ± {AROUND_DAYS} days")

    def _training(self, window: Window) -> Compared:
        hours = np.asarray(self.columns["hour"])
        until = hour_of(window[0]) if self.first_untrained is None else self.first_untrained
        rows = hours < until
        if not rows.any():
            return Compared(take(self.columns, rows), "nothing: no span holds hours before the window")
        first, last = moment(int(hours[rows][0]))[:10], moment(int(hours[rows][-1]))[:10]
        what = "the training rows" if self.first_untrained is not None else "the spans before the window"
        return Compared(take(self.columns, rows), f"{what}, {first} to {last}")

    def backtest(self) -> tuple[Labels, npt.NDArray[np.float64]]:
        """Return the labels that the version keeps, and its answers to them with each day's feedback; none if none."""
        if self.feedback is None or not len(self.feedback.labels.hours):
            return Labels(), np.zeros(0)
        labels = self.feedback.labels
        return labels, feedback.corrected(labels, self.feedback.settings)

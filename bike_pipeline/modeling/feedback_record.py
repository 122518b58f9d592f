"""What a served model keeps of the labels that came after its training, and what those of its eval split came to."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from bike_pipeline.modeling.feedback import Array, FeedbackState, Labels, replay
from bike_pipeline.settings.training import FeedbackSettings
from bike_pipeline.storage.plain_json import finite

# In a model's `assets.extra`: the labels and settings that its state follows from.
FEEDBACK_FILE = "feedback.json"
FORMAT = 1


@dataclass(frozen=True)
class Backtest:
    """How feedback and intervals would have done on the labels that a state starts with.

    Attributes:
        rows: labelled hours.
        mae, mae_with_feedback: in rentals, of the model alone and with each day's feedback.
        interval_rows: hours whose interval was known.
        nominal: the share of labels that the widest interval is to hold.
        coverage: the share that it held.
        width: its mean width in rentals.
        interval_score: its mean width, and 2 / (1 - nominal) of each rental beyond it (Winkler 1972).
    """

    rows: int
    mae: float
    mae_with_feedback: float
    interval_rows: int
    nominal: float
    coverage: float
    width: float
    interval_score: float

    @property
    def reason(self) -> str:
        """What came of it, in words."""
        fed_back = f"MAE {self.mae_with_feedback:.1f} with each day's labels fed back, {self.mae:.1f} without"
        if not self.interval_rows:
            return f"no interval is known of {self.rows:,} labels; {fed_back}"
        held = f"the interval of {self.nominal:.0%} held {self.coverage:.1%} of {self.interval_rows:,} labels"
        return f"{held} and is {self.width:.0f} rentals wide; {fed_back}"

    @classmethod
    def of(cls, labels: Labels, settings: FeedbackSettings) -> Self:
        """Return the backtest; its numbers are NaN where no hour tells them."""
        replayed = replay(labels, settings)
        y, shares = labels.rentals, list(settings.quantiles.values())
        nominal = round(shares[-1] - shares[0], 9)
        known = np.isfinite(replayed.quantiles[:, 0])
        low, high = replayed.quantiles[known, 0], replayed.quantiles[known, -1]
        beyond = np.maximum(low - y[known], 0.0) + np.maximum(y[known] - high, 0.0)

        def mean(values: Array) -> float:
            return float(values.mean()) if len(values) else math.nan

        return cls(
            len(y),
            mean(np.abs(y - labels.expected)),
            mean(np.abs(y - replayed.rentals)),
            int(known.sum()),
            nominal,
            mean(beyond == 0.0),
            mean(high - low),
            mean(high - low + 2.0 / (1.0 - nominal) * beyond),
        )


NO_BACKTEST = Backtest(0, math.nan, math.nan, 0, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Feedback:
    """What a served model keeps of its labels, beside the graph that holds the state.

    Attributes:
        settings: those that it was trained with.
        labels: the last weeks of them.
        updates: how often labels came after training.
        backtest: on the eval split it was trained beside; None without one.
    """

    settings: FeedbackSettings
    labels: Labels = field(default_factory=Labels)
    updates: int = 0
    backtest: Backtest | None = None

    @property
    def state(self) -> FeedbackState:
        """The state that the labels lead to."""
        return FeedbackState.fit(self.labels, self.settings)

    @classmethod
    def of_backtest(cls, labels: Labels, settings: FeedbackSettings) -> Self:
        """Return what a model starts with, by the labels of its eval split."""
        return cls(settings, labels.last_weeks(), 0, Backtest.of(labels, settings))

    def updated(self, later: Labels) -> Self:
        """Return what is there after further labels."""
        return type(self)(self.settings, self.labels.merged(later).last_weeks(), self.updates + 1, self.backtest)

    def to_json(self) -> str:
        """Return it as JSON; every number is read back as it was."""
        labels = {name: values.tolist() for name, values in asdict(self.labels).items()}
        plain = {
            "format": FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "updates": self.updates,
            # JSON has no name for what is no number.
            "backtest": self.backtest and finite(asdict(self.backtest)),
            "labels": labels,
        }
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return what `to_json` wrote; other text is a ValueError."""
        try:
            plain = json.loads(text)
            if plain["format"] != FORMAT:
                raise ValueError(f"format {plain['format']} of the state of feedback is none that is known here")
            hours, groups = (np.asarray(plain["labels"][name], np.int64) for name in ("hours", "groups"))
            rentals, expected = (np.asarray(plain["labels"][name], np.float64) for name in ("rentals", "expected"))
            labels = Labels(hours, groups, rentals, expected)
            if len({len(values) for values in asdict(labels).values()}) != 1:
                raise ValueError("the columns of the labels differ in length")
            numbers: dict[str, Any] = plain["backtest"] or {}
            numbers = {name: math.nan if value is None else value for name, value in numbers.items()}
            backtest = Backtest(**numbers) if numbers else None
            return cls(FeedbackSettings.model_validate(plain["settings"]), labels, plain["updates"], backtest)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a state of feedback: {error}") from None

"""What helps against a change of error, and by how much: each remedy is tried on the hours whose labels are known.

Feedback is replayed as it would have run. Retraining is estimated: the level and the pattern by hours of what was known
before, laid over the window, which is what a training run would have learnt of these labels at least. A source that is
mended is what the model answers to sound values. What was a single bad day needs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback, holidays
from bike_pipeline.monitoring.attribution import HOURS_A_DAY, MANY, Attribution, known_of
from bike_pipeline.monitoring.columns import Columns
from bike_pipeline.monitoring.harm import Amount, Harm, by_day
from bike_pipeline.settings.monitoring import HarmSettings
from bike_pipeline.settings.training import FeedbackSettings

Array = npt.NDArray[Any]
Name = Literal["feedback", "retrain", "fix the source", "nothing"]
# Days of a kind of hour after which its own factor counts half.
_PATTERN_DAYS = 4.0
# With so many labelled days before the window remedies learn from them, else from its first half.
_LEARNING_DAYS = 14


@dataclass(frozen=True)
class Remedy:
    """What may help.

    Attributes:
        remedy: its name.
        gain: by how many rentals a day errors would have been smaller.
        reason: what it is measured on, in words.
        helps: whether that is no accident, and worth it.
    """

    remedy: Name
    gain: Amount
    reason: str
    helps: bool

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def remedies(
    attribution: Attribution,
    harm: Harm,
    history: Columns,
    settings: HarmSettings,
    corrected_by: FeedbackSettings | None,
) -> list[Remedy]:
    """Return what helps against a change, the best first; "nothing" stands first where nothing does.

    Args:
        attribution: what the change was attributed to.
        harm: what it costs.
        history: answered rows until the end of the window, from which feedback would have learnt.
        settings: what is worth it.
        corrected_by: how the model is corrected by labels; None for one that takes none.
    """
    if not attribution.rows:
        return []
    seen, known = attribution.seen, known_of(history)
    begins, where = _begins(seen["hour"], known["hour"])
    gains: dict[Name, tuple[Amount, str]] = {"retrain": (_retrained(seen, known, begins), _RETRAINED + where)}
    if corrected_by is not None:
        gains["feedback"] = (_fed_back(seen, known, begins, corrected_by), _FED_BACK + where)
    if attribution.faults.rows.any():
        asked = f"the same model, asked for sound values: {attribution.faults.reason}"
        gains["fix the source"] = (_mended(seen), asked)
    least = settings.tolerated_share * attribution.expected
    harmless = harm.is_none(settings)
    tried = []
    for name, (gain, reason) in gains.items():
        certain = gain.low is not None and gain.low > 0.0 and (gain.rentals_a_day or 0.0) >= least
        # A broken source is mended whatever it costs now.
        is_broken = name == "fix the source" and bool(attribution.faults.rows.mean() >= MANY)
        tried.append(Remedy(name, gain, reason, is_broken or (certain and not harmless)))
    tried.sort(key=lambda one: (not one.helps, -_worth(one, gains, least)))
    nothing = Remedy("nothing", Amount(0.0, 0.0, 0.0), _why_nothing(harm, harmless), not tried[0].helps)
    return [nothing, *tried] if nothing.helps else [*tried, nothing]


_FED_BACK = "each day's labels fed back as they would have arrived, replayed on"
_RETRAINED = "estimated: level and pattern by hours of the labels before, laid over"


def _begins(hours: Array, known: Array) -> tuple[int, str]:
    """Return the first hour that remedies are measured on, and which hours these are, in words."""
    first = int(hours.min())
    before = np.unique(known[known < first] // HOURS_A_DAY)
    if len(before) >= _LEARNING_DAYS:
        return first, " the window, without the great holidays"
    return int(np.median(np.unique(hours // HOURS_A_DAY)) + 1) * HOURS_A_DAY, " its second half, without great holidays"


def _worth(one: Remedy, gains: Mapping[Name, tuple[Amount, str]], least: float) -> float:
    """Return what remedies are ranked by: retraining takes a run and its gates, so it must be clearly better."""
    gain = one.gain.rentals_a_day or 0.0
    return gain - least if one.remedy == "retrain" and "feedback" in gains else gain


def _why_nothing(harm: Harm, harmless: bool) -> str:
    if not harmless:
        return "what stays as it is costs nothing more"
    if harm.bad_days:
        days = ", ".join(f"{one.day} ({one.why})" for one in harm.bad_days)
        return f"beside single bad days, {days}, nothing costs more than it did"
    return "nothing costs more than it did"


def _gain(hours: Array, label: Array, before: Array, after: Array) -> Amount:
    return Amount.of_days(*by_day(hours, np.abs(label - before) - np.abs(label - after)))


def _mended(seen: Mapping[str, Array]) -> Amount:
    now, then = (np.abs(seen[f"{kind}label"] - seen[f"{kind}answer"]) for kind in ("", "sound_"))
    return Amount.of_days(*by_day(seen["hour"], now - then))


def _is_measured(hours: Array, begins: int) -> Array:
    """Return which hours tell what a remedy is worth: of great holidays none would have known."""
    found: Array = (hours >= begins) & ~holidays.is_dated(feedback.FIRST_DAY + hours // HOURS_A_DAY)
    return found


def _fed_back(seen: Mapping[str, Array], known: Mapping[str, Array], begins: int, settings: FeedbackSettings) -> Amount:
    columns = {**{name: known[name] for name in feedback.GROUPED_BY}, features.LABEL: known["label"]}
    labels = feedback.Labels.of(columns, known["hour"], known["answer"])
    answers = feedback.corrected(labels, settings)
    here = np.isin(labels.hours, seen["hour"]) & _is_measured(labels.hours, begins)
    return _gain(labels.hours[here], labels.rentals[here], labels.expected[here], answers[here])


def _retrained(seen: Mapping[str, Array], known: Mapping[str, Array], begins: int) -> Amount:
    learnt = known["hour"] < begins
    asked = _is_measured(seen["hour"], begins)
    factors = _factors(known["label"][learnt], known["answer"][learnt], _kinds(known)[learnt])
    hours, label, answer = (seen[name][asked] for name in ("hour", "sound_label", "sound_answer"))
    return _gain(hours, label, answer, answer * factors[_kinds(seen)[asked]])


def _kinds(columns: Mapping[str, Array]) -> Array:
    hour = np.clip(np.asarray(columns["hr"], np.int64), 0, HOURS_A_DAY - 1)
    found: Array = (np.asarray(columns["workingday"]) > 0) * HOURS_A_DAY + hour
    return found


def _factors(label: Array, answer: Array, kinds: Array) -> Array:
    """Return by what answers to each kind of hour, (48,), are to be multiplied, drawn to that of all by few days."""
    sums, expected, rows = (np.bincount(kinds, weights, 2 * HOURS_A_DAY) for weights in (label, answer, None))
    level = (label.sum() + feedback.PRIOR_RENTALS) / (answer.sum() + feedback.PRIOR_RENTALS)
    own = (sums + feedback.PRIOR_RENTALS) / (expected * level + feedback.PRIOR_RENTALS)
    found: Array = level * own ** (rows / (rows + _PATTERN_DAYS))
    return found

"""What helps against a change of error, and by how much: each remedy is tried on the hours whose labels are known.

Feedback is replayed as it would have run. Retraining is estimated: the level and the pattern by hours of the first half
of the days, laid over the second, which is what a training run would learn of these labels at least; feedback is
measured on the same half. A source that is mended is what the model answers to sound values. What was a single bad day
needs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.modeling import feedback
from bike_pipeline.monitoring.attribution import HOURS_A_DAY, Attribution, known_of
from bike_pipeline.monitoring.columns import Columns
from bike_pipeline.monitoring.harm import Amount, Harm, by_day
from bike_pipeline.settings.monitoring import HarmSettings
from bike_pipeline.settings.training import FeedbackSettings

Array = npt.NDArray[Any]
Name = Literal["feedback", "retrain", "fix the source", "nothing"]
# Days of a kind of hour after which its own factor counts half.
_PATTERN_DAYS = 4.0


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
    found: Attribution, harm: Harm, history: Columns, settings: HarmSettings, corrected_by: FeedbackSettings | None
) -> list[Remedy]:
    """Return what helps against a change, the best first; "nothing" stands first where nothing does.

    Args:
        found: what the change was attributed to.
        harm: what it costs.
        history: answered rows until the end of the window, from which feedback would have learnt.
        settings: what is worth it.
        corrected_by: how the model is corrected by labels; None for one that takes none.
    """
    if not found.rows:
        return []
    gains: dict[Name, tuple[Amount, str]] = {"retrain": (_retrained(found.seen), _RETRAINED)}
    if corrected_by is not None:
        gains["feedback"] = (_fed_back(found.seen, history, corrected_by), _FED_BACK)
    if found.faults.rows.any():
        gains["fix the source"] = (_mended(found.seen), f"the same model, asked without {found.faults.reason}")
    least = settings.tolerated_share * found.expected
    only_bad_days = bool(harm.bad_days) and harm.is_none(settings)
    tried = []
    for name, (gain, reason) in gains.items():
        certain = gain.low is not None and gain.low > 0.0 and (gain.rentals_a_day or 0.0) >= least
        # A source is mended whatever else happened, and whatever it costs now.
        tried.append(Remedy(name, gain, reason, name == "fix the source" or (certain and not only_bad_days)))
    tried.sort(key=lambda one: (not one.helps, -_worth(one, gains, least)))
    nothing = Remedy("nothing", Amount(0.0, 0.0, 0.0), _why_nothing(harm, only_bad_days), not tried[0].helps)
    return [nothing, *tried] if nothing.helps else [*tried, nothing]


_FED_BACK = "each day's labels fed back as they would have arrived, replayed; measured on the second half of the days"
_RETRAINED = "estimated: level and pattern by hours of the first half of the days, laid over the second"


def _worth(one: Remedy, gains: Mapping[Name, tuple[Amount, str]], least: float) -> float:
    """Return what remedies are ranked by: retraining takes a run and its gates, so it must be clearly better."""
    gain = one.gain.rentals_a_day or 0.0
    return gain - least if one.remedy == "retrain" and "feedback" in gains else gain


def _why_nothing(harm: Harm, only_bad_days: bool) -> str:
    if only_bad_days:
        return (
            f"single bad days: {', '.join(f'{one.day} ({one.why})' for one in harm.bad_days)}; the others are as usual"
        )
    return "what stays as it is costs nothing more"


def _gain(hours: Array, label: Array, before: Array, after: Array) -> Amount:
    return Amount.of_days(*by_day(hours, np.abs(label - before) - np.abs(label - after)))


def _mended(seen: Mapping[str, Array]) -> Amount:
    now, then = (np.abs(seen[f"{kind}label"] - seen[f"{kind}answer"]) for kind in ("", "sound_"))
    return Amount.of_days(*by_day(seen["hour"], now - then))


def _fed_back(seen: Mapping[str, Array], history: Columns, settings: FeedbackSettings) -> Amount:
    known = known_of(history)
    columns = {**{name: known[name] for name in feedback.GROUPED_BY}, features.LABEL: known["label"]}
    labels = feedback.Labels.of(columns, known["hour"], known["answer"])
    answers = feedback.corrected(labels, settings)
    here = np.isin(labels.hours, seen["hour"][_is_later(seen["hour"])])
    return _gain(labels.hours[here], labels.rentals[here], labels.expected[here], answers[here])


def _retrained(seen: Mapping[str, Array]) -> Amount:
    hours, label, answer = seen["hour"], seen["sound_label"], np.asarray(seen["sound_answer"], np.float64)
    kinds = (np.asarray(seen["workingday"]) > 0) * HOURS_A_DAY + np.asarray(seen["hr"], np.int64)
    asked = _is_later(hours)
    factors = _factors(label[~asked], answer[~asked], kinds[~asked])[kinds[asked]]
    return _gain(hours[asked], label[asked], answer[asked], answer[asked] * factors)


def _is_later(hours: Array) -> Array:
    """Return which hours are in the second half of their days."""
    days = hours // HOURS_A_DAY
    found: Array = days > np.median(np.unique(days))
    return found


def _factors(label: Array, answer: Array, kinds: Array) -> Array:
    """Return by what answers to each kind of hour, (48,), are to be multiplied, drawn to that of all by few days."""
    sums, expected, rows = (np.bincount(kinds, weights, 2 * HOURS_A_DAY) for weights in (label, answer, None))
    level = (label.sum() + feedback.PRIOR_RENTALS) / (answer.sum() + feedback.PRIOR_RENTALS)
    own = (sums + feedback.PRIOR_RENTALS) / (expected * level + feedback.PRIOR_RENTALS)
    found: Array = level * own ** (rows / (rows + _PATTERN_DAYS))
    return found

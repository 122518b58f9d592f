"""One threshold, applied: what was decided and why, and how the interval of a change decides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bike_pipeline import features
from bike_pipeline.modeling.paired_bootstrap import DAYS_A_WEEK, Change
from bike_pipeline.modeling.slices import OVERALL
from bike_pipeline.settings.evaluation import BootstrapSettings, ChangeThreshold


@dataclass(frozen=True)
class Decision:
    """One threshold, applied.

    Attributes:
        kind: "value", "change" (against the baseline), "reference" (against the naive baseline) or "coverage" (that a
            slice is judged at all).
        metric: the metric; "limits", how many judge a slice, for "coverage".
        slice: the slice's value; "" for overall.
        value: the candidate's metric; for "change" the relative increase; for "reference" the ratio.
        upper: the largest passing value, infinite where there is none; of a "change" with an interval by weeks, what
            `low` must not be above.
        binding: whether it decides; a slice with too few `rows`, weeks and days is reported only.
        passed: whether the value lies within the limits. A value that is missing or not a number never passes.
        note: why a slice is not judged; "" for the other kinds.
        low: lower end of the interval of a "change"; None where there is none. `high` is the upper one.
        blocks: how many weeks, or days where there are too few weeks, the interval is made of.
        block_days: 7 or 1; 0 without an interval.
        hint: how the interval and the limit came to the decision, where `value` alone does not tell.
    """

    kind: str
    metric: str
    slicing: str
    slice: str
    value: float
    lower: float | None
    upper: float
    rows: int
    binding: bool
    passed: bool
    note: str = ""
    low: float | None = None
    high: float | None = None
    blocks: int = 0
    block_days: int = 0
    hint: str = ""

    @property
    def word(self) -> str:
        """What the interval of a change says: "better", "worse" or "no clear difference"; "" without an interval."""
        if self.low is None or self.high is None:
            return ""
        return "worse" if self.low > 0 else "better" if self.high < 0 else "no clear difference"

    @property
    def reason(self) -> str:
        """The decision in words."""
        where = features.slice_name(self.slicing, self.slice)
        if self.note:
            return f"{where}, {self.rows} rows: not judged: {self.note}"
        limits = f"at most {self.upper:g}" if self.lower is None else f"between {self.lower:g} and {self.upper:g}"
        limits = limits if math.isfinite(self.upper) else f"at least {self.lower:g}"
        what = {
            "value": self.metric,
            "change": f"{self.metric} against the baseline",
            "reference": f"{self.metric} as a share of the naive baseline's",
        }[self.kind]
        value = f"{self.value:.4g}"
        if self.kind == "change":
            limits = f"at most {100 * self.upper:+g} %"
            value = f"{100 * self.value:+.1f} %" if math.isfinite(self.value) else value
        if self.low is not None and self.high is not None:
            value += f" ({100 * self.low:+.1f} to {100 * self.high:+.1f} %: {self.word})"
        note = "" if self.binding else f" (only {self.rows} rows: reported)"
        return f"{what}, {where}: {value}, {limits}{note}{self.hint and f': {self.hint}'}"


def by_interval(
    plain: Decision, limit: ChangeThreshold, change: Change, family: int, settings: BootstrapSettings
) -> Decision:
    """Return the decision on a change whose interval is known, from the one by the plain number.

    `family` is how many limits are judged by the intervals of weeks: of those on slices for a slice, else of those
    overall. docs/decisions/0022-paired-bootstrap.md has the rule and what it was tried on.
    """
    tail = (1 - settings.confidence) / 2
    low, high = change.interval(tail)
    decision = replace(plain, low=low, high=high, blocks=change.blocks, block_days=change.days)
    if limit.severe_increase is None:
        return decision
    overall, weekly = plain.slicing == OVERALL, change.days == DAYS_A_WEEK
    # Overall TFMA enforces it, whatever the interval says.
    severe = plain.value > limit.severe_increase and (overall or low > 0)
    few = f"by {change.blocks} days, of fewer than {settings.min_blocks} weeks"
    if not weekly and plain.binding:
        return replace(decision, hint=few)
    # All of them together are to refuse a sound candidate as seldom as one comparison: Bonferroni's correction.
    certain = weekly and change.interval(tail / family)[0] > limit.max_increase
    upper = limit.max_increase if weekly else limit.severe_increase
    hints = [] if weekly else [few]
    if weekly and severe and not certain:
        hints.append(f"from {limit.severe_increase:+.0%} on it need not be certain")
    elif plain.value > upper and not certain and not severe:
        hints.append("beyond it, but not for certain" + (f" among {family} limits" if weekly and family > 1 else ""))
    return replace(decision, upper=upper, binding=True, passed=not certain and not severe, hint="; ".join(hints))

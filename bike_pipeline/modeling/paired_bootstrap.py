"""How sure a difference between two models on the same rows is: a paired block bootstrap over weeks.

Errors of neighbouring hours and days resemble each other (a storm, a holiday, a level that is off), so hours are no
independent evidence; whole weeks nearly are. A draw takes as many weeks as there are, with replacement, for candidate
and baseline alike, from sums by week: what both get wrong in the same weeks cancels out.

The spread of the draws is that of log(candidate's error / baseline's), and the interval is Student's t around it: with
few blocks percentiles of the draws are too narrow (Hesterberg 2015, doi 10.1080/00031305.2015.1089789, sections 3.2 and
4.6: n instead of n - 1 in the variance, and z instead of t). On the log scale it is the same question whichever model
is called the candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.slice_sums import Measured, SliceKey
from bike_pipeline.settings.evaluation import BootstrapSettings

DAYS_A_WEEK = 7
# The same sums always lead to the same decision.
_SEED = 20110101
# Draws that are held at once: bounds memory where there are thousands of weeks.
_DRAWS_AT_ONCE = 250

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Change:
    """A candidate's error against the baseline's on the same rows.

    Attributes:
        log_ratio: log(candidate's error / baseline's).
        spread: its standard error over the draws.
        blocks: how many blocks hold rows.
        days: how many days a block has: 7, or 1 where there are too few weeks.
    """

    log_ratio: float
    spread: float
    blocks: int
    days: int

    def interval(self, tail: float) -> tuple[float, float]:
        """Return both ends of (candidate - baseline) / baseline, with the probability `tail` beyond each."""
        from scipy import special

        reach = float(special.stdtrit(self.blocks - 1, 1 - tail)) * self.spread
        return math.expm1(self.log_ratio - reach), math.expm1(min(self.log_ratio + reach, 700.0))


def changes(
    measured: Measured, candidate: str, baseline: str, settings: BootstrapSettings
) -> dict[SliceKey, dict[str, Change]]:
    """Return the change of each error metric by slice, where both models are measured on enough blocks by day.

    A slice is compared by the weeks of the eval split, counted from its first day; one that is in fewer than
    `settings.min_blocks` of them by its days, and one with fewer days not at all. A metric that is no number, or zero,
    for one of the models has no change.
    """
    found: dict[SliceKey, dict[str, Change]] = {}
    whole = (measured.days - measured.days[:1]) // DAYS_A_WEEK
    for key, model in measured.by_day:
        if model != candidate or (key, baseline) not in measured.by_day:
            continue
        pair = np.stack([measured.by_day[key, name][:, 1:4] for name in (candidate, baseline)], axis=1)
        there = measured.by_day[key, candidate][:, 0] > 0
        for days, block in ((DAYS_A_WEEK, whole[there]), (1, measured.days[there])):
            sums = np.add.reduceat(pair[there], np.flatnonzero(np.diff(block, prepend=block[0] - 1)), axis=0)
            if len(sums) >= settings.min_blocks:
                found[key] = _by_metric(sums, days, settings.draws, measured.target.ratios)
                break
    return found


def _by_metric(sums: Array, days: int, draws: int, ratios_of: Mapping[str, tuple[int, float]]) -> dict[str, Change]:
    """Return the change of each metric from the sums of blocks, shape (blocks, 2 models, 3 sums).

    `ratios_of` leads from a metric to its sum and the power of that one's ratio (see `Target.ratios`): the number of
    rows is the same for both models and cancels out.
    """
    blocks = len(sums)
    random = np.random.default_rng(_SEED)
    drawn = [sums.sum(axis=0)[None]]
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, draws, _DRAWS_AT_ONCE):
            size = min(_DRAWS_AT_ONCE, draws - start)
            weights = random.multinomial(blocks, np.full(blocks, 1 / blocks), size=size)
            drawn.append((weights @ sums.reshape(blocks, -1)).reshape(size, *sums.shape[1:]))
        logs = np.log(np.concatenate(drawn))
        ratios = logs[:, 0] - logs[:, 1]
    unbiased = math.sqrt(blocks / (blocks - 1))
    found = {}
    for metric, (place, power) in ratios_of.items():
        ratio = power * ratios[:, place - 1]
        if np.isfinite(ratio).all():
            found[metric] = Change(float(ratio[0]), float(ratio[1:].std()) * unbiased, blocks, days)
    return found

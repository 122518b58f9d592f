"""Tests that may be looked at after every observation: their errors are bounded over all looks together.

Each is a likelihood ratio against the null hypothesis, a martingale of mean 1 under it, which exceeds 1/alpha with a
probability of alpha at most at any time (Ville's inequality). See Howard et al. 2021 (doi 10.1214/20-AOS1991).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Prior variance of the effect in standard deviations: 0.1 finds small effects soon, and large ones not much later.
_EFFECT_VARIANCE = 0.1


def log_evidence_of_share(bad: float, rows: float, allowed: float) -> float:
    """Return the log of the evidence that more than an allowed share, within (0, 1), of rows is bad.

    The alternative is uniform above `allowed` (Robbins' method of mixtures): the beta function's part above it. Under
    any smaller share the ratio's mean is below 1, so that the limit itself is the worst case.
    """
    from scipy import special

    if not rows:
        return 0.0
    above = float(special.betaincc(bad + 1, rows - bad + 1, allowed))
    if not above:
        return -math.inf
    mixture = float(special.betaln(bad + 1, rows - bad + 1)) + math.log(above) - math.log1p(-allowed)
    return mixture - bad * math.log(allowed) - (rows - bad) * math.log1p(-allowed)


def upper_bound_of_share(bad: float, rows: float, alpha: float) -> float:
    """Return what the share of bad rows is below at every look but with a probability of `alpha`; 1 without rows.

    The test of `log_evidence_of_share` for good rows, turned into a confidence sequence.
    """
    from scipy import optimize

    def evidence(share: float) -> float:
        return log_evidence_of_share(rows - bad, rows, 1 - share) + math.log(alpha)

    lowest, highest = max(bad / rows if rows else 0.0, 1e-12), 1 - 1e-12
    if not rows or evidence(highest) <= 0:
        return 1.0
    return float(optimize.brentq(evidence, lowest, highest)) if evidence(lowest) < 0 else lowest


def log_evidence_of_mean(differences: Sequence[float]) -> float:
    """Return the log of the evidence that the mean of differences is not 0, whatever their spread; 0 if it is unknown.

    A sequential t-test: the Bayes factor of a normal effect size, with the scale's invariant prior, which is a
    martingale whatever the scale is (Lindon et al. 2022, arXiv 2210.08589; Pérez-Ortiz et al. 2022, arXiv 2208.07610).
    """
    count = len(differences)
    if count < 2:
        return 0.0
    mean = sum(differences) / count
    squares = sum((value - mean) * (value - mean) for value in differences)
    if not squares or not math.isfinite(squares):
        return 0.0
    ratio, growth = count * mean * mean / squares, 1 + count * _EFFECT_VARIANCE
    return count / 2 * (math.log1p(ratio) - math.log1p(ratio / growth)) - math.log(growth) / 2

"""What the evidence of a step says: each check for itself, and the verdict over all of them.

Every check but the A/B test counts bad rows against a share that is allowed. That more are bad is proved by a test that
may be looked at all the time; that no more are is believed only of enough rows. What lies between is held.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bike_pipeline.rollout.delivery.evidence import Evidence, Share, TrackEvidence
from bike_pipeline.rollout.delivery.sequential import log_evidence_of_mean, log_evidence_of_share, upper_bound_of_share
from bike_pipeline.rollout.tracks import CHALLENGER
from bike_pipeline.settings.rollout import RolloutSettings

# The share of requests above a 99th percentile.
_SLOW_SHARE = 0.01
ERROR, ERROR_SHARE, LATENCY, REFUSALS = "absolute error", "error share", "latency", "client errors"
ANSWERS, DIFFERENCE = "answers", "prediction difference"
_UNLOGGED = "no server logs what it answers; with rollout.require_answers: false errors and latency are enough"


class Status(StrEnum):
    """What one check came to."""

    PASSED = "passed"
    FAILED = "failed"
    UNSURE = "not sure"
    NOT_JUDGED = "not judged"
    NOT_FINITE = "not finite"


class Verdict(StrEnum):
    """What a step came to."""

    CONTINUE = "continue"
    HOLD = "hold"
    ROLLBACK = "rollback"
    PROMOTE = "promote"
    WAITS = "waits for approval"
    NO_TRAFFIC = "no traffic"
    NOT_FINITE = "not finite"
    NO_ROLLOUT = "no rollout"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: what it came to.
        figures: the numbers behind it, in words.
        required: whether a step needs it to pass; else it may be not judged.
    """

    name: str
    status: Status
    figures: str
    required: bool = True

    @property
    def in_words(self) -> str:
        """Return name, status and figures."""
        return f"{self.name} {self.status}: {self.figures}"


def checks_of(found: Evidence, label: str, fewest: int, settings: RolloutSettings) -> list[Check]:
    """Return every check of a step's evidence; `fewest` is how many requests a step needs."""
    if not _is_sound(found):
        return [Check("evidence", Status.NOT_FINITE, "the evidence holds what is no count or no finite number")]
    return list(_checks(found, label, fewest, settings))


def _checks(found: Evidence, label: str, fewest: int, settings: RolloutSettings) -> Iterator[Check]:
    alpha, candidate, stable = settings.alpha, found.candidate, found.stable
    usual = stable.errors / stable.requests if stable.requests else 0.0
    errors = Share(candidate.errors, candidate.requests)
    yield _share_check(ERROR_SHARE, errors, min(settings.error_share + usual, 0.99), fewest, alpha)
    yield _refused_check(candidate, stable, fewest, settings)
    if candidate.answers or stable.answers or found.different:
        yield _finite_check(candidate, stable, fewest, alpha)
        yield _share_check(DIFFERENCE, found.different, settings.prediction_share, fewest, alpha)
    else:
        # One track whose answers nothing tells is a fault; of none, it is a server that keeps no log.
        for name in (ANSWERS, DIFFERENCE):
            yield Check(name, Status.NOT_JUDGED, _UNLOGGED, settings.require_answers)
    limit = settings.latency_ratio * stable.latency.quantile(0.99)
    if stable.latency.rows < fewest or not math.isfinite(limit):
        few = f"{stable.latency.rows:,} latencies of the stable version, {fewest:,} are needed"
        yield Check(LATENCY, Status.NOT_JUDGED, few)
    else:
        check = _share_check(LATENCY, candidate.latency.above(limit), _SLOW_SHARE, fewest, alpha)
        quantile = f"p99 {candidate.latency.quantile(0.99):.3g} ms against {stable.latency.quantile(0.99):.3g} ms"
        yield Check(LATENCY, check.status, f"{quantile}, {check.figures} above {limit:.3g} ms")
    few_labels = settings.test_pairs
    yield _share_check("interval coverage", found.missed, settings.miss_share, few_labels, alpha, required=False)
    yield _test_check(found, settings) if label == CHALLENGER else _error_check(found, settings)


def _is_sound(found: Evidence) -> bool:
    tracks = (found.candidate, found.stable)
    counts = [
        n for t in tracks for n in (t.requests, t.errors, t.client_errors, t.answers, t.not_finite, *t.latency.counts)
    ]
    parts = [(t.errors + t.client_errors, t.requests) for t in tracks] + [(t.not_finite, t.answers) for t in tracks]
    parts += [share for share in (found.different, found.missed) if share is not None]
    numbers = [value for values in found.pairs.values() for value in values]
    whole = all(math.isfinite(n) and n >= 0 and n == int(n) for n in (*counts, *(n for part in parts for n in part)))
    return whole and all(bad <= rows for bad, rows in parts) and all(map(math.isfinite, numbers))


def _share_check(
    name: str, share: Share | None, allowed: float, fewest: int, alpha: float, required: bool = True
) -> Check:
    if share is None:
        return Check(name, Status.NOT_JUDGED, "nothing tells", required)
    figures = f"{share.bad:,} of {share.rows:,}, {allowed:.2%} may be"
    if log_evidence_of_share(*share, allowed) >= -math.log(alpha):
        return Check(name, Status.FAILED, figures, required)
    if share.rows < max(fewest, 1):
        return Check(name, Status.NOT_JUDGED, f"{figures}; {fewest:,} rows are needed", required)
    status = Status.PASSED if share.bad <= allowed * share.rows else Status.UNSURE
    return Check(name, status, figures, required)


def _refused_check(candidate: TrackEvidence, stable: TrackEvidence, fewest: int, settings: RolloutSettings) -> Check:
    """Compare two unknown shares; each test is at half of alpha, so that both together err no more often."""
    half, usual = settings.alpha / 2, Share(stable.client_errors, stable.requests)
    bound = upper_bound_of_share(*usual, half)
    share = Share(candidate.client_errors, candidate.requests)
    allowed = settings.error_share + (usual.bad / usual.rows if usual.rows else 0.0)
    figures = f"{share.bad:,} of {share.rows:,} refused with 4xx, {usual.bad:,} of {usual.rows:,} of the stable version"
    if bound + settings.error_share < 1 and log_evidence_of_share(*share, bound + settings.error_share) >= -math.log(
        half
    ):
        return Check(REFUSALS, Status.FAILED, f"{figures}; an input or a signature may be another one")
    if min(share.rows, usual.rows) < max(fewest, 1):
        return Check(REFUSALS, Status.NOT_JUDGED, f"{figures}; {fewest:,} rows of each are needed")
    return Check(REFUSALS, Status.PASSED if share.bad <= allowed * share.rows else Status.UNSURE, figures)


def _finite_check(candidate: TrackEvidence, stable: TrackEvidence, fewest: int, alpha: float) -> Check:
    share, usual = Share(candidate.not_finite, candidate.answers), stable.not_finite
    if not usual and share.bad:
        figures = f"{share.bad:,} of {share.rows:,} answers are no finite number"
        return Check(ANSWERS, Status.NOT_FINITE, f"{figures}, and none of the stable version's")
    allowed = min(max(usual / stable.answers if stable.answers else 0.0, 1e-9), 0.99)
    check = _share_check(ANSWERS, share, allowed, fewest, alpha)
    return check if check.status is not Status.FAILED else Check(ANSWERS, Status.NOT_FINITE, check.figures)


def _compared(name: str, values: Sequence[float], alpha: float) -> tuple[str, float]:
    """Return a comparison in words, and the mean difference where it is not 0 beyond doubt, else 0."""
    mean = sum(values) / len(values) if values else 0.0
    evidence = log_evidence_of_mean(values)
    limit = f"{-math.log(alpha):.1f}, error rate {alpha:.1%}"
    figures = f"{name} {mean:+.3g} on {len(values):,} pairs, evidence {evidence:+.1f} of {limit}"
    return figures, mean if evidence >= -math.log(alpha) else 0.0


def _error_check(found: Evidence, settings: RolloutSettings) -> Check:
    values = found.pairs.get(ERROR, ())
    figures, mean = _compared("candidate - stable", values, settings.alpha)
    if mean > 0:
        return Check(ERROR, Status.FAILED, figures, required=False)
    status = Status.NOT_JUDGED if len(values) < settings.test_pairs else Status.PASSED
    return Check(ERROR, status, figures if values else "no label has come", required=False)


def _test_check(found: Evidence, settings: RolloutSettings) -> Check:
    """Compare by the first of error, error share and latency that has enough pairs and tells a difference."""
    tried = []
    for metric in (ERROR, ERROR_SHARE, LATENCY):
        values = found.pairs.get(metric, ())
        if len(values) < settings.test_pairs:
            tried.append(f"{metric}: {len(values):,} of {settings.test_pairs:,} pairs")
            continue
        figures, mean = _compared(metric, values, settings.test_alpha)
        if mean:
            return Check("A/B test", Status.PASSED if mean < 0 else Status.FAILED, figures)
        tried.append(figures)
        if metric == ERROR:
            # Whoever answers as well as the other is not better for being faster.
            break
    judged = any("pairs, evidence" in words for words in tried)
    return Check("A/B test", Status.UNSURE if judged else Status.NOT_JUDGED, "; ".join(tried))


def bad_among(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that end a rollout: what failed, and answers that are no finite number."""
    return [c for c in checks if c.status is Status.FAILED or (c.status, c.name) == (Status.NOT_FINITE, ANSWERS)]

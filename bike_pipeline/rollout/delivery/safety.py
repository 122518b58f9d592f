"""How safe a candidate seems before it answers anybody: a number between 0 and 1 that decides how slowly it goes.

It is the mean of four parts. One whose evidence is missing counts as 0: what is not known makes a rollout slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bike_pipeline.modeling.slices import OVERALL
from bike_pipeline.rollout.delivery.evidence import Share


@dataclass(frozen=True)
class Part:
    """A part of the score: a number between 0 and 1, None without evidence, and what it is made of."""

    name: str
    value: float | None
    why: str


@dataclass(frozen=True)
class Safety:
    """The score and its parts."""

    parts: Sequence[Part]

    @property
    def score(self) -> float:
        """The mean of the parts; what is missing is 0."""
        return sum(part.value or 0.0 for part in self.parts) / len(self.parts)


def safety_of(gates: Mapping[str, Any] | None, shadow: Share | None, findings: int | None) -> Safety:
    """Return the score of a candidate.

    Args:
        gates: what the Evaluator decided (see `lineage.queries.evidence`); None without a record of it.
        shadow: how many answers of its last shadow differed from the stable version's; None if it never was one.
        findings: what the data gate found in the data of its run; None if that is not on record.
    """
    decisions = [d for d in (gates or {}).get("decisions") or () if d["kind"] == "change" and d["binding"]]
    rows = shadow.rows if shadow else 0
    agreement = 1 - shadow.bad / shadow.rows if shadow and rows else None
    return Safety(
        (
            _margin("paired comparison", [d for d in decisions if d["slicing"] == OVERALL]),
            _margin("worst slice", [d for d in decisions if d["slicing"] != OVERALL]),
            Part(
                "shadow agreement", agreement, f"{rows:,} answers beside the stable version's" if rows else "no shadow"
            ),
            Part(
                "data health",
                None if findings is None else 1 / (1 + findings),
                "the data gate's report is not on record" if findings is None else f"{findings} findings of the gate",
            ),
        )
    )


def _margin(name: str, decisions: Sequence[Mapping[str, Any]]) -> Part:
    """Return the smallest part of a limit that is left: 1 if no error may have risen, 0 if one may be at its limit."""
    left = []
    for decision in decisions:
        # The upper end of the interval of weeks, where there is one.
        high, limit = decision.get("high"), decision.get("upper")
        rise = decision.get("value") if high is None else high
        if rise is None or limit is None or not math.isfinite(rise):
            left.append((0.0, "a number is missing"))
        elif limit > 0:
            words = f"{decision['metric']} {decision['slice']}".strip()
            left.append((1 - min(max(rise / limit, 0.0), 1.0), f"{words} may rise by {rise:+.1%}, {limit:.1%} may be"))
    value, why = min(left, default=(None, "no comparison with a stable version is on record"))
    return Part(name, value, why)

"""What a decision was worth once labels have come: rentals of error avoided, and CPU seconds spent on them.

Two versions are asked about the same hours, each with the state of feedback that it had. What a promoted run avoided is
measured on hours that neither version knows. What did not fire, or was refused, has no model of its own: the next one
that was promoted stands in for it, which is an estimate that flatters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.label_update import moment


@dataclass(frozen=True)
class Promotion:
    """A run whose version came to serve in place of another one.

    Attributes:
        run: its number.
        claimed_at: POSIX time.
        before: the version that served until then.
        after: the version that it promoted.
        before_knows: the last hour whose label the first knew, since 1 January of `features.FIRST_YEAR`.
        after_knows: the same of the second.
    """

    run: int
    claimed_at: float
    before: int
    after: int
    before_knows: int
    after_knows: int


@dataclass(frozen=True)
class Price:
    """What a decision was worth.

    Attributes:
        avoided: sum over hours of |error of the version that served before| - |error of the other one|, in rentals.
        hours: so many hours with labels.
        first: the first of them, local.
        last: the last of them.
        cpu_seconds: what the decision's own run spent; 0 where it had none, None where nobody knows.
        before: the version that served before.
        after: the version that it is held against.
        estimate: what is optimistic about it; "" where it is measured.
    """

    avoided: float
    hours: int
    first: str
    last: str
    cpu_seconds: float | None
    before: int
    after: int
    estimate: str

    def plain(self) -> dict[str, Any]:
        """Return it as the ledger keeps it."""
        return asdict(self)


def price_of(
    decision: Mapping[str, Any],
    promotions: Sequence[Promotion],
    cpu_seconds: float | None,
    hours: npt.NDArray[np.int64],
    errors: Callable[[int, npt.NDArray[np.bool_]], npt.NDArray[np.float64]],
) -> Price | None:
    """Return the price of a row of `ledger_tables.decisions`; None while there is no label or no model to tell it by.

    Args:
        decision: the row.
        promotions: all there were, rising by run.
        cpu_seconds: what its run spent; None where that is not known.
        hours: those whose label is known, (hours,).
        errors: returns absolute errors of a version in some of these hours, (chosen,), in rentals.
    """
    own = next((one for one in promotions if one.run == decision["run"]), None)
    if own is not None:
        later = next((one.after_knows for one in promotions if one.run > own.run), None)
        chosen = hours > max(own.before_knows, own.after_knows)
        chosen &= hours <= (hours.max(initial=0) if later is None else later)
        estimate = ""
    else:
        own = next((one for one in promotions if one.claimed_at >= decision["last_at"]), None)
        if own is None:
            return None
        chosen = (hours > own.before_knows) & (hours <= own.after_knows)
        estimate = (
            f"version {own.after} of run {own.run} stands in for the model that was not made; it has seen most of "
            "these labels, and the hours before the decision count as well"
        )
    if not chosen.any():
        return None
    avoided = float((errors(own.before, chosen) - errors(own.after, chosen)).sum())
    first, last = (moment(int(hour)) for hour in (hours[chosen].min(), hours[chosen].max()))
    return Price(avoided, int(chosen.sum()), first, last, cpu_seconds, own.before, own.after, estimate)

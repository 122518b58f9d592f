"""The holidays that have a date of their own, by kind. The data has flags for public ones, and none for leave."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# Kinds of holiday: none; any other; Thanksgiving and the Friday after it; Christmas; the days around it, when many take
# leave; New Year's Eve and New Year; Independence Day; a Saturday or Sunday among the days of leave, whose usual day
# is another.
OTHER, THANKSGIVING, CHRISTMAS, LEAVE, NEW_YEAR, INDEPENDENCE, LEAVE_WEEKEND = range(1, 8)
KINDS = 8
NAMES = ("other", "thanksgiving", "christmas", "leave", "new_year", "independence", "leave_weekend")
# The great ones empty offices as a Sunday does.
GREAT = (THANKSGIVING, CHRISTMAS, NEW_YEAR, INDEPENDENCE)
# Kind, month and days of those that have a date.
DATES = (
    (CHRISTMAS, 12, (24, 25, 26)),
    (LEAVE, 12, (22, 23, 27, 28, 29, 30)),
    (NEW_YEAR, 12, (31,)),
    (NEW_YEAR, 1, (1,)),
    (INDEPENDENCE, 7, (4,)),
)
NOVEMBER = 11


def is_dated(days: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return whether days, datetime64[D] of shape (rows,), are holidays of a kind other than `OTHER`."""
    month = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    day = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    # 1 January 1970 was a Thursday, the fourth day from Sunday on.
    weekday = (days.astype(np.int64) + 4) % 7
    thursday = day - (weekday - 4)
    found: npt.NDArray[np.bool_] = (month == NOVEMBER) & np.isin(weekday, (4, 5)) & (thursday >= 22) & (thursday <= 28)
    for _, of_month, dates in DATES:
        found |= (month == of_month) & np.isin(day, dates)
    return found


def priors(training: Mapping[str, Any]) -> tuple[float, ...]:
    """Return what each kind adds to log(1 + rentals) by what is known before any row, (kinds,).

    Of the settings' section it reads `holiday_priors`, factors by name; a kind that it does not name has 0.
    """
    factors = training["holiday_priors"]
    return (0.0, *(math.log(factors.get(name, 1.0)) for name in NAMES))

"""The protocols: which rows of the data set train and which test, and how a choice is made inside the training rows.

P1 trains on 2011 and tests on 2012; P2 tests on the last fifth; P3 is Kaggle's split (days 1-19 of each month train,
the others test); P4 draws a fifth at random, as scikit-learn's `train_test_split(…, random_state=42)` does; P5 tests
each month of 2012 on a model of everything before it. P6 is P1 asked one hour ahead, with the labels of the 24 hours
before known, for quantiles too. The rows are those of the embedded data set in order of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
# Columns by name, each of shape (rows,).
Table = dict[str, Array]
FORWARD = ("P1", "P2", "P5", "P6")
# One hour ahead, and the quantiles that are asked for there.
HOUR_AHEAD, QUANTILES = "P6", (0.05, 0.1, 0.5, 0.9, 0.95)


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to test on, (rows,) int64 each, as places in the table."""

    train: Rows
    test: Rows


def read(content: bytes) -> Table:
    """Return the data set's columns as float64, in the order of time; `dteday` counts days from 2011-01-01."""
    header, *lines = content.decode().splitlines()
    cells = np.array([line.split(",") for line in lines]).T
    table = {name: _numbers(values) for name, values in zip(header.split(","), cells, strict=True)}
    order = np.lexsort((table["hr"], table["dteday"]))
    return {name: values[order] for name, values in table.items()}


def _numbers(values: npt.NDArray[np.str_]) -> Array:
    if "-" not in str(values[0]):
        return values.astype(np.float64)
    return (values.astype("datetime64[D]") - np.datetime64("2011-01-01")).astype(np.float64)


def _day_of_month(table: Table) -> Rows:
    days = np.datetime64("2011-01-01") + table["dteday"].astype(np.int64)
    return (days - days.astype("datetime64[M]")).astype(np.int64) + 1


def splits(table: Table, protocol: str) -> list[Split]:
    """Return the splits of a protocol, twelve for P5 and else one; KeyError for a name that is none."""
    count = len(table["cnt"])
    every = np.arange(count)
    month = (table["yr"] * 12 + table["mnth"]).astype(np.int64)
    if protocol == "P5":
        return [Split(every[month < m], every[month == m]) for m in range(13, 25)]
    if protocol == "P4":
        # train_test_split shuffles by numpy's former generator and takes the test rows first.
        order = np.random.RandomState(42).permutation(count)
        tested = int(np.ceil(count * 0.2))
        return [Split(np.sort(order[tested:]), np.sort(order[:tested]))]
    is_test = {
        "P1": table["yr"] == 1,
        HOUR_AHEAD: table["yr"] == 1,
        "P2": every >= int(count * 0.8),
        "P3": _day_of_month(table) >= 20,
    }[protocol]
    return [Split(every[~is_test], every[is_test])]


def inner_splits(table: Table, protocol: str, train: Rows) -> list[Split]:
    """Return two splits of the training rows that ask the same kind of question as the protocol.

    Forward in time: the last tenth from everything before it, and the tenth before that one. P3: days 14-19 from the
    others, and days 7-13. P4: two fifths at random.
    """
    if protocol in FORWARD:
        tenth = len(train) // 10
        return [Split(train[: -tenth * k], train[len(train) - tenth * k :][:tenth]) for k in (2, 1)]
    if protocol == "P3":
        day = _day_of_month(table)[train]
        held: Iterable[npt.NDArray[np.bool_]] = ((low <= day) & (day <= high) for low, high in ((7, 13), (14, 19)))
    else:
        fold = np.random.default_rng(42).integers(0, 5, len(train))
        held = (fold == number for number in (0, 1))
    return [Split(train[~out], train[out]) for out in held]

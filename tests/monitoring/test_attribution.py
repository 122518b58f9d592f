"""Why an error changed: parts that add up, and the right cause."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from benchmarks import injections
from benchmarks.quality.protocols import read
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.monitoring import attribution
from bike_pipeline.monitoring.attribution import FAULT, LEVEL, PATTERN, attribute
from bike_pipeline.settings import load_settings
from tests.monitoring.watched import Watched

OBSERVED, REFERENCE = (20, 22, 24, 26), (17, 18, 19, 21, 23, 25, 27, 28)


@pytest.fixture(scope="module")
def watched(embedded_rows):
    return Watched(embedded_rows)


@pytest.fixture(scope="module")
def real():
    """A model that the project trained, and what it never saw."""
    training = load_settings(assignments=("training.architecture=trees",)).training
    return injections.Watched(read(embedded_bytes()), training.model_dump(mode="json"))


@pytest.mark.parametrize("factor", [1.0, 1.5, 0.01, 1e12])
def test_the_parts_add_up_to_the_last_bit_in_any_order(watched, factor):
    rows = watched.weeks(*OBSERVED)
    rows["label"] = rows["label"] * factor
    found = attribute(rows, watched.weeks(*REFERENCE), watched.predict)
    assert {math.fsum(found.parts.values())} == {sum(order) for order in permutations(found.parts.values())}
    assert sum(found.parts.values()) == found.whole == found.observed - found.reference
    assert found.observed == pytest.approx(24 * np.abs(rows["label"] - rows["answer"]).mean(), rel=1e-9, abs=1e-5)


def test_nothing_moved_is_no_change(watched):
    rows = watched.weeks(*REFERENCE)
    found = attribute(rows, rows, watched.predict)
    assert found.whole == 0.0
    assert found.level == pytest.approx(1.0, abs=0.03)
    assert max(map(abs, found.parts.values())) < 0.05 * found.reference


def test_a_moved_level_is_told_with_its_factor(watched):
    rows = watched.weeks(*OBSERVED)
    before = attribute(rows, watched.weeks(*REFERENCE), watched.predict)
    rows["label"] *= 1.4
    found = attribute(rows, watched.weeks(*REFERENCE), watched.predict)
    assert found.cause == LEVEL
    assert found.level / before.level == pytest.approx(1.4, rel=0.01)


def test_a_repaired_fault_leaves_its_own_part_and_moves_no_other(watched):
    rows, reference = watched.weeks(*OBSERVED), watched.weeks(*REFERENCE)
    before = attribute(rows, reference, watched.predict)
    sent = ((rows["temp"] * 47 - 8) * 1.8 + 32 + 8) / 47
    feels = ((rows["atemp"] * 66 - 16) * 1.8 + 32 + 16) / 66
    found = attribute(watched.changed(rows, temp=sent, atemp=feels), reference, watched.predict)
    assert found.cause == FAULT
    assert "°F where °C is asked for in 672 of 672 rows" in found.reason
    assert found.parts[FAULT] == pytest.approx(found.whole - before.whole, rel=0.15)
    assert found.parts[LEVEL] == pytest.approx(before.parts[LEVEL], abs=0.05 * found.parts[FAULT])


def test_rows_that_wait_for_their_label_do_not_count(watched):
    rows, reference = watched.weeks(*OBSERVED), watched.weeks(*REFERENCE)
    known = attribute(rows, reference, watched.predict)
    late = watched.weeks(*OBSERVED, 29)
    late["label"][len(rows["label"]) :] = np.nan
    assert attribute(late, reference, watched.predict).parts == known.parts


@pytest.mark.parametrize("side", ["observed", "reference"])
def test_too_few_labels_tell_no_cause(watched, side):
    rows = {"observed": watched.weeks(*OBSERVED), "reference": watched.weeks(*REFERENCE)}
    rows[side]["label"][40:] = np.nan
    found = attribute(rows["observed"], rows["reference"], watched.predict)
    assert (found.parts, found.cause) == ({}, None)
    assert "40 labelled rows" in found.reason or "40 of the reference" in found.reason


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0, 99.0, 1e9, 0.5])
@pytest.mark.parametrize("name", ["temp", "hr", "mnth", "weathersit", "workingday", "weekday", "day", "hum_mean_3h"])
@pytest.mark.filterwarnings("error")
def test_values_that_cannot_be_are_told_and_end_nothing(watched, name, wrong):
    rows, reference = watched.weeks(20, 21), watched.weeks(*REFERENCE)
    sound = watched.weeks(20, 21)["answer"]
    values = rows[name].astype(float)
    values[5:100] = wrong
    found = attribute({**rows, name: values}, reference, watched.predict)
    assert sum(found.parts.values()) == found.whole
    # Days of the month and means may be absent, and numbers that may stand there are no fault.
    if not np.isfinite(wrong) or wrong == 1e9:
        assert found.faults.rows[5:100].all() or name in ("day", "hum_mean_3h")
        assert np.allclose(found.seen["sound_answer"][100:], sound[100:])


@pytest.mark.slow
def test_the_right_cause_of_what_was_put_in(real):
    wrong = []
    for seed in range(60):
        name, cause, found = injections.attributed(real, seed)
        assert sum(found.parts.values()) == found.whole
        if found.cause != cause:
            wrong.append((seed, name, found.reason))
    assert len(wrong) <= 3, wrong


@pytest.mark.slow
def test_weeks_that_differ_by_chance_have_no_clear_cause(real):
    for start in range(0, injections.STARTS, 8):
        rows, reference = real.window(start)
        found = attribute(rows, reference, real.predict, real.rows["reference"])
        assert max(map(abs, found.parts.values())) < attribution._CLEAR * found.reference
        assert found.parts[PATTERN] + found.parts[LEVEL] < 0.4 * found.reference

"""What a seed makes happen, and what is wrong with a poisoned upload."""

import numpy as np
import pytest

from bike_pipeline.retraining.simulation.plan import DRIFTS, FIRST_WEEKS, POISONS, Plan


@pytest.mark.parametrize("seed", range(20))
def test_uploads_keep_their_order_and_never_come_before_their_week_is_over(seed):
    plan = Plan.drawn(105, seed)
    assert (np.diff(plan.arrivals) >= 0).all()
    assert (plan.arrivals >= np.arange(1, 106)).all()
    assert (plan.arrivals[:FIRST_WEEKS] == np.arange(1, FIRST_WEEKS + 1)).all()
    assert all(week >= FIRST_WEEKS and plan.arrivals[week] >= week + 2 for week in plan.poisoned)
    assert set(plan.drifts) == set(DRIFTS)


def test_a_seed_is_one_plan_and_every_kind_of_trouble_is_in_it():
    first, again, other = Plan.drawn(105, 1), Plan.drawn(105, 1), Plan.drawn(105, 2)
    assert (first.arrivals == again.arrivals).all()
    assert (first.poisoned, first.drifts) == (again.poisoned, again.drifts)
    assert first.poisoned != other.poisoned
    assert set(first.poisoned.values()) == set(POISONS)
    # Weeks in which nothing arrives.
    assert len(np.unique(first.arrivals)) < 105

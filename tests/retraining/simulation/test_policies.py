"""What policies come to, on models whose errors are known."""

import numpy as np
import pytest

from bike_pipeline.retraining.simulation import policies
from bike_pipeline.retraining.simulation.plan import FIRST_WEEKS
from bike_pipeline.retraining.simulation.scores import Scores
from bike_pipeline.settings.retraining import PolicySettings

WEEKS = 40


@pytest.fixture
def of():
    """A model errs by as many rentals as it is weeks old, ten hours a week; in week 30 a drift is told to old ones."""
    weeks, scores = np.arange(WEEKS), {}
    for week in range(FIRST_WEEKS, WEEKS):
        age = np.where(weeks >= week, weeks - week, 0.0)
        scores[week] = Scores(10.0 * age, 10.0 * age**2, (weeks == 30) & (week < 30), 2.0)
    return policies.Simulated(scores, np.full(WEEKS, 10), {week: [168] for week in range(FIRST_WEEKS + 1, WEEKS)})


def never(of):
    return policies.outcome(of, policies.NEVER, lambda *_: False)


def test_never_pays_for_its_age_and_always_for_its_trainings(of):
    always = policies.outcome(of, policies.ALWAYS, lambda *_: True)
    assert (never(of).trained, never(of).avoided, never(of).cpu_seconds) == ([], 0.0, 0.0)
    assert never(of).mae == np.arange(WEEKS - FIRST_WEEKS).mean()
    assert (len(always.trained), always.mae) == (WEEKS - FIRST_WEEKS - 1, 0.0)
    assert always.avoided == never(of).mae * 10 * (WEEKS - FIRST_WEEKS)
    assert always.avoided_per_cpu_second == always.avoided / (2.0 * len(always.trained))


def test_every_two_weeks_is_half_as_often(of):
    assert policies.outcome(of, "", policies.every_days(14)).trained == list(range(FIRST_WEEKS + 2, WEEKS, 2))


def test_a_drift_trains_once_where_it_is_told(of):
    assert policies.outcome(of, policies.DRIFT, lambda _, drifted: drifted).trained == [30]


def test_this_policy_gathers_rows_and_follows_a_drift_at_once(of):
    policy = policies.SettingsPolicy(PolicySettings(least_new_rows=5 * 168), of.uploads)
    trained = policies.outcome(of, policies.THIS, policy).trained
    # The drift takes along what had gathered, and the count begins anew.
    assert trained == [13, 18, 23, 28, 30, 35]


def test_this_policy_keeps_the_other_limits_of_its_settings(of):
    settings = PolicySettings(least_new_rows=0, cool_down_seconds={"storage": 21 * 86_400})
    assert (
        np.diff(policies.outcome(of, "", policies.SettingsPolicy(settings, of.uploads)).trained[:5]).tolist() == [3] * 4
    )


def test_without_new_rows_there_is_no_other_model(of):
    scores = {week: one for week, one in of.scores.items() if week % 4 == 0}
    few = policies.Simulated(scores, of.hours, {})
    assert policies.outcome(few, "", lambda *_: True).trained == list(range(FIRST_WEEKS + 4, WEEKS, 4))


def test_the_oracle_is_the_best_of_all_choices(of):
    from itertools import combinations

    best = min(
        sum(
            min(week - model for model in (FIRST_WEEKS, *chosen) if model <= week) for week in range(FIRST_WEEKS, WEEKS)
        )
        for chosen in combinations(range(FIRST_WEEKS + 1, WEEKS), 2)
    )
    found = policies.oracle(of, 2)
    assert len(found.trained) == 2
    assert found.mae == pytest.approx(best / (WEEKS - FIRST_WEEKS))
    assert policies.oracle(of, 0).mae == never(of).mae

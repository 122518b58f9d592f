"""How the interval of a change decides, case by case; tests/modeling/test_paired_bootstrap.py has the whole."""

from __future__ import annotations

import math

import pytest

from bike_pipeline.modeling import evaluation
from bike_pipeline.modeling.paired_bootstrap import Change
from bike_pipeline.settings import load_settings
from tests.modeling.test_evaluation import GOOD, measured


@pytest.fixture(scope="module")
def base():
    severe = {"overall": 0.15}
    shipped = load_settings().evaluation
    limits = [
        limit.model_copy(update={"severe_increase": severe.get(limit.slicing, 0.5)})
        for limit in shipped.change_thresholds
    ]
    return shipped.model_copy(update={"change_thresholds": tuple(limits)})


def judged(base, key, value, spread, blocks=11, days=7, rows=1000.0, others=0):
    """Return the decision on the MAE of one slice; as many other slices have intervals too."""
    candidate, baseline = measured(), measured()
    candidate[key] |= {"mae": 40.0 * (1 + value), "rows": rows}
    keys = [key, *[other for other in measured() if other not in {key, ("overall", "")}][:others]]
    changes = {k: {"mae": Change(math.log1p(value if k == key else 0.0), spread, blocks, days)} for k in keys}
    decisions = evaluation.decide(base, candidate, baseline, 100.0, changes)
    return next(d for d in decisions if (d.kind, d.metric, d.slicing, d.slice) == ("change", "mae", *key))


@pytest.mark.parametrize(
    ("value", "spread", "passes", "word", "hint"),
    [
        (-0.1, 0.01, True, "better", ""),
        (0.01, 0.002, True, "worse", ""),
        # The lower end, by Student's t with 10 degrees: 0.095 - 1.81 * 0.045 is below 0.02, the next one above.
        (0.1, 0.045, True, "worse", "beyond it, but not for certain"),
        (0.1, 0.03, False, "worse", ""),
        (0.14, 0.2, True, "no clear difference", "beyond it, but not for certain"),
        (0.16, 0.2, False, "no clear difference", "from +15% on it need not be certain"),
    ],
)
def test_overall_a_change_fails_where_it_is_certain_or_severe(base, value, spread, passes, word, hint):
    decision = judged(base, ("overall", ""), value, spread)
    assert (decision.binding, decision.passed, decision.word, decision.hint) == (True, passes, word, hint)
    assert (decision.blocks, decision.block_days) == (11, 7)
    assert (
        f"{100 * value:+.1f} % ({100 * decision.low:+.1f} to {100 * decision.high:+.1f} %: {word})" in decision.reason
    )
    assert "at most +2 %" in decision.reason


def test_a_slice_is_judged_by_the_interval_of_its_weeks_however_few_its_rows(base):
    rain = ("weathersit", "3")
    assert not judged(base, rain, 1.0, 0.1, rows=113.0).passed
    assert judged(base, rain, 1.0, 0.1, rows=113.0).binding
    # Among more slices one of them is more often worse by chance.
    assert not judged(base, rain, 0.3, 0.075).passed
    among_six = judged(base, rain, 0.3, 0.075, others=5)
    assert among_six.passed
    assert among_six.hint == "beyond it, but not for certain among 6 limits"
    assert among_six.low > 0.1


@pytest.mark.parametrize(
    ("value", "spread", "rows", "upper", "passes"),
    [
        # With rows enough the plain limit holds, whatever the interval by days says.
        (0.12, 0.01, 600.0, 0.1, False),
        (0.09, 0.2, 600.0, 0.1, True),
        # Fewer rows decide where the change is severe and no chance; winter's 262 hours twice as bad.
        (1.0, 0.16, 262.0, 0.5, False),
        (1.0, 0.5, 262.0, 0.5, True),
        (0.4, 0.01, 262.0, 0.5, True),
    ],
)
def test_a_slice_with_few_weeks_is_judged_by_its_days(base, value, spread, rows, upper, passes):
    decision = judged(base, ("season", "1"), value, spread, days=1, rows=rows)
    assert (decision.binding, decision.passed, decision.upper) == (True, passes, upper)
    assert "by 11 days, of fewer than 6 weeks" in decision.reason


def test_overall_few_weeks_leave_the_plain_limit_and_say_so(base):
    decision = judged(base, ("overall", ""), 0.03, 0.2, blocks=9, days=1)
    assert not decision.passed
    assert "at most +2 %: by 9 days, of fewer than 6 weeks" in decision.reason
    assert judged(base, ("overall", ""), 0.01, 0.0001, blocks=9, days=1).passed


def test_a_limit_without_a_severe_increase_holds_for_the_plain_number(base):
    limits = tuple(limit.model_copy(update={"severe_increase": None}) for limit in base.change_thresholds)
    plain = base.model_copy(update={"change_thresholds": limits})
    decision = judged(plain, ("overall", ""), 0.03, 0.2)
    assert not decision.passed
    assert decision.word == "no clear difference"


def test_the_worst_slice_is_the_one_whose_error_rose_most(base):
    candidate, baseline = measured(), measured()
    candidate["hour_band", "6"]["mae"] = 43.0
    candidate["season", "1"] |= {"mae": 400.0, "rows": 20.0}
    decisions = evaluation.decide(base, candidate, baseline, 100.0)
    worst = evaluation.worst_slice(base, candidate, decisions)
    assert (worst["slicing"], worst["slice"], worst["mae"]) == ("hour_band", "6", 43.0)
    assert worst["change"] == pytest.approx(0.075)
    candidate["workingday", "1"]["mae"] = math.nan
    alone = evaluation.worst_slice(base, candidate, evaluation.decide(base, candidate, None, 100.0))
    assert (alone["slicing"], alone["slice"], alone["change"]) == ("workingday", "1", None)
    only = {("overall", ""): {**GOOD, "rows": 9.0}, ("season", "1"): {**GOOD, "rows": 9.0}}
    assert evaluation.worst_slice(base, only, []) is None


@pytest.mark.parametrize(
    ("value", "spread", "days", "told"),
    [
        (0.45, 0.1, 1, None),
        (0.7, 0.1, 1, "it decides from +80% on"),
        (0.9, 0.6, 1, "its interval holds no increase too, so it does not decide"),
        (0.9, 0.6, 7, "its interval holds no increase too, so it does not decide"),
        (0.9, 0.1, 1, None),
    ],
)
def test_a_slice_that_is_much_worse_and_does_not_refuse_is_warned_of(base, value, spread, days, told):
    limits = [limit.model_copy(update={"severe_increase": 0.8}) for limit in base.change_thresholds]
    settings = base.model_copy(update={"change_thresholds": tuple(limits)})
    candidate = measured()
    candidate["season", "1"] |= {"mae": 40.0 * (1 + value), "rows": 262.0}
    changes = {("season", "1"): {"mae": Change(math.log1p(value), spread, 11, days)}}
    decisions = evaluation.decide(settings, candidate, measured(), 100.0, changes)
    warnings = evaluation.warnings(settings, candidate, measured(), decisions)
    assert len(warnings) == bool(told)
    assert all(text.startswith("winter: mae ") and told in text for text in warnings)
    refused = [d for d in decisions if d.slicing == "season" and d.binding and not d.passed]
    assert bool(refused) is (value > 0.8 and spread < 0.5)

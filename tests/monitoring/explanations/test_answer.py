"""Why a request was answered so: parts that add up exactly, the same each time, of a model that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.monitoring.explanations.answer import GROUPS, background_of, parts_of, words

# Friday, 1 June 2012, 8:00.
ROW = {
    "yr": 1, "mnth": 6, "hr": 8, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1, "temp": 0.6,
    "atemp": 0.58, "hum": 0.5, "windspeed": 0.2, **dict.fromkeys(features.OPTIONAL_NAMES, 0.0), "day": 1,
}  # fmt: skip


def background(rows=50):
    rng = np.random.default_rng(3)
    found = {}
    for feature in features.MODEL_INPUTS:
        high = 3 if feature.maximum is None else feature.maximum
        drawn = rng.uniform(feature.minimum or 0, high, rows)
        found[feature.name] = np.round(drawn).astype(np.int64) if feature.kind == "int" else drawn.astype(np.float32)
    return found


def additive(columns):
    """A model whose parts are known."""
    hour = np.asarray(columns["hr"], np.float64)
    warm, wet = np.asarray(columns["temp"], np.float64), np.asarray(columns["weathersit"], np.float64)
    return (10.0 * hour + 200.0 * warm - 30.0 * wet).astype(np.float32)


def interacting(columns):
    hour = np.asarray(columns["hr"], np.float64)
    return (3.0 * hour * (1 + np.asarray(columns["temp"])) * (1 + np.asarray(columns["yr"]))).astype(np.float32)


def explained(predict, row=ROW, answered=None):
    columns = {name: np.asarray([value]) for name, value in row.items()}
    given = float(predict(columns)[0]) if answered is None else answered
    return parts_of(predict, row, background(), given)


@pytest.mark.parametrize("predict", [additive, interacting])
@pytest.mark.parametrize("row", [ROW, {**ROW, "hr": 17, "temp": 0.13, "weathersit": 3}])
def test_the_parts_lead_from_the_mean_to_the_answer_exactly(predict, row):
    why = explained(predict, row)
    values = [part.value for part in why.parts]
    for order in (values, values[::-1], sorted(values)):
        assert sum(order, why.base) == why.answer
    assert why.base == pytest.approx(predict(background()).mean(), abs=1e-3)
    assert {part.group for part in why.parts} == set(GROUPS)


def test_the_parts_of_an_additive_model_are_its_terms():
    why, others = {part.group: part.value for part in explained(additive).parts}, background()
    assert why["hour"] == pytest.approx(10.0 * (8 - others["hr"].mean()), abs=1e-3)
    assert why["temperature"] == pytest.approx(200.0 * (0.6 - others["temp"].mean()), abs=1e-3)
    assert why["weather"] == pytest.approx(-30.0 * (1 - others["weathersit"].mean()), abs=1e-3)
    assert why["wind"] == pytest.approx(0.0, abs=1e-4)


def test_the_same_request_has_the_same_numbers():
    assert explained(interacting) == explained(interacting)


def test_every_input_of_the_model_is_in_one_group():
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(f.name for f in features.MODEL_INPUTS)


def test_a_version_that_answers_something_else_explains_nothing():
    with pytest.raises(ModelError, match=r"answered 500\.00 answers 170\.00"):
        explained(additive, answered=500.0)
    with pytest.raises(ModelError, match="answered nan"):
        explained(additive, answered=math.nan)


def test_another_runtime_may_differ_in_the_last_digits():
    why = explained(additive, answered=170.01)
    assert sum((part.value for part in why.parts), why.base) == why.answer == 170.01


def test_what_else_could_have_been_asked():
    asked = {one.words: one for one in explained(additive).what_ifs}
    assert asked["5 °C warmer"].change == pytest.approx(200.0 * 5 / 47, abs=1e-3)
    assert asked["light rain"].change == pytest.approx(-60.0)
    assert asked["an hour earlier"].answer == pytest.approx(160.0)
    assert "an hour earlier" not in {one.words for one in explained(additive, {**ROW, "hr": 0}).what_ifs}
    hot = {**ROW, "temp": 0.97}
    assert "5 °C warmer" not in {one.words for one in explained(additive, hot).what_ifs}


def test_a_mean_that_was_not_sent_stays_away():
    seen = []

    def watching(columns):
        seen.append({name: np.asarray(columns[name]).copy() for name in columns})
        return additive(columns)

    explained(watching)
    questions = seen[-1]
    assert (questions["temp_mean_3h"] == 0.0).all()
    assert questions["temp"].max() == pytest.approx(0.6 + 5 / 47)


@pytest.mark.parametrize(
    ("group", "changes", "said"),
    [
        ("hour", {}, "8:00 on Friday, a working day"),
        ("hour", {"holiday": 1, "workingday": 0}, "8:00 on a holiday, no working day"),
        ("hour", {"weekday": 9}, "8:00 on 9, a working day"),
        ("season", {"day": 0.0}, "June"),
        ("season", {"mnth": 13}, "1 12"),
        ("year", {}, "2012"),
        ("weather", {"weathersit": 7}, "weather 7"),
        ("temperature", {}, "20 °C"),
        ("humidity", {}, "50 % humidity"),
        ("wind", {}, "13 km/h wind"),
    ],
)
def test_what_was_asked_in_words(group, changes, said):
    assert words(group, {**ROW, **changes}) == said


def test_the_background_lies_evenly_over_the_rows():
    rows = {feature.name: np.arange(1000) for feature in features.MODEL_INPUTS}
    chosen = background_of(rows)["hr"]
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 999, 64)
    assert set(np.diff(chosen)) <= {15, 16}
    assert len(background_of({name: values[:5] for name, values in rows.items()})["hr"]) == 5

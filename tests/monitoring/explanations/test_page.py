"""An explanation as text, picture and page: complete, escaped, and without anything from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from bike_pipeline.monitoring.explanations.answer import AnswerParts, Part
from bike_pipeline.monitoring.explanations.page import answer_page, drawing, in_words
from bike_pipeline.monitoring.explanations.table import Explanation
from tests.monitoring.explanations.explaining import OF, WHY, explained_model_page


def test_the_text_goes_from_the_mean_by_each_part_to_the_answer():
    assert in_words(WHY, "rentals an hour") == [
        "an hour like those of training: 138",
        "8:00 on Friday, a working day: +212",
        "light rain or snow: -60",
        "answered: 290 rentals an hour",
    ]


def test_the_bars_of_the_picture_follow_each_other():
    root = ElementTree.fromstring(drawing(WHY, "rentals an hour"))
    bars = [
        (float(r.get("x")), float(r.get("width")), r.get("class"))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert [kind for *_, kind in bars] == ["new", "more", "less", "new"]
    base, more, less, answer = bars
    assert base[0] + base[1] == pytest.approx(more[0], abs=0.2)
    assert more[0] + more[1] == pytest.approx(less[0] + less[1], abs=0.2)
    assert less[0] == pytest.approx(answer[0] + answer[1], abs=0.2)
    assert all(x >= 0 and x + width <= float(root.get("width")) for x, width, _ in bars)


@pytest.mark.parametrize(
    "why", [AnswerParts(0.0, 0.0, (), ()), AnswerParts(0.0, 10.0, (Part("hour", "3:00", -10.0),), ())]
)
def test_an_answer_of_nothing_has_a_picture_too(why):
    ElementTree.fromstring(drawing(why, "rentals an hour"))


def test_the_page_says_everything_and_loads_nothing():
    page = answer_page(Explanation(OF, WHY))
    for said in (
        "8:00 on Friday, a working day",
        "+212",
        "5 °C warmer",
        "+38",
        "version 7",
        "f" * 64,
        "2012-06-01 08:00",
    ):
        assert said in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert "<script" not in page
    assert set(re.findall(r"https?://[^\s\"']+", page)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("importance", [None, {"mae": 1.0, "rows": 10, "repeats": 2, "unit": "x", "inputs": []}])
def test_the_page_of_a_model_needs_neither_slices_nor_importance(importance):
    page = explained_model_page(importance=importance, slices=[], searched="not looked for")
    assert page.count("<svg") == 2
    assert "not looked for" in page

"""Each case of TF Serving's documentation and tests, asked of the server; docs/tf-serving-conformance.md tells them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conformance import cases
from tests.serving.conformance.case import SECOND

ROOT = Path(__file__).resolve().parents[3]


def _matches(body: bytes, expected: Any, exact: bool) -> bool:
    if not isinstance(expected, str):
        return bool(json.loads(body) == expected)
    text = body.decode() if exact else json.dumps(json.loads(body))
    # An error's text stands in JSON.
    return re.sub(r"\s", "", expected) in re.sub(r"\s", "", text) or expected in str(json.loads(body).get("error", ""))


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.source)
def test_the_answer_is_that_of_tf_serving_or_the_documented_one(ask, conforming, second, case):
    method, _, path = case.path.partition(" ")
    body = case.body.encode() if method == "POST" else None
    answer = ask(method, path.replace(f"/{SECOND}", f"/{second}"), body)
    # Another server is held to what TF Serving does.
    embedded = not conforming.is_named
    status, expected = case.ours if embedded else (case.status, case.answer)
    assert (answer.status, _matches(answer.body, expected, case.exact)) == (status, True), (answer.body, expected)


def test_the_table_in_the_documentation_tells_these_cases():
    shown = "print it with: python -m tests.serving.conformance.cases"
    text = (ROOT / "docs" / "tf-serving-conformance.md").read_text(encoding="utf-8")
    assert f"\n{cases.table()}" in text, shown

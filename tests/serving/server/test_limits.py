from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies

from bike_pipeline.serving.server.limits import check_json
from bike_pipeline.serving.statuses import StatusError
from bike_pipeline.settings.serving import LimitSettings

LIMITS = LimitSettings(json_depth=8, rows=100)


def depth_of(value):
    if isinstance(value, dict):
        return 1 + max((depth_of(each) for each in value.values()), default=0)
    return 1 + max((depth_of(each) for each in value), default=0) if isinstance(value, list) else 0


def refused(body):
    try:
        check_json(body, LIMITS)
    except StatusError as refusal:
        return refusal.status == 400
    return False


TEXTS = strategies.text(alphabet='[]{}"\\a,:ü\n', max_size=12)
VALUES = strategies.recursive(
    strategies.one_of(strategies.none(), strategies.integers(), TEXTS),
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=5), strategies.dictionaries(TEXTS, inner, max_size=4)
    ),
    max_leaves=40,
)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(VALUES, strategies.integers(0, 10), strategies.booleans())
def test_the_depth_is_that_of_the_parsed_value_whatever_its_texts_hold(value, around, ascii_only):
    for _ in range(around):
        value = [value]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert refused(body) == (depth_of(value) > LIMITS.json_depth)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[" * 9, True),
        (b"[" * 8, False),
        (b"[" * 1_000_000, True),
        (b"[" * 1_000_000 + b"]" * 1_000_000, True),
        (b"[]" * 1_000_000, True),
        (b"[]" * 2_000, False),
        (b"]" * 1_000_000, False),
        (b'"' + b"[" * 1_000_000 + b'"', False),
        (b'{"a":' * 9 + b"1" + b"}" * 9, True),
        (b"", False),
    ],
    ids=["open-9", "open-8", "open", "nested", "beside", "few-beside", "closed", "text", "objects", "empty"],
)
def test_bodies_made_to_hurt_are_judged_too(body, expected):
    assert refused(body) is expected


def test_more_values_than_the_rows_could_hold_are_refused_unparsed():
    assert refused(b'{"instances":[' + b"1," * 6000 + b"1]}")
    assert not refused(json.dumps({"instances": [dict.fromkeys(map(str, range(11)), 1)] * 100}).encode())

"""Errors that are answered travel from the process that parses to the server."""

from __future__ import annotations

import pickle

from bike_pipeline.serving.statuses import Code, StatusError


def test_an_error_is_rebuilt_with_all_that_its_answer_needs():
    error = StatusError(Code.RESOURCE_EXHAUSTED, "too large", status=413, retry_after=1.5)
    found = pickle.loads(pickle.dumps(error))
    assert (found.code, found.message, found.status, found.retry_after) == (
        Code.RESOURCE_EXHAUSTED,
        "too large",
        413,
        1.5,
    )
    assert pickle.loads(pickle.dumps(StatusError(Code.UNAVAILABLE, "busy"))).status == 503


def test_a_message_is_cut_to_what_a_trailer_holds():
    assert len(StatusError(Code.INTERNAL, "é" * 5000).message.encode()) <= 2003

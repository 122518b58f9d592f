"""When a request is sent again: on a clock that only the waits move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline.serving.clients.connection import Deadline, RetryPolicy
from bike_pipeline.serving.clients.errors import (
    BadRequestError,
    ClientError,
    OverloadedError,
    TimedOutError,
    UnavailableError,
    error_of,
    unreachable,
    untrusted,
)


class Clock:
    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


def failing(policy, seconds, error, takes=0.0):
    """Ask a server that always fails; return the clock, the number of tries and the error in the end."""
    clock, tries = Clock(), []
    deadline = Deadline(seconds, clock)

    def once():
        deadline.remaining("here")
        tries.append(clock.now)
        clock.now += takes
        raise error()

    with pytest.raises((ClientError, KeyError)) as caught:
        policy.run(once, deadline, clock.sleep)
    return clock, tries, caught.value


@given(attempts=st.integers(1, 8), first=st.floats(0.001, 1), seconds=st.floats(0.01, 30), takes=st.floats(0, 2))
def test_waits_double_at_most_are_random_and_end_before_the_deadline(attempts, first, seconds, takes):
    policy = RetryPolicy(attempts, first, longest=4 * first)
    clock, tries, _ = failing(policy, seconds, lambda: UnavailableError("away"), takes)
    assert 1 <= len(tries) <= attempts
    assert all(0 <= wait <= first * min(2**number, 4) for number, wait in enumerate(clock.waits))
    assert all(moment < 100 + seconds for moment in tries)


def test_waits_are_not_all_the_same():
    waits = [failing(RetryPolicy(2, 1, 1), 60, lambda: UnavailableError("away"))[0].waits[0] for _ in range(10)]
    assert len(set(waits)) == 10


def test_what_the_server_asked_to_wait_is_waited():
    def error():
        return error_of("RESOURCE_EXHAUSTED", "too often", "here", 7.0)

    clock, tries, raised = failing(RetryPolicy(100, 0.001, 0.002), 30, error)
    assert clock.waits == [7.0] * 4
    assert len(tries) == 5
    assert raised.retryable
    # What is too large stays so, whatever the server says.
    larger = error_of("RESOURCE_EXHAUSTED", "Received message larger than max", "here", 7.0)
    assert len(failing(RetryPolicy(), 30, lambda: larger)[1]) == 1


def test_what_is_not_sent_again():
    for error in (BadRequestError, TimedOutError, OverloadedError):
        assert len(failing(RetryPolicy(), 30, lambda error=error: error("no"))[1]) == 1
    assert len(failing(RetryPolicy(), 30, lambda: untrusted(unreachable("unknown issuer", "here")))[1]) == 1


def test_a_mistake_of_our_own_is_neither_sent_again_nor_hidden():
    _, tries, raised = failing(RetryPolicy(), 30, lambda: KeyError("x"))
    assert len(tries) == 1
    assert isinstance(raised, KeyError)


def test_the_number_of_tries_is_told():
    assert str(failing(RetryPolicy(3), 30, lambda: UnavailableError("away"))[2]).startswith("away, 3 tries")
    assert str(failing(RetryPolicy(1), 30, lambda: UnavailableError("away"))[2]) == "away"

"""How long a call may take as a whole, and when a request is sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline.serving.clients.errors import ClientError, timed_out

if TYPE_CHECKING:
    from tenacity import RetryCallState


class Deadline:
    """The moment by which a call must have ended, by a clock that never goes back."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._ends = clock() + seconds

    def remaining(self, where: str) -> float:
        """Return the seconds that are left, more than 0, or raise a TimedOutError."""
        left = self.left()
        if left <= 0:
            raise timed_out(self.seconds, where)
        return left

    def left(self) -> float:
        """Return the seconds that are left; less than 0 if it is over."""
        return self._ends - self._clock()


@dataclass(frozen=True)
class RetryPolicy:
    """When a request is sent again: exponential back-off with full jitter.

    The wait before try n + 1 is drawn evenly from 0 to min(longest, first × 2^(n-1)) seconds (M. Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015), or is what the server asked for. A wait that would end after the
    deadline is not begun: the last error is raised at once.
    """

    attempts: int = 5
    first: float = 0.05
    longest: float = 2.0

    def arguments(self, deadline: Deadline) -> dict[str, Any]:
        """Return the arguments of `tenacity.Retrying` and `tenacity.AsyncRetrying` for one request."""
        from tenacity import retry_if_exception, wait_random_exponential

        jitter = wait_random_exponential(multiplier=self.first, max=self.longest)

        def wait(state: RetryCallState) -> float:
            asked = _error_of(state).retry_after
            return jitter(state) if asked is None else asked

        def stop(state: RetryCallState) -> bool:
            return state.attempt_number >= self.attempts or state.upcoming_sleep >= deadline.left()

        return {
            "retry": retry_if_exception(lambda error: isinstance(error, ClientError) and error.retryable),
            "wait": wait,
            "stop": stop,
            "retry_error_callback": _give_up,
        }


def _error_of(state: RetryCallState) -> ClientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, ClientError)
    return error


def _give_up(state: RetryCallState) -> None:
    error = _error_of(state)
    if state.attempt_number > 1:
        error.what = f"{error.what}, {state.attempt_number} tries"
    raise error

"""How long a call may take as a whole, and when a request is sent again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bike_pipeline.serving.clients.errors import ClientError, timed_out

Value = TypeVar("Value")


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

    def run(self, send: Callable[[], Value], deadline: Deadline, sleep: Callable[[float], None] = time.sleep) -> Value:
        """Return what `send` returns, called again after each error that another try may mend."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return send()
            except ClientError as error:
                wait = error.retry_after
                if wait is None:
                    wait = random.uniform(0, min(self.longest, self.first * 2.0 ** (attempt - 1)))  # noqa: S311
                if not error.retryable or attempt >= self.attempts or wait >= deadline.left():
                    if attempt > 1:
                        error.what = f"{error.what}, {attempt} tries"
                    raise
            sleep(wait)

"""gRPC messages on their way in. Their sizes show only when they are there, so few of them may take their time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grpc import aio

from bike_pipeline.serving.security.identity import Refusal

if TYPE_CHECKING:
    from bike_pipeline.settings.serving_security import LimitSettings

# A message that takes longer may be a large one.
_SLOW_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Message:
    client: str
    since: float
    task: Any
    refusal: Refusal | None = None


class Arriving:
    """Reads messages. All that take longer than a second together may be as large as all bodies may be together."""

    def __init__(self, limits: LimitSettings, largest: int) -> None:
        self._most_slow = max(1, limits.bodies_bytes // largest)
        self._seconds = limits.read_seconds
        self._messages: set[_Message] = set()
        self._looking = False

    async def read(self, context: Any, client: str) -> Any:
        """Return the one message of a call, or refuse: it is late, too many others are slow, or there is none."""
        message = _Message(client, time.monotonic(), asyncio.current_task())
        self._messages.add(message)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_SLOW_SECONDS / 4, self._look)
        try:
            found = await context.read()
        except asyncio.CancelledError:
            if message.refusal is None:
                raise
            message.task.uncancel()
            raise message.refusal from None
        finally:
            self._messages.discard(message)
        if found is aio.EOF:
            raise Refusal(400, "INVALID_ARGUMENT", "The call has no message.")
        return found

    def _look(self) -> None:
        """End what takes too long, and of too many slow messages the last ones of whom they are most."""
        self._looking = bool(self._messages)
        if not self._looking:
            return
        now = time.monotonic()
        waiting = [each for each in self._messages if each.refusal is None]
        for message in waiting:
            if now - message.since > self._seconds:
                _end(message, Refusal(408, "DEADLINE_EXCEEDED", "The message did not arrive in time."))
        slow = sorted(
            (each for each in waiting if each.refusal is None and now - each.since > _SLOW_SECONDS),
            key=lambda each: each.since,
        )
        of_client = Counter(each.client for each in slow)
        while len(slow) > self._most_slow:
            (most, _) = of_client.most_common(1)[0]
            last = next(each for each in reversed(slow) if each.client == most)
            slow.remove(last)
            of_client[most] -= 1
            busy = "The server takes in as many large messages as it may; try again."
            _end(last, Refusal(503, "UNAVAILABLE", busy, retry_after=1.0))
        asyncio.get_running_loop().call_later(_SLOW_SECONDS / 4, self._look)


def _end(message: _Message, refusal: Refusal) -> None:
    message.refusal = refusal
    message.task.cancel()

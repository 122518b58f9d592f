"""How much clients may ask: how often one, how much in one request, what all hold that are under way.

How much a request holds is found out before it is parsed. One event loop uses all else, without a lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings.serving import LimitSettings

# So few rows are not worth counting: how many requests may wait is limited, too.
_FEW_ROWS = 128
# A message that takes longer may be a large one.
_SLOW_SECONDS = 1.0
# Bytes of a message that is parsed within the event loop; a larger one would hold others up.
SMALL = 64 * 1024

# An opening bracket is a step down, a closing one a step up (255 is -1 in eight bits), a quotation mark none.
_STEPS = bytes.maketrans(b'[{]}"', b"\x01\x01\xff\xff\x00")
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
# Values of a row beside its inputs: those that the model ignores (label, leaks, keys), and a list around each of them.
_VALUES_A_ROW = 2 * len(features.BY_NAME)
# A row is an object, or a list around each of its values; each costs the parser fifty times its two bytes.
_LISTS_A_ROW = 1 + len(features.BY_NAME)
_LISTS_AROUND = 1024


class RateLimit:
    """A bucket of requests for each client; one event loop uses it, without a lock."""

    def __init__(self, rate: float, burst: int, clients: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with buckets full of a `burst` of requests, filled again at a `rate` a second; 0 for no limit.

        Of more than so many clients the one that was seen least recently is forgotten, and forgiven what it had used.
        """
        self._rate = rate
        self._burst = float(burst)
        self._clients = clients
        self._clock = clock
        # Client to (requests left, when that was so); the least recently used one comes first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take one request out of a client's bucket, or refuse: it is empty; the refusal says how long to wait."""
        if not self._rate:
            return
        now = self._clock()
        left, then = self._buckets.get(client, (self._burst, now))
        left = min(self._burst, left + (now - then) * self._rate)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        if not allowed:
            often = f"Too many requests: {self._rate:g} a second are allowed."
            raise StatusError(Code.RESOURCE_EXHAUSTED, often, retry_after=(1.0 - left) / self._rate)


class Shares:
    """What requests under way hold; one event loop uses it, without a lock.

    Attributes:
        held_bytes: bytes of all bodies together.
        held: bytes and rows of each client with requests under way.
        most_bytes, most_of_one: how many there may be.
    """

    def __init__(self, limits: LimitSettings, largest: int) -> None:
        """Begin with nothing; a client that holds nothing may always send one request of the `largest` size."""
        self.held_bytes = 0
        self.held: dict[str, Counter[str]] = {"bytes": Counter(), "rows": Counter()}
        self.most_bytes = max(limits.bodies_bytes, largest)
        self.most_of_one = {"bytes": max(limits.client_bytes, largest), "rows": max(limits.client_rows, limits.rows)}


class Share:
    """What one request holds, from its body to its answer; what is small is not counted.

    Used as a context manager, once, in a task of its own; within it `CURRENT` is this share.
    """

    __slots__ = ("_client", "_shares", "_taken")

    def __init__(self, shares: Shares, client: str) -> None:
        self._shares = shares
        self._client = client
        self._taken: Counter[str] | None = None

    def __enter__(self) -> Share:
        CURRENT.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        shares = self._shares
        for kind, count in (self._taken or {}).items():
            if kind == "bytes":
                shares.held_bytes -= count
            shares.held[kind][self._client] -= count
            if not shares.held[kind][self._client]:
                del shares.held[kind][self._client]

    def take(self, kind: str, count: int) -> None:
        """Hold more bytes or rows, or refuse: its client holds too many already, or all together do."""
        shares, most = self._shares, self._shares.most_of_one[kind]
        if shares.held[kind][self._client] + count > most:
            held = f"More than {most} {kind} of this client are under way; wait for their answers."
            raise StatusError(Code.RESOURCE_EXHAUSTED, held, retry_after=1.0)
        if kind == "bytes":
            if shares.held_bytes + count > shares.most_bytes:
                busy = "The server holds as many large requests as it may; try again."
                raise StatusError(Code.UNAVAILABLE, busy, retry_after=1.0)
            shares.held_bytes += count
        shares.held[kind][self._client] += count
        if self._taken is None:
            self._taken = Counter()
        self._taken[kind] += count


# The share of the request that is being answered.
CURRENT: ContextVar[Share | None] = ContextVar("share", default=None)


def take_rows(count: int) -> None:
    """Hold more rows for the request that is being answered, or refuse; outside of the guard nothing is held."""
    if count > _FEW_ROWS and (share := CURRENT.get()) is not None:
        share.take("rows", count)


@dataclass(slots=True, eq=False)
class _Message:
    client: str
    since: float
    task: Any
    refusal: StatusError | None = None


class Arriving:
    """Reads messages. All that take longer than a second together may be as large as all bodies may be together."""

    def __init__(self, limits: LimitSettings, largest: int) -> None:
        self._most_slow = max(1, limits.bodies_bytes // largest)
        self._seconds = limits.read_seconds
        self._messages: set[_Message] = set()
        self._looking = False
        # Whoever only counts rows does without gRPC.
        from grpc import aio

        self._no_message = aio.EOF

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
        if found is self._no_message:
            raise invalid("The call has no message.")
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
                late = "The message did not arrive in time."
                _end(message, StatusError(Code.DEADLINE_EXCEEDED, late, status=408))
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
            _end(last, StatusError(Code.UNAVAILABLE, busy, retry_after=1.0))
        asyncio.get_running_loop().call_later(_SLOW_SECONDS / 4, self._look)


def _end(message: _Message, refusal: StatusError) -> None:
    message.refusal = refusal
    message.task.cancel()


def check_json(body: bytes, limits: LimitSettings) -> None:
    """Let a JSON body pass that is neither too deep nor holds too many values; malformed JSON is left to the parser.

    Works on the text, with a few vector operations: a body that is refused was never parsed.
    """
    if body.count(b",") > limits.rows * _VALUES_A_ROW:
        raise _too_many_rows(limits.rows)
    if body.count(b"[") + body.count(b"{") <= min(limits.json_depth, _LISTS_AROUND):
        return
    depth, opened = _brackets(body)
    if depth > limits.json_depth:
        raise invalid(f"The JSON is nested deeper than {limits.json_depth} levels.")
    if opened > limits.rows * _LISTS_A_ROW + _LISTS_AROUND:
        raise _too_many_rows(limits.rows)


def _brackets(body: bytes) -> tuple[int, int]:
    """Return how many brackets outside of texts are open at once, at most, and how many are opened in all."""
    import numpy as np

    if b"\\" in body:
        # Escaped backslashes first: what is left of them escapes what follows.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(body.translate(_STEPS, _ALL_BUT_MARKS), dtype=np.int8)
    # Odd behind a quotation mark that opens a text, even behind one that closes it; overflow keeps that.
    inside = np.cumsum(marks == 0, dtype=np.uint8) & 1
    steps = marks * (1 - inside)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0)), int(np.count_nonzero(steps > 0))


def check_rows(rows: int, most: int) -> None:
    """Let that many rows of a request pass, or refuse."""
    if rows > most:
        raise _too_many_rows(most)


def _too_many_rows(rows: int) -> StatusError:
    return invalid(f"The request holds more than {rows} rows; send several.")

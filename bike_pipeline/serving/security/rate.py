"""How often one client may ask: a token bucket each (RFC 2697's idea, with requests in place of bytes)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from bike_pipeline.serving.security.identity import Refusal


class RateLimit:
    """A bucket of requests for each client; one event loop uses it, without a lock."""

    def __init__(self, rate: float, burst: int, clients: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with full buckets.

        Args:
            rate: requests a second that fill a bucket again; 0 for no limit.
            burst: size of a bucket, in requests.
            clients: most buckets in memory. Beyond it the one that was used least recently goes, which forgives that
                client what it had used up.
            clock: seconds since any fixed moment.
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
        left = self._left(client)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, self._clock())
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        if not allowed:
            raise self._refusal(left)

    def _left(self, client: str) -> float:
        now = self._clock()
        left, then = self._buckets.get(client, (self._burst, now))
        return min(self._burst, left + (now - then) * self._rate)

    def _refusal(self, left: float) -> Refusal:
        return Refusal(
            429,
            "RESOURCE_EXHAUSTED",
            f"Too many requests: {self._rate:g} a second are allowed.",
            retry_after=(1.0 - left) / self._rate,
        )

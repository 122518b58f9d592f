"""How much of the server the requests under way take: bytes of their bodies and rows, of each client and together."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING

from bike_pipeline.serving.security.identity import Refusal

if TYPE_CHECKING:
    from bike_pipeline.settings.serving_security import LimitSettings


# So few are not worth counting: how many requests may wait is limited, too.
_FEW_ROWS = 128


class Shares:
    """What requests under way hold; one event loop uses it, without a lock.

    Attributes:
        held_bytes: bytes of all bodies together.
        held: bytes and rows of each client with requests under way.
    """

    def __init__(self, limits: LimitSettings, largest: int) -> None:
        """Begin with nothing; a client that holds nothing may always send one request of the `largest` size."""
        self.held_bytes = 0
        self.held: dict[str, Counter[str]] = {"bytes": Counter(), "rows": Counter()}
        self._most_bytes = max(limits.bodies_bytes, largest)
        self._most_of_one = {
            "bytes": max(limits.client_bytes, largest),
            "rows": max(limits.client_rows, limits.rows),
        }

    def take(self, client: str, kind: str, count: int) -> None:
        """Let a client hold more bytes or rows, or refuse: it holds too many already, or all together do."""
        held = self.held[kind][client] + count
        if held > self._most_of_one[kind]:
            raise Refusal(
                429,
                "RESOURCE_EXHAUSTED",
                f"More than {self._most_of_one[kind]} {kind} of this client are under way; wait for their answers.",
                retry_after=1.0,
            )
        if kind == "bytes":
            if self.held_bytes + count > self._most_bytes:
                busy = "The server holds as many large requests as it may; try again."
                raise Refusal(503, "UNAVAILABLE", busy, retry_after=1.0)
            self.held_bytes += count
        self.held[kind][client] = held

    def release(self, client: str, taken: Counter[str]) -> None:
        """Take back what a request held."""
        self.held_bytes -= taken["bytes"]
        for kind, count in taken.items():
            self.held[kind][client] -= count
            if not self.held[kind][client]:
                del self.held[kind][client]


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
        if self._taken:
            self._shares.release(self._client, self._taken)

    def take(self, kind: str, count: int) -> None:
        """Hold more, see `Shares.take`."""
        self._shares.take(self._client, kind, count)
        if self._taken is None:
            self._taken = Counter()
        self._taken[kind] += count


# The share of the request that is being answered.
CURRENT: ContextVar[Share | None] = ContextVar("share", default=None)


def take_rows(count: int) -> None:
    """Hold more rows for the request that is being answered, or refuse; outside of the guard nothing is held."""
    if count > _FEW_ROWS and (share := CURRENT.get()) is not None:
        share.take("rows", count)

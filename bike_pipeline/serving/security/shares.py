"""How much of the server the requests under way take: bytes of their bodies and rows, of each client and together."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING

from bike_pipeline.serving.security.identity import Refusal

if TYPE_CHECKING:
    from bike_pipeline.settings.serving_security import LimitSettings


# So few are not worth counting: how many requests may wait is limited, too.
_FEW_ROWS = 128


class Shares:
    """What requests under way hold. One event loop uses it; it takes no lock.

    Attributes:
        held_bytes: bytes of all bodies together.
    """

    def __init__(self, limits: LimitSettings, largest: int) -> None:
        """Begin with nothing.

        Args:
            limits: how much one client and all together may hold.
            largest: bytes of the largest request; a client that holds nothing may always send one.
        """
        self.held_bytes = 0
        self._most_bytes = max(limits.bodies_bytes, largest)
        self._most_bytes_of_one = max(limits.client_bytes, largest)
        self._most_rows_of_one = max(limits.client_rows, limits.rows)
        # Only of clients with requests under way.
        self._bytes: dict[str, int] = {}
        self._rows: dict[str, int] = {}

    def take_bytes(self, client: str, count: int) -> None:
        """Let a client hold more bytes.

        Raises:
            Refusal: it holds too many already, or all together do.
        """
        held = self._bytes.get(client, 0) + count
        if held > self._most_bytes_of_one:
            raise _too_much_of_one(f"{self._most_bytes_of_one} bytes")
        if self.held_bytes + count > self._most_bytes:
            raise Refusal(
                503, "UNAVAILABLE", "The server holds as many large requests as it may; try again.", retry_after=1.0
            )
        self._bytes[client] = held
        self.held_bytes += count

    def take_rows(self, client: str, count: int) -> None:
        """Let a client have more rows answered.

        Raises:
            Refusal: too many of its rows are under way already.
        """
        held = self._rows.get(client, 0) + count
        if held > self._most_rows_of_one:
            raise _too_much_of_one(f"{self._most_rows_of_one} rows")
        self._rows[client] = held

    def release(self, client: str, count: int, rows: int) -> None:
        """Take back what a request held."""
        self.held_bytes -= count
        for held, amount in ((self._bytes, count), (self._rows, rows)):
            left = held.get(client, 0) - amount
            if left:
                held[client] = left
            else:
                held.pop(client, None)


class Share:
    """What one request holds, from its body to its answer; what is small is not counted.

    Used as a context manager, once, in a task of its own; within it `CURRENT` is this share.
    """

    __slots__ = ("_bytes", "_client", "_rows", "_shares")

    def __init__(self, shares: Shares, client: str) -> None:
        """Hold nothing yet.

        Args:
            shares: what all hold.
            client: whose request it is.
        """
        self._shares = shares
        self._client = client
        self._bytes = self._rows = 0

    def __enter__(self) -> Share:
        """Begin."""
        CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give everything back."""
        if self._bytes or self._rows:
            self._shares.release(self._client, self._bytes, self._rows)

    def take_bytes(self, count: int) -> None:
        """Hold more bytes.

        Raises:
            Refusal: the client, or all together, hold too many.
        """
        self._shares.take_bytes(self._client, count)
        self._bytes += count

    def take_rows(self, count: int) -> None:
        """Hold more rows.

        Raises:
            Refusal: too many rows of the client are under way.
        """
        self._shares.take_rows(self._client, count)
        self._rows += count


# The share of the request that is being answered.
CURRENT: ContextVar[Share | None] = ContextVar("share", default=None)


def take_rows(count: int) -> None:
    """Hold more rows for the request that is being answered; outside of the guard nothing is held.

    Raises:
        Refusal: too many rows of its client are under way.
    """
    if count > _FEW_ROWS and (share := CURRENT.get()) is not None:
        share.take_rows(count)


def _too_much_of_one(most: str) -> Refusal:
    return Refusal(
        429,
        "RESOURCE_EXHAUSTED",
        f"More than {most} of this client are under way; wait for their answers.",
        retry_after=1.0,
    )

"""Which requests the request log keeps: a share of them, a smaller one while more come than it may keep in a second.

The share is the settings' own, halved until few enough are kept, doubled again when fewer come; each line tells it,
so that whoever counts lines knows how many requests they stand for. A request is chosen by its id alone: servers behind
one gateway choose the same ones (consistent sampling, as OpenTelemetry's traces have it), whose shares are halves of
one another, so that what a shadow answered finds what the stable version answered.
"""

from __future__ import annotations

from hashlib import blake2b

_SECOND = 1_000_000_000
_BYTES = 8
# The share is doubled where fewer than this part of what may be kept was kept in a second: twice as many fit, then.
_DOUBLED_BELOW = 0.45


class Sampler:
    """Chooses requests. All methods belong to the event loop's thread."""

    def __init__(self, share: float, per_second: int) -> None:
        """Begin with a share of the requests; keep about `per_second` of them at most, or any number for 0.

        In the second in which many more come than before it may be twice as many.
        """
        self.rate, self._share, self._per_second = share, share, per_second
        self._since, self._taken = 0, 0
        self._begin(0)

    def takes(self, request_id: str, now: int) -> float:
        """Return of which share the request is that begins now, in nanoseconds of a steady clock; 0.0 for of none."""
        if now - self._since >= _SECOND:
            self._turn(now)
        if self.rate < 1.0:
            drawn = int.from_bytes(blake2b(request_id.encode(), digest_size=_BYTES).digest(), "little")
            if drawn >= self.rate * 2.0 ** (8 * _BYTES):
                return 0.0
        self._taken += 1
        rate = self.rate
        if self._per_second and self._taken >= self._most:
            self.rate /= 2.0
            self._most += max(self._per_second // 2, 1)
        return rate

    def _turn(self, now: int) -> None:
        """Begin another second, with twice the share for each that fewer came in than there was room for."""
        seconds = (now - self._since) / _SECOND
        while self.rate < self._share and self._taken < _DOUBLED_BELOW * self._per_second * seconds:
            self.rate = min(2.0 * self.rate, self._share)
            self._taken *= 2
        self._begin(now)

    def _begin(self, now: int) -> None:
        self._since, self._taken, self._most = now, 0, self._per_second

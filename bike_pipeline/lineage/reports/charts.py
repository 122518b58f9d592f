"""The geometry of the histograms on a page; bars are the style sheet's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 180, 44
_THINNEST = 4.0


@dataclass(frozen=True)
class Histograms:
    """Two distributions over each other, in pixels.

    Attributes:
        filled: x, y, width and height of the bars of now.
        outline: the path of the line of before; "" if there is none.
    """

    filled: list[tuple[str, str, str, str]]
    outline: str
    width: int = _WIDTH
    height: int = _HEIGHT


def histograms(now: Sequence[tuple[float, float, float]], before: Sequence[tuple[float, float, float]]) -> Histograms:
    """Return two lists of buckets (from, to, rows) as shares of their rows, on one scale."""
    both = [*now, *before]
    low, high = min((b[0] for b in both), default=0.0), max((b[1] for b in both), default=1.0)
    scale = _WIDTH / ((high - low) or 1.0)

    def placed(buckets: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        rows = sum(b[2] for b in buckets) or 1.0
        found = []
        for first, last, count in buckets:
            # A column with one value has a bucket without any width, which is to be seen all the same.
            begin = min((first - low) * scale, _WIDTH - _THINNEST)
            end = max((last - low) * scale, begin + _THINNEST)
            # As density, so that buckets of different widths compare.
            found.append((begin, end, count / rows / (((last - first) * scale) or 1.0)))
        return found

    filled, line = placed(now), placed(before)
    tall = (_HEIGHT - 2) / (max((share for *_, share in (*filled, *line)), default=1.0) or 1.0)
    bars = [
        (f"{x1:.1f}", f"{_HEIGHT - tall * y:.1f}", f"{max(1.0, x2 - x1 - 1):.1f}", f"{tall * y:.1f}")
        for x1, x2, y in filled
    ]
    steps = " ".join(f"L{x1:.1f},{_HEIGHT - tall * y:.1f} L{x2:.1f},{_HEIGHT - tall * y:.1f}" for x1, x2, y in line)
    ends = (f"M{line[0][0]:.1f},{_HEIGHT}", f"L{line[-1][1]:.1f},{_HEIGHT}") if line else ("", "")
    return Histograms(bars, f"{ends[0]} {steps} {ends[1]}".strip())

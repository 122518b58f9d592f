"""Small bar charts as SVG, without a plotting library and without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_LABEL, _BAR, _ROW, _GAP = 190, 300, 15, 9
_THINNEST = 4.0


def paired_bars(rows: Sequence[tuple[str, float | None, float | None]], title: str) -> str:
    """Return horizontal bars, a pair a row: the candidate and, where there is one, the baseline on the same rows.

    Args:
        rows: label, candidate's value or None where it is no number, baseline's value or None.
        title: what the chart shows, for those who cannot see it.
    """
    largest = max((value for _, *pair in rows for value in pair if value is not None), default=0.0) or 1.0
    height = sum((_ROW * (1 if baseline is None else 2)) + _GAP for _, _, baseline in rows) + 4
    width = _LABEL + _BAR + 60
    parts = [
        f'<svg class="bars" viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(title)}">'
    ]
    y = 2
    for label, candidate, baseline in rows:
        pair = [("candidate", candidate)] + ([("baseline", baseline)] if baseline is not None else [])
        middle = y + _ROW * len(pair) / 2 + 4
        parts.append(f'<text class="label" x="{_LABEL - 8}" y="{middle:.0f}">{escape(label)}</text>')
        for kind, value in pair:
            told = "not a number" if value is None else f"{value:.1f}"
            length = max(1.0, _BAR * (value or 0.0) / largest)
            parts.append(f'<rect class="{kind}" x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_ROW - 2}"/>')
            parts.append(f'<text class="value" x="{_LABEL + length + 5:.1f}" y="{y + 11}">{told}</text>')
            y += _ROW
        y += _GAP
    return "\n".join([*parts, "</svg>"])


def bars(rows: Sequence[tuple[str, float]], title: str) -> str:
    """Return horizontal bars, one a row.

    Args:
        rows: label and value.
        title: what the chart shows, for those who cannot see it.
    """
    return paired_bars([(label, value, None) for label, value in rows], title)


def two_histograms(
    now: Sequence[tuple[float, float, float]], before: Sequence[tuple[float, float, float]], title: str
) -> str:
    """Return two histograms over each other as shares of their rows: filled is now, the line is before."""
    width, height = 180, 44
    both = [*now, *before]
    low, high = min((b[0] for b in both), default=0.0), max((b[1] for b in both), default=1.0)
    scale = width / ((high - low) or 1.0)

    def shares(buckets: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        rows = sum(b[2] for b in buckets) or 1.0
        # As density, so that buckets of different widths compare.
        placed = []
        for first, last, count in buckets:
            # A column with one value has a bucket without any width, which is to be seen all the same.
            begin = min((first - low) * scale, width - _THINNEST)
            end = max((last - low) * scale, begin + _THINNEST)
            placed.append((begin, end, count / rows / (((last - first) * scale) or 1.0)))
        return placed

    filled, line = shares(now), shares(before)
    top = max((share for *_, share in (*filled, *line)), default=1.0) or 1.0
    parts = [(f'<svg class="spread" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
             f'aria-label="{escape(title)}">')]  # fmt: skip
    for x1, x2, share in filled:
        tall = (height - 2) * share / top
        place = f'x="{x1:.1f}" y="{height - tall:.1f}" width="{max(1.0, x2 - x1 - 1):.1f}" height="{tall:.1f}"'
        parts.append(f'<rect class="candidate" {place}/>')
    if line:
        steps = " ".join(
            f"L{x1:.1f},{height - (height - 2) * share / top:.1f} L{x2:.1f},{height - (height - 2) * share / top:.1f}"
            for x1, x2, share in line
        )
        parts.append(f'<path class="before" d="M{line[0][0]:.1f},{height} {steps} L{line[-1][1]:.1f},{height}"/>')
    return "".join([*parts, "</svg>"])

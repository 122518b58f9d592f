"""An explanation as a picture and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bike_pipeline.monitoring.explanations.answer import AnswerParts
from bike_pipeline.monitoring.explanations.table import Explanation
from bike_pipeline.monitoring.explanations.whole_model import HourCurves
from bike_pipeline.pages import number, render

_LEFT, _WIDTH, _RIGHT, _LINE, _TOP = 250, 420, 160, 26, 8


def in_words(why: AnswerParts, unit: str) -> list[str]:
    """Return an explanation as lines of text: from the mean answer by each part to the answer."""
    parts = [f"{part.words}: {number(part.value, '+,.0f' if unit != 'probability' else '+.3f')}" for part in why.parts]
    form = ",.0f" if unit != "probability" else ".3f"
    return [
        f"an hour like those of training: {number(why.base, form)}",
        *parts,
        f"answered: {number(why.answer, form)} {unit}",
    ]


def drawing(why: AnswerParts, unit: str) -> str:
    """Return an explanation as SVG: from the mean answer by each part to the answer."""
    ends = [why.base]
    for part in why.parts:
        ends.append(ends[-1] + part.value)
    low, high = min(0.0, *ends), max(*ends, why.answer, 1e-9)

    def x(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * _WIDTH, 1)

    texts = [text.rpartition(": ") for text in in_words(why, unit)]
    spans = [(0.0, why.base), *pairwise(ends), (0.0, why.answer)]
    bars = [
        {
            "words": words,
            "value": value,
            "kind": "new" if place in (0, len(spans) - 1) else "more" if end >= start else "less",
            "x": x(min(start, end)),
            "width": max(abs(x(end) - x(start)), 1.0),
            "y": _TOP + place * _LINE,
            "end": x(end),
        }
        for place, ((words, _, value), (start, end)) in enumerate(zip(texts, spans, strict=True))
    ]
    height = 2 * _TOP + len(bars) * _LINE
    return render("answer_parts.svg", bars=bars, left=_LEFT, width=_LEFT + _WIDTH + _RIGHT, height=height, line=_LINE)


def curves_drawing(curves: HourCurves, largest: float) -> str:
    """Return how answers follow the hour as SVG: each row thin, their mean bold, `largest` at the top."""
    width, height, left, bottom = 420, 180, 44, 22

    across, up = (width - left - 8) / 23, (height - bottom - 8) / largest

    def path(values: Sequence[float]) -> str:
        points = [f"{left + hour * across:.1f},{height - bottom - v * up:.1f}" for hour, v in enumerate(values)]
        return "M" + " L".join(points)

    lines = [path(row) for row in curves.rows]
    ticks = [(round(left + hour * across, 1), hour) for hour in range(0, 24, 6)]
    return render(
        "hour_curves.svg", width=width, height=height, left=left, bottom=height - bottom, ticks=ticks, lines=lines,
        mean=path(curves.mean), largest=largest, title="working day" if curves.workingday else "no working day",
    )  # fmt: skip


def answer_page(found: Explanation) -> str:
    """Return an explanation as one HTML page that needs no network."""
    of = found.of
    title = f"Why {number(found.why.answer, ',.4g')} {of.unit} was answered"
    return render("explanation.html", title=title, of=of, why=found.why, drawing=drawing(found.why, of.unit))


def model_page(curves: Sequence[HourCurves], **values: Any) -> str:
    """Return what is known of a model as a whole as one HTML page that needs no network."""
    largest = max(value for one in curves for line in (one.mean, *one.rows) for value in line) or 1.0
    return render("model_explanation.html", drawings=[curves_drawing(one, largest) for one in curves], **values)

"""Pictures, tables and sentences that a notebook shows as the last value of a cell, without any magic command."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bike_pipeline.use_cases.champion import Champion

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Stored value -> physical value, from the units of the feature contract: value * scale + offset.
PHYSICAL = {
    "temp": (47.0, -8.0, "temperature, °C"),
    "atemp": (66.0, -16.0, "temperature as it feels, °C"),
    "hum": (100.0, 0.0, "relative humidity, %"),
    "windspeed": (67.0, 0.0, "wind speed, km/h"),
}
NEW, BEFORE, MARK, GOOD, BAD, SOFT = "#2f6fbf", "#b8bec6", "#c2571a", "#1a7f37", "#b3261e", "#dfe3e8"
# Pixels of a picture for each that it takes on the page: sharp on dense screens.
_DENSITY = 2
_DPI = 80
# Letters of a cell that is never broken into lines.
_SHORT = 25
_TABLE = (
    "<style>.bike-table{{border-collapse:collapse;margin:.3em 0}}"
    ".bike-table th,.bike-table td{{text-align:left!important;"
    "padding:.2em 1em .2em 0!important;border-bottom:1px solid #8886;vertical-align:top}}"
    ".bike-table td.number,.bike-table th.number{{text-align:right!important;font-variant-numeric:tabular-nums;"
    "white-space:nowrap}}.bike-table caption{{text-align:left;font-weight:600;padding:.2em 0}}"
    ".bike-table td.short{{white-space:nowrap}}.bike-table .good{{color:#1a7f37}}"
    ".bike-table .bad{{color:#b3261e;font-weight:600}}"
    '.bike-table code{{overflow-wrap:anywhere}}</style><table class="bike-table">{}</table>'
)


def physical(name: str, value: Any) -> Any:
    """Return a stored weather value in its physical unit."""
    scale, offset, _ = PHYSICAL[name]
    return value * scale + offset


class Picture:
    """A figure, with what it shows in words for those who cannot see it."""

    def __init__(self, figure: Figure, words: str) -> None:
        """Keep the figure and its description."""
        self.figure = figure
        self.words = words

    def __repr__(self) -> str:
        """Return what the picture shows, in words."""
        return f"picture: {self.words}"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=_DPI * _DENSITY, facecolor="white")
        width, height = (round(inches * _DPI) for inches in self.figure.get_size_inches())
        return content.getvalue(), {"width": width, "height": height}


class Html:
    """A piece of a page, and the same in plain text."""

    def __init__(self, html: str, text: str) -> None:
        """Keep both."""
        self.html = html
        self.text = text

    def __repr__(self) -> str:
        """Return the plain text."""
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def canvas(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, list[Axes]]:
    """Return an empty figure in the notebooks' style and its axes, row by row.

    Args:
        rows: rows of axes.
        columns: axes a row.
        size: width and height in inches.
        title: stands above; "" for none.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from bike_pipeline.extras import require

    require("notebooks", "a picture in a notebook")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
        axis.title.set_fontsize(10)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, axes


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """Return a table: numbers stand to the right, long hexadecimal texts are set as code, "✔" and "✘" have a colour."""
    lines = [[_text(value) for value in row] for row in rows]
    kinds = [[_kind(value) for value in row] for row in lines]
    numeric = [bool(lines) and all(row[i] == "number" for row in kinds) for i in range(len(head))]
    heads = "".join(f"<th{' class=number' if n else ''}>{escape(h)}</th>" for h, n in zip(head, numeric, strict=True))
    body = "".join(
        f"<tr>{''.join(map(_cell, row, kind, numeric))}</tr>" for row, kind in zip(lines, kinds, strict=True)
    )
    named = f"<caption>{escape(caption)}</caption>" if caption else ""
    text = "\n".join([*([caption] if caption else []), "\t".join(head), *("\t".join(row) for row in lines)])
    return Html(_TABLE.format(f"{named}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"), text)


def sentence(text: str, good: bool | None = None) -> Html:
    """Return a sentence that stands out: green for good news, red for bad, plain where it is neither."""
    color = {True: GOOD, False: BAD, None: "inherit"}[good]
    return Html(f'<p style="font-size:1.1em;font-weight:600;color:{color}">{escape(text)}</p>', text)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _kind(text: str) -> str:
    if text.startswith(("✔", "✘")):
        return "good" if text.startswith("✔") else "bad"
    plain = text.removesuffix(" %").removesuffix(" °C").replace(",", "").replace(".", "", 1).lstrip("+-−")
    if plain.isdigit() or text == "-":
        return "number"
    return "code" if len(text) >= 32 and all(letter in "0123456789abcdef" for letter in text) else ""


def _cell(text: str, kind: str, numeric: bool) -> str:
    if kind == "code":
        return f"<td><code>{text}</code></td>"
    short = "short" if len(text) < _SHORT else ""
    classes = " ".join(filter(None, (("number" if numeric else "") if kind == "number" else kind, short)))
    return f'<td class="{classes}">{escape(text)}</td>' if classes else f"<td>{escape(text)}</td>"


def summary(champion: Champion) -> Html:
    """Return what the workspace holds, in a few lines."""
    rows = [
        ("runs on record", str(len(champion.runs))),
        ("models trained", str(len(champion.models))),
        ("model that serves", f"model {champion.model_id}, version {champion.push.version}"),
        ("pushed", f"{champion.push.pushed_at:%Y-%m-%d %H:%M} UTC"),
        ("made of span", ", ".join(f"{e['span']} version {e['version']}" for e in champion.evidence["data"])),
    ]
    return table(("what", "value"), rows)

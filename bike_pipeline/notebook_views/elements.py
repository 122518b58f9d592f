"""Pictures, tables and sentences that a notebook shows as the last value of a cell, without any magic command."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.pages import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bike_pipeline.use_cases.lineage import Champion

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Stored value -> physical value: scale, offset, and what it is, with its unit.
PHYSICAL = {
    name: (scale, offset, f"{features.BY_NAME[name].meaning}, {unit}")
    for name, (scale, offset, unit) in features.PHYSICAL.items()
}
NEW, BEFORE, MARK, GOOD, BAD, SOFT = "#2f6fbf", "#b8bec6", "#c2571a", "#1a7f37", "#b3261e", "#dfe3e8"
# Values of `workingday`, each with its colour.
KINDS_OF_DAY = ((1, NEW, "working days"), (0, MARK, "weekends and holidays"))
# Pixels of a picture for each that it takes on the page: sharp on dense screens.
_DENSITY = 2
_DPI = 80


def physical(name: str, value: Any) -> Any:
    """Return a stored weather value in its physical unit."""
    scale, offset, _ = PHYSICAL[name]
    return value * scale + offset


@dataclass(repr=False)
class Picture:
    """A figure, with what it shows in words for those who cannot see it."""

    figure: Figure
    words: str

    def __repr__(self) -> str:
        return f"picture: {self.words}"

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=_DPI * _DENSITY, facecolor="white")
        width, height = (round(inches * _DPI) for inches in self.figure.get_size_inches())
        return content.getvalue(), {"width": width, "height": height}


@dataclass(repr=False)
class Html:
    """A piece of a page, and the same in plain text."""

    html: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def canvas(rows: int, columns: int, size: tuple[float, float], title: str) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of a size in inches, in the notebooks' style, and its axes, row by row."""
    from bike_pipeline.extras import require

    require("notebooks", "a picture in a notebook")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, axes


def week(figure: Figure, axis: Axes, grid: Any, title: str, unit: str = "", **colors: Any) -> None:
    """Draw a table of days by hours as coloured squares."""
    image = axis.imshow(grid.reindex(range(7)).to_numpy(), aspect="auto", **colors)
    axis.set(yticks=range(7), yticklabels=DAYS, xlabel="hour of the day", title=title)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, shrink=0.9, label=unit).outline.set_visible(False)


def legend_beside(axis: Axes, colors: Mapping[str, str]) -> None:
    """Explain colours to the right of a picture."""
    for name, color in colors.items():
        axis.scatter([], [], s=60, marker="s", color=color, label=name)
    axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """Return a table: numbers stand to the right, long hexadecimal texts are set as code, "✔" and "✘" have a colour."""
    lines = [[_text(value) for value in row] for row in rows]
    kinds = [[_kind(text) for text in row] for row in lines]
    # A column of numbers holds nothing else.
    columns = ["number" if kinds and {row[i] for row in kinds} == {"number"} else "" for i in range(len(head))]
    cells = [
        [(text, column if kind == "number" else kind) for text, kind, column in zip(line, row, columns, strict=True)]
        for line, row in zip(lines, kinds, strict=True)
    ]
    text = "\n".join([*([caption] if caption else []), "\t".join(head), *("\t".join(row) for row in lines)])
    return Html(render("cell.html", caption=caption, heads=list(zip(head, columns, strict=True)), rows=cells), text)


def sentence(text: str, good: bool | None = None) -> Html:
    """Return a sentence that stands out: green for good news, red for bad, plain if it is neither."""
    return Html(render("cell.html", verdict=text, kind={True: "good", False: "bad", None: ""}[good]), text)


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

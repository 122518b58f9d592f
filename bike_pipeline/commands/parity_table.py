"""The parity matrix as a table: one row a format."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from bike_pipeline.commands.output import table
from bike_pipeline.exporting.acceptance.report import size_in_words

_NUMBERS = ("max difference", "mean", "max relative", "golden row", "RMSE", "MAE +")
_SPEEDS = ("size", "cold start", "one row", "rows/s")


def parity_table(report: dict[str, Any]) -> RenderableType:
    """Return the content of `parity.json` as a table, the worst golden row of each format, and why formats failed."""
    formats = report["formats"].values()
    marks = {True: Text("✔", style="green"), False: Text("✘", style="bold red")}
    rows = [(entry["title"], marks[entry["passed"]], *_cells(entry)) for entry in formats]
    columns = ("format", "", *_NUMBERS, "worst slice", *_SPEEDS)
    parts: list[RenderableType] = [table(columns, rows, right=(*_NUMBERS, *_SPEEDS))]
    if worst := [e for e in formats if e["worst_golden_row"] and e["parity"]["max_difference"]]:
        names = list(worst[0]["worst_golden_row"])
        head = ("row", *names[:-2], "SavedModel", "format's answer")
        values = [(_number(entry["worst_golden_row"][name], ".6g") for name in names) for entry in worst]
        rows = [(e["title"], e["parity"]["worst_row"], *cells) for e, cells in zip(worst, values, strict=True)]
        title = "\ngolden rows that are furthest from the SavedModel, rentals an hour"
        parts += [Text(title, style="bold"), table(("format", *head), rows, right=head)]
    failed = [entry for entry in formats if not entry["passed"]]
    parts += [Text("")] if failed else []
    parts += [Text.assemble(("✘ ", "bold red"), f"{entry['title']}: {entry['reason']}") for entry in failed]
    gate = report["edge_gate"]
    note = "" if all(entry["own_process"] for entry in formats) else "\n* without TensorFlow's import"
    parts.append(Text(f"\nedge: {'blessed' if gate['blessed'] else 'NOT blessed'}: {gate['reason']}{note}"))
    return Group(*parts)


def _cells(entry: dict[str, Any]) -> list[str]:
    parity = entry["parity"]
    if parity is None:
        return ["-"] * 11
    slice_increase = entry["worst_slice_mae_increase"]
    return [
        _number(parity["max_difference"], ".3g"),
        _number(parity["mean_difference"], ".2g"),
        _number(parity["max_relative_difference"], ".2g"),
        str(parity["worst_row"]),
        _number(entry["rmse"], ".2f"),
        _share(entry["mae_increase"]),
        "-" if slice_increase is None else f"{_share(slice_increase)} {entry['worst_slice']}",
        size_in_words(entry["size_bytes"]),
        f"{entry['cold_start_ms']:,.0f} ms{'' if entry['own_process'] else ' *'}",
        f"{entry['latency_us']:,.1f} µs",
        f"{entry['rows_per_second']:,.0f}",
    ]


def _share(value: float | None) -> str:
    # Without the addition a tiny negative number would read "-0.00%".
    return "no number" if value is None else f"{round(value, 4) + 0.0:+.2%}"


def _number(value: float | None, how: str) -> str:
    return "no number" if value is None else f"{value:{how}}"

"""The parity matrix as a table: one row a format."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bike_pipeline.exporting.acceptance.report import shown_size


def parity_table(report: dict[str, Any]) -> RenderableType:
    """Return the table of a report, the worst golden row of each format, and why formats failed.

    Args:
        report: the content of `parity.json`.
    """
    formats = report["formats"]
    table = Table(box=None, pad_edge=False)
    for name in ("format", "", "max difference", "mean", "max relative", "golden row", "RMSE", "MAE +",
                 "worst slice", "size", "cold start", "one row", "rows/s"):  # fmt: skip
        table.add_column(name, justify="left" if name in ("format", "", "worst slice") else "right", overflow="fold")
    for entry in formats.values():
        mark = Text("✔", style="green") if entry["passed"] else Text("✘", style="bold red")
        table.add_row(entry["title"], mark, *(_cells(entry)))
    return Group(table, *_worst_rows(formats), *_failures(formats), Text(_edge(report)))


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
        shown_size(entry["size_bytes"]),
        f"{entry['cold_start_ms']:,.0f} ms{'' if entry['own_process'] else ' *'}",
        f"{entry['latency_us']:,.1f} µs",
        f"{entry['rows_per_second']:,.0f}",
    ]


def _share(value: float | None) -> str:
    # Without the addition a tiny negative number would read "-0.00%".
    return "no number" if value is None else f"{round(value, 4) + 0.0:+.2%}"


def _number(value: float | None, how: str) -> str:
    return "no number" if value is None else f"{value:{how}}"


def _worst_rows(formats: dict[str, Any]) -> list[RenderableType]:
    worst = [entry for entry in formats.values() if entry["worst_golden_row"] and entry["parity"]["max_difference"]]
    if not worst:
        return []
    table = Table(box=None, pad_edge=False)
    names = list(worst[0]["worst_golden_row"])
    for name in ("format", "row", *names[:-2], "SavedModel", "format's answer"):
        table.add_column(name, justify="left" if name == "format" else "right", overflow="fold")
    for entry in worst:
        values = [_number(entry["worst_golden_row"][name], ".6g") for name in names]
        table.add_row(entry["title"], str(entry["parity"]["worst_row"]), *values)
    return [Text("\ngolden rows that are furthest from the SavedModel, rentals an hour", style="bold"), table]


def _failures(formats: dict[str, Any]) -> list[RenderableType]:
    failed = [entry for entry in formats.values() if not entry["passed"]]
    lines = [Text.assemble(("✘ ", "bold red"), f"{entry['title']}: {entry['reason']}") for entry in failed]
    return [Text(""), *lines] if lines else []


def _edge(report: dict[str, Any]) -> str:
    gate = report["edge_gate"]
    note = "" if all(e["own_process"] for e in report["formats"].values()) else "\n* without TensorFlow's import"
    return f"\nedge: {'blessed' if gate['blessed'] else 'NOT blessed'}: {gate['reason']}{note}"

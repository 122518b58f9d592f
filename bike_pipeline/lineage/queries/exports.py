"""A model's exports as ML Metadata tells them, and their picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from bike_pipeline.lineage.reports.charts import bars
from bike_pipeline.lineage.store.metadata_store import Lineage, prop

REPORT_PROPERTY = "parity"
_HEADS = ("format", "", "why", "max difference", "max relative", "RMSE", "MAE increase", "worst slice", "cold start")
_CHARTS = (
    ("Size, kB: smaller is better", "size_bytes", 1 / 1024),
    ("One row, µs: smaller is better", "latency_us", 1.0),
    ("Rows a second, thousands: larger is better", "rows_per_second", 1e-3),
)


def exports_of_run(lineage: Lineage, execution_ids: Sequence[int]) -> dict[str, Any] | None:
    """Return the content of `parity.json` of a run's exports; None where the run did not come to them.

    Args:
        lineage: the metadata store.
        execution_ids: the run's executions.
    """
    for execution_id in execution_ids:
        for artifact in lineage.outputs(execution_id).get("exports", []):
            text = prop(artifact, REPORT_PROPERTY)
            return json.loads(text) if text else None
    return None


def exports_section(report: dict[str, Any] | None) -> list[str]:
    """Return the part of the page that tells of the exports, a picture among it."""
    if report is None:
        return ['<p class="missing">This run did not come to its exports.</p>']
    if not report["formats"]:
        return [f"<p>{escape(report['reason'])}</p>"]
    gate = report["edge_gate"]
    verdict = "may go to devices" if gate["blessed"] else "must not go to devices"
    measured = [entry for entry in report["formats"].values() if entry["parity"] is not None]
    return [
        (
            "<p>The same model in other formats, each held against the SavedModel on "
            f"{report['golden']['rows']:,} golden rows and on the {report['eval_rows']:,} rows of the eval split. Only "
            "what passed was pushed.</p>"
        ),
        f'<div class="scroll">{_table(report["formats"].values())}</div>',
        f'<p class="{"good" if gate["blessed"] else "bad"}">The model {verdict}: {escape(gate["reason"])}.</p>',
        f'<div class="columns">{"".join(_figure(measured, *chart) for chart in _CHARTS)}</div>',
        '<p class="note">Measured in the run, on one thread; times differ from machine to machine.</p>',
    ]


def _table(entries: Any) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in _HEADS)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(map(_row, entries))}</tbody></table>"


def _row(entry: dict[str, Any]) -> str:
    mark, kind = ("passed", "good") if entry["passed"] else ("failed", "bad")
    cells = [
        f"<td>{escape(entry['title'])}</td>",
        f'<td class="{kind}">{mark}</td>',
        f"<td>{escape(entry['reason'])}</td>",
    ]
    parity = entry["parity"] or {}
    slice_ = f" {entry['worst_slice']}" if entry["worst_slice"] else ""
    texts = (
        _number(parity.get("max_difference"), ".3g"),
        _number(parity.get("max_relative_difference"), ".2g"),
        _number(entry["rmse"], ".2f"),
        _number(entry["mae_increase"], "+.2%"),
        _number(entry["worst_slice_mae_increase"], "+.2%") + slice_,
        _number(entry["cold_start_ms"], ",.0f") + (" ms" if entry["cold_start_ms"] else ""),
    )
    cells += [f'<td class="number">{escape(text)}</td>' for text in texts]
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: float | None, how: str) -> str:
    return "-" if value is None else f"{value:{how}}"


def _figure(entries: list[dict[str, Any]], caption: str, key: str, scale: float) -> str:
    rows = [(entry["title"], float(entry[key]) * scale) for entry in entries]
    return f"<figure><figcaption>{escape(caption)}</figcaption>{bars(rows, caption)}</figure>"

"""A lineage report as one HTML page that needs no network: everything is inside of it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from bike_pipeline import features
from bike_pipeline.lineage.reports.graph_svg import as_svg
from bike_pipeline.lineage.reports.lineage_report import Report

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d0d7de; --soft: #f4f6f8; --good: #1a7f37;
  --bad: #b3261e; --data: #dbeafe; --stage: #e7e5e4; --span: #dcfce7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --soft: #161b22;
  --good: #4ac26b; --bad: #ff7b72; --data: #12305c; --stage: #2d2a27; --span: #113522; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 75rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { font-weight: 600; }
th, td:first-child { white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } code { font-size: .85em; }
.good { color: var(--good); } .bad, .missing { color: var(--bad); }
.wide { overflow-x: auto; text-align: center; border: 1px solid var(--line); border-radius: 6px;
  background: var(--soft); }
svg text { font: 13px system-ui, sans-serif; text-anchor: middle; fill: var(--ink); }
svg text.small { font-size: 10px; }
svg rect { stroke: var(--line); } .artifact rect { fill: var(--data); } .stage rect { fill: var(--stage); }
.span rect { fill: var(--span); } .gone rect { stroke-dasharray: 4 3; stroke: var(--bad); fill: none; }
.root rect { stroke: var(--ink); stroke-width: 2; } .edge { fill: none; stroke: currentColor; opacity: .35; }
"""
_METRICS = ("rows", "mae", "rmse", "rmsle", "bias", "calibration")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def _code(text: str) -> str:
    return f"<td><code>{escape(text)}</code></td>"


def as_html(report: Report) -> str:
    """Return the page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Lineage of {escape(report.title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>Lineage of {escape(report.title)}</h1>",
    ]
    if report.missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in report.missing)
        parts.append(f'<div class="missing"><strong>Not on record:</strong><ul>{items}</ul></div>')
    parts.append(_table(("what", "value"), ([_cell(name), _cell(value)] for name, value in report.facts)))
    parts.append("<h2>From the rows to the model</h2>")
    parts.append(
        "<p>Data flow from top to bottom: spans, stages (round) and what they made. Dashed: the files were freed or "
        "are missing. Point at a box to read more.</p>"
    )
    parts.append(f'<div class="wide">{as_svg(report.graph)}</div>')
    parts.append("<h2>The data</h2>")
    parts.append(_table(("span", "version", "used as", "file", "SHA-256"), _files(report)))
    if report.gates:
        parts.append("<h2>The gates</h2>")
        parts.append(_table(("", "decision"), (_decision(entry) for entry in report.gates["decisions"])))
    if report.metrics:
        parts.append("<h2>Metrics by slice</h2>")
        parts.append("<p>In rentals an hour, on the eval split; bias and calibration as shares.</p>")
        parts.append(_table(("slice", *_METRICS), (_metrics(row) for row in report.metrics)))
    parts.append("<h2>Everything in the graph</h2>")
    parts.append(_table(("", "name", "what", "where", "files"), _nodes(report)))
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _files(report: Report) -> Iterable[list[str]]:
    for span in report.spans:
        first = [_cell(str(span.span)), _cell(str(span.version)), _cell(span.role)]
        yield [*first, _cell("manifest"), _code(span.manifest_sha256 or "not recorded")]
        if span.problem:
            yield [*first, _cell(span.problem, "missing"), _cell("")]
        for name, sha256 in span.files.items():
            yield [*first, _cell(name), _code(sha256)]


def _decision(entry: dict[str, Any]) -> list[str]:
    mark, kind = ("passed", "good") if entry["passed"] else ("failed", "bad") if entry["binding"] else ("note", "")
    return [_cell(mark, kind), _cell(str(entry["reason"]))]


def _metrics(row: dict[str, Any]) -> list[str]:
    values = (row.get(name) for name in _METRICS)
    name = features.slice_name(row["slicing"], row["slice"])
    return [_cell(name), *(_cell("-" if value is None else f"{value:,.4g}", "number") for value in values)]


def _nodes(report: Report) -> Iterable[list[str]]:
    for node in report.graph.nodes.values():
        where = node.uri or node.run
        bad = "missing" if node.payload in ("freed", "missing") else ""
        yield [_cell(node.kind), _cell(node.name), _cell(node.detail), _code(where), _cell(node.payload, bad)]

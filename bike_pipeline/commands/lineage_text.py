"""A lineage report for a terminal: what it is, its gates and metrics, and a tree back to the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from bike_pipeline.commands.shared import BLESSED, METRIC_NAMES, table
from bike_pipeline.features import answer_measured, slice_name
from bike_pipeline.stages import Stage

if TYPE_CHECKING:
    from rich.table import Table

    from bike_pipeline.lineage.queries.audit import Comparison, Impact
    from bike_pipeline.lineage.queries.model_facts import SpanFiles
    from bike_pipeline.lineage.reports.graph import Graph, Node
    from bike_pipeline.lineage.reports.lineage_report import LineageReport

# What the stages that look at data look at.
_LOOKING: dict[str, str] = {
    Stage.STATISTICS_GEN: "examples",
    Stage.EXAMPLE_VALIDATOR: "statistics",
    Stage.DATA_GATE: "statistics",
}


def report_text(report: LineageReport) -> RenderableType:
    """Return a report as rich renders it; without a terminal it is plain text."""
    facts = [(Text(name, style="dim"), value) for name, value in report.facts]
    parts: list[RenderableType] = [Text(report.title, style="bold"), table(("name", "value"), facts, header=False)]
    parts += [Text(f"not on record: {text}", style="yellow") for text in report.missing]
    if report.gates:
        parts += [Text("\ngates", style="bold"), _gates(report.gates)]
    if report.metrics:
        parts += [Text("\nmetrics", style="bold"), _metrics(report.metrics)]
    parts.append(Text("\nfrom here back to the rows", style="bold"))
    spans = {f"span-{span.span}/{span.version}": span for span in report.spans}
    seen: set[str] = set()
    for root in report.graph.roots:
        tree = Tree(_artifact(report.graph.nodes[root]))
        _grow(tree, report.graph, root, spans, seen)
        parts.append(tree)
    gone = [node for node in report.graph.nodes.values() if node.payload in ("freed", "missing")]
    if gone:
        freed = ", ".join(f"{node.name} {node.key.partition('-')[2]} ({node.payload})" for node in gone)
        parts.append(Text(f"\nfiles that are gone: {freed}", style="yellow"))
    return Group(*parts)


def impact_text(impact: Impact) -> list[RenderableType]:
    """Return the models that saw some rows, as a table."""
    name = f"span {impact.span}" + (f" version {impact.version}" if impact.version is not None else "")
    notes = [Text(f"note: {note}", style="yellow") for note in impact.notes]
    if not impact.sightings:
        return [f"no model saw {name}", *notes]
    rows = []
    for seen in impact.sightings:
        later = f" (a later version, with {seen.carried_over:,} rows carried over)" if seen.carried_over else ""
        served = ", ".join(map(str, seen.served_versions)) or "-"
        if seen.serving:
            served += " (serving)"
        trained = seen.trained_at[:19].replace("T", " ")
        rows.append((seen.model_id, trained, seen.version, seen.role + later, BLESSED[seen.blessed], served))
    columns = ("model", "trained (UTC)", "version", "how", "blessed", "served as")
    return [Text(f"models that saw {name}", style="bold"), table(columns, rows), *notes]


def comparison_text(found: Comparison) -> list[RenderableType]:
    """Return what differs between two models as a table, what is the same, and what is not known."""
    rows, part = [], ""
    for entry in found.differences:
        what = entry.part if entry.part != part else ""
        rows.append((what, entry.name, entry.before or "(none)", entry.after or "(none)"))
        part = entry.part
    columns = ("what", "name", f"model {found.first}", f"model {found.second}")
    return [
        *([table(columns, rows)] if rows else []),
        *([f"the same: {', '.join(found.same)}"] if found.same else []),
        *(Text(f"not known: {text}", style="yellow") for text in found.unknown),
    ]


def _gates(gates: dict[str, Any]) -> Table:
    rows = []
    for entry in gates["decisions"]:
        mark = "✔ passed" if entry["passed"] else "✘ failed" if entry["binding"] else "· note"
        rows.append((mark, entry["reason"]))
    baseline = gates.get("baseline") or {}
    if baseline.get("reason"):
        rows.append(("baseline", baseline["reason"]))
    return table(("mark", "reason"), rows, header=False)


def _metrics(metrics: list[dict[str, Any]]) -> Table:
    rows = []
    shown = answer_measured(metrics[0] if metrics else ()).metrics
    for row in sorted(metrics, key=lambda row: row["slicing"] != "overall"):
        values = ("-" if row.get(m) is None else f"{row[m]:.3f}" for m in shown)
        rows.append((slice_name(row["slicing"], row["slice"]), f"{row['rows']:,.0f}", *values))
    numbers = ("rows", *(METRIC_NAMES[m] for m in shown))
    return table(("slice", *numbers), rows, right=numbers)


def _grow(tree: Tree, graph: Graph, key: str, spans: dict[str, SpanFiles], seen: set[str]) -> None:
    """Hang what a node comes from below it; what hangs elsewhere already is only named."""
    seen.add(key)
    for edge in graph.before(key):
        node = graph.nodes.get(edge.source)
        if node is None:
            continue
        if node.kind == "span":
            branch = tree.add(Text(f"{edge.role}: {node.name}: {node.detail}"))
            _files(branch, spans.get(node.key))
            continue
        run = f"  run {node.run}" if node.run else ""
        label = Text(f"{node.name}  {node.detail}{run}") if node.kind == "stage" else _artifact(node, edge.role)
        if node.key in seen:
            tree.add(Text(f"{edge.role}: {node.name} {node.key.partition('-')[2]} (see above)", style="dim"))
            continue
        _grow(tree.add(label), graph, node.key, spans, seen)
    _look(tree, graph, key, seen)


def _look(tree: Tree, graph: Graph, key: str, seen: set[str]) -> None:
    """Hang the stages that looked at data beside what the data come from, with what they found."""
    for edge in graph.after(key):
        stage = graph.nodes.get(edge.target)
        if stage is None or _LOOKING.get(stage.name) != edge.role or stage.key in seen:
            continue
        seen.add(stage.key)
        branch = tree.add(Text(f"looked at by {stage.name}  {stage.detail}  run {stage.run}"))
        for made in graph.after(stage.key):
            if made.target in graph.nodes and made.target not in seen:
                seen.add(made.target)
                _look(branch.add(_artifact(graph.nodes[made.target], made.role)), graph, made.target, seen)


def _artifact(node: Node, role: str = "") -> Text:
    text = Text(f"{role}: " if role else "")
    text.append(f"{node.name} {node.key.partition('-')[2]}", style="bold")
    text.append(f"  {node.detail}" if node.detail else "")
    if node.payload in ("freed", "missing"):
        text.append(f"  [files {node.payload}]", style="yellow")
    text.append(f"  {node.uri}", style="dim")
    return text


def _files(tree: Tree, span: SpanFiles | None) -> None:
    if span is None:
        return
    if span.problem:
        tree.add(Text(span.problem, style="yellow"))
    if span.source:
        tree.add(Text(f"from {span.source}"))
    for name, sha256 in span.files.items():
        tree.add(Text(f"{name}  sha256 {sha256}"))

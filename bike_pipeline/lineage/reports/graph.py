"""The lineage of a model or of a run as a graph of data and stages: for Graphviz, and as an SVG drawing.

The drawing is layered after Sugiyama, Tagawa and Toda (1981), in its simplest form: a node's layer is the longest way
to it, and the order within a layer follows the mean place of the neighbours. It needs neither a program nor a network.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.history import History, payload_state
from bike_pipeline.lineage.store.metadata_store import prop, time_of
from bike_pipeline.pages import render, utc

# Custom properties of artifacts that mean something to a person, and the words for them.
_PROPERTY_WORDS = {
    "pushed_version": "version",
    "pushed_destination": "in",
    "blessed": "blessed",
    "metric_mae": "MAE",
    "metric_rmse": "RMSE",
    "metric_log_loss": "log loss",
    "target": "answers",
    "reason": "",
    "formats": "",
    "signature": "",
    "warnings": "warnings",
    "source": "from",
}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 168, 40, 36, 30, 12
# Length and half the width of an arrow's head.
_HEAD, _HALF = 7, 4
_SWEEPS = 6
# Letters that fit into a node.
_LETTERS = 24


@dataclass(frozen=True)
class Node:
    """Something in the lineage: its `kind` is "artifact", "stage" or "span", and its key "artifact-7" or "span-1/2".

    `payload` of an artifact is `payload_state`; `time` is when it was made, ISO 8601 in UTC.
    """

    key: str
    kind: str
    name: str
    detail: str
    uri: str = ""
    payload: str = ""
    run: str = ""
    time: str = ""


@dataclass(frozen=True)
class Edge:
    """What flows from one node to another, and as what."""

    source: str
    target: str
    role: str


@dataclass(frozen=True)
class Graph:
    """Nodes by key, edges in the direction in which data flow, and the nodes that were asked for."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)

    def after(self, key: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.source == key]

    def before(self, key: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.target == key]


def graph_of(history: History, roots: Iterable[int]) -> Graph:
    """Return the lineage of the artifacts with the ids `roots`."""
    wanted = [i for i in roots if i in history.all_artifacts]
    artifacts, executions = history.lineage_of(wanted)
    nodes = {f"artifact-{i}": _artifact(history.all_artifacts[i]) for i in sorted(artifacts)}
    graph = Graph(nodes, roots=[f"artifact-{i}" for i in wanted])
    for execution_id in sorted(executions):
        node = graph.nodes[f"stage-{execution_id}"] = _stage(history, execution_id)
        inputs, outputs = history.inputs(execution_id), history.outputs(execution_id)
        graph.edges.extend(Edge(f"artifact-{a.id}", node.key, key) for key, found in inputs.items() for a in found)
        graph.edges.extend(Edge(node.key, f"artifact-{a.id}", key) for key, found in outputs.items() for a in found)
        base = history.base_model(execution_id)
        if base is not None:
            graph.edges.append(Edge(f"artifact-{base}", node.key, "warm start"))
        for examples in outputs.get("examples", []):
            _add_spans(graph, node.key, examples)
    return graph


def _add_spans(graph: Graph, reader: str, examples: pb.Artifact) -> None:
    window = window_of(examples)
    for number, entry in enumerate(window, 1):
        key = f"span-{entry['span']}/{entry['version']}"
        role = "train, eval" if number == len(window) else "history"
        rows = sum(entry.get("rows", {}).values())
        manifest = entry["manifest_sha256"]
        words = f"manifest sha256 {manifest}" if manifest else "manifest not recorded"
        since = f" from {entry['from'][:10]} on" if "from" in entry else ""
        detail = f"{rows:,} rows{since}, content {entry['content_sha256'][:16]}…, {words}"
        graph.nodes[key] = Node(key, "span", f"span {entry['span']} version {entry['version']}", detail)
        graph.edges.append(Edge(key, reader, role))


def _artifact(artifact: pb.Artifact) -> Node:
    words = []
    span = prop(artifact, "span")
    if artifact.type == "Examples" and span:
        words.append(f"span {span} version {prop(artifact, 'version')}")
    rows = prop(artifact, "rows_by_split")
    if rows:
        words.append(", ".join(f"{count:,} {split}" for split, count in json.loads(rows).items()))
    for name, word in _PROPERTY_WORDS.items():
        value = prop(artifact, name)
        # TFX's validator keeps its verdicts as a structure; those are the data gate's to tell.
        if isinstance(value, str | int | float) and value != "":
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            words.append(f"{word} {text}".strip())
    return Node(
        key=f"artifact-{artifact.id}",
        kind="artifact",
        name=artifact.type.removeprefix("bike."),
        detail=", ".join(words),
        uri=artifact.uri,
        payload=payload_state(artifact),
        time=time_of(artifact.create_time_since_epoch).isoformat(timespec="seconds"),
    )


def _stage(history: History, execution_id: int) -> Node:
    execution = history.executions[execution_id]
    record = history.stage_record(execution)
    source = prop(execution, "source_hash")
    words = [record.state, f"{record.seconds:.1f} s"]
    words += [f"source {source[:16]}…"] if source else []
    return Node(
        key=f"stage-{execution_id}",
        kind="stage",
        name=record.name or execution.type.rpartition(".")[2],
        detail=", ".join(words),
        run=history.run_of(execution_id),
        time=time_of(execution.create_time_since_epoch).isoformat(timespec="seconds"),
    )


def as_dot(graph: Graph, title: str) -> str:
    """Return a graph in Graphviz's language, data flowing from left to right."""
    shapes = {"artifact": "note", "stage": "box", "span": "cylinder"}

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"digraph {quoted(title)} {{", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10];']
    for node in graph.nodes.values():
        label = f"{node.name}\\n{node.key}" if node.kind == "artifact" else node.name
        style = "dashed" if node.payload in ("freed", "missing") else "bold" if node.key in graph.roots else "solid"
        escaped = label.replace('"', '\\"')
        lines.append(f'  {quoted(node.key)} [label="{escaped}", shape={shapes[node.kind]}, style={style}];')
    lines += [f"  {quoted(e.source)} -> {quoted(e.target)} [label={quoted(e.role)}, fontsize=8];" for e in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _inner(graph: Graph) -> list[Edge]:
    return [edge for edge in graph.edges if edge.source in graph.nodes and edge.target in graph.nodes]


def _layers(graph: Graph) -> dict[str, int]:
    before = defaultdict(list)
    for edge in _inner(graph):
        before[edge.target].append(edge.source)
    layer: dict[str, int] = {}

    def place(key: str, above: frozenset[str]) -> int:
        if key not in layer:
            # A store that was edited by hand may hold a circle; it is cut, not followed.
            earlier = [place(source, above | {key}) for source in before[key] if source not in above | {key}]
            layer[key] = 1 + max(earlier, default=-1)
        return layer[key]

    for key in graph.nodes:
        place(key, frozenset())
    return layer


def _ordered(graph: Graph, layer: dict[str, int]) -> list[list[str]]:
    columns: list[list[str]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for key in graph.nodes:
        columns[layer[key]].append(key)
    neighbours: dict[str, list[str]] = defaultdict(list)
    for edge in _inner(graph):
        neighbours[edge.target].append(edge.source)
        neighbours[edge.source].append(edge.target)
    for sweep in range(_SWEEPS):
        place = {key: row / max(1, len(column) - 1) for column in columns for row, key in enumerate(column)}
        for column in columns if sweep % 2 == 0 else reversed(columns):
            column.sort(key=lambda key: sum(place[n] for n in neighbours[key]) / max(1, len(neighbours[key])))
            place.update({key: row / max(1, len(column) - 1) for row, key in enumerate(column)})
    return columns


def as_svg(graph: Graph) -> str:
    """Return a graph as SVG, data flowing from top to bottom; what was freed is dashed, what was asked for is bold.

    The look is the style sheet's of `bike_pipeline.pages`.
    """
    rows = _ordered(graph, _layers(graph))
    widest = max((len(row) for row in rows), default=0)
    width = 2 * _MARGIN + max(1, widest) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + max(1, len(rows)) * (_HEIGHT + _GAP_Y) - _GAP_Y
    spot = {}
    for y, row in enumerate(rows):
        left = (width - len(row) * (_WIDTH + _GAP_X) + _GAP_X) // 2
        for x, key in enumerate(row):
            spot[key] = (left + x * (_WIDTH + _GAP_X), _MARGIN + y * (_HEIGHT + _GAP_Y))
    boxes = [_box(node, *spot[key], root=key in graph.roots) for key, node in graph.nodes.items()]
    return render("graph.svg", width=width, height=height, edges=_arrows(graph, spot, width), boxes=boxes)


def _arrows(graph: Graph, spot: dict[str, tuple[int, int]], width: int) -> Iterator[tuple[str, str, str]]:
    """Yield the line, the head and the role of each edge."""
    for edge in _inner(graph):
        (x1, y1), (x2, y2) = spot[edge.source], spot[edge.target]
        x1, x2, y1 = x1 + _WIDTH // 2, x2 + _WIDTH // 2, y1 + _HEIGHT
        # Lines over several layers swing out beside the boxes between.
        swing = 0.0 if y2 - y1 <= _GAP_Y + 1 else _WIDTH * (0.8 if x1 >= width / 2 else -0.8)
        bend = max(20.0, (y2 - y1) / 3)
        end = y2 - _HEAD
        line = f"M{x1},{y1} C{x1 + swing:.0f},{y1 + bend:.0f} {x2 + swing / 4:.0f},{end - bend:.0f} {x2},{end}"
        yield line, f"{x2 - _HALF},{end} {x2 + _HALF},{end} {x2},{y2}", edge.role


def _box(node: Node, x: int, y: int, root: bool) -> dict[str, Any]:
    words = (node.name, node.detail, node.uri, node.payload, node.run, utc(node.time))
    return {
        "kind": node.kind,
        "gone": node.payload in ("freed", "missing"),
        "root": root,
        "words": "\n".join(filter(None, words)),
        "name": node.name if len(node.name) <= _LETTERS else f"{node.name[: _LETTERS - 1]}…",
        "small": "" if node.kind == "span" else node.key.replace("-", " "),
        "x": x,
        "y": y,
        "middle": x + _WIDTH // 2,
        "width": _WIDTH,
        "height": _HEIGHT,
    }

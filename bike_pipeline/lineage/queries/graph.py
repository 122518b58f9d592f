"""The lineage of a model or of a run as a graph of data and stages, for every form it is shown in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.history import History, payload_state
from bike_pipeline.lineage.store.metadata_store import STATE_NAMES, prop, time_of

# Custom properties of artifacts that mean something to a person, and the words for them.
_PROPERTY_WORDS = {
    "pushed_version": "version",
    "pushed_destination": "in",
    "blessed": "blessed",
    "metric_mae": "MAE",
    "metric_rmse": "RMSE",
    "reason": "",
    "formats": "",
    "signature": "",
    "warnings": "warnings",
}


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
    graph = Graph(roots=[f"artifact-{i}" for i in wanted])
    for artifact_id in sorted(artifacts):
        node = _artifact(history.all_artifacts[artifact_id])
        graph.nodes[node.key] = node
    for execution_id in sorted(executions):
        node = _stage(history, execution_id)
        graph.nodes[node.key] = node
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
        detail = f"{rows:,} rows, content {entry['content_sha256'][:16]}…, {words}"
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
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    source = prop(execution, "source_hash")
    words = [STATE_NAMES.get(execution.last_known_state, "unknown"), f"{seconds:.1f} s"]
    words += [f"source {source[:16]}…"] if source else []
    return Node(
        key=f"stage-{execution_id}",
        kind="stage",
        name=history.stage_of(execution) or execution.type.rpartition(".")[2],
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

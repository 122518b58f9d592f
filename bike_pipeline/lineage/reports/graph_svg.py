"""A lineage graph as a picture: SVG that needs neither a program nor a network.

Layered drawing after Sugiyama, Tagawa and Toda (1981), in its simplest form: a node's layer is the longest way to it,
and the order within a layer follows the mean place of the neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from bike_pipeline.lineage.queries.graph import Edge, Graph, Node
from bike_pipeline.pages import render, utc

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 168, 40, 36, 30, 12
# Length and half the width of an arrow's head.
_HEAD, _HALF = 7, 4
_SWEEPS = 6
# Letters that fit into a node.
_LETTERS = 24


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

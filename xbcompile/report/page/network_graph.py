"""A network as a drawing: what runs where, in rows from inputs to outputs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from xbcompile.deferred import library
from xbcompile.ir import DigitalSegment, MatrixLayer
from xbcompile.ir.network import NetworkNode
from xbcompile.program.program import Program
from xbcompile.units import counted

networkx = library("networkx")

WIDTH, HEIGHT, GAP_X, GAP_Y = 208, 46, 16, 30  # of a box and between boxes, pixels
_SHOWN_OPERATORS = 3


def network_drawing(program: Program, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Boxes and links, in pixels.

    Args:
        program: the program.
        layers: rows of `summarize`.

    Returns:
        `width`, `height`, `boxes` (`x`, `y`, `kind`, `title`, `text`, `tip`) and `links` (`path`).
    """
    nodes = list(program.network.nodes)
    facts = {row["layer"]: row for row in layers}
    made = {name: i for i, node in enumerate(nodes) for name in node.output_names}
    graph = networkx.DiGraph()
    graph.add_nodes_from(range(len(nodes)))
    graph.add_edges_from((made[name], i) for i, node in enumerate(nodes) for name in node.input_names if name in made)
    rows = [sorted(row) for row in networkx.topological_generations(graph)]
    place = _places(graph, rows)
    widest = max(map(len, rows), default=1)
    boxes = [{**_box(node, facts), "x": place[i][0], "y": place[i][1]} for i, node in enumerate(nodes)]
    links = [{"path": _link(place[a], place[b])} for a, b in graph.edges]
    return {
        "width": widest * (WIDTH + GAP_X) + GAP_X,
        "height": len(rows) * (HEIGHT + GAP_Y) + GAP_Y,
        "boxes": boxes,
        "links": links,
    }


def _places(graph: Any, rows: list[list[int]]) -> dict[int, tuple[float, float]]:
    """Where boxes are: in each row in the order of the mean place of what they read."""
    widest = max(map(len, rows), default=1)
    place: dict[int, tuple[float, float]] = {}
    for y, row in enumerate(rows):

        def before(i: int) -> float:
            above = [place[a][0] for a in graph.predecessors(i)]
            return sum(above) / len(above) if above else 0.0

        first = (widest - len(row)) * (WIDTH + GAP_X) / 2 + GAP_X
        for x, i in enumerate(sorted(row, key=before)):
            place[i] = first + x * (WIDTH + GAP_X), GAP_Y + y * (HEIGHT + GAP_Y)
    return place


def _link(above: tuple[float, float], below: tuple[float, float]) -> str:
    """A curve from the lower edge of a box to the upper edge of another one."""
    x0, y0, x1, y1 = above[0] + WIDTH / 2, above[1] + HEIGHT, below[0] + WIDTH / 2, below[1]
    bend = (y1 - y0) / 2
    return f"M{x0:g} {y0:g}C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1:g}"


def _box(node: NetworkNode, facts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(node, MatrixLayer):
        row = facts[node.name]
        taken = f"{counted(row['images'], 'image')}, {counted(row['reads_per_inference'], 'read')}"
        text = f"{row['inputs']}x{row['outputs']}, {taken}"
        groups = f"{row['groups']} matrices of " if row["groups"] > 1 else ""
        tip = (
            f"{node.name}: {groups}{row['inputs']} inputs x {row['outputs']} outputs on arrays, {row['tiles']:,} tiles"
        )
        return {"kind": "matrix", "title": node.name, "text": text, "tip": tip}
    if isinstance(node, DigitalSegment):
        operators = Counter(each.op_type for each in node.model.graph.node)
        names = [name if count == 1 else f"{count} {name}" for name, count in operators.items()]
        more = f" and {len(names) - _SHOWN_OPERATORS} more" if len(names) > _SHOWN_OPERATORS else ""
        return {
            "kind": "digital",
            "title": ", ".join(names[:_SHOWN_OPERATORS]) + more,
            "text": "digital",
            "tip": f"{node.name}: digital, {', '.join(names)}",
        }
    steps = "an open number of" if node.steps is None else f"{node.steps}"
    return {
        "kind": "recurrence",
        "title": node.name,
        "text": f"{counted(len(node.layers), 'layer')}, {steps} steps",
        "tip": f"{node.name}: {steps} steps of {', '.join(each.name for each in node.layers)}",
    }

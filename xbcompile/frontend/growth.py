"""How far a model may grow while it is compiled: a file of a few lines can ask for any number of values and of nodes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import GraphProto, NodeProto

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.builder import size_of
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.nodes import all_nodes, reads
from xbcompile.onnx_graph.tensors import elements, item_bytes, size_bytes

# What depends on constants alone may take so many bytes in all, and so many per element of the model's own constants: VGG-19 with
# weights made by ConstantOfShape needs half of the former, weights of one byte as floats, in two layouts, half of the latter.
MOST_GROWTH_BYTES = 2**30
MOST_BYTES_PER_ELEMENT = 16
MOST_COPIED_NODES = 50_000  # assumed: nodes in all copies of bodies; loops in loops multiply
MOST_COPIED_BYTES = 2**28  # assumed: bytes of those nodes, with the tensors among their attributes


@dataclass
class Budget:
    """What one model may grow to, all its graphs together.

    Args:
        own_elements: of the model's own constants; None until they are counted.
        elsewhere_bytes: what constants of other graphs than the one at hand have grown by.
        copied_nodes: nodes of bodies that were copied.
        copied_bytes: their bytes.
    """

    own_elements: int | None = None
    elsewhere_bytes: int = 0
    copied_nodes: int = 0
    copied_bytes: int = 0

    def takes_copies(self, body: GraphProto, times: int) -> bool:
        """Whether there is room for so many copies of a body, beside those made before; they are counted then."""
        nodes = self.copied_nodes + times * sum(1 for _ in all_nodes(body.node))
        size_bytes = self.copied_bytes + times * sum(size_of(node) for node in body.node if node.op_type != "Constant")
        if nodes > MOST_COPIED_NODES or size_bytes > MOST_COPIED_BYTES:
            return False
        self.copied_nodes, self.copied_bytes = nodes, size_bytes
        return True

    def limit_bytes(self, graph: Graph) -> int:
        """Bytes that constants and what is computed from them may take; the first graph's are the model's own."""
        if self.own_elements is None:
            self.own_elements = sum(map(elements, graph.constants.values()))
        return MOST_GROWTH_BYTES + MOST_BYTES_PER_ELEMENT * self.own_elements

    def check(self, graph: Graph, computed: Sequence[NodeProto]) -> None:
        """Refuse a graph whose constants, and what they make, take more at one time.

        Args:
            graph: with types; sizes that are not known do not count.
            computed: the nodes that depend on constants alone.

        Raises:
            ModelError: they take more.
        """
        limit, held = self.limit_bytes(graph), self.elsewhere_bytes + constant_bytes(graph)
        waiting = Counter(name for node in computed for name in set(reads(node)))
        inside = {id(node) for node in computed}
        kept = {*graph.output_names, *(name for node in graph.nodes if id(node) not in inside for name in reads(node))}
        sizes: dict[str, int] = {}
        for node in computed:
            new = {name: known_bytes(graph, name) or 0 for name in node.output if name}
            sizes |= new
            held += sum(new.values())
            if held > limit:
                raise ModelError(
                    f'node "{node.name}" ({node.op_type}): with it, what depends on the model\'s constants alone takes {held:,} '
                    f"bytes (allowed: {limit:,}); store those values in the model, feed them as inputs, or make them smaller"
                )
            read = set(reads(node))
            waiting.subtract(read)
            held -= sum(sizes.pop(name, 0) for name in {*read, *new} if not waiting[name] and name not in kept)


def constant_bytes(graph: Graph) -> int:
    """Bytes of a graph's constants."""
    return sum(map(size_bytes, graph.constants.values()))


def known_bytes(graph: Graph, name: str) -> int | None:
    """Bytes of a value; None where its size is not known. Sequences have none of their own: their elements are other values."""
    if name in graph.types and not graph.types[name].HasField("tensor_type"):
        return 0
    shape, kind = graph.shape(name), graph.types[name].tensor_type.elem_type if name in graph.types else 0
    if shape is None or None in shape or not kind:
        return None
    return max(0, math.prod(size for size in shape if size is not None)) * item_bytes(kind)

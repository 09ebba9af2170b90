"""How the multiply-accumulate operations of one node are counted: one function per kind of operator."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from xbcompile.frontend.operands import attribute

Shape = tuple[int, ...]
Shapes = Callable[[str], Shape | None]  # of tensors by name; None where a size is not known
MacRule = Callable[[NodeProto, Shapes], int]


class UnknownSize(Exception):  # not an error: the node is then not counted
    """A size that a count needs is not known."""


def _known(shape: Shapes, name: str) -> Shape:
    found = shape(name)
    if found is None:
        raise UnknownSize
    return found


def product(node: NodeProto, shape: Shapes) -> int:
    """A matrix product whose left operand is the first input: outputs times the axis that is summed over."""
    if attribute(node, "transBatchA", 0) or attribute(node, "transBatchB", 0):
        raise UnknownSize
    a = _known(shape, node.input[0])
    if not a:
        raise UnknownSize
    transposed = attribute(node, "transA", 0) and len(a) > 1
    return math.prod(_known(shape, node.output[0])) * a[-2 if transposed else -1]


def convolution(kernel: int) -> MacRule:
    """A convolution whose kernel is this input: outputs times the inputs of each."""

    def count(node: NodeProto, shape: Shapes) -> int:
        return math.prod(_known(shape, node.output[0])) * math.prod(_known(shape, node.input[kernel])[1:])

    return count


def transposed_convolution(node: NodeProto, shape: Shapes) -> int:
    """Inputs times the outputs of each."""
    return math.prod(_known(shape, node.input[0])) * math.prod(_known(shape, node.input[1])[1:])


def recurrent(node: NodeProto, shape: Shapes) -> int:
    """Input and recurrent matrices, once per time step and sequence."""
    steps = math.prod(_known(shape, node.input[0])[:2])
    return steps * (math.prod(_known(shape, node.input[1])) + math.prod(_known(shape, node.input[2])))


def einsum(node: NodeProto, shape: Shapes) -> int:
    """The product of the sizes of all letters: one sum over all operands at once."""
    terms = attribute(node, "equation", b"").decode().replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=False):
        known = _known(shape, name)
        first, dots, last = term.partition("...")
        named = len(first) + len(last)
        if len(known) < named or (len(known) > named and not dots):
            raise UnknownSize
        letters = [*first, *(f"...{i}" for i in range(len(known) - named, 0, -1)), *last]
        for letter, size in zip(letters, known, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1)) if size else 0
    return math.prod(sizes.values())


def bit_packed(node: NodeProto, shape: Shapes) -> int:
    """Vectors times the matrix, whose sizes are attributes."""
    return math.prod(_known(shape, node.input[0])[:-1]) * int(attribute(node, "K", 0)) * int(attribute(node, "N", 0))

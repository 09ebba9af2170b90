"""Products with a constant over any axes: Einsum, and MatMul whose constant is a batch of matrices.

Axes are letters, as Einsum has them. Of one activation and one constant, a letter is
    summed    in both, not in the result: the rows of the matrix
    outputs   in the constant and the result: its columns
    batch     in both and the result: one matrix each, a convolution of kernel 1 with a group per matrix
    vectors   in the activation and the result: one vector each
and what is in the activation alone is summed first. Source: the definition of Einsum in the ONNX specification.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from string import ascii_letters

import numpy as np
from onnx import NodeProto, TensorProto

from xbcompile.frontend.operands import StaysDigital, attribute, constant_weights, is_constant, no_constant_operand
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.tensors import to_array


@dataclass(frozen=True)
class Labelled:
    """A tensor whose axes have letters.

    Args:
        name: the tensor's name.
        axes: one letter per axis.
        sizes: size of each axis, None where it is not known.
    """

    name: str
    axes: str
    sizes: tuple[int | None, ...]

    def size(self, letter: str) -> int | None:
        """The size of an axis."""
        return self.sizes[self.axes.index(letter)]

    def without(self, letters: str) -> Labelled:
        """The same with some axes left out; the name stays."""
        kept = [(axis, size) for axis, size in zip(self.axes, self.sizes, strict=True) if axis not in letters]
        return replace(self, axes="".join(a for a, _ in kept), sizes=tuple(s for _, s in kept))


@dataclass(frozen=True)
class Weights:
    """A constant whose axes have letters: `array` in the model's element type."""

    array: np.ndarray
    axes: str

    def size(self, letters: str) -> int:
        """Number of elements along some axes."""
        return math.prod(self.array.shape[self.axes.index(letter)] for letter in letters)

    def summed(self, result: str) -> Weights:
        """The constant with the axes `result`, in that order: others are summed, repeated letters are the diagonal."""
        if sorted(result) == sorted(self.axes):
            order = [self.axes.index(axis) for axis in result]
            return self if result == self.axes else Weights(np.ascontiguousarray(self.array.transpose(order)), result)
        return Weights(_einsum(f"{self.axes}->{result}", self.array), result)


def rewrite_einsum(r: Replacement) -> bool:
    """Einsum: constants are joined or applied one after the other; activations are joined digitally where they must be."""
    node, graph = r.node, r.graph
    operands, result = _parse(node, graph)
    constants = [i for i, name in enumerate(node.input) if is_constant(graph, name)]
    activations = [i for i in range(len(operands)) if i not in constants]
    if len(operands) == 1:
        raise StaysDigital("one operand only: nothing is multiplied")
    if not constants:
        raise StaysDigital(no_constant_operand(graph, node.input))
    if not activations:
        raise StaysDigital("all operands are constant")
    weights = _joined(
        [_weights(node, graph, node.input[i], operands[i]) for i in constants], operands, result, activations
    )
    sources = [_labelled(graph, node.input[i], operands[i]) for i in activations]
    if len(weights) == len(sources) == 1:
        contract(r, sources[0], weights[0], result, r.matrix_name())
    else:
        _one_step(r, sources, weights, result)
    _write_output(r)
    return True


def rewrite_matmul(r: Replacement) -> bool:
    """MatMul whose constant has more axes than a matrix; False for all that `lower_matmul` can do."""
    node, graph = r.node, r.graph
    constants = [is_constant(graph, name) for name in node.input]
    if constants[0] == constants[1]:
        return False
    shapes = [graph.shape(name) for name in node.input]
    constant, source = shapes[constants.index(True)], shapes[constants.index(False)]
    if constant is None or source is None or len(constant) <= 2:
        return False
    if all(size == 1 for size in constant[:-2]) and len(source) >= len(constant):
        return False
    contract_matmul(r)
    return True


def contract_matmul(r: Replacement, transposed: tuple[str, str] | None = None, scale: float = 1.0) -> None:
    """A product as MatMul has it, of one constant and one activation of known ranks, in the node's place.

    Args:
        r: the replacement of a node whose first two inputs are the operands.
        transposed: letters of the operands' axes where they are not in MatMul's order: letters as `matmul_axes` gives
            them for the transposed operands, in the order of the operands as they are.
        scale: factor of the product.
    """
    node, graph = r.node, r.graph
    shapes = [graph.shape(name) for name in node.input[:2]]
    assert shapes[0] is not None
    assert shapes[1] is not None
    left, right, result = matmul_axes(len(shapes[0]), len(shapes[1]))
    axes = transposed or (left, right)
    constant = next(i for i in (0, 1) if is_constant(graph, node.input[i]))
    weights = _weights(node, graph, node.input[constant], axes[constant])
    if scale != 1.0:
        weights = replace(weights, array=(weights.array * np.float64(scale)).astype(weights.array.dtype))
    source = _labelled(graph, node.input[1 - constant], axes[1 - constant])
    sizes = tuple(  # MatMul repeats batch axes only
        weights.size(axis) if axis == "b" else size for axis, size in zip(source.axes, source.sizes, strict=True)
    )
    contract(r, replace(source, sizes=sizes), weights, result, r.matrix_name())
    _write_output(r)


def matmul_axes(left: int, right: int) -> tuple[str, str, str]:
    """Letters of the axes of MatMul's operands, of these ranks, and of its result."""
    batch = ascii_letters[3 : 3 + max(left - 2, right - 2, 0)]
    rows, columns = "a" if left > 1 else "", "c" if right > 1 else ""
    return (
        batch[len(batch) - max(left - 2, 0) :] + rows + "b",
        batch[len(batch) - max(right - 2, 0) :] + "b" + columns,
        batch + rows + columns,
    )


def contract(r: Replacement, source: Labelled, weights: Weights, result: str, name: str) -> Labelled:
    """Append nodes that multiply an activation with a constant, the matrix among them under `name`.

    Args:
        r: where the nodes go; the last of them writes what is returned.
        source: the activation.
        weights: the constant.
        result: letters of the result's axes; each is in the activation or the constant.
        name: name of the node that holds the matrix.

    Raises:
        StaysDigital: nothing is summed over both, or sizes do not fit or are 0.
    """
    if len(set(source.axes)) < len(source.axes):
        source = _diagonal(r, source)
    kept = "".join(axis for axis in dict.fromkeys(weights.axes) if axis in source.axes or axis in result)
    source, weights = _fitted(r, source, weights.summed(kept))
    alone = [i for i, axis in enumerate(source.axes) if axis not in result and axis not in weights.axes]
    both = [axis for axis in source.axes if axis in weights.axes]
    summed = "".join(axis for axis in both if axis not in result)
    if not summed:
        raise StaysDigital("nothing is summed over the activation and the constant: it is an element-wise product")
    if alone:
        total = r.reduce("ReduceSum", source.name, alone, keepdims=False)
        source = replace(source.without("".join(source.axes[i] for i in alone)), name=total)
    if len(both) > len(summed):
        product = _grouped(r, source, weights, summed, result, name)
    else:
        product = _matrix(r, source, weights, summed, result, name)
    return _transposed(r, product, result)


def _matrix(r: Replacement, source: Labelled, weights: Weights, summed: str, result: str, name: str) -> Labelled:
    """One matrix for all vectors, by MatMul."""
    outputs = "".join(axis for axis in result if axis in weights.axes)
    sizes = tuple(weights.size(axis) for axis in outputs)
    if len(summed) == len(outputs) == 1 and source.axes[-2:-1] == summed and len(source.axes) > 1:
        target = source.axes.replace(summed, outputs)
        if target == result:  # as it is, with the constant on the left
            left = r.constant(weights.summed(outputs + summed).array, "weights")
            at = source.axes.index(summed)
            return Labelled(
                r.emit("MatMul", left, source.name, name=name),
                target,
                (*source.sizes[:at], *sizes, *source.sizes[at + 1 :]),
            )
    vectors = "".join(axis for axis in source.axes if axis not in summed)
    source = _transposed(r, source, vectors + summed)
    rows = weights.size(summed)
    if len(summed) > 1:
        flat = r.emit("Reshape", source.name, r.constant([0] * len(vectors) + [rows], "shape"))
        source = replace(source, name=flat)
    matrix = weights.summed(summed + outputs).array.reshape((rows, math.prod(sizes)) if outputs else (rows,))
    product = r.emit("MatMul", source.name, r.constant(matrix, "weights"), name=name)
    if len(outputs) > 1:
        product = r.emit("Reshape", product, r.constant([0] * len(vectors) + list(sizes), "shape"))
    return Labelled(product, vectors + outputs, source.sizes[: len(vectors)] + sizes)


def _grouped(r: Replacement, source: Labelled, weights: Weights, summed: str, result: str, name: str) -> Labelled:
    """A matrix for each position of the axes that the activation, the constant and the result share, by Conv.

    The first axis of vectors becomes the batch, the others the positions of a convolution of kernel 1.
    """
    batch = "".join(axis for axis in source.axes if axis in weights.axes and axis in result)
    vectors = "".join(axis for axis in source.axes if axis not in weights.axes)
    outputs = "".join(axis for axis in result if axis in weights.axes and axis not in batch)
    first, rest = vectors[:1], vectors[1:]
    rest_sizes = [source.size(axis) for axis in rest]
    if 0 in (source.size(axis) for axis in vectors):
        raise StaysDigital("the activation is empty")
    source = _transposed(r, source, first + batch + summed + rest)
    groups, rows, columns = (weights.size(axes) for axes in (batch, summed, outputs))
    inner = [weights.size(axis) for axis in batch + outputs]
    leading = 0 if first else 1  # 0: as many as the input has
    if None not in rest_sizes:
        known = [size for size in rest_sizes if size is not None]
        flat = r.constant([leading, groups * rows, math.prod(known)], "shape")
        full = r.constant(([0] if first else []) + inner + known, "shape")
    else:
        before = len(source.axes) - len(rest)
        sizes = r.slice(r.emit("Shape", source.name), [before], [len(source.axes)], [0])
        positions = sizes if len(rest) == 1 else r.emit("ReduceProd", sizes)
        flat = r.emit("Concat", r.constant([leading, groups * rows], "sizes"), positions, axis=0)
        full = r.emit("Concat", r.constant([0, *inner], "sizes"), sizes, axis=0)
    kernel = weights.summed(batch + outputs + summed).array.reshape(groups * columns, rows, 1)
    x = r.emit("Reshape", source.name, flat)
    if kernel.dtype == np.float64:  # onnxruntime has no Conv of doubles; weights are float32 on the arrays anyway
        x = r.emit("Cast", x, to=TensorProto.FLOAT)
    product = r.emit("Conv", x, r.constant(_at_most_single(kernel), "weights"), name=name, group=groups)
    if kernel.dtype == np.float64:
        product = r.emit("Cast", product, to=TensorProto.DOUBLE)
    return Labelled(
        r.emit("Reshape", product, full),
        first + batch + outputs + rest,
        (*source.sizes[: len(first)], *inner, *rest_sizes),
    )


def _at_most_single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _fitted(r: Replacement, source: Labelled, weights: Weights) -> tuple[Labelled, Weights]:
    """Both, each without its axes of size 1 that the other has too; axes of unknown size are repeated where they are 1."""
    expanded: dict[str, int] = {}
    for axis in [axis for axis in source.axes if axis in weights.axes]:
        size, expected = source.size(axis), weights.size(axis)
        if expected == 1:
            weights = weights.summed(weights.axes.replace(axis, ""))
        elif size == 1:
            source = replace(source.without(axis), name=r.squeeze(source.name, [source.axes.index(axis)]))
        elif size is None:
            expanded[axis] = expected
        elif size != expected:
            raise StaysDigital(f'an axis of "{source.name}" has {size} elements, and the constant {expected}')
    if expanded:
        source = _expanded(r, source, expanded)
    return source, weights


def _expanded(r: Replacement, source: Labelled, sizes: dict[str, int]) -> Labelled:
    """Repeat axes of unknown size, which may be 1, to the sizes of the constant's; others stay."""
    if r.opset < 8:
        raise StaysDigital(f'sizes of "{source.name}" are not known, and opset {r.opset} cannot repeat an axis')
    shape = r.constant([sizes.get(axis, 1) for axis in source.axes], "shape")
    known = tuple(sizes.get(axis, size) for axis, size in zip(source.axes, source.sizes, strict=True))
    return replace(source, name=r.emit("Expand", source.name, shape), sizes=known)


def _diagonal(r: Replacement, source: Labelled) -> Labelled:
    """Repeated letters as one axis, digitally."""
    axes = "".join(dict.fromkeys(source.axes))
    name = r.emit("Einsum", source.name, equation=f"{source.axes}->{axes}")
    return Labelled(name, axes, tuple(source.size(axis) for axis in axes))


def _transposed(r: Replacement, tensor: Labelled, axes: str) -> Labelled:
    if tensor.axes == axes:
        return tensor
    name = r.emit("Transpose", tensor.name, perm=[tensor.axes.index(axis) for axis in axes])
    return Labelled(name, axes, tuple(tensor.size(axis) for axis in axes))


def _joined(
    constants: Sequence[Weights], operands: Sequence[str], result: str, activations: Sequence[int]
) -> list[Weights]:
    """The constants with those joined to one whose product has no more elements than they have."""
    constants = list(constants)
    activation_axes = "".join(operands[i] for i in activations)
    merged = True
    while merged:
        merged = False
        for i, j in combinations(range(len(constants)), 2):
            first, second = constants[i], constants[j]
            others = "".join(c.axes for k, c in enumerate(constants) if k not in (i, j)) + activation_axes + result
            axes = "".join(axis for axis in dict.fromkeys(first.axes + second.axes) if axis in others)
            sizes = [max(c.size(axis) for c in (first, second) if axis in c.axes) for axis in axes]
            if math.prod(sizes) <= first.array.size + second.array.size:
                product = _einsum(f"{first.axes},{second.axes}->{axes}", first.array, second.array)
                constants[i : j + 1] = [Weights(product, axes), *constants[i + 1 : j]]
                merged = True
                break
    return constants


def _einsum(equation: str, *arrays: np.ndarray) -> np.ndarray:
    """np.einsum in double precision, rounded to the element type of the arrays."""
    letters = sorted(set(equation) - set(",->"))
    if not set(letters) <= set(ascii_letters):
        raise StaysDigital("the equation has more axes than there are letters")
    try:
        value = np.einsum(equation, *(a.astype(np.float64) for a in arrays), optimize=len(arrays) > 1)
    except ValueError as error:
        raise StaysDigital(f"the constant's axes do not fit the equation: {error}") from error
    return np.ascontiguousarray(value.astype(arrays[0].dtype)).reshape(value.shape)


def _one_step(r: Replacement, sources: list[Labelled], weights: list[Weights], result: str) -> None:
    """Apply one constant, or join activations that share the axes over which a constant is summed; Einsum does the rest."""
    tensors: list[Labelled | Weights] = [*sources, *weights]
    best: tuple[int, Labelled, Weights] | None = None
    for constant in weights:
        for source in sources:
            others = result + "".join(t.axes for t in tensors if t is not constant and t is not source)
            rows = "".join(a for a in dict.fromkeys(source.axes) if a in constant.axes and a not in others)
            size = constant.size(rows) if rows else 0
            if size > 1 and (best is None or size > best[0]):
                best = size, source, constant
    if best is not None:
        _, source, constant = best
        rest = [t for t in tensors if t is not constant and t is not source]
        needed = result + "".join(t.axes for t in rest)
        kept = "".join(a for a in dict.fromkeys(source.axes + constant.axes) if a in needed)
        name = r.matrix_name() if len(weights) == 1 else r.matrix_name("MatMul")
        _emit_einsum(r, [contract(r, source, constant, kept, name), *rest], result, r.name("Einsum"))
        return
    for constant in weights:
        others = result + "".join(w.axes for w in weights if w is not constant)
        summed = {axis for axis in constant.axes if axis not in others}
        touching = [s for s in sources if summed & set(s.axes)]
        if len(touching) > 1:
            rest = [t for t in tensors if t not in touching]
            needed = result + "".join(t.axes for t in rest)
            axes = "".join(dict.fromkeys(a for s in touching for a in s.axes if a in needed))
            factors = [_without_repeated(r, source, touching) for source in touching]
            equation = ",".join(factor.axes for factor in factors) + "->" + axes
            product = r.emit("Einsum", *(factor.name for factor in factors), equation=equation)
            joined = Labelled(product, axes, (None,) * len(axes))
            _emit_einsum(r, [joined, *rest], result, r.matrix_name())
            return
    raise StaysDigital("no constant is summed with an activation: it is an element-wise product")


def _without_repeated(r: Replacement, source: Labelled, factors: Sequence[Labelled]) -> Labelled:
    """An operand of Einsum without the axes of size 1 that another operand repeats.

    The types that onnx infers for the result have the sizes of the first operand with each letter, 1 or not.
    """
    others = [factor for factor in factors if factor is not source]
    repeated = "".join(
        axis
        for axis, size in zip(source.axes, source.sizes, strict=True)
        if size == 1 and source.axes.count(axis) == 1 and any(axis in o.axes and o.size(axis) != 1 for o in others)
    )
    if not repeated:
        return source
    return replace(source.without(repeated), name=r.squeeze(source.name, [source.axes.index(a) for a in repeated]))


def _emit_einsum(r: Replacement, tensors: Iterable[Labelled | Weights], result: str, name: str) -> None:
    tensors = list(tensors)
    names = [t.name if isinstance(t, Labelled) else r.constant(t.array, "weights") for t in tensors]
    r.emit("Einsum", *names, name=name, equation=",".join(t.axes for t in tensors) + "->" + result)


def _parse(node: NodeProto, graph: Graph) -> tuple[list[str], str]:
    """Letters of the operands' axes and of the result's; the axes of an ellipsis have letters that are free."""
    equation = attribute(node, "equation", b"").decode(errors="replace").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.input):
        raise StaysDigital(f'the equation "{equation}" does not have {len(node.input)} operands')
    used = {c for c in equation if c.isascii() and c.isalpha()}
    if not arrow and any(c.isupper() for c in used):
        raise StaysDigital(f'the equation "{equation}" has capital letters and no result')
    counts = {letter: left.count(letter) for letter in sorted(used)}
    shapes = [graph.shape(name) for name in node.input]
    ellipsis = ""
    if "..." in left:
        ranks = [
            None if shape is None else len(shape) - len(term.replace("...", ""))
            for term, shape in zip(terms, shapes, strict=True)
            if "..." in term
        ]
        rank = next((rank for rank in ranks if rank is not None), None)
        if rank is None or any(other not in (None, rank) for other in ranks) or rank < 0:
            raise StaysDigital(f'the axes that the ellipsis of "{equation}" stands for are not known')
        ellipsis = "".join(c for c in ascii_letters if c not in used)[:rank]
        if len(ellipsis) < rank:
            raise StaysDigital(f'the equation "{equation}" has too many axes')
    if not arrow:
        result = ("..." if "..." in left else "") + "".join(c for c, count in counts.items() if count == 1)
    if "..." in left and "..." not in result:
        raise StaysDigital(f'the result of "{equation}" lacks the ellipsis')
    operands = [term.replace("...", ellipsis) for term in terms]
    result = result.replace("...", ellipsis)
    for axes, shape in zip(operands, shapes, strict=True):
        if not all(c in ascii_letters for c in axes + result) or (shape is not None and len(shape) != len(axes)):
            raise StaysDigital(f'the equation "{equation}" does not fit its operands')
    if len(set(result)) < len(result) or not set(result) <= set("".join(operands)):
        raise StaysDigital(f'the equation "{equation}" has no valid result')
    return operands, result


def _labelled(graph: Graph, name: str, axes: str) -> Labelled:
    shape = graph.shape(name)
    return Labelled(name, axes, (None,) * len(axes) if shape is None else shape)


def _weights(node: NodeProto, graph: Graph, name: str, axes: str) -> Weights:
    """A constant in its own element type, checked as all weights are."""
    constant_weights(node, graph, name)
    return Weights(to_array(graph.constants[name]), axes)


def _write_output(r: Replacement) -> None:
    """Let the node appended last write what the replaced one wrote."""
    r.nodes[-1].output[0] = r.node.output[0]

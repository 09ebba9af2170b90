"""How an operator becomes a matrix as it stands: one function per operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto

from xbcompile.errors import ModelError
from xbcompile.frontend.operands import (
    StaysDigital,
    addend_fits,
    attribute,
    constant_weights,
    is_constant,
    no_constant_operand,
    why_not_constant,
)
from xbcompile.ir import Contraction, Geometry, Patches
from xbcompile.onnx_graph.graph import Graph

LARGEST_REACH = 2**31 - 1  # assumed: steps of a window from one value to the next, or across it
LARGEST_PADDING = 2**26  # assumed: values that padding makes of a single one in each channel, for all of them


@dataclass(frozen=True)
class Matrix:
    """One node as a matrix, before it has names.

    Args:
        constant: name of the constant that holds the weights.
        input: name of the tensor that holds the input vectors.
        weights: float32 [groups, inputs, outputs].
        geometry: how vectors are gathered.
        bias: float32 [groups * outputs], or None.
        addend: name of a tensor to be added to the product digitally, or None.
        addend_scale: factor of the addend.
        addend_shape: shape to give to the addend first, or None.
        addend_may_grow: whether the addend might be larger than the product, which the model does not allow.
    """

    constant: str
    input: str
    weights: np.ndarray
    geometry: Geometry
    bias: np.ndarray | None = None
    addend: str | None = None
    addend_scale: float = 1.0
    addend_shape: tuple[int, ...] | None = None
    addend_may_grow: bool = False


def lower_gemm(node: NodeProto, graph: Graph) -> Matrix:
    """`alpha A' B' + beta C` with a constant A or B."""
    a, b = node.input[:2]
    trans_a, trans_b = attribute(node, "transA", 0), attribute(node, "transB", 0)
    if _constant_is_right(node, graph):
        constant, source = b, a
        weights = constant_weights(node, graph, b)
        matrix = weights.T if trans_b else weights
        geometry = Contraction(input_axis=-2 if trans_a else -1)
    else:
        constant, source = a, b
        weights = constant_weights(node, graph, a)
        matrix = weights if trans_a else weights.T
        geometry = Contraction(input_axis=-1 if trans_b else -2, output_axis=-2)
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    if weights.ndim != 2:
        raise StaysDigital(f'"{constant}" has {weights.ndim} axes')
    vectors = _vector_count(graph, source, geometry.input_axis)
    product = (vectors, matrix.shape[1]) if geometry.output_axis == -1 else (matrix.shape[1], vectors)
    if alpha != 1.0:
        matrix = _scaled(matrix, alpha, "alpha")
    result = Matrix(constant, source, matrix[None], geometry)
    if len(node.input) < 3 or not node.input[2]:
        return result
    fits = addend_fits(node, graph, node.input[2], product)
    if beta == 0.0:
        return result
    bias = bias_vector(node, graph, node.input[2], result, rank=2)
    if bias is None:
        return replace(result, addend=node.input[2], addend_scale=beta, addend_may_grow=not fits)
    return replace(result, bias=_scaled(bias, beta, "beta"))


def _vector_count(graph: Graph, source: str, input_axis: int) -> int | None:
    """Vectors in a matrix of inputs; None where it is not known."""
    shape = graph.shape(source)
    return None if shape is None or len(shape) != 2 else shape[-3 - input_axis]


def _scaled(values: np.ndarray, factor: float, name: str) -> np.ndarray:
    with np.errstate(all="ignore"):  # told below
        scaled: np.ndarray = values * np.float32(factor)
    if not np.isfinite(scaled).all():
        raise StaysDigital(f"{name} = {factor:g} makes values that are not finite")
    return scaled


def lower_matmul(node: NodeProto, graph: Graph) -> Matrix:
    """A product with a constant on either side, of activations of any rank."""
    right = _constant_is_right(node, graph)
    source, constant = node.input if right else reversed(node.input)
    weights = constant_weights(node, graph, constant)
    rank = _rank(graph, source)
    if weights.ndim == 0:
        raise StaysDigital(f'"{constant}" is a scalar')
    if weights.ndim > 2:
        weights = _without_batch(weights, rank)
    if weights.ndim == 1:
        matrix = weights[:, None]
        geometry = Contraction(input_axis=-1 if right else _input_axis_left(rank), squeeze=True)
    elif right:
        matrix, geometry = weights, Contraction()
    else:
        matrix = weights.T
        axis = _input_axis_left(rank)
        geometry = Contraction(input_axis=axis, output_axis=axis)
    return Matrix(constant, source, matrix[None], geometry)


def _without_batch(weights: np.ndarray, rank: int | None) -> np.ndarray:
    """Drop leading axes of size 1 where that leaves the rank of the result as it is."""
    if any(size != 1 for size in weights.shape[:-2]):
        raise StaysDigital(f"the constant is a batch of matrices, of shape {list(weights.shape)}")
    if rank is None:
        raise StaysDigital(f"the constant has {weights.ndim} axes and the other operand's rank is unknown")
    if rank < weights.ndim:
        raise StaysDigital(f"the constant has {weights.ndim} axes, more than the other operand ({rank})")
    return weights.reshape(weights.shape[-2:])


def _input_axis_left(rank: int | None) -> int:
    """The contracted axis of the right operand of a MatMul."""
    if rank is None:
        raise StaysDigital("the constant is on the left and the other operand's rank is unknown")
    return -1 if rank == 1 else -2


def lower_conv(node: NodeProto, graph: Graph) -> Matrix:
    """A convolution over one to three spatial axes, with groups."""
    if not is_constant(graph, node.input[1]):
        raise StaysDigital(why_not_constant(graph, node.input[1], "the kernel"))
    kernel = constant_weights(node, graph, node.input[1])
    spatial = kernel.ndim - 2
    if not 1 <= spatial <= 3:
        raise StaysDigital(f"a convolution over {spatial} axes is not lowered")
    groups = attribute(node, "group", 1)
    auto_pad = attribute(node, "auto_pad", b"").decode(errors="replace") or "NOTSET"
    geometry = Patches(
        kernel=kernel.shape[2:],
        strides=tuple(attribute(node, "strides", (1,) * spatial)),
        dilations=tuple(attribute(node, "dilations", (1,) * spatial)),
        pads=tuple(attribute(node, "pads", (0,) * (2 * spatial))) if auto_pad == "NOTSET" else (0,) * (2 * spatial),
        auto_pad=auto_pad,
    )
    _check_window(node, geometry)
    shape = graph.shape(node.input[0])
    channels = None if shape is None or len(shape) < 2 else shape[1]
    if groups < 1 or kernel.shape[0] % groups or channels not in (None, groups * kernel.shape[1]):
        raise ModelError(
            f'node "{node.name}" (Conv): "{node.input[1]}" of shape {list(kernel.shape)} does not fit {groups} groups '
            f'of the channels of "{node.input[0]}", of shape {None if shape is None else list(shape)}; mend the model'
        )
    _check_reach(geometry, groups * kernel.shape[1])
    inputs = int(np.prod(kernel.shape[1:]))
    weights = kernel.reshape(groups, kernel.shape[0] // groups, inputs).transpose(0, 2, 1)
    result = Matrix(node.input[1], node.input[0], weights, geometry)
    if len(node.input) < 3 or not node.input[2]:
        return result
    bias = node.input[2]
    if is_constant(graph, bias):
        return replace(result, bias=constant_weights(node, graph, bias))
    return replace(result, addend=bias, addend_shape=(1, -1) + (1,) * spatial)


def _check_window(node: NodeProto, geometry: Patches) -> None:
    """Leave attributes that ONNX does not allow for a kernel of this size to onnxruntime."""
    rank = len(geometry.kernel)
    lengths = [(geometry.strides, rank, 1), (geometry.dilations, rank, 1), (geometry.pads, 2 * rank, 0)]
    if any(len(values) != length or min(values) < lowest for values, length, lowest in lengths):
        raise StaysDigital(
            f"strides {list(geometry.strides)}, dilations {list(geometry.dilations)} and pads {list(geometry.pads)} are none "
            f"for {rank} axes"
        )
    kernel = attribute(node, "kernel_shape", geometry.kernel)
    if tuple(kernel) != geometry.kernel or geometry.auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise StaysDigital(f"kernel_shape {list(kernel)} with auto_pad {geometry.auto_pad} is none for its kernel")
    if geometry.auto_pad != "NOTSET" and attribute(node, "pads", ()):
        raise StaysDigital(f"auto_pad {geometry.auto_pad} and pads exclude each other")


def _check_reach(geometry: Patches, channels: int) -> None:
    """Leave windows to onnxruntime that reach so far that padding alone would fill memory."""
    rank = len(geometry.kernel)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(geometry.kernel, geometry.dilations, strict=True)]
    padded = [1 + geometry.pads[i] + geometry.pads[i + rank] for i in range(rank)]
    values = channels * math.prod(padded if geometry.auto_pad in ("NOTSET", "VALID") else extents)
    if values > LARGEST_PADDING or max(*geometry.strides, *extents) > LARGEST_REACH:
        raise StaysDigital(
            f"strides {list(geometry.strides)}, dilations {list(geometry.dilations)} and pads {list(geometry.pads)} reach "
            f"further than a window that is lowered (allowed: {LARGEST_REACH:,} steps, padding of {LARGEST_PADDING:,} values)"
        )


def bias_vector(node: NodeProto, graph: Graph, name: str, matrix: Matrix, rank: int | None) -> np.ndarray | None:
    """A tensor added to the layer's output as one value per output; None when it is not constant or not that.

    `rank` is the output's; an unknown one counts as the smallest possible.
    """
    geometry = matrix.geometry
    if not is_constant(graph, name) or not isinstance(geometry, Contraction):
        return None
    shape, outputs = tuple(graph.constants[name].dims), matrix.weights.shape[2]
    lowest = 0 if geometry.squeeze else -geometry.output_axis
    rank = lowest if rank is None else rank
    if len(shape) > rank:
        return None
    full = (1,) * (rank - len(shape)) + shape
    axis = None if geometry.squeeze else rank + geometry.output_axis
    if any(size != 1 for i, size in enumerate(full) if i != axis):
        return None
    if axis is not None and full[axis] not in (1, outputs):
        return None
    return np.broadcast_to(constant_weights(node, graph, name).reshape(-1), (outputs,))


def _constant_is_right(node: NodeProto, graph: Graph) -> bool:
    left, right = node.input[:2]
    if is_constant(graph, left) and is_constant(graph, right):
        raise StaysDigital("both operands are constant")
    if is_constant(graph, left) or is_constant(graph, right):
        return is_constant(graph, right)
    raise StaysDigital(no_constant_operand(graph, (left, right)))


def _rank(graph: Graph, name: str) -> int | None:
    shape = graph.shape(name)
    return None if shape is None else len(shape)

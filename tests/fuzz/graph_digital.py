"""Random nodes without a constant matrix: what lies between the products of real networks."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from tests.fuzz.graph_builder import GraphBuilder, Refused, jumping, largest, lipschitz, measured, moving
from tests.fuzz.graph_products import float_value, onnx_type, reshaped, weight


def any_float(b: GraphBuilder, lowest_rank: int = 0) -> str:
    """A float activation of at least this rank, preferably a late one."""
    there = b.find(lambda a: a.dtype.kind == "f" and a.ndim >= lowest_rank and a.size > 0)
    if not there:
        return float_value(b, b.integer(max(1, lowest_rank), 4))
    return str(b.choose(there[-5:]))


def main_float(b: GraphBuilder, lowest_rank: int = 0) -> str:
    """A float activation of the graph's main type."""
    there = b.find(lambda a: a.dtype == b.dtype and a.ndim >= lowest_rank and a.size > 0)
    return str(b.choose(there[-5:])) if there else float_value(b, b.integer(max(1, lowest_rank), 4))


def axes_input(b: GraphBuilder, operator: str, x: str, axes: list[int], since: int, rule=moving, **attributes) -> str:
    """A node whose axes are an attribute, and an input from an opset on."""
    if b.opset >= since:
        return b.add(operator, [x, b.constant(np.array(axes, np.int64))], rule, **attributes)[0]
    return b.add(operator, [x], rule, axes=axes, **attributes)[0]


def unary(b: GraphBuilder) -> None:
    """Element-wise activations."""
    x = any_float(b)
    operator = b.choose(
        ["Relu", "Relu", "Abs", "Neg", "Identity", "LeakyRelu", "Sigmoid", "Tanh", "Softplus", "Elu", "Erf"]
    )
    operator = (
        operator if b.flag(0.8) else b.choose(["HardSigmoid", "Softsign", "Selu", "Sin", "Exp", "HardSwish", "Gelu"])
    )
    if operator in ("Relu", "Abs", "Neg", "Identity"):
        rule = lipschitz(1)
    else:
        rule = measured()
    b.add(operator, [x], rule)


def binary(b: GraphBuilder) -> None:
    """An element-wise operator with a constant or another activation, broadcast."""
    x = main_float(b)
    shape, operator = b.shape(x), b.choose(["Add", "Add", "Sub", "Mul", "Max", "Min", "Div"])
    if b.flag(0.5):
        fits = b.find(lambda a: a.dtype == b.array(x).dtype and _broadcasts(a.shape, shape))
        y = b.choose(fits)
    else:
        sizes = [size if b.flag(0.7) else 1 for size in shape][b.integer(0, len(shape)) :]
        y = weight(b, sizes, 1, b.array(x).dtype.name)
    if operator in ("Max", "Min") and b.opset < 8:
        raise Refused("no broadcasting")
    if operator == "Div":
        if not b.values[y].constant or np.abs(b.array(y)).min(initial=1) < 0.1:
            raise Refused("division by little")
        b.add("Div", [x, y], lipschitz(10))
        return
    size = max(largest(b.array(x)), largest(b.array(y)), 1.0)
    b.add(operator, [x, y][:: b.choose([1, -1])], lipschitz(size if operator == "Mul" else 1))


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= 1024
    except ValueError:
        return False


def residual(b: GraphBuilder) -> None:
    """The sum of two activations of one shape."""
    x = main_float(b)
    y = b.choose(b.find(lambda a: a.shape == b.shape(x) and a.dtype == b.array(x).dtype))
    b.add("Add" if b.flag(0.8) else "Sum", [x, y], lipschitz(1))


def batch_normalization(b: GraphBuilder) -> None:
    """BatchNormalization in inference."""
    x = main_float(b, 2)
    channels, dtype = b.shape(x)[1], b.array(x).dtype.name
    factor, offset, mean = (weight(b, (channels,), 1, dtype, hide=False) for _ in range(3))
    variance = b.constant((np.abs(b.draw((channels,), 1.0)) + 0.25).astype(dtype))
    gain = largest(b.array(factor)) * 2.0
    attributes = {"epsilon": 1e-3} if b.flag() else {}
    b.add("BatchNormalization", [x, factor, offset, mean, variance], lipschitz(max(1.0, gain)), **attributes)


def pool(b: GraphBuilder) -> None:
    """Pooling over one to three axes."""
    x = main_float(b, 3)
    spatial = b.shape(x)[2:]
    operator = b.choose(["MaxPool", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool"])
    if operator.startswith("Global"):
        b.add(operator, [x], lipschitz(1))
        return
    kernel = [b.integer(1, min(3, size)) for size in spatial]
    attributes: dict = {"kernel_shape": kernel}
    if b.flag():
        attributes["strides"] = [b.integer(1, 2) for _ in kernel]
    if b.flag():
        attributes["pads"] = [b.integer(0, k - 1) for k in kernel * 2]
    elif b.flag(0.3):
        attributes["auto_pad"] = b.choose(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if operator == "AveragePool" and b.flag(0.3):
        attributes["count_include_pad"] = 1
    if b.opset >= 10 and b.flag(0.2) and operator != "LpPool":
        attributes["ceil_mode"] = 1
    b.add(operator, [x], moving if operator == "MaxPool" else measured(), **attributes)


def reshape(b: GraphBuilder) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze."""
    x = any_float(b)
    kind, rank = b.integer(0, 4), b.array(x).ndim
    if kind <= 1:
        reshaped(b, x, b.integer(1, 5))
    elif kind == 2:
        b.add("Flatten", [x], moving, axis=b.integer(0, rank))
    elif kind == 3:
        ones = [i for i, size in enumerate(b.shape(x)) if size == 1]
        axes_input(b, "Squeeze", x, [b.choose(ones)], 13)
    elif rank < 5:
        axes_input(b, "Unsqueeze", x, [b.integer(0, rank)], 13)


def transpose(b: GraphBuilder) -> None:
    """Transpose."""
    x = any_float(b, 2)
    attributes = {"perm": [int(i) for i in b.rng.permutation(b.array(x).ndim)]} if b.flag(0.9) else {}
    b.add("Transpose", [x], moving, **attributes)


def concat(b: GraphBuilder) -> None:
    """Concat of two or three activations that differ along one axis."""
    x = main_float(b, 1)
    shape, dtype = b.shape(x), b.array(x).dtype
    axis = b.integer(0, len(shape) - 1)
    fits = b.find(lambda a: a.dtype == dtype and a.ndim == len(shape) and _but(a.shape, axis) == _but(shape, axis))
    others = [b.choose(fits) for _ in range(b.integer(1, 2))]
    b.add("Concat", [x, *others], moving, axis=axis - len(shape) if b.opset >= 11 and b.flag(0.3) else axis)


def _but(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def split(b: GraphBuilder) -> None:
    """Split in two."""
    x = any_float(b, 1)
    axis = b.choose([i for i, size in enumerate(b.shape(x)) if size > 1])
    size = b.shape(x)[axis]
    first = b.integer(1, size - 1)
    if b.opset >= 13:
        b.add("Split", [x, b.constant(np.array([first, size - first]))], moving, 2, axis=axis)
    else:
        b.add("Split", [x], moving, 2, axis=axis, split=[first, size - first])


def slices(b: GraphBuilder) -> None:
    """Slice, Gather, Pad or Expand."""
    x = any_float(b, 1)
    axis = b.integer(0, b.array(x).ndim - 1)
    size, kind = b.shape(x)[axis], b.integer(0, 3)
    if kind == 0:
        start = b.integer(0, size - 1)
        stop = b.integer(start + 1, size)
        stop = stop if b.flag(0.7) else 2**31 - 1
        if b.opset >= 10:
            step = b.choose([1, 1, 2]) if b.flag(0.8) else -1
            bounds = (start, stop, axis, step) if step > 0 else (size - 1, -(2**31), axis, -1)
            b.add("Slice", [x, *(b.constant(np.array([v], np.int64)) for v in bounds)], moving)
        else:
            b.add("Slice", [x], moving, starts=[start], ends=[stop], axes=[axis])
    elif kind == 1:
        index = b.rng.integers(0, size, b.choose([(), (1,), (3,)])).astype(np.int64)
        b.add("Gather", [x, b.constant(index)], moving, axis=axis)
    elif kind == 2 and b.opset >= 11:
        pads = [b.integer(0, 1) for _ in range(2 * b.array(x).ndim)]
        mode = b.choose(["constant", "constant", "edge"])
        b.add("Pad", [x, b.constant(np.array(pads, np.int64))], moving, mode=mode)
    elif b.opset >= 8:
        b.add("Expand", [x, b.constant(np.array([2, *b.shape(x)], np.int64))], moving)


def normalize(b: GraphBuilder) -> None:
    """Softmax, LayerNormalization, its parts, InstanceNormalization, LRN."""
    x = main_float(b, 2)
    shape, dtype = b.shape(x), b.array(x).dtype.name
    kind = b.integer(0, 4)
    if kind <= 1:
        b.add(b.choose(["Softmax", "Softmax", "LogSoftmax"]), [x], measured(), axis=b.integer(0, len(shape) - 1))
    elif kind == 2 and b.opset >= 17:
        axis = b.integer(1, len(shape) - 1)
        inputs = [x, weight(b, shape[axis:], 1, dtype), weight(b, shape[axis:], 1, dtype)]
        b.add("LayerNormalization", inputs, measured(256), axis=axis, epsilon=0.01)
    elif kind == 3:
        mean = reduce(b, "ReduceMean", x, [len(shape) - 1])
        centred = b.add("Sub", [x, mean], lipschitz(1))[0]
        square = b.add("Mul", [centred, centred], lipschitz(2 * max(1.0, largest(b.array(centred)))))[0]
        variance = reduce(b, "ReduceMean", square, [len(shape) - 1])
        shifted = b.add("Add", [variance, b.constant(np.asarray(0.5, dtype))], lipschitz(1))[0]
        b.add(
            "Div",
            [centred, b.add("Sqrt", [shifted], lipschitz(1))[0]],
            lipschitz(2 * max(1.0, largest(b.array(centred)))),
        )
    elif len(shape) > 2:
        inputs = [x, weight(b, (shape[1],), 1, dtype), weight(b, (shape[1],), 1, dtype)]
        b.add("InstanceNormalization", inputs, measured(256), epsilon=0.05)


def reduce(b: GraphBuilder, operator: str, x: str, axes: list[int], keepdims: int = 1) -> str:
    """A reduction; its axes are an input from opset 18 on, of ReduceSum from 13 on."""
    since = 13 if operator == "ReduceSum" else 18
    count = math.prod(b.shape(x)[axis] for axis in axes)
    rules = {
        "ReduceMean": lipschitz(1),
        "ReduceMax": moving,
        "ReduceMin": moving,
        "ReduceSum": lipschitz(max(count, 1)),
    }
    return axes_input(b, operator, x, axes, since, rules.get(operator, measured()), keepdims=keepdims)


def reduction(b: GraphBuilder) -> None:
    """A reduction over one or two axes."""
    x = main_float(b, 1)
    rank = b.array(x).ndim
    axes = sorted({b.integer(0, rank - 1) for _ in range(b.integer(1, 2))})
    operator = b.choose(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"])
    reduce(b, operator, x, axes, b.integer(0, 1))


def cast(b: GraphBuilder) -> None:
    """Cast between float types, and to integers where values are exact."""
    x = any_float(b)
    target = b.choose(["float32", "float32", "float16", "float64", "int32", "int64"])

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        if target.startswith("int"):
            return jumping(builder, node, arrays)
        return list(lipschitz(1)(builder, node, arrays))

    b.add("Cast", [x], rule, to=onnx_type(target))


def conditions(b: GraphBuilder) -> None:
    """Where, Clip, comparisons and indices."""
    x = main_float(b, 1)
    kind, dtype = b.integer(0, 4), b.array(x).dtype
    if kind == 0 and b.opset >= 9:
        condition = b.constant(b.rng.random(b.shape(x)) < 0.5)
        b.add("Where", [condition, x, weight(b, b.shape(x)[-1:], 1, dtype.name)], moving)
    elif kind == 1:
        if b.opset >= 11:
            bounds = [b.constant(np.asarray(v, dtype)) for v in (-0.5, 0.5)]
            b.add("Clip", [x, *bounds[: b.integer(0, 2)]], lipschitz(1))
        else:
            b.add("Clip", [x], lipschitz(1), min=-0.5, max=0.5)
    elif kind == 2:
        b.add("ArgMax", [x], jumping, axis=b.integer(0, b.array(x).ndim - 1))
    elif kind == 3 and b.opset >= 9:
        b.add("Greater", [x, b.constant(np.asarray(0.1, dtype))], jumping)
    elif b.opset >= 10:
        inputs = [x, b.constant(np.array([1], np.int64))]
        if b.opset >= 11:
            b.add("TopK", inputs, jumping, 2)


def constant_input(b: GraphBuilder) -> None:
    """A product whose input is constant, or whose output is folded: it must not be lost."""
    x = b.constant(b.draw((2, 3)))
    w = b.constant(b.draw((3, 2)))
    y = b.add("MatMul", [x, w], lipschitz(1))[0]
    target = b.find(lambda a: a.ndim > 1 and a.shape[-1] in (1, 2) and a.shape[-2] in (1, 2) and a.dtype == b.dtype)
    b.add("Add", [b.choose(target), y], lipschitz(1))


DIGITAL = [
    (5, unary),
    (3, binary),
    (3, residual),
    (2, batch_normalization),
    (2, pool),
    (3, reshape),
    (2, transpose),
    (2, concat),
    (1, split),
    (2, slices),
    (2, normalize),
    (1, reduction),
    (1, cast),
    (1, conditions),
    (0.5, constant_input),
]

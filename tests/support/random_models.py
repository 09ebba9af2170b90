"""Random chains and DAGs of the operators that are lowered, and of some that are not."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import helper

BATCH = 2


class Graph:
    """A model that grows node by node; shapes are kept with the batch written as BATCH."""

    def __init__(self, draw, rng):
        self.draw, self.rng = draw, rng
        self.nodes, self.constants, self.shapes = [], {}, {}

    def constant(self, *shape):
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.uniform(-1, 1, shape).astype("f")
        return name

    def add(self, operator, inputs, shape, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        self.shapes[name] = tuple(int(size) for size in shape)
        return name

    def integer(self, low, high):
        return self.draw(st.integers(low, high))

    def flag(self):
        return self.draw(st.booleans())


def gemm(graph, x):
    (batch, size), outputs = graph.shapes[x], graph.integer(1, 7)
    transposed = graph.flag()
    weights = graph.constant(*((outputs, size) if transposed else (size, outputs)))
    bias = [[], [graph.constant(outputs)], [graph.constant(1)], [graph.constant(1, outputs)]][graph.integer(0, 3)]
    attributes = {"transB": int(transposed), "alpha": 0.5 + graph.flag(), "beta": 0.5 + graph.flag()}
    return graph.add("Gemm", [x, weights, *bias], (batch, outputs), **attributes)


def matmul(graph, x):
    shape, outputs = graph.shapes[x], graph.integer(1, 7)
    left = len(shape) > 2 and graph.flag()
    if left:
        y = graph.add("MatMul", [graph.constant(outputs, shape[-2]), x], (*shape[:-2], outputs, shape[-1]))
        bias = [outputs, 1]
    else:
        y = graph.add("MatMul", [x, graph.constant(shape[-1], outputs)], (*shape[:-1], outputs))
        bias = [outputs]
    if graph.flag():
        operands = [y, graph.constant(*bias)]
        y = graph.add("Add", operands[:: graph.draw(st.sampled_from([1, -1]))], graph.shapes[y])
    return y


def conv(graph, x):
    batch, channels, *spatial = graph.shapes[x]
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    groups, rank = graph.draw(st.sampled_from(divisors)), len(spatial)
    outputs = groups * graph.integer(1, 3)
    auto_pad = graph.draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    kernel = [graph.integer(1, min(3, size)) for size in spatial]
    strides = [graph.integer(1, 3) for _ in spatial]
    attributes = {"group": groups, "strides": strides, "auto_pad": auto_pad}
    pads = [0] * (2 * rank)
    if auto_pad == "NOTSET":
        attributes["pads"] = pads = [graph.integer(0, 2) for _ in pads]
    dilations = [1] * rank
    if not auto_pad.startswith("SAME"):  # onnxruntime refuses SAME with dilations
        fits = [size + pads[i] + pads[i + rank] >= 2 * (kernel[i] - 1) + 1 for i, size in enumerate(spatial)]
        attributes["dilations"] = dilations = [1 + (fit and graph.flag()) for fit in fits]
    if auto_pad.startswith("SAME"):
        size = [-(-s // t) for s, t in zip(spatial, strides, strict=True)]
    else:
        size = [
            (s + pads[i] + pads[i + rank] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
            for i, s in enumerate(spatial)
        ]
    inputs = [x, graph.constant(outputs, channels // groups, *kernel)]
    if graph.flag():
        inputs.append(graph.constant(outputs))
    return graph.add("Conv", inputs, (batch, outputs, *size), **attributes)


def pool(graph, x):
    batch, channels, *spatial = graph.shapes[x]
    operator = graph.draw(st.sampled_from(["MaxPool", "AveragePool", "GlobalAveragePool"]))
    if operator == "GlobalAveragePool":
        return graph.add(operator, [x], (batch, channels, *[1] * len(spatial)))
    kernel = [graph.integer(1, min(2, size)) for size in spatial]
    size = [s - k + 1 for s, k in zip(spatial, kernel, strict=True)]
    return graph.add(operator, [x], (batch, channels, *size), kernel_shape=kernel)


def batch_norm(graph, x):
    channels = graph.shapes[x][1]
    inputs = [x, *(graph.constant(channels) for _ in range(3))]
    variance = graph.constant(channels)
    graph.constants[variance] = np.abs(graph.constants[variance]) + 0.1
    return graph.add("BatchNormalization", [*inputs, variance], graph.shapes[x])


def reshape(graph, x):
    """Flatten all but the batch, by a constant shape or by one computed from the input's."""
    shape = graph.shapes[x]
    flat = (shape[0], int(np.prod(shape[1:])))
    how = graph.integer(0, 2)
    if how == 0:
        return graph.add("Flatten", [x], flat)
    target = f"c{len(graph.constants)}"
    if how == 1:
        graph.constants[target] = np.array([0, -1] if len(shape) > 1 else [-1, 1])
        return graph.add("Reshape", [x, target], flat)
    graph.constants[target] = np.array([flat[1]])
    full = graph.add("Shape", [x], (len(shape),))
    first = f"c{len(graph.constants)}"
    graph.constants[first] = np.array([0])
    batch = graph.add("Gather", [full, first], (1,))
    joined = graph.add("Concat", [batch, target], (2,), axis=0)
    for name in (full, batch, joined):
        del graph.shapes[name]
    return graph.add("Reshape", [x, joined], flat)


def transpose(graph, x):
    shape = graph.shapes[x]
    order = [0, *graph.draw(st.permutations(range(1, len(shape))))]
    return graph.add("Transpose", [x], [shape[i] for i in order], perm=order)


def unary(graph, x):
    operator = graph.draw(st.sampled_from(["Relu", "Sigmoid", "Tanh", "Softmax", "Identity"]))
    return graph.add(operator, [x], graph.shapes[x], **({"axis": -1} if operator == "Softmax" else {}))


def add_constant(graph, x):
    shape = graph.shapes[x]
    sizes = [size if i and graph.flag() else 1 for i, size in enumerate(shape)]
    operands = [x, graph.constant(*sizes[graph.integer(0, len(sizes)) :])]
    return graph.add(graph.draw(st.sampled_from(["Add", "Mul", "Sub"])), operands, shape)


def join(graph, x):
    """Add another value of the same shape, if it be the value itself."""
    same = [name for name, shape in graph.shapes.items() if shape == graph.shapes[x]]
    return graph.add("Add", [x, graph.draw(st.sampled_from(same))], graph.shapes[x])


def choices(rank):
    steps = [matmul, matmul, unary, unary, add_constant, join, transpose, reshape]
    if rank == 2:
        steps += [gemm, gemm, gemm]
    if rank in (3, 4, 5):
        steps += [conv, conv, conv, pool, batch_norm]
    return steps


@st.composite
def models(draw):
    """A model and its input; the last step before the outputs is a lowered layer at the latest."""
    graph = Graph(draw, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    rank = draw(st.integers(2, 5))
    shape = (BATCH, *(draw(st.integers(1, 6)) for _ in range(rank - 1)))
    graph.shapes["x"] = shape
    current = "x"
    for _ in range(draw(st.integers(2, 9))):
        if draw(st.integers(0, 4)) == 0:
            current = draw(st.sampled_from(sorted(graph.shapes)))
        current = draw(st.sampled_from(choices(len(graph.shapes[current]))))(graph, current)
    current = matmul(graph, current)
    used = {name for node in graph.nodes for name in node.input}
    outputs = [name for name in graph.shapes if name not in used and name != "x"]
    outputs += [
        name
        for name in draw(st.lists(st.sampled_from(sorted(graph.shapes)), max_size=2, unique=True))
        if name not in (*outputs, "x")
    ]
    declared = ["n" if draw(st.booleans()) else BATCH, *shape[1:]]
    if draw(st.booleans()):
        declared[1:] = [f"d{i}" if rank > 2 and draw(st.booleans()) else size for i, size in enumerate(shape[1:])]
    return graph, declared, outputs, graph.rng.uniform(-1, 1, shape).astype("f")

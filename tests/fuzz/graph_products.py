"""Random nodes with a constant matrix: Gemm, MatMul, Einsum, convolutions and com.microsoft's fused ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.graph_builder import GraphBuilder, Refused, jumping, largest, lipschitz, measured, moving, multilinear

MICROSOFT = "com.microsoft"


def float_value(b: GraphBuilder, rank: int, dtype: str | None = None) -> str:
    """A float activation of this rank: one that is there, a new graph input, or another one reshaped."""
    dtype = dtype or b.dtype
    there = b.find(lambda a: a.dtype == dtype and a.ndim == rank and a.size <= 1024)
    if there and b.flag(0.7):
        return str(b.choose(there[-4:]))
    if len(b.inputs) < 3 and (b.flag(0.4) or not b.nodes):
        return new_float_input(b, rank, dtype)
    anything = b.find(lambda a: a.dtype == dtype and 0 < a.size <= 1024)
    if not anything:
        return new_float_input(b, rank, dtype)
    return reshaped(b, b.choose(anything[-4:]), rank)


def new_float_input(b: GraphBuilder, rank: int, dtype: str | None = None) -> str:
    """A new graph input; its first axis is small."""
    shape = [b.size() for _ in range(rank)]
    if rank:
        shape[0] = b.integer(1, 3)
    while math.prod(shape) > 1024:
        shape[int(np.argmax(shape))] = 3
    return b.new_input(b.draw(shape, 1.0, dtype))


def reshaped(b: GraphBuilder, name: str, rank: int) -> str:
    """The value with its elements in a random shape of this rank."""
    left, sizes = int(b.array(name).size), []
    for _ in range(rank - 1):
        divisors = [d for d in range(1, left + 1) if left % d == 0 and d <= 16]
        sizes.append(b.choose(divisors))
        left //= sizes[-1]
    sizes.append(left)
    if not rank:
        if left != 1:
            raise Refused("more than one element")
        sizes = []
    sizes = [int(size) for size in b.rng.permutation(sizes)]
    if sizes and b.flag(0.3):
        sizes[b.integer(0, rank - 1)] = -1
    return b.add("Reshape", [name, b.constant(np.array(sizes, np.int64))], moving)[0]


def weight(b: GraphBuilder, shape: Sequence[int], fan_in: int, dtype: str | None = None, hide: bool = True) -> str:
    """A constant of this shape: new, one that is there already, or behind nodes that are evaluated when compiling."""
    dtype = dtype or b.dtype
    shape = tuple(shape)
    if math.prod(shape) > 20000:
        raise Refused("a large constant")
    shared = b.find(lambda a: a.shape == shape and a.dtype == dtype, constant=True)
    if shared and b.flag(0.4):
        return str(b.choose(shared))
    array = b.draw(shape, 1.5 / math.sqrt(max(1, fan_in)), dtype)
    return hidden(b, array) if hide and b.flag(0.25) else b.constant(array, "w")


def hidden(b: GraphBuilder, array: np.ndarray) -> str:
    """A constant behind a Transpose, a Cast, a DequantizeLinear, a Constant node, ..."""
    kind, dtype = b.integer(0, 7), array.dtype
    if kind == 0 and array.ndim:
        order = [int(i) for i in b.rng.permutation(array.ndim)]
        source = b.constant(np.ascontiguousarray(array.transpose(np.argsort(order))), "w")
        return b.add("Transpose", [source], moving, perm=order)[0]
    if kind == 1:
        source = b.constant(array.astype(b.choose(["float16", "float32", "float64"])), "w")
        return b.add("Cast", [source], moving, to=onnx_type(dtype))[0]
    if kind == 2 and b.opset >= 10 and dtype == "float32":
        per_axis = b.opset >= 13 and array.ndim > 1 and b.flag()
        axis = b.integer(0, array.ndim - 1) if per_axis else 0
        shape = (array.shape[axis],) if per_axis else ()
        scale = (2.0 ** b.rng.integers(-7, -4, shape) if not b.whole else np.ones(shape)).astype("f")
        zero = np.asarray(b.rng.integers(-3, 4, shape), np.int8) if b.flag() else np.zeros(shape, np.int8)
        codes = b.rng.integers(-3, 4, array.shape) if b.whole else b.rng.integers(-127, 128, array.shape)
        inputs = [b.constant(v, "q") for v in (codes.astype(np.int8), scale, zero)]
        return b.add("DequantizeLinear", inputs, moving, **({"axis": axis} if per_axis else {}))[0]
    if kind == 3:
        return b.add("Constant", [], moving, value=nameless(array))[0]
    if kind == 4:
        flat = b.constant(array.reshape(-1), "w")
        return b.add("Reshape", [flat, b.constant(np.array(array.shape, np.int64))], moving)[0]
    if kind == 5:
        factor = b.constant(np.asarray(b.choose([1.0, 2.0, -1.0]), dtype))
        return b.add("Mul", [b.constant(array, "w"), factor], moving)[0]
    if kind == 6 and array.ndim and array.shape[0] > 1:
        cut = b.integer(1, array.shape[0] - 1)
        return b.add("Concat", [b.constant(array[:cut], "w"), b.constant(array[cut:], "w")], moving, axis=0)[0]
    return b.add("Identity", [b.constant(array, "w")], moving)[0]


def nameless(array: np.ndarray) -> TensorProto:
    """A tensor without a name."""
    return numpy_helper.from_array(array)


def onnx_type(dtype: np.dtype | str) -> int:
    """The ONNX number of a numpy type."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def gemm(b: GraphBuilder) -> None:
    """Every attribute, the constant on either side, every shape of C."""
    x = float_value(b, 2)
    shape = b.shape(x)
    trans_x, trans_w, right = b.flag(0.3), b.flag(), b.flag(0.8)
    if right:
        rows, inner_size = (shape[1], shape[0]) if trans_x else shape
        outer = b.size()
        w = weight(b, (outer, inner_size) if trans_w else (inner_size, outer), inner_size)
        inputs, sizes = [x, w], (rows, outer)
        attributes = {"transA": int(trans_x), "transB": int(trans_w)}
    else:
        inner_size, columns = (shape[1], shape[0]) if trans_x else shape
        rows = b.size()
        w = weight(b, (inner_size, rows) if trans_w else (rows, inner_size), inner_size)
        inputs, sizes = [w, x], (rows, columns)
        attributes = {"transA": int(trans_w), "transB": int(trans_x)}
    alpha = b.choose([1.0, 1.0, 2.0, -1.0] if b.whole else [1.0, 1.0, 0.5, -1.25, 0.0])
    kinds = [(), (1,), (sizes[1],), (1, sizes[1]), (sizes[0], 1), sizes, None]
    shape_c = b.choose(kinds) if b.opset >= 11 else b.choose(kinds[1:-1])
    if shape_c is not None:
        activations = b.find(lambda a: a.shape == shape_c and a.dtype == b.dtype)
        inputs.append(b.choose(activations) if activations and b.flag(0.4) else weight(b, shape_c, 1))
    attributes.update(_some(b, {"alpha": alpha, "beta": b.choose([1.0, 1.0, 2.0, -1.0, 0.0])}))
    b.add("Gemm", inputs, multilinear(0, 1, terms=inner_size), lowered=is_constant(b, w), **attributes)


def _some(b: GraphBuilder, attributes: dict) -> dict:
    return {name: value for name, value in attributes.items() if b.flag(0.7)}


def is_constant(b: GraphBuilder, name: str) -> bool:
    """Whether the compiler must know the value."""
    return b.values[name].constant


def matmul(b: GraphBuilder) -> None:
    """A constant on either side, of rank 1 to 4, for activations of rank 1 to 5; then perhaps an Add."""
    x = float_value(b, b.choose([1, 2, 2, 3, 3, 4, 5]))
    shape, right = b.shape(x), b.flag(0.7)
    rank, outer = b.choose([1, 2, 2, 2, 3, 4]), b.size()
    inner = shape[-1] if right or len(shape) == 1 else shape[-2]
    batch = [b.choose([1, size]) for size in shape[-rank:-2]] if rank > 2 else []
    batch = (
        [1 if b.flag(0.2) else size for size in [b.integer(1, 3)] * (rank - 2 - len(batch)) + batch] if rank > 2 else []
    )
    core = (inner,) if rank == 1 else (inner, outer) if right else (outer, inner)
    w = weight(b, (*batch, *core), inner)
    rule = multilinear(0, 1, terms=inner)
    y = b.add("MatMul", [x, w] if right else [w, x], rule, lowered=inner > 1)[0]
    if b.flag(0.4):
        shape = b.shape(y)
        bias = weight(b, shape[len(shape) - b.integer(0, len(shape)) :], 1)
        operands = [y, bias]
        b.add("Add", operands[:: b.choose([1, -1])], lipschitz(1))


def product_of_activations(b: GraphBuilder) -> None:
    """MatMul without a constant."""
    x = float_value(b, b.choose([2, 3]))
    size = b.shape(x)[-1]
    fits = b.find(lambda a: a.dtype == b.dtype and a.ndim > 1 and a.shape[-2] == size)
    if fits and b.flag():
        y = b.choose(fits)
    else:
        order = [*range(len(b.shape(x)) - 2), len(b.shape(x)) - 1, len(b.shape(x)) - 2]
        y = b.add("Transpose", [x], moving, perm=order)[0]
    b.add("MatMul", [x, y], multilinear(0, 1, terms=size))


def einsum(b: GraphBuilder) -> None:
    """Random equations with one constant or two: letters repeated, broadcast, summed, with an ellipsis, without an output."""
    if b.opset < 12:
        raise Refused("Einsum is of opset 12")
    x = float_value(b, b.integer(1, 4))
    letters = list("abcdefgh")
    sizes = dict(zip(letters, [*b.shape(x), *(b.size() for _ in letters)], strict=False))
    term = letters[: len(b.shape(x))]
    equal = [(i, j) for i in range(len(term)) for j in range(i) if sizes[term[i]] == sizes[term[j]]]
    if equal and b.flag(0.15):
        i, j = b.choose(equal)
        term[i] = term[j]
    ellipsis = b.integer(1, len(term) - 1) if len(term) > 1 and b.flag(0.25) and len(set(term)) == len(term) else 0
    terms = [term] if not ellipsis else [term[ellipsis:]]
    operands, fan_in = [x], 1
    for _ in range(b.choose([1, 1, 1, 2])):
        shared = [c for c in terms[0] if b.flag(0.7)]
        new = [c for c in letters[len(term) : len(term) + 3] if b.flag(0.4)]
        fresh = [str(c) for c in b.rng.permutation(list(dict.fromkeys(shared + new)))]
        fan_in = math.prod(sizes[c] for c in fresh)
        if fan_in > 4096:
            raise Refused("a large constant")
        operands.append(weight(b, [sizes[c] for c in fresh], math.prod(sizes[c] for c in shared), hide=False))
        terms.append(fresh)
    if b.flag(0.15):
        more = float_value(b, b.integer(1, 2))
        fits = [[c for c in sizes if sizes[c] == size] for size in b.shape(more)]
        operands.append(more)
        terms.append([str(b.choose(options)) for options in fits])
    used = list(dict.fromkeys(c for term in terms for c in term))
    output = [str(c) for c in b.rng.permutation([c for c in used if b.flag(0.5)])]
    dots = "..." if ellipsis else ""
    texts = [dots + "".join(terms[0]), *("".join(term) for term in terms[1:])]
    order = [int(i) for i in b.rng.permutation(len(operands))]
    space = " " if b.flag(0.2) else ""
    equation = f",{space}".join(texts[i] for i in order)
    explicit = b.flag(0.85)
    if explicit:
        equation += f"{space}->{space}{dots if b.flag(0.95) else ''}{''.join(output)}"
    reduced = math.prod(sizes[c] for c in used)
    rule = multilinear(*range(len(operands)), terms=min(reduced, 4096))
    summed = set(terms[0]) & set(terms[1]) - set(output)
    lowered = explicit and len(operands) == 2 and any(sizes[c] > 1 for c in summed)
    b.add("Einsum", [operands[i] for i in order], rule, lowered=lowered, equation=equation)


def conv(b: GraphBuilder) -> None:
    """Conv over 1 to 3 axes with all attributes."""
    _convolution(b, "Conv", "")


def fused_conv(b: GraphBuilder) -> None:
    """com.microsoft FusedConv: an activation, and an addend as the fourth input."""
    if b.dtype != "float32":
        raise Refused("float32 alone")
    _convolution(b, "FusedConv", MICROSOFT)


ACTIVATIONS = {
    "Relu": 0,
    "Tanh": 0,
    "Sigmoid": 0,
    "LeakyRelu": 1,
    "Clip": 2,
    "HardSigmoid": 2,
}


def _convolution(b: GraphBuilder, operator: str, domain: str) -> None:
    x = float_value(b, b.choose([3, 4, 4, 4, 5]))
    channels, spatial = b.shape(x)[1], b.shape(x)[2:]
    group = b.choose([d for d in range(1, channels + 1) if channels % d == 0] + [channels, 1])
    outputs = group * b.integer(1, 3 if group > 1 else 8)
    kernel = [b.integer(1, min(4, size + 1)) for size in spatial]
    attributes = _some(b, {"strides": [b.integer(1, 3) for _ in spatial], "kernel_shape": kernel})
    attributes.update(_padding(b, len(spatial)))
    if b.flag(0.4) and not attributes.get("auto_pad", "").startswith("SAME"):
        attributes["dilations"] = [b.integer(1, 2) for _ in spatial]
    if group > 1 or b.flag():
        attributes["group"] = group
    fan_in = channels // group * math.prod(kernel)
    inputs = [x, weight(b, (outputs, channels // group, *kernel), fan_in)]
    if b.flag():
        inputs.append(weight(b, (outputs,), 1))
    rule = multilinear(0, 1, terms=fan_in)
    if not domain:
        b.add("Conv", inputs, rule, lowered=True, **attributes)
        return
    activation = b.choose(list(ACTIVATIONS))
    parameters = sorted(round(float(p), 2) for p in b.rng.uniform(0.1, 0.9, ACTIVATIONS[activation]))
    attributes.update({"activation": activation, "activation_params": parameters} if parameters else {})
    attributes.setdefault("activation", activation)
    plain = b.run_alone("Conv", inputs, **{k: v for k, v in attributes.items() if not k.startswith("activation")})
    if b.flag(0.3):
        fits = b.find(lambda a: a.shape == plain.shape and a.dtype == "float32")
        z = b.choose(fits) if fits else weight(b, plain.shape, 1)
        inputs += ["", z][len(inputs) - 2 :]
    b.add(operator, inputs, _activated(rule, inputs), domain=domain, lowered=True, **attributes)


def _activated(rule, inputs):  # an error rule for a node whose activation has a slope of at most 1
    def activated(b: GraphBuilder, node, arrays):
        plain = type(node)()
        plain.CopyFrom(node)
        kept = [a for a in node.attribute if not a.name.startswith("activation")]
        del plain.attribute[:]
        plain.attribute.extend(kept)
        plain.domain, plain.op_type = "", "Conv"
        if len(plain.input) > 3:
            del plain.input[3:]
        product = b.run(plain)
        addend = inputs[3] if len(inputs) > 3 else ""
        extra = b.error(addend) + 64 * 2.0**-24 * (
            largest(product[0]) + (largest(b.array(addend)) if addend else 0) + 1
        )
        return [error + extra for error in rule(b, plain, product)]

    return activated


def _padding(b: GraphBuilder, rank: int) -> dict:
    kind = b.choose(["none", "pads", "pads", "VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"])
    if kind == "none":
        return {}
    if kind in ("pads", "NOTSET"):
        pads = {"pads": [b.integer(0, 2) for _ in range(2 * rank)]}
        return pads if kind == "pads" else {**pads, "auto_pad": "NOTSET"}
    return {"auto_pad": kind}


def conv_transpose(b: GraphBuilder) -> None:
    """ConvTranspose over 1 to 3 axes with all attributes."""
    x = float_value(b, b.choose([3, 4, 4, 5]))
    channels, spatial = b.shape(x)[1], b.shape(x)[2:]
    group = b.choose([d for d in range(1, channels + 1) if channels % d == 0])
    each = b.integer(1, 3)
    kernel = [b.integer(1, 4) for _ in spatial]
    strides = [b.integer(1, 3) for _ in spatial]
    dilations = [b.integer(1, 2) if b.flag(0.3) else 1 for _ in spatial]
    attributes = {"strides": strides, "group": group, **_some(b, {"kernel_shape": kernel})}
    attributes.update(_padding(b, len(spatial)))
    if any(d > 1 for d in dilations):
        attributes["dilations"] = dilations
    if b.flag(0.3):
        attributes["output_padding"] = [b.integer(0, max(s, d) - 1) for s, d in zip(strides, dilations, strict=True)]
    if b.flag(0.2):
        attributes["output_shape"] = [
            max(1, (n - 1) * s + (k - 1) * d + 1 - b.integer(0, 2))
            for n, s, k, d in zip(spatial, strides, kernel, dilations, strict=True)
        ]
        attributes.pop("pads", None)
    fan_in = channels // group * math.prod(kernel)
    inputs = [x, weight(b, (channels, each, *kernel), fan_in)]
    if b.flag():
        inputs.append(weight(b, (group * each,), 1))
    b.add(
        "ConvTranspose", inputs, multilinear(0, 1, terms=fan_in), lowered="output_shape" not in attributes, **attributes
    )


def fused_gemm(b: GraphBuilder) -> None:
    """com.microsoft FusedGemm."""
    if b.dtype != "float32":
        raise Refused("float32 alone")
    x = float_value(b, 2)
    inner, outer, trans = b.shape(x)[1], b.size(), b.flag()
    w = weight(b, (outer, inner) if trans else (inner, outer), inner)
    inputs = [x, w, *([weight(b, (outer,), 1)] if b.flag() else [])]
    attributes = {"transB": int(trans), "activation": b.choose(["Relu", "Tanh", "Sigmoid", "LeakyRelu"])}
    if attributes["activation"] == "LeakyRelu":
        attributes["activation_alpha"] = 0.25
    attributes.update(_some(b, {"alpha": 0.5, "beta": 2.0}))
    b.add("FusedGemm", inputs, measured(64 + 16 * inner), domain=MICROSOFT, lowered=True, **attributes)


def fused_matmul(b: GraphBuilder) -> None:
    """com.microsoft FusedMatMul and TransposeMatMul: transposed operands, transposed batch axes, a factor."""
    if b.dtype == "float16":
        raise Refused("float32 and float64 alone")
    x = float_value(b, b.choose([2, 2, 3, 4]))
    shape = b.shape(x)
    trans_x, trans_w, right = b.flag(0.3), b.flag(), b.flag(0.8)
    contracted_last = right != trans_x
    inner = shape[-1] if contracted_last else shape[-2]
    core = (inner, b.size()) if right else (b.size(), inner)
    w = weight(b, core[::-1] if trans_w else core, inner)
    flags = [int(trans_x), int(trans_w)] if right else [int(trans_w), int(trans_x)]
    attributes = {"transA": flags[0], "transB": flags[1], **_some(b, {"alpha": b.choose([0.5, 2.0, -1.0])})}
    if len(shape) > 2 and b.flag(0.2):
        attributes["transBatchA" if right else "transBatchB"] = 1
    operator = b.choose(["FusedMatMul", "FusedMatMul", "TransposeMatMul"])
    inputs = [x, w] if right else [w, x]
    lowered = inner > 1 and not attributes.keys() & {"transBatchA", "transBatchB"}
    b.add(operator, inputs, multilinear(0, 1, terms=max(shape)), domain=MICROSOFT, lowered=lowered, **attributes)


def matmul_nbits(b: GraphBuilder) -> None:
    """com.microsoft MatMulNBits: weights of 4 or 8 bits with a scale and a zero point for each block."""
    if b.dtype != "float32":
        raise Refused("float32 alone")
    x = float_value(b, b.choose([2, 3]))
    inner, outer, bits, block = b.shape(x)[-1], b.size(), b.choose([4, 4, 8]), b.choose([16, 32])
    blocks = -(-inner // block)
    packed = b.rng.integers(0, 256, (outer, blocks, block * bits // 8)).astype(np.uint8)
    scales = b.rng.uniform(0.01, 0.1, (outer * blocks,)).astype("f")
    inputs = [x, b.constant(packed), b.constant(scales)]
    if b.flag():
        per_row = -(-blocks * bits // 8)
        inputs.append(b.constant(b.rng.integers(0, 256, (outer * per_row,)).astype(np.uint8)))
    attributes = {"K": inner, "N": outer, "bits": bits, "block_size": block}
    b.add("MatMulNBits", inputs, measured(16 + 64 * inner), domain=MICROSOFT, lowered=True, **attributes)


def attention(b: GraphBuilder) -> None:
    """com.microsoft Attention: the projections of queries, keys and values in one matrix."""
    if b.dtype != "float32":
        raise Refused("float32 alone")
    x = float_value(b, 3)
    batch, length, size = b.shape(x)
    heads = b.integer(1, 2)
    hidden_size = heads * b.integer(1, 4)
    inputs = [x, weight(b, (size, 3 * hidden_size), size), weight(b, (3 * hidden_size,), 1)]
    attributes: dict = {"num_heads": heads, **_some(b, {"unidirectional": b.integer(0, 1)})}
    kind = b.integer(0, 4)
    if kind == 1:
        inputs.append(b.constant(b.rng.integers(1, length + 1, (batch,)).astype(np.int32)))
    elif kind == 2:
        mask = b.rng.integers(0, 2, (batch, length)).astype(np.int32)
        mask[:, 0] = 1
        inputs.append(b.constant(mask))
    elif kind == 3:
        inputs += ["", "", b.constant(b.draw((1, heads, length, length)))]
    elif kind == 4:
        attributes["scale"] = 0.5
    b.add("Attention", inputs, measured(128 + 16 * size), domain=MICROSOFT, lowered=kind != 1, **attributes)


def shapes_apart(b: GraphBuilder) -> None:
    """Digital work on shapes: Shape, Gather, Concat, Reshape, as exporters write it."""
    x = float_value(b, b.choose([3, 4]))
    full = b.add("Shape", [x], jumping)[0]
    first = b.add("Gather", [full, b.constant(np.array([0]))], jumping, axis=0)[0]
    target = b.add("Concat", [first, b.constant(np.array([-1]))], jumping, axis=0)[0]
    b.add("Reshape", [x, target], moving)


PRODUCTS = [
    (6, gemm),
    (8, matmul),
    (1, product_of_activations),
    (5, einsum),
    (9, conv),
    (5, conv_transpose),
    (2, fused_conv),
    (1, fused_gemm),
    (2, fused_matmul),
    (1, matmul_nbits),
    (2, attention),
    (1, shapes_apart),
]

"""Random quantized nodes: integer products, QDQ around products, dynamic quantization."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto

from tests.fuzz.graph_builder import (
    GraphBuilder,
    Refused,
    fixed,
    jumping,
    largest,
    lipschitz,
    moving,
    multilinear,
    stepping,
)
from tests.fuzz.graph_products import MICROSOFT, float_value, new_float_input, weight
from tests.support.integer_sums import within_reach

BITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535)}


def scale(b: GraphBuilder, shape: tuple[int, ...] = (), size: float = 0.02) -> str:
    """A positive scale: a power of two where results must be exact, else any."""
    if b.whole:
        return b.constant(np.full(shape, b.choose([1.0, 2.0]), "f"), "s")
    return b.constant(np.asarray(b.rng.uniform(0.5 * size, 2 * size, shape), "f"), "s")


def zero_point(b: GraphBuilder, dtype: str, shape: tuple[int, ...] = ()) -> str:
    """A zero point: 0, near the middle, or anywhere."""
    low, high = BITS[dtype]
    middle = (low + high + 1) // 2
    kind = b.integer(0, 2)
    if kind == 0:
        array = np.full(shape, max(low, 0))
    elif kind == 1:
        array = b.rng.integers(middle - 5, middle + 6, shape)
    else:
        array = b.rng.integers(low, high + 1, shape)
    return b.constant(np.asarray(array, dtype), "z")


def integers(b: GraphBuilder, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Integers over the whole range, or few."""
    low, high = BITS[dtype]
    if b.flag(0.3):
        low, high = max(low, -3), min(high, 3)
    return within_reach(np.asarray(b.rng.integers(low, high + 1, shape), dtype))


def integer_value(b: GraphBuilder, rank: int, dtypes: tuple[str, ...]) -> str:
    """A quantized activation: one that is there, a new graph input, or a float one quantized."""
    there = b.find(lambda a: a.ndim == rank and a.dtype.name in dtypes and 0 < a.size <= 1024)
    if there and b.flag(0.6):
        return str(b.choose(there))
    dtype = b.choose(dtypes)
    if len(b.inputs) < 3 and b.flag(0.6):
        shape = [b.size() for _ in range(rank)]
        shape[0] = b.integer(1, 3)
        while math.prod(shape) > 1024:
            shape[int(np.argmax(shape))] = 3
        return b.new_input(integers(b, dtype, tuple(shape)))
    return quantized(b, exact_float(b, rank), dtype)[0]


def exact_float(b: GraphBuilder, rank: int) -> str:
    """A float32 activation without error, so that a quantizer behind it cannot move: one that is there, or a new input."""
    there = b.find(lambda a: a.dtype == "float32" and a.ndim == rank and 0 < a.size <= 1024)
    there = [name for name in there if not b.error(name)]
    if there and b.flag(0.6):
        return str(b.choose(there))
    if b.flag(0.1):
        return float_value(b, rank, "float32")
    return new_float_input(b, rank, "float32")


def quantized(b: GraphBuilder, x: str, dtype: str) -> tuple[str, str, str]:
    """QuantizeLinear of a value to its own range; the integers, the scale, the zero point."""
    if b.opset < 10 or b.array(x).dtype != "float32":
        raise Refused("no QuantizeLinear")
    s = scale(b, size=max(largest(b.array(x)), 0.01) / 100)
    z = zero_point(b, dtype)
    return b.add("QuantizeLinear", [x, s, z], stepping())[0], s, z


def dequantized(b: GraphBuilder, q: str, s: str, z: str, **attributes: int) -> str:
    """DequantizeLinear; its error is the scale times that of the integers."""
    step = float(np.max(b.array(s)))
    return b.add("DequantizeLinear", [q, s, z], fixed(step * b.error(q)), **attributes)[0]


def _requantized(b: GraphBuilder, x: str, factor: float, step: float) -> list[float]:
    """Errors of integers that are requantized: none for exact inputs; steps by the weights' absolute sums otherwise."""
    if not b.error(x):
        return [0.0]
    return [float(np.ceil(b.error(x) * factor / step)) + 1.0]


def matmul_integer(b: GraphBuilder) -> None:
    """MatMulInteger, with zero points per tensor or per column; then perhaps a Cast and a scale."""
    if b.opset < 10:
        raise Refused("opset 10")
    x = integer_value(b, b.choose([1, 2, 2, 3]), ("uint8", "int8"))
    inner, outer, dtype = b.shape(x)[-1], b.size(), b.choose(["int8", "uint8"])
    w = b.constant(integers(b, dtype, (inner, outer)), "w")
    inputs = [x, w]
    if b.flag(0.7):
        inputs.append(zero_point(b, b.array(x).dtype.name) if b.flag(0.7) else "")
        if b.flag(0.6):
            inputs.append(zero_point(b, dtype, (outer,) if b.flag(0.3) else ()))
        if inputs[-1] == "":
            inputs.pop()
    y = b.add("MatMulInteger", inputs, _integer_rule, lowered=True)[0]
    if b.flag(0.6):
        as_float = b.add("Cast", [y], moving, to=1)[0]
        b.add("Mul", [as_float, scale(b, size=0.0005)], lipschitz(1))


def _integer_rule(b: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
    """Integer sums are exact; integers that may move by steps move the sums by steps times the weights' sums."""
    w = b.array(node.input[1]).astype(np.int64)
    zero = b.array(node.input[3]).astype(np.int64) if len(node.input) > 3 and node.input[3] else 0
    shape = (-1, *(1,) * (w.ndim - 1)) if node.op_type == "ConvInteger" else (-1,)
    w = w - (np.reshape(zero, shape) if np.ndim(zero) else zero)
    axes = tuple(range(1, w.ndim)) if node.op_type == "ConvInteger" else 0
    return [b.error(node.input[0]) * float(np.abs(w).sum(axis=axes).max(initial=0))]


def qlinear_matmul(b: GraphBuilder) -> None:
    """QLinearMatMul, per tensor or per column."""
    if b.opset < 10:
        raise Refused("opset 10")
    dtype = b.choose(["uint8", "int8"])
    x = integer_value(b, b.choose([2, 2, 3]), (dtype,))
    inner, outer = b.shape(x)[-1], b.size()
    wtype, per = b.choose(["int8", "uint8"]), (outer,) if b.flag(0.3) else ()
    w = b.constant(integers(b, wtype, (inner, outer)), "w")
    sx, sw = scale(b), scale(b, per, 0.01)
    zx, zw = zero_point(b, dtype), zero_point(b, wtype, per)
    sy = scale(b, size=0.05)
    zy = zero_point(b, dtype)
    real = (b.array(w).astype(float) - b.array(zw).astype(float)) * b.array(sw)
    factor = float(np.abs(real).sum(0).max()) * float(b.array(sx))
    inputs = [x, sx, zx, w, sw, zw, sy, zy]
    rule = fixed(*_requantized(b, x, factor, float(b.array(sy))))
    b.add("QLinearMatMul", inputs, rule, lowered=True)


def _conv_attributes(b: GraphBuilder, rank: int, kernel: list[int], group: int) -> dict:
    attributes: dict = {"kernel_shape": kernel} if b.flag() else {}
    if b.flag():
        attributes["strides"] = [b.integer(1, 2) for _ in range(rank)]
    if b.flag():
        attributes["pads"] = [b.integer(0, 1) for _ in range(2 * rank)]
    if b.flag(0.3):
        attributes["dilations"] = [b.integer(1, 2) for _ in range(rank)]
    if group > 1:
        attributes["group"] = group
    return attributes


def _kernel(b: GraphBuilder, x: str, dtype: str) -> tuple[str, list[int], int, int]:
    channels, spatial = b.shape(x)[1], b.shape(x)[2:]
    group = b.choose([d for d in range(1, channels + 1) if channels % d == 0] + [1, channels])
    outputs = group * b.integer(1, 3)
    kernel = [b.integer(1, min(3, size)) for size in spatial]
    return b.constant(integers(b, dtype, (outputs, channels // group, *kernel)), "w"), kernel, group, outputs


def conv_integer(b: GraphBuilder) -> None:
    """ConvInteger with zero points."""
    if b.opset < 10:
        raise Refused("opset 10")
    x = integer_value(b, b.choose([3, 4, 4]), ("uint8", "int8"))
    dtype = b.choose(["int8", "uint8"])
    w, kernel, group, _outputs = _kernel(b, x, dtype)
    inputs = [x, w]
    if b.flag(0.7):
        inputs.append(zero_point(b, b.array(x).dtype.name))
        if b.flag(0.5):
            inputs.append(zero_point(b, dtype))
    b.add("ConvInteger", inputs, _integer_rule, lowered=True, **_conv_attributes(b, len(kernel), kernel, group))


def qlinear_conv(b: GraphBuilder) -> None:
    """QLinearConv, per tensor or per channel, with an int32 bias."""
    if b.opset < 10:
        raise Refused("opset 10")
    dtype = b.choose(["uint8", "int8"])
    x = integer_value(b, b.choose([3, 4, 4]), (dtype,))
    wtype = "int8" if b.flag(0.8) else "uint8"
    w, kernel, group, outputs = _kernel(b, x, wtype)
    per = (outputs,) if b.flag(0.4) else ()
    sx, sw, sy = scale(b), scale(b, per, 0.01), scale(b, size=0.05)
    zx, zy = zero_point(b, dtype), zero_point(b, dtype)
    zw = b.constant(np.zeros(per, wtype)) if per else zero_point(b, wtype)
    real = (b.array(w).astype(float) - float(np.max(b.array(zw)))) * float(np.max(b.array(sw)))
    factor = float(np.abs(real).sum(tuple(range(1, real.ndim))).max()) * float(b.array(sx))
    inputs = [x, sx, zx, w, sw, zw, sy, zy]
    if b.flag():
        inputs.append(b.constant(b.rng.integers(-2000, 2001, (outputs,)).astype(np.int32)))
    rule = fixed(*_requantized(b, x, factor, float(b.array(sy))))
    b.add("QLinearConv", inputs, rule, lowered=True, **_conv_attributes(b, len(kernel), kernel, group))


def dynamic_quantization(b: GraphBuilder) -> None:
    """DynamicQuantizeLinear, MatMulInteger, Cast, Mul: what dynamic quantization exports."""
    if b.opset < 11 or b.dtype != "float32":
        raise Refused("opset 11, float32")
    x = exact_float(b, b.choose([2, 3]))
    inner, outer = b.shape(x)[-1], b.size()
    carried = b.error(x)

    def rule(builder: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        return [0.0 if not carried else 2.0 + carried / float(arrays[1] + 1e-30), carried / 100, float(carried > 0)]

    q, s, z = b.add("DynamicQuantizeLinear", [x], rule, 3)
    w = b.constant(integers(b, "int8", (inner, outer)), "w")
    inputs = [q, w, z, *([zero_point(b, "int8", (outer,) if b.flag(0.3) else ())] if b.flag() else [])]
    y = b.add("MatMulInteger", inputs, _integer_rule if not carried else jumping, lowered=True)[0]
    as_float = b.add("Cast", [y], moving, to=1)[0]
    product = b.add("Mul", [s, scale(b, (outer,) if b.flag() else ())], lipschitz(1))[0]
    result = b.add("Mul", [as_float, product], lipschitz(1) if not carried else jumping)[0]
    if b.flag():
        b.add("Add", [result, weight(b, (outer,), 1)], lipschitz(1))


def qdq(b: GraphBuilder) -> None:
    """A product between DequantizeLinear and QuantizeLinear: weights per tensor or per channel, a bias, an activation."""
    if b.opset < 10:
        raise Refused("opset 10")
    dtype = b.choose(["uint8", "int8"] if b.opset < 21 else ["uint8", "int8", "uint8", "int8", "int16", "uint16"])
    kind = b.choose(["Conv", "Conv", "MatMul", "Gemm"])
    rank = b.choose([3, 4, 4]) if kind == "Conv" else b.choose([2, 3]) if kind == "MatMul" else 2
    x, sx, zx = quantized(b, exact_float(b, rank), dtype)
    xd = dequantized(b, x, sx, zx)
    wtype = b.choose(["int8", "int8", "uint8"])
    group, attributes = 1, {}
    if kind == "Conv":
        w, kernel, group, outputs = _kernel(b, x, wtype)
        attributes = _conv_attributes(b, rank - 2, kernel, group)
    else:
        outputs, inner = b.size(), b.shape(x)[-1]
        attributes = {"transB": int(b.flag())} if kind == "Gemm" else {}
        shape = (outputs, inner) if attributes.get("transB") else (inner, outputs)
        w = b.constant(integers(b, wtype, shape), "w")
    axis = 0 if kind == "Conv" or attributes.get("transB") else 1
    per_channel = b.opset >= 13 and b.flag(0.5)
    sw = scale(b, (outputs,) if per_channel else (), 0.01)
    zw = b.constant(np.zeros(b.shape(sw), wtype)) if b.flag(0.7) else zero_point(b, wtype, b.shape(sw))
    wd = dequantized(b, w, sw, zw, **({"axis": axis} if per_channel else {}))
    inputs = [xd, wd]
    if kind != "MatMul" and b.flag(0.7):
        inputs.append(_bias(b, outputs, sx, sw, per_channel))
    terms = int(b.array(w).size // outputs)
    y = b.add(kind, inputs, multilinear(0, 1, terms=terms), lowered=True, **attributes)[0]
    if b.flag(0.4):
        y = b.add("Relu", [y], lipschitz(1))[0]
    if b.flag(0.8):
        q, s, z = quantized(b, y, dtype if b.flag(0.9) else "int8")
        if b.flag(0.8):
            dequantized(b, q, s, z)


def _bias(b: GraphBuilder, outputs: int, sx: str, sw: str, per_channel: bool) -> str:
    """A float bias, or an int32 one whose scale is the product of the others."""
    if b.flag(0.3):
        return weight(b, (outputs,), 1, "float32", hide=False)
    product = b.constant((b.array(sx) * b.array(sw)).astype("f"))
    bias = b.constant(b.rng.integers(-2000, 2001, (outputs,)).astype(np.int32))
    inputs = [bias, product]
    if b.flag():
        inputs.append(b.constant(np.zeros(b.shape(product), np.int32)))
    return b.add("DequantizeLinear", inputs, fixed(0.0), **({"axis": 0} if per_channel else {}))[0]


def microsoft_quantized(b: GraphBuilder) -> None:
    """com.microsoft DynamicQuantizeMatMul, MatMulIntegerToFloat and QGemm."""
    if b.dtype != "float32":
        raise Refused("float32 alone")
    kind, outer = b.choose(["DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"]), b.size()
    if kind == "DynamicQuantizeMatMul":
        x = exact_float(b, b.choose([2, 3]))
        w = b.constant(integers(b, "int8", (b.shape(x)[-1], outer)), "w")
        inputs = [x, w, scale(b), zero_point(b, "int8")]
        b.add(kind, inputs, _float_product(x), domain=MICROSOFT, lowered=b.opset >= 11)
        return
    x = integer_value(b, 2, ("uint8", "int8"))
    dtype = b.array(x).dtype.name
    wtype = b.choose(["int8", "uint8"]) if dtype == "uint8" else "int8"
    w = b.constant(integers(b, wtype, (b.shape(x)[1], outer)), "w")
    sx, sw, zx, zw = scale(b), scale(b), zero_point(b, dtype), zero_point(b, wtype)
    if kind == "MatMulIntegerToFloat":
        b.add(kind, [x, w, sx, sw, zx, zw], _float_product(x), domain=MICROSOFT, lowered=True)
        return
    inputs = [x, sx, zx, w, sw, zw]
    if b.flag():
        inputs.append(b.constant(b.rng.integers(-999, 999, (outer,)).astype(np.int32)))
        if b.flag():
            inputs += [scale(b, size=0.05), zero_point(b, dtype)]
    b.add(kind, inputs, jumping if len(inputs) > 7 else _float_product(x), domain=MICROSOFT, lowered=b.opset >= 10)


def _float_product(x: str):
    """An integer sum, exact for exact inputs, times a float scale."""

    def rule(b: GraphBuilder, node: NodeProto, arrays: list[np.ndarray]) -> list[float]:
        return [np.inf if b.error(x) else 16 * 2.0**-24 * largest(arrays[0])]

    return rule


def quantized_chain(b: GraphBuilder) -> None:
    """A quantized value moved about, as between the products of a QDQ network."""
    x = b.choose(b.find(lambda a: a.dtype.name in BITS and a.ndim > 1))
    kind = b.integer(0, 2)
    if kind == 0 and b.array(x).ndim == 4 and b.opset >= 12:
        b.add("MaxPool", [x], moving, kernel_shape=[1, min(2, b.shape(x)[3])])
    elif kind == 1:
        b.add("Transpose", [x], moving, perm=[int(i) for i in b.rng.permutation(b.array(x).ndim)])
    elif b.opset >= 10:
        s = scale(b, size=0.02)
        z = b.constant(np.zeros((), b.array(x).dtype))
        b.add("DequantizeLinear", [x, s, z], fixed(float(b.array(s)) * b.error(x)))


QUANTIZED = [
    (6, qdq),
    (3, qlinear_conv),
    (2, qlinear_matmul),
    (2, matmul_integer),
    (2, conv_integer),
    (2, dynamic_quantization),
    (1, microsoft_quantized),
    (2, quantized_chain),
]

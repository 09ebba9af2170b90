"""QONNX's quantizers in standard operators; onnxruntime knows none of them. Its other layers are in `qonnx_layers`.

Arithmetic as in the executors of PyPI `qonnx` 1.0 (qonnx/custom_op/general: intquant.py, bipolar_quant.py, trunc.py,
floatquant.py), in float32. Where the executor clips to whole limits and then rounds, this rounds and then clips: every
rounding is monotone and keeps whole numbers, so the result is the same, and it is known to be whole.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from xbcompile.errors import ModelError
from xbcompile.frontend.operands import attribute, is_constant
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.tensors import to_array

_MOST_EXPONENTS = 64  # assumed: exponents of a float quantizer that are worth a comparison each
MOST_BITS = 512  # assumed: of a number, and exponents beyond; floats have 127
LIMIT = "limit"


def rewrite_quant(r: Replacement) -> bool:
    """Quant, IntQuant: `(round(clip(x / scale + zero_point)) - zero_point) * scale`."""
    x, scale, zero_point = (as_float(r, name) for name in reads_inputs(r, 4)[:3])
    signed = bool(attribute(r.node, "signed", 1))
    bits = _scalar(r, r.node.input[3], "bit width")
    y = _plus(r, r.emit("Div", x, scale), "Add", zero_point)
    if bits == 1 and signed:
        y = _sign(r, y)
    else:
        low, high = _limits(bits, signed, bool(attribute(r.node, "narrow", 0)))
        y = _rounded_between(r, y, low, high, _mode(r, "ROUND"))
    y = _plus(r, y, "Sub", zero_point)
    r.emit("Mul", y, scale, output=r.node.output[0])
    return True


def rewrite_bipolar_quant(r: Replacement) -> bool:
    """BipolarQuant: `scale` where x is 0 or above, `-scale` below."""
    x, scale = (as_float(r, name) for name in reads_inputs(r, 2))
    r.emit("Mul", _sign(r, x), scale, output=r.node.output[0])
    return True


def rewrite_trunc(r: Replacement) -> bool:
    """Trunc: low bits cut off. Version 1 has five inputs, version 2 (with an output scale and limits) six."""
    x, scale, zero_point = (as_float(r, name) for name in reads_inputs(r, 5, 6)[:3])
    whole = _round(r, _plus(r, r.emit("Div", x, scale), "Add", zero_point), "ROUND")
    if len(r.node.input) == 5:
        bits = [_scalar(r, name, "bit width") for name in r.node.input[3:5]]
        y = r.emit("Div", whole, r.constant(np.float32(2.0 ** (bits[0] - bits[1])), "cut"))
        y = _plus(r, _round(r, y, _mode(r, "FLOOR")), "Sub", zero_point)
        r.emit("Mul", y, scale, output=r.node.output[0])
        return True
    out_scale, out_bits = as_float(r, r.node.input[4]), _scalar(r, r.node.input[5], "bit width")
    for name in (r.node.input[1], r.node.input[4]):
        if not is_constant(r.graph, name):
            raise refused(r, f'its scale "{name}" must be constant')
    ratio = to_array(r.graph.constants[r.node.input[4]]) / to_array(r.graph.constants[r.node.input[1]])
    cut = r.constant(np.asarray(2 ** np.round(np.log2(ratio)), np.float32), "cut")
    low, high = _limits(out_bits, bool(attribute(r.node, "signed", 1)), bool(attribute(r.node, "narrow", 0)))
    y = _rounded_between(r, r.emit("Div", whole, cut), low, high, _mode(r, "FLOOR"))
    if not _is_zero(r, zero_point):
        y = r.emit("Sub", y, r.emit("Div", zero_point, cut))
    r.emit("Mul", y, out_scale, output=r.node.output[0])
    return True


def rewrite_float_quant(r: Replacement) -> bool:
    """FloatQuant: the nearest number of few exponent and mantissa bits; every exponent in range is compared with."""
    x, scale = (as_float(r, name) for name in reads_inputs(r, 6)[:2])
    exponent_bits, mantissa_bits, bias = (_scalar(r, name, "width or bias") for name in r.node.input[2:5])
    largest = _scalar(r, r.node.input[5], LIMIT)
    if not attribute(r.node, "saturation", 1):
        raise refused(r, "saturation=0 is not supported; allowed: saturation=1")
    lowest, highest = int(1 - bias), int(2**exponent_bits - 1 - bias)
    if highest - lowest >= _MOST_EXPONENTS or r.opset < 11:
        raise refused(r, f"exponents {lowest} to {highest} are too many, or opset {r.opset} is below 11")
    x = r.emit("Div", x, scale)
    size = r.emit("Abs", x)
    step = r.constant(np.float32(2.0 ** (lowest - mantissa_bits)), "step")
    for exponent in range(lowest + 1, highest + 1):
        below = r.emit("Less", size, r.constant(np.float32(2.0**exponent), "power"))
        step = r.emit("Where", below, step, r.constant(np.float32(2.0 ** (exponent - mantissa_bits)), "step"))
    y = r.emit("Mul", _round(r, r.emit("Div", x, step), _mode(r, "ROUND")), step)
    limit = min((2.0 - 2.0**-mantissa_bits) * 2.0**highest, largest)
    r.emit("Mul", r.clip(y, -limit, limit), scale, output=r.node.output[0])
    return True


def reads_inputs(r: Replacement, *counts: int) -> list[str]:
    """The names of the node's inputs, as many as one of these counts."""
    names = list(r.node.input)
    if len(names) not in counts or not all(names):
        raise refused(r, f"it has {len([*filter(None, names)])} inputs; allowed: {' or '.join(map(str, counts))}")
    return names


def as_float(r: Replacement, name: str) -> str:
    """A constant, or a graph input, as float32: zero points and scales may be of any type."""
    if is_constant(r.graph, name):
        tensor = r.graph.constants[name]
        is_float = tensor.data_type == TensorProto.FLOAT
        return name if is_float else r.constant(to_array(tensor).astype(np.float32), "float")
    given = {value.name: value.type.tensor_type.elem_type for value in r.graph.inputs}.get(name, TensorProto.FLOAT)
    return name if given == TensorProto.FLOAT else r.emit("Cast", name, to=TensorProto.FLOAT)


def _limits(bits: float, signed: bool, narrow: bool) -> tuple[float, float]:
    """Smallest and largest integer of so many bits (min_int and max_int in intquant.py)."""
    if signed:
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow


def _rounded_between(r: Replacement, x: str, low: float, high: float, mode: str) -> str:
    if low.is_integer() and high.is_integer() and r.opset >= 11:
        return r.clip(_round(r, x, mode), low, high)
    return _round(r, r.clip(x, low, high), mode)


def _round(r: Replacement, x: str, mode: str) -> str:
    """x rounded by one of QONNX's modes (resolve_rounding_mode in intquant.py)."""
    if mode in ("ROUND", "HALF_EVEN"):
        return r.round(x)
    if mode in ("CEIL", "FLOOR"):
        return r.emit(mode.title(), x)
    size = r.emit("Abs", x)
    if mode in ("HALF_UP", "HALF_DOWN"):
        size = r.emit("Add" if mode == "HALF_UP" else "Sub", size, r.constant(np.float32(0.5), "half"))
    size = r.emit("Ceil" if mode in ("UP", "HALF_DOWN") else "Floor", size)
    return r.emit("Mul", r.emit("Sign", x), size)


def _mode(r: Replacement, default: str) -> str:
    mode: str = attribute(r.node, "rounding_mode", default.encode()).decode().upper()
    modes = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
    if mode == "ROUND_TO_ZERO":
        return "DOWN"
    if mode not in modes:
        raise refused(r, f'rounding_mode "{mode}" is unknown; allowed: {", ".join(modes)}, ROUND_TO_ZERO')
    return mode


def _sign(r: Replacement, x: str) -> str:
    """1 where x is 0 or above, -1 below."""
    below = r.emit("Less", x, r.constant(np.float32(0), "zero"))
    return r.emit("Where", below, r.constant(np.float32(-1), "minus"), r.constant(np.float32(1), "plus"))


def _plus(r: Replacement, x: str, operator: str, zero_point: str) -> str:
    return x if _is_zero(r, zero_point) else r.emit(operator, x, zero_point)


def _is_zero(r: Replacement, name: str) -> bool:
    """Whether a constant is 0 and so small that leaving it out changes no shape."""
    tensor = r.constants.get(name, r.graph.constants.get(name))
    return tensor is not None and len(tensor.dims) == 0 and not to_array(tensor).any()


def _scalar(r: Replacement, name: str, what: str) -> float:
    if not is_constant(r.graph, name):
        raise refused(r, f'its {what} "{name}" must be constant')
    value = to_array(r.graph.constants[name])
    if value.size != 1:
        raise refused(r, f'its {what} "{name}" must be one number; its shape is {list(value.shape)}')
    number = float(value.reshape(()))
    if what != LIMIT and not abs(number) <= MOST_BITS:
        raise refused(r, f'its {what} "{name}" is {number:g}; allowed: up to {MOST_BITS}')
    return number


def whole_between(r: Replacement, name: str, low: int, high: int) -> int:
    """An attribute, 1 where it is missing.

    Raises:
        ModelError: it is no whole number from `low` to `high`.
    """
    value: int = attribute(r.node, name, 1)
    if not low <= value <= high:
        raise refused(r, f"{name} is {value}; allowed: {low} to {high}")
    return value


def refused(r: Replacement, text: str) -> ModelError:
    """The error that a node cannot be written in standard operators."""
    return ModelError(f'node "{r.node.name}" ({r.node.op_type}, domain {r.node.domain}): {text}')

"""What values a network's first output takes, as far as its last operators tell: a class, a probability, a raw logit.

Intervals are followed from operators whose values are bounded (Sigmoid, Clip, comparisons) through what moves values and
through arithmetic with constants, so that a sigmoid written as 1 / (1 + exp(-x)) is one. Anything else, matrices above all,
has no bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, isnan

import numpy as np
import onnx

from xbcompile.ir.network import Network
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.split_model import is_apart
from xbcompile.onnx_graph.tensors import to_array


@dataclass(frozen=True)
class OutputValues:
    """Where the values of an output lie.

    Args:
        low: no value is smaller.
        high: no value is larger.
        is_class: they are numbers of classes.
    """

    low: float = -inf
    high: float = inf
    is_class: bool = False


_UNKNOWN = OutputValues()
_UNIT, _BOTH_SIGNS, _POSITIVE = OutputValues(0.0, 1.0), OutputValues(-1.0, 1.0), OutputValues(0.0)
_BOUNDED = {
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax", "Hardmax", "And", "Or", "Xor", "Not", "Equal"), _UNIT),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"), _UNIT),
    **dict.fromkeys(("Tanh", "Softsign", "Sign", "Erf", "Sin", "Cos"), _BOTH_SIGNS),
    **dict.fromkeys(("Exp", "Relu", "Abs", "Sqrt", "Softplus"), _POSITIVE),
    **dict.fromkeys(("ArgMax", "ArgMin"), OutputValues(0.0, inf, is_class=True)),
}
_KEEPS = frozenset(
    (
        "AveragePool", "Cast", "CastLike", "DequantizeLinear", "Dropout", "Expand", "Flatten", "Gather",
        "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "QuantizeLinear", "ReduceMax", "ReduceMean",
        "ReduceMin", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    )
)  # fmt: skip


def _negative(x: OutputValues) -> OutputValues:
    return OutputValues(-x.high, -x.low)


def _inverse(x: OutputValues) -> OutputValues:
    if x.low < 0:
        return _UNKNOWN
    return OutputValues(1 / x.high if x.high else inf, 1 / x.low if x.low else inf)


def _sum(x: OutputValues, y: OutputValues) -> OutputValues:
    return OutputValues(x.low + y.low, x.high + y.high)


def _product(x: OutputValues, y: OutputValues) -> OutputValues:
    ends = [0.0 if isnan(end) else end for end in (a * b for a, b in product((x.low, x.high), (y.low, y.high)))]
    return OutputValues(min(ends), max(ends))


def _union(*values: OutputValues) -> OutputValues:
    return OutputValues(min(each.low for each in values), max(each.high for each in values))


def _largest(*values: OutputValues) -> OutputValues:
    return OutputValues(max(each.low for each in values), max(each.high for each in values))


def _smallest(*values: OutputValues) -> OutputValues:
    return OutputValues(min(each.low for each in values), min(each.high for each in values))


def _clipped(
    x: OutputValues, low: OutputValues = OutputValues(-inf, -inf), high: OutputValues = OutputValues(inf, inf)
) -> OutputValues:
    return _smallest(_largest(x, low), high)


_ARITHMETIC: dict[str, Callable[..., OutputValues]] = {
    "Neg": _negative,
    "Reciprocal": _inverse,
    "Add": _sum,
    "Sub": lambda x, y: _sum(x, _negative(y)),
    "Mul": _product,
    "Div": lambda x, y: _product(x, _inverse(y)),
    "Max": _largest,
    "Min": _smallest,
    "Clip": _clipped,
    "Where": lambda _, x, y: _union(x, y),
    "Concat": _union,
}


def output_values(network: Network) -> OutputValues:
    """What the values of a network's first output are known to be."""
    known: dict[str, OutputValues] = {}
    for segment in network.segments:
        constants = {each.name: each for each in segment.model.graph.initializer if not is_apart(each)}
        for node in segment.model.graph.node:
            given = [known.get(name, _UNKNOWN) for name in node.input]
            if node.op_type in _ARITHMETIC:  # the others have no use for constants, which may be large
                given = [
                    _span(to_array(constants[name])) if name in constants else value
                    for name, value in zip(node.input, given, strict=True)
                ]
            known.update((name, _values(node, given)) for name in node.output)
    return known.get(network.outputs[0].name, _UNKNOWN)


def _values(node: onnx.NodeProto, given: Sequence[OutputValues]) -> OutputValues:
    if node.domain not in ONNX_DOMAINS:
        return _UNKNOWN
    if node.op_type in _BOUNDED:
        return _BOUNDED[node.op_type]
    if node.op_type in _KEEPS:
        return given[0]
    if node.op_type in _ARITHMETIC:
        return _ARITHMETIC[node.op_type](*given, **_limits(node))
    return _UNKNOWN


def _limits(node: onnx.NodeProto) -> dict[str, OutputValues]:
    """The attributes of a Clip of an old opset."""
    names = {"min": "low", "max": "high"}
    return {names[each.name]: OutputValues(each.f, each.f) for each in node.attribute if each.name in names}


def _span(values: np.ndarray) -> OutputValues:
    if not values.size or values.dtype.kind not in "fiub" or np.isnan(values).any():
        return _UNKNOWN
    return OutputValues(float(values.min()), float(values.max()))

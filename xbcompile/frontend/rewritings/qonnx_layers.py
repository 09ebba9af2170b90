"""QONNX's layers in standard operators: channels last, thresholds, binary products, pooling of integers.

Arithmetic as in the executors of PyPI `qonnx` 1.0 (qonnx/custom_op/channels_last, qonnx/custom_op/general).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from xbcompile.frontend.operands import attribute, is_constant
from xbcompile.frontend.rewriter import Replacement
from xbcompile.frontend.rewritings.qonnx import MOST_BITS, as_float, reads_inputs, refused, whole_between
from xbcompile.onnx_graph.tensors import to_array

_LARGEST_WINDOW = 2**16  # assumed: of a window's sizes, steps and padding
_PLACES = 2**12  # assumed: in a window that is taken apart

_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}  # what multithreshold.py takes a rank for


def rewrite_channels_last(r: Replacement) -> bool:
    """Conv, MaxPool: the operator of ONNX between transpositions; a kernel has its channels last too."""
    spatial = len(attribute(r.node, "kernel_shape", ()))
    if not spatial:
        raise refused(r, "it has no kernel_shape; allowed: one size per spatial axis")
    first, last = _permutations(spatial + 2)
    inputs = [r.emit("Transpose", r.node.input[0], perm=first), *r.node.input[1:]]
    if r.node.op_type == "Conv":
        reads_inputs(r, 2, 3)
        inputs[1] = r.emit("Transpose", inputs[1], perm=first)
    y = r.emit(r.node.op_type, *inputs, name=r.matrix_name(), **_attributes(r))
    r.emit("Transpose", y, perm=last, output=r.node.output[0])
    return True


def rewrite_batch_normalization(r: Replacement) -> bool:
    """BatchNormalization over the last axis, along which its parameters broadcast."""
    x, scale, shift, mean, variance = reads_inputs(r, 5)
    epsilon = r.constant(np.float32(attribute(r.node, "epsilon", 1e-5)), "epsilon")
    gain = r.emit("Div", scale, r.emit("Sqrt", r.emit("Add", variance, epsilon)))
    y = r.emit("Mul", r.emit("Sub", x, mean), gain)
    r.emit("Add", y, shift, output=r.node.output[0])
    return True


def rewrite_max_pool_nhwc(r: Replacement) -> bool:
    """MaxPoolNHWC: MaxPool between transpositions."""
    first, last = _permutations(4)
    y = r.emit("MaxPool", r.emit("Transpose", r.node.input[0], perm=first), **_attributes(r))
    r.emit("Transpose", y, perm=last, output=r.node.output[0])
    return True


def rewrite_multi_threshold(r: Replacement) -> bool:
    """MultiThreshold: how many thresholds of its channel a value reaches, times a scale, plus a bias."""
    x, name = reads_inputs(r, 2)
    if not is_constant(r.graph, name):
        raise refused(r, f'its thresholds "{name}" must be constant')
    thresholds = to_array(r.graph.constants[name]).astype(np.float32)
    if thresholds.ndim != 2:
        raise refused(r, f'its thresholds "{name}" must be [channels, steps]; their shape is {list(thresholds.shape)}')
    if len(thresholds) > 1:
        layout = _layout(r, x)
        if layout is None:
            return False
        axis = layout.index("C") if "C" in layout else 1
        thresholds = thresholds.reshape(-1, *(1,) * (len(layout) - axis - 1), thresholds.shape[1])
    below = r.emit("Less", r.unsqueeze(x, [-1]), r.constant(thresholds, "thresholds"))
    reached = r.emit("Cast", r.emit("Not", below), to=TensorProto.FLOAT)
    count = r.reduce("ReduceSum", reached, [-1], keepdims=False)
    count = r.clip(r.round(count), 0.0, float(thresholds.shape[-1]))  # says that it is whole, and how large
    scale, bias = (
        np.float32(attribute(r.node, key, default)) for key, default in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    y = r.emit("Mul", count, r.constant(scale, "scale"))
    r.emit("Add", y, r.constant(bias, "bias"), output=r.node.output[0])
    return True


def _layout(r: Replacement, x: str) -> str | None:
    """One letter per axis; None where neither the node nor the types say it yet."""
    layout: str = attribute(r.node, "data_layout", b"").decode()
    shape = r.graph.shape(x)
    if layout or shape is None:
        return layout or None
    return _LAYOUTS.get(len(shape), "NC" + "?" * (len(shape) - 2))


def rewrite_xnor_popcount(r: Replacement) -> bool:
    """XnorPopcountMatMul of zeros and ones: `((2 a - 1) (2 b - 1) + K) / 2`, that is, how often a and b agree."""
    a, b = reads_inputs(r, 2)
    shape = r.graph.shape(b)
    if shape is None:
        return False
    if len(shape) != 2 or shape[0] is None:
        raise refused(r, f'its second operand "{b}" must be a matrix of known size; its shape is {list(shape)}')
    two, one = r.constant(np.float32(2), "two"), r.constant(np.float32(1), "one")
    a, b = (r.emit("Sub", r.emit("Mul", as_float(r, x), two), one) for x in (a, b))
    y = r.emit("MatMul", a, b, name=r.matrix_name())
    y = r.emit("Add", y, r.constant(np.float32(shape[0]), "inputs"))
    r.emit("Mul", y, r.constant(np.float32(0.5), "half"), output=r.node.output[0])
    return True


def rewrite_quant_average_pool(r: Replacement) -> bool:
    """QuantAvgPool2d: sums of integers over windows, shifted right to as many bits as the output has."""
    kernel, stride = whole_between(r, "kernel", 1, _LARGEST_WINDOW), whole_between(r, "stride", 1, _LARGEST_WINDOW)
    largest = (2 ** whole_between(r, "ibits", 0, MOST_BITS) - 1) * kernel * kernel
    shift = max(int(largest).bit_length() - whole_between(r, "obits", 0, MOST_BITS), 0)
    x, output = r.node.input[0], r.node.output[0]
    first, last = _permutations(4)
    is_last = attribute(r.node, "data_layout", b"NCHW") == b"NHWC"
    x = r.emit("Transpose", x, perm=first) if is_last else x
    mean = r.emit("AveragePool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2)
    total = r.round(r.emit("Mul", mean, r.constant(np.float32(kernel * kernel), "window")))
    shifted = r.emit("Mul", total, r.constant(np.float32(2.0**-shift), "shift"))
    y = r.emit("Floor", shifted, output="" if is_last else output)
    if is_last:
        r.emit("Transpose", y, perm=last, output=output)
    return True


def rewrite_im2col(r: Replacement) -> bool:
    """Im2Col of [N, H, W, C]: the windows of each place side by side, [N, H', W', kernel * C]."""
    if r.opset < 11:
        raise refused(r, f"it needs opset 11 or newer, the model has {r.opset}")
    kernel, strides = attribute(r.node, "kernel_size", ()), attribute(r.node, "stride", ())
    dilations, pads = attribute(r.node, "dilations", (1, 1)), attribute(r.node, "pad_amount", (0,) * 4)
    if [len(each) for each in (kernel, strides, dilations, pads)] != [2, 2, 2, 4]:
        raise refused(r, "it has kernel_size, stride, dilations or pad_amount of other than two axes")
    numbers = [*kernel, *strides, *dilations, *pads]
    if not all(isinstance(each, int) and 0 <= each <= _LARGEST_WINDOW for each in numbers) or np.prod(kernel) > _PLACES:
        raise refused(r, f"its windows, of {list(kernel)}, are none, or have more than {_PLACES:,} places")
    x = r.node.input[0]
    if any(pads):
        amounts = [0, pads[0], pads[1], 0, 0, pads[2], pads[3], 0]
        value = r.constant(np.float32(attribute(r.node, "pad_value", 0.0)), "padding")
        x = r.emit("Pad", x, r.constant(amounts, "pads"), value)
    last = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    windows = []
    for place in np.ndindex(*kernel):  # what one place of the kernel sees
        starts = [i * dilation for i, dilation in zip(place, dilations, strict=True)]
        ends = [start - end or np.iinfo(np.int64).max for start, end in zip(starts, last, strict=True)]
        bounds = [r.constant(list(values), "bounds") for values in (starts, ends, [1, 2], strides)]
        windows.append(r.emit("Slice", x, *bounds))
    r.emit("Concat", *windows, axis=-1, output=r.node.output[0])
    return True


def rewrite_debug_marker(r: Replacement) -> bool:
    """DebugMarker: the value itself."""
    r.emit("Identity", r.node.input[0], output=r.node.output[0])
    return True


def _permutations(rank: int) -> tuple[list[int], list[int]]:
    """From channels last to channels first, and back."""
    return [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]


def _attributes(r: Replacement) -> dict[str, Any]:
    """The node's own attributes."""
    return {each.name: helper.get_attribute_value(each) for each in r.node.attribute}

"""Integer products as matrices of whole numbers.

Each becomes `(x - x_zero_point) @ (w - w_zero_point)`, a MatMul or Conv between two Casts that the lowering joins to one
layer of int32 sums; then the int32 bias, and the requantization or scale digitally, in the order and precision of
onnxruntime's kernels: float32(sum) * float32(x_scale * w_scale / y_scale), rounded half to even, plus the zero point,
saturated (ONNX operators QLinearConv and QLinearMatMul; MlasRequantizeOutput of onnxruntime). Sums that leave int32 wrap
around, as in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from xbcompile.frontend.operands import (
    StaysDigital,
    addend_fits,
    attribute,
    is_constant,
    no_constant_operand,
    why_not_constant,
)
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.tensors import to_array

EIGHT_BITS = {TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}
EXACT_FLOAT = 1 << 24  # whole numbers below this are exact in float32


def rewrite_matmul_integer(r: Replacement) -> bool:
    """MatMulInteger: int32 products of 8-bit integers less their zero points."""
    a, b, a_zero_point, b_zero_point = _inputs(r, 4)
    _matmul(r, (a, a_zero_point), (b, b_zero_point), output=r.node.output[0])
    return True


def rewrite_conv_integer(r: Replacement) -> bool:
    """ConvInteger: int32 convolution of 8-bit integers less their zero points, which padding stands for."""
    x, w, x_zero_point, w_zero_point = _inputs(r, 4)
    _conv(r, (x, x_zero_point), (w, w_zero_point), output=r.node.output[0])
    return True


def rewrite_qlinear_matmul(r: Replacement) -> bool:
    """QLinearMatMul: the integer product, requantized."""
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point = _inputs(r, 8)
    left, right, out = _scale(r, a_scale), _scale(r, b_scale), _scale(r, y_scale)
    if left.size != 1 or right.ndim > 1 or out.size != 1:
        raise StaysDigital(
            f"scales of shapes {list(left.shape)}, {list(right.shape)} and {list(out.shape)}: one per tensor, or one per "
            "column of the right operand, is lowered"
        )
    scale = left.reshape(()) * right.reshape(() if right.size == 1 else -1) / out.reshape(())
    product = _matmul(r, (a, a_zero_point), (b, b_zero_point))
    _requantize(r, product, scale, y_zero_point, r.node.output[0])
    return True


def rewrite_qlinear_conv(r: Replacement) -> bool:
    """QLinearConv of either domain: the integer convolution plus its int32 bias, requantized."""
    x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias = _inputs(r, 9)
    left, per_output, out = _scale(r, x_scale), _scale(r, w_scale), _scale(r, y_scale)
    if left.size != 1 or out.size != 1 or per_output.ndim > 1:
        raise StaysDigital("scales other than one per tensor, or one per output of the kernel, are not lowered")
    spatial = len(_constant(r, w, "the kernel").shape) - 2
    last = bool(attribute(r.node, "channels_last", 0))
    element_type = None
    if last:
        _element_type(r, x, tuple(EIGHT_BITS))
        _check_one_zero_point(r, x_zero_point, None)
        element_type = r.graph.types[x].tensor_type.elem_type
        x = r.emit("Transpose", x, perm=[0, spatial + 1, *range(1, spatial + 1)])
    sums = _conv(r, (x, x_zero_point), (w, w_zero_point), known=element_type)
    column = (-1, *(1,) * spatial)
    if bias:
        values = _constant(r, bias, "the bias")
        if values.shape != r.graph.shape(w)[:1]:  # type: ignore[index]  # the shape of a constant is known
            raise StaysDigital(f"the bias has shape {list(values.shape)}; it must be one value per output")
        sums = r.emit("Add", sums, r.constant(values.reshape(column), "bias"))
    scale = left.reshape(()) * per_output.reshape(() if per_output.size == 1 else column) / out.reshape(())
    output = r.node.output[0]
    y = _requantize(r, sums, scale, y_zero_point, "" if last else output)
    if last:
        r.emit("Transpose", y, output=output, perm=[0, *range(2, spatial + 2), 1])
    return True


def rewrite_qgemm(r: Replacement) -> bool:
    """com.microsoft QGemm: the integer product plus its int32 bias, requantized, or scaled where it has no y_scale."""
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, bias, y_scale, y_zero_point = _inputs(r, 9)
    left, right = _scale(r, a_scale), _scale(r, b_scale)
    if left.size != 1 or right.ndim > 1:
        raise StaysDigital("scales other than one per tensor, or one per output, are not lowered")
    transposed = (bool(attribute(r.node, "transA", 0)), bool(attribute(r.node, "transB", 0)))
    sums = _matmul(r, (a, a_zero_point), (b, b_zero_point), transposed=transposed)
    if bias:
        addend_fits(r.node, r.graph, bias, r.graph.shape(r.node.output[0]) or (None, None))
        sums = r.emit("Add", sums, bias)
    alpha = np.float32(attribute(r.node, "alpha", 1.0))
    scale = alpha * left.reshape(()) * right.reshape(() if right.size == 1 else -1)
    if not y_scale:
        r.emit("Mul", r.emit("Cast", sums, to=TensorProto.FLOAT), r.constant(scale, "scale"), output=r.node.output[0])
        return True
    out = _scale(r, y_scale)
    if out.size != 1:
        raise StaysDigital("an output scale per column is not lowered")
    _requantize(r, sums, scale / out.reshape(()), y_zero_point, r.node.output[0])
    return True


def rewrite_matmul_integer_to_float(r: Replacement) -> bool:
    """com.microsoft MatMulIntegerToFloat: the integer product times both scales, plus a float bias."""
    a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias = _inputs(r, 7)
    _to_float(r, (a, a_scale, a_zero_point), (b, b_scale, b_zero_point), bias)
    return True


def rewrite_dynamic_quantize_matmul(r: Replacement) -> bool:
    """com.microsoft DynamicQuantizeMatMul: MatMulIntegerToFloat behind a DynamicQuantizeLinear."""
    if r.opset < 11:
        raise StaysDigital(f"opset {r.opset} has no DynamicQuantizeLinear, which came with 11")
    a, b, b_scale, b_zero_point, bias = _inputs(r, 5)
    _element_type(r, a, (TensorProto.FLOAT,))
    quantized = r.emit_many("DynamicQuantizeLinear", a, outputs=["", "", ""])
    _to_float(r, (quantized[0], quantized[1], quantized[2]), (b, b_scale, b_zero_point), bias, TensorProto.UINT8)
    return True


def _to_float(
    r: Replacement, left: tuple[str, str, str], right: tuple[str, str, str], bias: str, left_type: int | None = None
) -> None:
    for scale in (left[1], right[1]):
        if scale in r.graph.types:
            _element_type(r, scale, (TensorProto.FLOAT,))
    if left[1] in r.graph.types and r.graph.shape(left[1]) not in ((), (1,)):
        raise StaysDigital("a scale per row of the left operand is not lowered")
    shape = r.graph.shape(right[1])
    if shape is None or len(shape) > 1:
        raise StaysDigital("scales other than one per tensor or column are not lowered")
    product = _matmul(r, (left[0], left[2]), (right[0], right[2]), left_type=left_type)
    scale = r.emit("Mul", left[1], right[1])
    output = r.node.output[0]
    y = r.emit("Mul", r.emit("Cast", product, to=TensorProto.FLOAT), scale, output="" if bias else output)
    if bias:  # of any shape, with a value per column
        columns = r.graph.shape(right[0])
        per_column = r.emit("Reshape", bias, r.constant([-1 if columns is None else columns[-1] or -1], "columns"))
        r.emit("Add", y, per_column, output=output)


def _matmul(
    r: Replacement,
    left: tuple[str, str],
    right: tuple[str, str],
    transposed: tuple[bool, bool] = (False, False),
    left_type: int | None = None,
    output: str = "",
) -> str:
    """int32 product of two (integers, zero point), one of them constant; the last two axes transposed first."""
    constant = [is_constant(r.graph, name) for name, _ in (left, right)]
    if all(constant):
        raise StaysDigital("both operands are constant")
    if not any(constant):
        raise StaysDigital(no_constant_operand(r.graph, (left[0], right[0])))
    side = constant.index(True)
    weights = _centred_constant(r, *(left, right)[side], axis=-2 if transposed[side] else -1)
    x, x_zero_point = (left, right)[1 - side]
    if side == 0 and (left[1] and _constant(r, left[1], "the zero point").size != 1):
        raise StaysDigital("a zero point per row of the left operand is not lowered")
    # Taken from the inputs, a zero point that is found when it runs meets the weights that the array holds; taken from the
    # sums, as z times the column sums, it would meet the model's.
    x = _centred(r, x, x_zero_point, left_type if side == 1 else None, per_column=side == 0)
    if transposed[1 - side]:
        x = r.emit("Transpose", x, perm=[1, 0])
    if transposed[side]:
        weights = weights.T
    largest = max(255, int(np.abs(weights).max()))
    if weights.ndim > 2 and any(n != 1 for n in weights.shape[:-2]):
        size = 255 * largest * weights.shape[-1 if side == 0 else -2]
        if size >= EXACT_FLOAT:
            raise StaysDigital(f"the constant is a batch of matrices whose sums may exceed {EXACT_FLOAT}")
    w = r.constant(weights.astype(np.float32), "weights")
    y = r.emit("MatMul", *((x, w) if side == 1 else (w, x)), name=r.matrix_name())
    return r.emit("Cast", y, output=output, to=TensorProto.INT32)


def _conv(r: Replacement, x: tuple[str, str], w: tuple[str, str], output: str = "", known: int | None = None) -> str:
    """int32 convolution of (integers, zero point) with a constant (kernel, zero point)."""
    weights = _centred_constant(r, *w, axis=0)
    if not 1 <= weights.ndim - 2 <= 3:
        raise StaysDigital(f"a convolution over {weights.ndim - 2} axes is not lowered")
    wanted = ("auto_pad", "dilations", "group", "pads", "strides")
    attributes = {a.name: helper.get_attribute_value(a) for a in r.node.attribute if a.name in wanted}
    kernel = r.constant(weights.astype(np.float32), "weights")
    y = r.emit("Conv", _centred(r, *x, known), kernel, name=r.matrix_name(), **attributes)
    return r.emit("Cast", y, output=output, to=TensorProto.INT32)


def _centred(r: Replacement, x: str, zero_point: str, known: int | None = None, per_column: bool = False) -> str:
    """float32 `x - zero_point` of 8-bit integers, through int32; the zero point need not be constant."""
    if known is None:
        _element_type(r, x, tuple(EIGHT_BITS))
    whole = r.emit("Cast", x, to=TensorProto.INT32)
    if zero_point and not per_column:
        _check_one_zero_point(r, zero_point, known)
    elif zero_point and (r.graph.shape(zero_point) is None or len(r.graph.shape(zero_point) or ()) > 1):
        raise StaysDigital("a zero point of the input other than one per tensor or column is not lowered")
    if zero_point and is_constant(r.graph, zero_point):
        offset = _constant(r, zero_point, "the zero point").astype(np.int32)
        if offset.any():
            whole = r.emit("Sub", whole, r.constant(offset, "zero_point"))
    elif zero_point:
        whole = r.emit("Sub", whole, r.emit("Cast", zero_point, to=TensorProto.INT32))
    return r.emit("Cast", whole, to=TensorProto.FLOAT)


def _check_one_zero_point(r: Replacement, name: str, known: int | None) -> None:
    """Raise StaysDigital unless the zero point is one for the whole tensor; one of our own making (`known`) is."""
    if name and known is None and r.graph.shape(name) not in ((), (1,)):
        raise StaysDigital("a zero point of the input other than one per tensor is not lowered")


def _centred_constant(r: Replacement, name: str, zero_point: str, axis: int) -> np.ndarray:
    """int32 integers less their zero point, which is one per tensor or one per index of `axis`."""
    weights = _constant(r, name, "the weights")
    if r.graph.constants[name].data_type not in EIGHT_BITS:
        raise StaysDigital(f"weights of element type {weights.dtype} are not lowered")
    if weights.size == 0:
        raise StaysDigital(f'"{name}" is empty, of shape {list(weights.shape)}')
    weights = weights.astype(np.int32)
    if not zero_point:
        return weights
    offset = _constant(r, zero_point, "the zero point").astype(np.int32)
    if r.graph.constants[zero_point].data_type != r.graph.constants[name].data_type:
        raise StaysDigital("the weights and their zero point are of two element types")
    if offset.size == 1:
        return weights - offset.reshape(())
    if offset.ndim != 1 or offset.size != weights.shape[axis]:
        raise StaysDigital(f"zero points of shape {list(offset.shape)} are not lowered")
    shape = [1] * weights.ndim
    shape[axis] = -1
    return weights - offset.reshape(shape)


def _requantize(r: Replacement, sums: str, scale: np.ndarray, zero_point: str, output: str) -> str:
    """The sums as float32 times `scale`, rounded half to even, plus the zero point, saturated."""
    if r.opset < 10:
        raise StaysDigital(f"opset {r.opset} has no QuantizeLinear, which came with 10")
    if not np.isfinite(scale).all():
        raise StaysDigital("scales that are 0 or not finite are not lowered")
    product = r.emit("Mul", r.emit("Cast", sums, to=TensorProto.FLOAT), r.constant(scale, "scale"))
    inputs = [product, r.constant(np.float32(1), "one")]
    if zero_point:
        inputs.append(r.constant(_one(r, zero_point, "the output's zero point"), "zero_point"))
    return r.emit("QuantizeLinear", *inputs, output=output)


def _one(r: Replacement, name: str, what: str) -> np.ndarray:
    value = _constant(r, name, what)
    if value.size != 1:
        raise StaysDigital(f"{what} is of shape {list(value.shape)}; one per tensor is lowered")
    return value.reshape(())


def _scale(r: Replacement, name: str) -> np.ndarray:
    scale = _constant(r, name, "the scale")
    if scale.dtype != np.float32:
        raise StaysDigital(f"scales of element type {scale.dtype} are not lowered")
    return scale


def _constant(r: Replacement, name: str, what: str) -> np.ndarray:
    if not is_constant(r.graph, name):
        raise StaysDigital(why_not_constant(r.graph, name, what))
    return to_array(r.graph.constants[name])


def _inputs(r: Replacement, count: int) -> list[str]:
    """The node's inputs, "" for those that are left out."""
    return [*r.node.input, *[""] * (count - len(r.node.input))]


def _element_type(r: Replacement, name: str, allowed: Sequence[int]) -> None:
    """Raise StaysDigital unless the tensor is of one of these element types."""
    found = r.graph.types[name].tensor_type.elem_type
    if found not in allowed:
        names = " or ".join(TensorProto.DataType.Name(t).lower() for t in allowed)
        raise StaysDigital(f"element type {TensorProto.DataType.Name(found).lower()} is not lowered, only {names}")

"""onnxruntime's fused products (domain com.microsoft): the product on arrays, what was fused with it digitally behind it.

Source: onnxruntime's contrib operators (docs/ContribOperators.md) and their CPU kernels, version 1.32.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np

from xbcompile.frontend.operands import (
    StaysDigital,
    attribute,
    constant_weights,
    is_constant,
    no_constant_operand,
    why_not_constant,
)
from xbcompile.frontend.rewriter import Replacement
from xbcompile.frontend.rewritings.contraction import contract_matmul, matmul_axes
from xbcompile.frontend.rewritings.conv_transpose import emit_conv_transpose
from xbcompile.onnx_graph.tensors import to_array

# Operators of ONNX that an activation's name stands for, and the attributes that its parameters give, in order.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}

# What a code of 4 bits stands for, by quant_type. FP4 (0): twelfths, as the library bitsandbytes has them; NF4 (1):
# Dettmers et al., QLoRA, NeurIPS 2023, arXiv:2305.14314, appendix E.
_TWELFTHS = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12
_CODEBOOKS = {
    0: np.concatenate([_TWELFTHS, -_TWELFTHS]).astype(np.float32),
    1: np.array(
        [
            -1.0,
            -0.6961928009986877,
            -0.5250730514526367,
            -0.39491748809814453,
            -0.28444138169288635,
            -0.18477343022823334,
            -0.09105003625154495,
            0.0,
            0.07958029955625534,
            0.16093020141124725,
            0.24611230194568634,
            0.33791524171829224,
            0.44070982933044434,
            0.5626170039176941,
            0.7229568362236023,
            1.0,
        ],
        np.float32,
    ),
}


def rewrite_fused_conv(r: Replacement) -> bool:
    """FusedConv: `activation(Conv(X, W, B) + Z)`."""
    node = r.node
    if not is_constant(r.graph, node.input[1]):
        raise StaysDigital(why_not_constant(r.graph, node.input[1], "the kernel"))
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    attributes = {name: attribute(node, name, None) for name in names}
    y = r.emit(
        "Conv",
        *(name for name in node.input[:3] if name),
        name=r.matrix_name(),
        **{name: value for name, value in attributes.items() if value is not None},
    )
    if r.input(3):
        y = r.emit("Add", y, r.input(3))
    _activated(r, y, list(attribute(node, "activation_params", ())))
    return True


def rewrite_fused_gemm(r: Replacement) -> bool:
    """FusedGemm: `activation(alpha A' B' + beta C)`."""
    node = r.node
    _operand(r)
    names = ("alpha", "beta", "transA", "transB")
    attributes = {name: attribute(node, name, None) for name in names}
    inputs = list(node.input)
    if not r.input(2) and r.opset < 11:  # Gemm must have all three there
        constant = next(name for name in inputs[:2] if is_constant(r.graph, name))
        zero = np.zeros(1, to_array(r.graph.constants[constant]).dtype)
        inputs = [*inputs[:2], r.constant(zero, "zero")]
    y = r.emit(
        "Gemm",
        *inputs,
        name=r.matrix_name(),
        **{name: value for name, value in attributes.items() if value is not None},
    )
    parameters = (attribute(node, f"activation_{name}", None) for name in ("alpha", "beta", "gamma"))
    _activated(r, y, list(takewhile(lambda value: value is not None, parameters)))
    return True


def rewrite_fused_matmul(r: Replacement) -> bool:
    """FusedMatMul and TransposeMatMul: `alpha A' B'`, where axes of A and B are in another order.

    A transposed operand has its last two axes exchanged; one that is transposed with its batch (`transBatchA`) has the
    first of its last two axes in front of all batch axes. Operands of one axis are never transposed.
    """
    node, graph = r.node, r.graph
    _operand(r)
    ranks = []
    for name in node.input[:2]:
        shape = graph.shape(name)
        if shape is None:
            raise StaysDigital(f'the rank of "{name}" is not known')
        ranks.append(len(shape))
    if ranks[1] == 1 and ranks[0] > 1 and attribute(node, "transA", 0):
        raise StaysDigital("transA with a vector on the right, for which onnxruntime's kernel does not transpose")
    stored = []
    for axes, rank, side in zip(matmul_axes(*ranks), ranks, "AB", strict=False):
        batch, matrix = axes[: max(rank - 2, 0)], axes[max(rank - 2, 0) :]
        if attribute(node, f"trans{side}", 0):
            matrix = matrix[::-1]
        if attribute(node, f"transBatch{side}", 0):
            if rank < 3:
                raise StaysDigital(f"transBatch{side} for an operand of {rank} axes")
            stored.append(matrix[0] + batch + matrix[1])
        else:
            stored.append(batch + matrix)
    contract_matmul(r, (stored[0], stored[1]), float(attribute(node, "alpha", 1.0)))
    return True


def rewrite_matmul_n_bits(r: Replacement) -> bool:
    """MatMulNBits: a product with a matrix of N columns whose K rows are coded in blocks of whole numbers.

    `B[n, k] = (code[n, k] - zero_point[n, block]) * scale[n, block]`, codes packed from the lowest bits of a byte on.
    """
    node, graph = r.node, r.graph
    for name in [name for name in node.input[1:5] if name]:
        if not is_constant(graph, name):
            raise StaysDigital(why_not_constant(graph, name, "the operand"))
    if attribute(node, "weight_prepacked", 0):
        raise StaysDigital("the weights are packed for one kind of machine")
    if r.input(4) and (r.input(3) or attribute(node, "bits", 4) != 4):
        raise StaysDigital("g_idx is lowered for weights of 4 bits without zero points only")
    constant_weights(node, graph, node.input[2])
    matrix = r.constant(_dequantized(r), "weights")
    y = r.emit("MatMul", node.input[0], matrix, name=r.matrix_name())
    if r.input(5):
        r.emit("Add", y, r.input(5))
    r.nodes[-1].output[0] = node.output[0]
    return True


def rewrite_matmul_bnb4(r: Replacement) -> bool:
    """MatMulBnb4: a product with a matrix [N, K] of 4-bit floating-point codes, scaled block by block of its elements.

    `B[i] = codebook[code[i]] * absmax[i / block_size]` for elements i in the order of rows; the first of two codes is in
    the higher bits of a byte.
    """
    node, graph = r.node, r.graph
    for name in node.input[1:3]:
        if not is_constant(graph, name):
            raise StaysDigital(why_not_constant(graph, name, "the operand"))
    constant_weights(node, graph, node.input[2])
    rows, columns = int(attribute(node, "N", 0)), int(attribute(node, "K", 0))
    block, kind = int(attribute(node, "block_size", 0)), attribute(node, "quant_type", 1)
    packed, scales = to_array(graph.constants[node.input[1]]), to_array(graph.constants[node.input[2]])
    size = rows * columns
    if not attribute(node, "transB", 1):
        raise StaysDigital("transB = 0, for which onnxruntime's kernel reads the matrix otherwise than its shape says")
    if kind not in _CODEBOOKS or min(block, rows, columns) < 1:
        raise StaysDigital(f"weights of type {kind} in blocks of {block} are not lowered")
    if packed.dtype != np.uint8 or packed.size != -(-size // 2) or scales.size != -(-size // block):
        raise StaysDigital("the sizes of weights and scales do not fit")
    codes = _unpacked(packed.reshape(-1, 1), 4)[:, ::-1].reshape(-1)[:size]
    values = _CODEBOOKS[kind][codes] * np.repeat(scales.astype(np.float32).reshape(-1), block)[:size]
    matrix = values.reshape(rows, columns).astype(scales.dtype)
    weights = r.constant(np.ascontiguousarray(matrix.T), "weights")
    r.emit("MatMul", node.input[0], weights, name=r.matrix_name(), output=node.output[0])
    return True


def rewrite_conv_transpose_with_dynamic_pads(r: Replacement) -> bool:
    """ConvTransposeWithDynamicPads whose pads are constant."""
    node, graph = r.node, r.graph
    pads, bias = r.input(2), r.input(3)
    for name, what in ((node.input[1], "the kernel"), (pads, "the input of pads")):
        if name and not is_constant(graph, name):
            raise StaysDigital(why_not_constant(graph, name, what))
    constant_weights(node, graph, node.input[1])
    emit_conv_transpose(r, to_array(graph.constants[pads]).tolist() if pads else [], bias)
    return True


def _dequantized(r: Replacement) -> np.ndarray:
    """The matrix [K, N] of a MatMulNBits, in the element type of its scales."""
    node, constants = r.node, r.graph.constants
    rows, columns = int(attribute(node, "K", 0)), int(attribute(node, "N", 0))
    block, bits = int(attribute(node, "block_size", 0)), int(attribute(node, "bits", 4))
    if bits not in (2, 4, 8) or min(block, rows, columns) < 1:
        raise StaysDigital(f"weights of {bits} bits in blocks of {block} are not lowered")
    blocks = -(-rows // block)
    packed, scales = to_array(constants[node.input[1]]), to_array(constants[node.input[2]])
    if (
        packed.dtype != np.uint8
        or packed.size * 8 != columns * blocks * block * bits
        or scales.size != columns * blocks
    ):
        raise StaysDigital("the sizes of weights and scales do not fit")
    codes = _unpacked(packed.reshape(columns, -1), bits)[:, :rows].astype(np.float32)
    zero, where = np.full((columns, blocks), 2 ** (bits - 1), np.float32), np.arange(rows) // block
    if r.input(3):
        given = to_array(constants[node.input[3]])
        per_column = -(-blocks * bits // 8) if given.dtype == np.uint8 else blocks
        if given.size != columns * per_column:
            raise StaysDigital("the size of the zero points does not fit")
        given = given.reshape(columns, per_column)
        zero = (_unpacked(given, bits) if given.dtype == np.uint8 else given)[:, :blocks].astype(np.float32)
    if r.input(4):
        where = to_array(constants[node.input[4]]).reshape(-1)[:rows]
        if where.size < rows or where.min() < 0 or where.max() >= blocks:
            raise StaysDigital("g_idx names groups that do not exist, or not one for each row")
    weights = (codes - zero[:, where]) * scales.reshape(columns, blocks).astype(np.float32)[:, where]
    return np.ascontiguousarray(weights.T).astype(scales.dtype)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Whole numbers of `bits` bits from uint8 [columns, bytes]."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((packed[..., None] >> shifts) & np.uint8(2**bits - 1)).reshape(len(packed), -1)


def _activated(r: Replacement, y: str, parameters: list[float]) -> None:
    """The node's activation, if it has one, behind a tensor; the result is the node's."""
    name = attribute(r.node, "activation", b"").decode(errors="replace")
    if name == "Clip":
        if len(parameters) != 2:
            raise StaysDigital(f"{name} with {len(parameters)} parameters")
        r.clip(y, parameters[0], parameters[1])
    elif name in _ACTIVATIONS:
        names = _ACTIVATIONS[name]
        if len(parameters) < len(names) or (name == "ThresholdedRelu" and r.opset < 10):
            raise StaysDigital(f"{name} with {len(parameters)} parameters in opset {r.opset}")
        attributes: dict[str, Any] = dict(zip(names, parameters, strict=False))
        r.emit(name, y, **attributes)
    elif name:
        raise StaysDigital(f'the activation "{name}" is not known')
    r.nodes[-1].output[0] = r.node.output[0]


def _operand(r: Replacement) -> None:
    """Raise StaysDigital unless just one of the two operands is a constant of a type that is lowered."""
    node, graph = r.node, r.graph
    constants = [name for name in node.input[:2] if is_constant(graph, name)]
    if len(constants) == 2:
        raise StaysDigital("both operands are constant")
    if not constants:
        raise StaysDigital(no_constant_operand(graph, node.input[:2]))
    constant_weights(node, graph, constants[0])

"""Attention: the projections of onnxruntime's Attention on arrays; products of activations with each other stay digital.

com.microsoft's Attention multiplies its input with the weights of queries, keys and values, side by side in one matrix,
and does what MultiHeadAttention of the same domain does with the three results. Source: onnxruntime's contrib operators
(docs/ContribOperators.md).
"""

from __future__ import annotations

from xbcompile.frontend.operands import StaysDigital, attribute, constant_weights, is_constant, why_not_constant
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.domains import MICROSOFT
from xbcompile.onnx_graph.graph import Graph


def rewrite_attention(r: Replacement) -> bool:
    """com.microsoft's Attention: MatMul, and MultiHeadAttention behind it."""
    node, graph = r.node, r.graph
    weights, bias, mask, past, attention_bias, past_length = (r.input(i) for i in range(1, 7))
    if not is_constant(graph, weights):
        raise StaysDigital(why_not_constant(graph, weights, "the matrix of the projections"))
    if constant_weights(node, graph, weights).ndim != 2:
        raise StaysDigital(f"weights of {len(graph.constants[weights].dims)} axes")
    for name in ("past_present_share_buffer", "do_rotary"):
        if attribute(node, name, 0):
            raise StaysDigital(f"{name} is not lowered")
    if past_length:
        raise StaysDigital("past_sequence_length is not lowered")
    if mask:
        _check_mask(graph, mask, node.input[0])
    product = r.emit("MatMul", node.input[0], weights, name=r.matrix_name())
    if bias:
        product = r.emit("Add", product, bias)
    query, key, value = r.split(product, _sizes(r, graph.constants[weights].dims[1]), axis=-1)
    inputs = [query, key, value, "", mask, attention_bias]
    if past:
        inputs += [r.squeeze(part, [0]) for part in r.split(past, [1, 1], axis=0)]
    while not inputs[-1]:
        inputs.pop()
    names = ("num_heads", "unidirectional", "scale", "mask_filter_value")
    attributes = {name: attribute(node, name, None) for name in names}
    has_present = len(node.output) > 1 and node.output[1] != ""
    outputs = r.emit_many(
        "MultiHeadAttention",
        *inputs,
        outputs=[node.output[0], "", ""] if has_present else [node.output[0]],
        domain=MICROSOFT,
        **{name: given for name, given in attributes.items() if given is not None},
    )
    if has_present:
        present = [r.unsqueeze(name, [0]) for name in outputs[1:]]
        r.emit("Concat", *present, axis=0, output=node.output[1])
    return True


def _check_mask(graph: Graph, mask: str, source: str) -> None:
    """Raise StaysDigital for masks whose meaning for MultiHeadAttention may be another one.

    Of one axis it may hold the ends, or the ends and then the starts, of each item of the batch: only its length tells.
    """
    shape = graph.shape(mask)
    if shape is None or len(shape) not in (1, 2, 3):
        raise StaysDigital("a mask of four axes or of unknown rank is not lowered")
    if len(shape) == 1 and not _same_size(graph, mask, source):
        raise StaysDigital("a mask of positions whose length is not known to be the batch's is not lowered")


def _same_size(graph: Graph, one: str, other: str) -> bool:
    """Whether the first axes of two tensors are known to be of one size, by their sizes or by a name of both."""
    shapes = [graph.shape(name) for name in (one, other)]
    if not all(shapes):
        return False
    sizes = {shape[0] for shape in shapes if shape}
    if sizes != {None}:
        return len(sizes) == 1
    names = {graph.types[name].tensor_type.shape.dim[0].dim_param for name in (one, other)}
    return len(names) == 1 and "" not in names


def _sizes(r: Replacement, columns: int) -> list[int]:
    """Columns of queries, keys and values."""
    sizes = [int(size) for size in attribute(r.node, "qkv_hidden_sizes", ())]
    sizes = sizes or [columns // 3] * 3
    if len(sizes) != 3 or sum(sizes) != columns or sizes[0] != sizes[1]:
        raise StaysDigital(f"{columns} columns do not fit queries, keys and values of sizes {sizes}")
    return sizes

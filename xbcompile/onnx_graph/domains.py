"""Names of the domains of operators, and of operators in them."""

from __future__ import annotations

from onnx import NodeProto

ONNX_DOMAINS = ("", "ai.onnx")  # two names of one domain
ONNX_ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"  # what onnxruntime adds
XBCOMPILE = "xbcompile"  # one function for each matrix layer of a host graph

OperatorName = tuple[str, str]  # domain ("" for ONNX's own) and operator


def operator_name(node: NodeProto) -> OperatorName:
    """Domain and operator of a node, ONNX's own domain under its one name."""
    return "" if node.domain in ONNX_DOMAINS else node.domain, node.op_type

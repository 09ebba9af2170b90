"""Names of the domains of operators, and of operators in them."""

from __future__ import annotations

from onnx import NodeProto

ONNX_DOMAINS = ("", "ai.onnx")  # two names of one domain
ONNX_ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"  # what onnxruntime adds
QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")  # three names of one domain
CHANNELS_LAST = "qonnx.custom_op.channels_last"
XBCOMPILE = "xbcompile"  # one function for each matrix layer of a host graph

OperatorName = tuple[str, str]  # domain ("" for ONNX's own) and operator


def operator_name(node: NodeProto) -> OperatorName:
    """Domain and operator of a node, ONNX's own domain under its one name."""
    return "" if node.domain in ONNX_DOMAINS else node.domain, node.op_type


def is_of_qonnx(domain: str) -> bool:
    """Whether a domain is one of QONNX's: its own, and those that Brevitas and FINN use."""
    return domain == "onnx.brevitas" or domain.partition(".")[0] in ("qonnx", "finn")

"""Linear models of the domain ai.onnx.ml, as scikit-learn's are exported: LinearRegressor and LinearClassifier.

    scores = x @ coefficients.T + intercepts;  result = post_transform(scores), label = class of the highest score

The product becomes a MatMul on arrays; the node itself stays behind it with unit coefficients, so that labels, binary
decisions and transforms are its own. Source: the operators' definition in the ONNX specification (ai.onnx.ml, version 1).
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from xbcompile.frontend.operands import StaysDigital, attribute
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.builder import copied


def rewrite_linear(r: Replacement) -> bool:
    """LinearRegressor or LinearClassifier of float inputs."""
    node, graph = r.node, r.graph
    if node.name in graph.origins:  # already behind its product
        return False
    shape = graph.shape(node.input[0])
    element_type = graph.types[node.input[0]].tensor_type.elem_type
    if element_type != TensorProto.FLOAT:
        raise StaysDigital(f"element type {TensorProto.DataType.Name(element_type).lower()} is not lowered")
    if shape is None or len(shape) != 2 or shape[1] is None:
        raise StaysDigital("the number of features is not known")
    coefficients = np.array(attribute(node, "coefficients", []), np.float32)
    outputs = _outputs(node)
    if outputs * shape[1] != coefficients.size or not coefficients.size:
        raise StaysDigital(f"{coefficients.size} coefficients do not fit {shape[1]} features and {outputs} outputs")
    weights = coefficients.reshape(outputs, shape[1]).T
    product = r.emit("MatMul", node.input[0], r.constant(weights, "coefficients"), name=r.matrix_name())
    unit = copied(node)
    unit.name = r.name(node.op_type)
    unit.input[0] = product
    for each in unit.attribute:
        if each.name == "coefficients":
            each.CopyFrom(helper.make_attribute("coefficients", np.eye(outputs, dtype=np.float32).ravel().tolist()))
    r.nodes.append(unit)
    return True


def _outputs(node: NodeProto) -> int:
    """Rows of the coefficients: targets of a regressor, scores of a classifier."""
    if node.op_type == "LinearRegressor":
        return int(attribute(node, "targets", 1))
    intercepts = len(attribute(node, "intercepts", []))
    classes = len(attribute(node, "classlabels_ints", []) or attribute(node, "classlabels_strings", []))
    return intercepts or classes

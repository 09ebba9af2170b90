"""What is known of an output's values from the last operators."""

from __future__ import annotations

from math import inf

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.frontend import import_network
from xbcompile.reference.output_values import OutputValues, output_values

W = {
    "w": np.random.default_rng(0).normal(size=(3, 1)),
    "one": np.array(1.0),
    "half": np.array(0.5),
    "low": np.array(-2.0),
}
W["zeros"], W["six"] = np.array([[0.0]]), np.array(6.0)


def node(operator: str, *inputs: str, to: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [to], **attributes)


def model(*nodes: onnx.NodeProto, opset: int = 17) -> onnx.ModelProto:
    constants = {name: value for name, value in W.items() if any(name in each.input for each in nodes) or name == "w"}
    return model_of([node("MatMul", "x", "w", to="h"), *nodes], {"x": ["n", 3]}, ["y"], constants, opset=opset)


CASES = {
    "logit": ([node("Identity", "h")], -inf, inf),
    "bias": ([node("Add", "h", "one")], -inf, inf),
    "sigmoid": ([node("Sigmoid", "h")], 0, 1),
    "sigmoid moved": ([node("Sigmoid", "h", to="s"), node("Flatten", "s", to="f"), node("Cast", "f", to="y")], 0, 1),
    "by hand": (
        [
            node("Neg", "h", to="n"),
            node("Exp", "n", to="e"),
            node("Add", "one", "e", to="d"),
            node("Div", "one", "d"),
        ],
        0,
        1,
    ),
    "reciprocal": (
        [node("Neg", "h", to="n"), node("Exp", "n", to="e"), node("Add", "e", "one", to="d"), node("Reciprocal", "d")],
        0,
        1,
    ),
    "tanh": ([node("Tanh", "h")], -1, 1),
    "tanh to 0..1": ([node("Tanh", "h", to="t"), node("Mul", "t", "half", to="m"), node("Add", "m", "half")], 0, 1),
    "sign turned": ([node("Sigmoid", "h", to="s"), node("Sub", "one", "s")], 0, 1),
    "clip": ([node("Clip", "h", "low", "six")], -2, 6),
    "clip below": ([node("Clip", "h", "low")], -2, inf),
    "relu 6": ([node("Relu", "h", to="r"), node("Min", "r", "six")], 0, 6),
    "relu": ([node("Relu", "h")], 0, inf),
    "steps": ([node("Greater", "h", "zeros", to="g"), node("Where", "g", "one", "low")], -2, 1),
    "power": ([node("Sigmoid", "h", to="s"), node("Pow", "s", "half")], -inf, inf),
    "product": ([node("Mul", "h", "half")], -inf, inf),
}


@pytest.mark.parametrize("name", CASES)
def test_bounds(name):
    """The bounds, and that onnxruntime's outputs keep them."""
    nodes, low, high = CASES[name]
    for each in nodes:
        if each.op_type == "Cast":
            each.attribute.extend([helper.make_attribute("to", TensorProto.FLOAT)] * (not each.attribute))
    built = model(*nodes)
    assert output_values(import_network(built)) == OutputValues(low, high)
    y = run_onnxruntime(built, {"x": np.random.default_rng(1).normal(size=(200, 3), scale=5).astype("f")})["y"]
    assert low <= y.min()
    assert y.max() <= high


def test_old_clip_and_classes():
    assert output_values(import_network(model(node("Clip", "h", min=-1.0, max=3.0), opset=9))) == OutputValues(-1, 3)
    classes = model(node("ArgMax", "h", to="a"), node("Cast", "a", to="y"))
    classes.graph.node[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    assert output_values(import_network(classes)).is_class


def test_long_chains_that_meet_again():
    """2 ** 60 ways lead from the output back to the sigmoid."""
    nodes, name = [node("Sigmoid", "h", to="a0")], "a0"
    for i in range(60):
        nodes.append(node("Add", name, name, to=f"b{i}"))
        nodes.append(node("Mul", f"b{i}", "half", to=f"a{i + 1}"))
        name = f"a{i + 1}"
    nodes.append(node("Identity", name))
    assert output_values(import_network(model(*nodes))) == OutputValues(0, 1)

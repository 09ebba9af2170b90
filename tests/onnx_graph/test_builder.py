"""Nodes as each opset has them: onnxruntime loads them, and gives what numpy gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import run_onnxruntime
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.builder import NodeBuilder, copied, make_graph, make_model, reading, tensor, value

X = np.random.default_rng(2).uniform(-4, 4, (1, 6, 5)).astype(np.float32)


class Builder(NodeBuilder):
    """Constants as initializers, names numbered."""

    def __init__(self, opset: int) -> None:
        super().__init__(opset)
        self.constants: list[TensorProto] = []
        self._numbers = count()

    def name(self, label: str) -> str:
        return f"{label}{next(self._numbers)}"

    def constant(self, value: np.ndarray | np.generic | Sequence[int], label: str = "constant") -> str:
        self.constants.append(tensor(self.name(label), value))
        return self.constants[-1].name


BUILDS: dict[str, tuple[Callable[[Builder], str], np.ndarray]] = {
    "squeeze": (lambda b: b.squeeze("x", [0]), X[0]),
    "unsqueeze": (lambda b: b.unsqueeze("x", [1]), X[:, None]),
    "sum": (lambda b: b.reduce("ReduceSum", "x", [1], keepdims=False), X.sum(axis=1)),
    "least": (lambda b: b.reduce("ReduceMin", "x", [1, 2], keepdims=True), X.min(axis=(1, 2), keepdims=True)),
    "slice": (lambda b: b.slice("x", [1, 0], [-1, 3], [1, 2]), X[:, 1:-1, 0:3]),
    "split": (lambda b: b.split("x", [1, 3, 2], axis=1)[1], X[:, 1:4]),
    "clip": (lambda b: b.clip("x", -1.5, 0.1), X.clip(np.float32(-1.5), np.float32(0.1))),
    "round": (lambda b: b.round("x"), np.rint(X)),
}


@pytest.mark.parametrize("opset", range(engine.OLDEST_OPSET, engine.newest_opset() + 1))
@pytest.mark.parametrize("build", BUILDS)
def test_every_opset_has_the_operator(build, opset):
    builder, (emit, expected) = Builder(opset), BUILDS[build]
    outputs = [value(emit(builder), TensorProto.FLOAT)]
    graph = make_graph("test", builder.nodes, [value("x", TensorProto.FLOAT, X.shape)], outputs, builder.constants)
    (found,) = run_onnxruntime(make_model(graph, [("", opset)], 7), {"x": X}).values()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("opset", [7, 11])
def test_halves_are_rounded_to_even(opset):
    builder = Builder(opset)
    output = [value(builder.round("x"), TensorProto.FLOAT)]
    graph = make_graph("test", builder.nodes, [value("x", TensorProto.FLOAT, [5])], output, builder.constants)
    halves = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32)
    (found,) = run_onnxruntime(make_model(graph, [("", opset)], 7), {"x": halves}).values()
    np.testing.assert_array_equal(found, [-2, 0, 0, 2, 2])


def test_other_names_are_read_by_a_copy():
    node = helper.make_node("Add", ["a", "b"], ["c"])
    assert reading(node, {"z": "y", "c": "d"}) is node
    changed = reading(node, {"a": "d"})
    assert list(changed.input) == ["d", "b"]
    assert list(node.input) == ["a", "b"]


def test_a_copy_is_a_message_of_its_own():
    node = helper.make_node("Add", ["a", "b"], ["c"])
    other = copied(node)
    other.name = "other"
    assert (node.name, list(other.input)) == ("", ["a", "b"])

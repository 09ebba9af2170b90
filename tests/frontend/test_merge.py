"""Layers that read the same constant in the same way get one array; what exporters repeat before a product counts as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.model_kit import model_of
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.merge import merge_equal_results
from xbcompile.ir import Network
from xbcompile.onnx_graph.graph import from_model

RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(10, 10))


@pytest.fixture
def matrices(check: Callable[..., Network]) -> Callable[..., tuple[int, ...]]:
    """Owners of the matrices of a model's layers; what the network gives is compared with onnxruntime."""

    def found(nodes: list[onnx.NodeProto], constants: dict[str, Any], outputs: list[str], **options: Any) -> Any:
        model = model_of(nodes, {"x": ["n", 10]}, outputs, constants, **options)
        return check(model, {"x": RNG.normal(size=(3, 10)).astype(np.float32)}).matrices

    return found


def make(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=output, **attributes)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ({}, {}, True),
        ({"transB": 1}, {"transB": 1}, True),
        ({"transB": 1}, {}, False),
        ({"alpha": 0.5}, {"alpha": 0.5}, True),
        ({"alpha": 0.5}, {}, False),
    ],
)
def test_the_same_constant_in_the_same_way_is_one_matrix(matrices, first, second, shared):
    nodes = [make("Gemm", ["x", "w"], "p", **first), make("Gemm", ["x", "w"], "q", **second)]
    assert matrices(nodes, {"w": SQUARE}, ["p", "q"]) == ((0, 0) if shared else (0, 1))


def test_gemm_and_matmul_share(matrices):
    nodes = [make("Gemm", ["x", "w"], "p"), make("MatMul", ["x", "w"], "q"), make("Gemm", ["x", "w", "b"], "r")]
    assert matrices(nodes, {"w": SQUARE, "b": np.arange(10.0)}, ["p", "q", "r"]) == (0, 0, 0)


def test_convolutions_share_a_kernel_whatever_their_geometry():
    nodes = [
        make("Conv", ["i", "k"], "p", pads=[1, 1, 1, 1]),
        make("Conv", ["i", "k"], "q", strides=[2, 2]),
        make("Conv", ["i", "k"], "r", group=1, dilations=[2, 2]),
    ]
    model = model_of(nodes, {"i": ["n", 3, 8, 8]}, ["p", "q", "r"], {"k": RNG.normal(size=(4, 3, 3, 3))})
    assert import_network(load_model(model)).matrices == (0, 0, 0)


@pytest.mark.parametrize("opset", [11, 17])
def test_a_transpose_per_use_is_one(matrices, opset):
    nodes, outputs = [], [f"y{i}" for i in range(4)]
    for i, output in enumerate(outputs):
        nodes += [make("Transpose", ["w"], f"t{i}", perm=[1, 0]), make("MatMul", ["x", f"t{i}"], output)]
    assert matrices(nodes, {"w": SQUARE}, outputs, opset=opset) == (0, 0, 0, 0)


def test_slices_with_bounds_of_other_names_are_one(matrices):
    constants: dict[str, Any] = {"w": RNG.normal(size=(10, 30))}
    nodes, outputs = [], []
    for i, start in enumerate((0, 10, 0, 20, 10)):
        constants |= {f"s{i}": np.array([start]), f"e{i}": np.array([start + 10]), f"a{i}": np.array([1])}
        nodes.append(make("Slice", ["w", f"s{i}", f"e{i}", f"a{i}"], f"v{i}"))
        nodes += [make("Cast", [f"v{i}"], f"c{i}", to=1), make("MatMul", ["x", f"c{i}"], f"y{i}")]
        outputs.append(f"y{i}")
    assert matrices(nodes, constants, outputs) == (0, 1, 0, 3, 1)


def test_parts_of_a_split_are_told_apart(matrices):
    nodes = [helper.make_node("Split", ["w"], [f"{name}0", f"{name}1"], axis=1, name=name) for name in ("a", "b")]
    outputs = ["a0y", "a1y", "b0y", "b1y"]
    for output in outputs:
        nodes += [make("Identity", [output[:2]], output[:2] + "i"), make("MatMul", ["x", output[:2] + "i"], output)]
    assert matrices(nodes, {"w": RNG.normal(size=(10, 20))}, outputs) == (0, 1, 0, 1)


@pytest.mark.parametrize("operator", [None, "Transpose"])
@pytest.mark.parametrize("opset", [11, 17])
def test_equal_constants_of_two_names_are_two_matrices(matrices, operator, opset):
    nodes = [make("MatMul", ["x", "t" if operator else "v"], "p"), make("MatMul", ["x", "u" if operator else "w"], "q")]
    if operator:
        nodes = [make(operator, ["v"], "t"), make(operator, ["w"], "u"), *nodes]
    assert matrices(nodes, {"v": SQUARE, "w": SQUARE}, ["p", "q"], opset=opset) == (0, 1)


def test_small_weights_are_told_apart_by_name_too():
    nodes = [make("Transpose", [name], f"{name}t{i}") for i, name in enumerate("vvw")]
    nodes.append(make("Sum", [node.output[0] for node in nodes], "y"))
    constants = {"v": np.ones((2, 2)), "w": np.ones((2, 2))}
    merged = merge_equal_results(from_model(model_of(nodes, {}, ["y"], constants)))
    assert list(merged.nodes[-1].input) == ["vt0", "vt0", "wt2"]


def test_what_small_constants_make_stays_apart(matrices):
    """Weights that are expanded from one number by each layer are each layer's own."""
    nodes = [
        make(
            "Cast",
            [
                "one",
            ],
            f"c{i}",
            to=1,
        )
        for i in range(2)
    ]
    graph = from_model(model_of(nodes, {}, ["c0", "c1"], {"one": np.ones(1)}))
    assert merge_equal_results(graph) is graph
    nodes = []
    for i in range(2):
        nodes += [make("ConstantOfShape", [f"s{i}"], f"w{i}", value=numpy_helper.from_array(np.ones(1, np.float32)))]
        nodes += [make("Identity", [f"w{i}"], f"v{i}"), make("MatMul", ["x", f"v{i}"], f"y{i}")]
    assert matrices(nodes, {"s0": np.array([10, 10]), "s1": np.array([10, 10])}, ["y0", "y1"]) == (0, 1)


def test_attributes_inputs_and_domains_tell_results_apart():
    nodes = [
        make("Transpose", ["w"], "a", perm=[1, 0]),
        make("Transpose", ["w"], "b", perm=[0, 1]),
        make("Add", ["w", "one"], "c"),
        make("Add", ["one", "w"], "d"),
        make("Add", ["w", "two"], "e"),
        make("Transpose", ["w"], "f", perm=[1, 0]),
        make("Sum", ["a", "b", "c", "d", "e", "f"], "y"),
    ]
    constants = {"w": SQUARE, "one": np.ones(1), "two": 2 * np.ones(1)}
    merged = merge_equal_results(from_model(model_of(nodes, {"x": ["n", 10]}, ["y"], constants)))
    assert [node.output[0] for node in merged.nodes] == ["a", "b", "c", "d", "e", "y"]
    assert list(merged.nodes[-1].input) == ["a", "b", "c", "d", "e", "a"]


def test_graph_outputs_and_inputs_keep_their_names():
    nodes = [make("Transpose", ["w"], "a"), make("Transpose", ["w"], "b"), make("MatMul", ["x", "b"], "y")]
    graph = from_model(model_of(nodes, {"x": ["n", 10]}, ["a", "b", "y"], {"w": SQUARE}))
    merged = merge_equal_results(graph)
    assert [node.output[0] for node in merged.nodes] == ["a", "b", "y"]
    assert list(merged.nodes[-1].input) == ["x", "a"]
    plain = from_model(model_of(nodes[2:], {"x": ["n", 10], "b": [10, 10]}, ["y"]))
    assert merge_equal_results(plain) is plain
    model = model_of(nodes, {"x": ["n", 10], "w": [10, 10]}, ["y"])
    assert merge_equal_results(from_model(model)).nodes == from_model(model).nodes


def test_repeated_doubling_takes_no_time():
    """A result of a result of ...: keys must not grow with the depth, as 2**200 they could."""
    nodes = []
    for i in range(200):
        nodes.append(make("Add", [f"a{i}" if i else "w"] * 2, f"a{i + 1}"))
        nodes.append(make("Add", [f"a{i}" if i else "w"] * 2, f"b{i + 1}"))
    graph = from_model(model_of(nodes, {"x": ["n", 10]}, ["a200", "b200"], {"w": SQUARE}))
    assert len(merge_equal_results(graph).nodes) == 201

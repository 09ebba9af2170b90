"""LSTM, GRU and RNN against onnxruntime's own kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.recurrence_kit import Case, cases, expected, sequence_model, weights
from xbcompile.frontend import import_network, load_model
from xbcompile.reference.host_graph import to_onnx

RNG = np.random.default_rng(7)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_every_attribute(check, case: Case):
    expected(case)
    network = check(case.model, case.feeds)
    (record,) = network.records
    assert record.lowered, record.reason
    assert not record.reason
    operators = [node.op_type for segment in network.segments for node in segment.model.graph.node]
    assert not {"LSTM", "GRU", "RNN", "MatMul", "Scan"} & set(operators)


@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_host_graph(case: Case, compare):
    host = to_onnx(import_network(load_model(case.model)))
    found = run_onnxruntime(host, case.feeds)
    for name, value in expected(case).items():
        compare(found[name], value, 2e-5)


@pytest.mark.parametrize(
    ("operator", "attributes", "names", "shapes"),
    [
        ("LSTM", {}, ["rec/input", "rec/recurrent"], [(2, 12), (3, 12)]),
        ("GRU", {"linear_before_reset": 1}, ["rec/input", "rec/recurrent"], [(2, 9), (3, 9)]),
        (
            "GRU",
            {},
            ["rec/input", "rec/recurrent/update_reset", "rec/recurrent/candidate"],
            [(2, 9), (3, 6), (3, 3)],
        ),
        ("RNN", {}, ["rec/input", "rec/recurrent"], [(2, 3), (3, 3)]),
    ],
)
def test_matrices(check, operator, attributes, names, shapes):
    network = check(sequence_model(operator, 5, **attributes), {"x": RNG.normal(size=(4, 5, 2)).astype(np.float32)})
    assert [layer.name for layer in network.layers] == names
    assert [layer.weights.shape[1:] for layer in network.layers] == shapes
    assert [layer.vectors_per_inference for layer in network.layers] == [5] * len(names)
    assert network.records[0].layers == tuple(names)


def test_directions_share_the_input_matrix(check):
    network = check(sequence_model("LSTM", "t", directions=2), {"x": RNG.normal(size=(2, 4, 2)).astype(np.float32)})
    assert [layer.name for layer in network.layers] == ["rec/input", "rec/recurrent/forward", "rec/recurrent/reverse"]
    assert [layer.weights.shape[1:] for layer in network.layers] == [(2, 24), (3, 12), (3, 12)]
    assert [recurrence.reverse for recurrence in network.recurrences] == [False, True]
    assert [layer.vectors_per_inference for layer in network.layers] == [None] * 3  # the number of steps is open


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_layout(execute, operator, direction):
    """onnxruntime does not run layout 1; it is layout 0 with transposed inputs and outputs (ONNX, since opset 14)."""
    both, states = 2 if direction == "bidirectional" else 1, ["h0", "c0"][: 2 if operator == "LSTM" else 1]
    constants = weights(operator, 2, 3, both)
    feeds = {"x": RNG.normal(size=(4, 5, 2)).astype(np.float32)}
    feeds |= {name: RNG.normal(size=(4, both, 3)).astype(np.float32) for name in states}
    shapes = {name: ["n", *value.shape[1:]] for name, value in feeds.items()}
    outputs = ["y", *(f"{name}_end" for name in states)]

    def model(layout: int) -> onnx.ModelProto:
        extra = {"layout": 1} if layout else {}
        node = helper.make_node(
            operator, ["x", "w", "r", "b", "", *states], outputs, "rec", hidden_size=3, direction=direction, **extra
        )
        if layout:
            return model_of([node], shapes, outputs, constants)
        swapped = {name: [shape[1], shape[0], *shape[2:]] for name, shape in shapes.items()}
        return model_of([node], swapped, outputs, constants)

    reference = run_onnxruntime(model(0), {name: value.swapaxes(0, 1) for name, value in feeds.items()})
    network = import_network(load_model(model(1)))
    assert len(network.recurrences) == both
    found = execute(network, feeds)
    np.testing.assert_allclose(found["y"], reference["y"].transpose(2, 0, 1, 3), atol=2e-6)
    for name in outputs[1:]:
        np.testing.assert_allclose(found[name], reference[name].swapaxes(0, 1), atol=2e-6)


def test_half_precision_is_computed_in_single(check):
    """onnxruntime casts to float32 around its kernels: only the results are rounded to half."""
    model = sequence_model("GRU", 6, hidden=4)
    constants = {t.name: onnx.numpy_helper.to_array(t).astype(np.float16) for t in model.graph.initializer}
    half = model_of(list(model.graph.node), {"x": ["n", 6, 2]}, ["y", "h"], constants, dtype="float16")
    check(half, {"x": RNG.normal(size=(3, 6, 2)).astype(np.float16)}, tolerance=1e-3)


def test_what_stays_digital(build, check):
    constants = weights("LSTM", 2, 3) | {"v": np.ones((2, 2), np.float32)}
    x = {"x": RNG.normal(size=(4, 5, 2)).astype(np.float32)}

    def reason(inputs, feeds, shapes, opset=17, digital=(), **attributes):
        nodes = [
            helper.make_node("MatMul", ["x", "v"], ["u"], "first"),
            helper.make_node("LSTM", inputs, ["y"], "rec", hidden_size=3, **attributes),
        ]
        network = check(build(nodes, shapes, ["y", "u"], constants, opset=opset), feeds, digital=digital)
        assert not network.recurrences
        (found,) = [record.reason for record in network.records if record.node == "rec"]
        return found

    plain = {"x": ["t", "n", 2]}
    given = {"weights": RNG.normal(size=(1, 12, 2)).astype(np.float32)}
    assert reason(["u", "weights", "r"], x | given, plain | {"weights": [1, 12, 2]}) == 'W "weights" is a graph input'
    assert "opset 9" in reason(["u", "w", "r"], x, plain, opset=8)
    assert "rec" in reason(["u", "w", "r"], x, plain, digital=("rec",))

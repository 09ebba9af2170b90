"""What becomes of each node: against counts by hand, and against the layers of the imported network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import xbcompile
from tests.fuzz.mutated_models import attention, control_flow, convolutional, functional, quantized, recurrent
from tests.support.model_kit import MODELS, model_of
from tests.support.random_models import models
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.explain import EVALUATED, NOT_NEEDED, digital_reason
from xbcompile.frontend.macs import macs_of


def by_name(explanation):
    return {node.node: node for node in explanation.nodes}


def shapes(node):
    return [(m.groups, m.inputs, m.outputs, m.vectors) for m in node.matrices]


def test_lenet5_counts_by_hand():
    """LeNet-5 with padding 2: conv1 25x6 on 28x28, conv2 150x16 on 10x10, then 400-120-84-10."""
    found = xbcompile.explain(MODELS / "mnist_lenet5.onnx")
    matrices = [(1, 25, 6, 784), (1, 150, 16, 100), (1, 400, 120, 1), (1, 120, 84, 1), (1, 84, 10, 1)]
    assert [shapes(node)[0] for node in found.nodes if node.lowered] == matrices
    macs = sum(inputs * outputs * vectors for _, inputs, outputs, vectors in matrices)
    assert (found.totals.macs, found.totals.macs_on_arrays, found.totals.share_percent) == (macs, macs, 100.0)
    assert (found.totals.nodes, found.totals.lowered, found.totals.matrices) == (13, 5, 5)
    assert found.totals.weights == sum(inputs * outputs for _, inputs, outputs, _ in matrices)
    assert found.totals.uncounted == 0
    assert found.open_dimensions == ("batch",)


def test_groups_and_reasons():
    found = by_name(xbcompile.explain(convolutional()))
    assert shapes(found["conv1"]) == [(2, 9, 2, 16)]
    assert found["conv1"].macs == 2 * 9 * 2 * 16
    assert shapes(found["conv2"]) == [(1, 36, 4, 16)]
    reasons = {name: node.reason for name, node in found.items()}
    assert reasons["conv1"] == reasons["fc"] == ""
    assert reasons["bias"] == 'part of "fc": its bias'
    assert reasons["relu"] == reasons["residual"] == "element-wise"
    assert reasons["bn"] == "scale and shift of channels"
    assert (reasons["pool"], reasons["flatten"], reasons["softmax"]) == ("pooling", "moves data", "normalisation")


@pytest.mark.parametrize("dims", [{"sequence": 5}, {"sequence": 5, "batch": 1}, {"sequence": 5, "batch": 3}])
def test_products_of_activations_are_counted_per_sample(dims):
    """Three projections and the last layer on 5 tokens: 4 * 4 * 4 * 5 - 20; scores and mix take 5 * 5 * 4 each."""
    found = xbcompile.explain(attention(), dims=dims)
    nodes = by_name(found)
    for name in ("query", "key", "value"):
        assert shapes(nodes[name]) == [(1, 4, 4, 5)]
    assert shapes(nodes["fc"]) == [(1, 4, 3, 5)]  # its rows are tokens, behind a Reshape to [-1, 4]
    for name in ("scores", "mix"):
        assert (nodes[name].macs, nodes[name].lowered) == (100, False)
        assert nodes[name].reason == "both operands are activations"
    assert (found.totals.macs_on_arrays, found.totals.macs) == (300, 500)
    assert found.totals.share_percent == pytest.approx(60)
    assert found.totals.uncounted == 0


def test_open_sizes_are_not_guessed():
    found = xbcompile.explain(attention())
    assert [node.macs for node in found.nodes if node.matrices or node.node in ("scores", "mix")] == [None] * 6
    assert {m.vectors for node in found.nodes for m in node.matrices} == {None}
    assert (found.totals.macs, found.totals.share_percent, found.totals.uncounted) == (0, None, 6)
    assert found.open_dimensions == ("batch", "sequence")


def test_bodies_of_control_flow():
    """The branch with the product counts; what a loop does with a state of unknown shape does not."""
    found = xbcompile.explain(
        control_flow(times=100), batch_axis={"x": 0}
    )  # all samples decide on the branch: it must be said
    nodes = by_name(found)
    assert [(n.node, n.inside) for n in found.nodes if n.inside == "if"] == [("else_mul", "if"), ("then_fc", "if")]
    assert nodes["then_fc"].macs == nodes["if"].macs == 4 * 4
    assert nodes["then_fc"].reason == 'inside the body of If "if"'
    assert nodes["if"].reason == nodes["loop"].reason == "control flow"
    assert nodes["loop"].macs is None
    assert found.totals.macs == 5 * 4 + 4 * 4
    assert found.totals.uncounted == 2  # the loop, and the layer behind it


def scan_of(steps):
    """x [steps, 3, 4] cut along axis 0: a product with an outer constant in each step."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["p"], name="inner")],
        "body",
        [info("s", TensorProto.FLOAT, [3, 4])],
        [info("p", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Scan", ["x"], ["y"], name="scan", body=body, num_scan_inputs=1),
        helper.make_node("Gemm", ["z", "w"], ["o"], name="fc"),
    ]
    return model_of(nodes, {"x": [steps, 3, 4], "z": [2, 4]}, ["y", "o"], {"w": np.ones((4, 5))})


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("on_arrays", [True, False])
def test_a_scan_counts_all_its_steps(steps, on_arrays):
    """Axis 0 of x and z is not one batch: nothing is divided. On arrays the body's node counts them, else the Scan."""
    found = xbcompile.explain(scan_of(steps), digital=() if on_arrays else ["scan"])
    nodes = by_name(found)
    assert nodes["inner"].macs == (steps if on_arrays else 1) * 3 * 4 * 5
    assert nodes["scan"].macs == (0 if on_arrays else steps) * 3 * 4 * 5
    assert nodes["fc"].macs == 2 * 4 * 5
    assert found.totals.macs == steps * 3 * 4 * 5 + 2 * 4 * 5
    assert nodes["inner"].inside == "scan"
    assert nodes["inner"].reason == ("" if on_arrays else 'inside the body of Scan "scan"')


def test_copies_of_a_loop_are_one_node():
    found = xbcompile.explain(control_flow())
    nodes = by_name(found)
    assert [matrix.name for matrix in nodes["loop_fc"].matrices] == ["loop_fc", "loop_fc_2", "loop_fc_3"]
    assert nodes["loop"].reason == "its body runs 3 times: so many copies stand in its place"
    assert nodes["Tanh_next"].reason == "element-wise"
    assert found.totals.weights == 5 * 4 + 4 * 4 + 4 * 3  # the copies share one matrix
    assert found.totals.lowered == 3


@pytest.mark.parametrize("dims", [{"t": 7, "n": 1}, {"t": 7}, {"t": 7, "n": 2}])
def test_recurrent_layers_on_sequences_with_the_batch_on_axis_1(dims):
    """The LSTM's input matrix joins both directions: 4 x 24; its recurrent ones and the GRU's are read once per step."""
    found = xbcompile.explain(recurrent(), dims=dims)
    nodes = by_name(found)
    assert shapes(nodes["lstm"]) == [(1, 4, 24, 7), (1, 3, 12, 7), (1, 3, 12, 7)]
    assert nodes["lstm"].macs == 7 * (4 * 24 + 2 * 3 * 12)
    assert shapes(nodes["gru"]) == [(1, 6, 9, 7), (1, 3, 9, 7)]
    assert found.totals.share_percent == 100


def test_integer_products_are_on_arrays():
    found = xbcompile.explain(quantized())
    nodes = by_name(found)
    assert nodes["conv"].macs == 18 * 3 * 16
    assert nodes["integer"].macs == 48 * 4
    assert nodes["dq_w"].reason == EVALUATED
    assert found.totals.share_percent == 100


def test_functions_are_inlined():
    found = xbcompile.explain(functional())
    assert [node.operator for node in found.nodes] == ["MatMul", "LeakyRelu", "MatMul", "LeakyRelu", "Add", "Einsum"]
    assert [shapes(node) for node in found.nodes if node.lowered] == [[(1, 4, 6, 1)], [(1, 6, 4, 1)], [(1, 4, 2, 1)]]


def test_dead_and_constant_nodes_are_told_apart():
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], name="constant"),
        helper.make_node("MatMul", ["x", "wt"], ["y"], name="fc"),
        helper.make_node("MatMul", ["x", "wt"], ["unused"], name="dead"),
        helper.make_node("Neg", ["wt"], ["unused2"], name="dead too"),
        helper.make_node("RandomNormal", [], ["noise"], name="random", shape=[1, 2]),
        helper.make_node("Add", ["y", "noise"], ["z"], name="add"),
    ]
    found = by_name(xbcompile.explain(model_of(nodes, {"x": ["n", 3]}, ["z"], {"w": np.ones((2, 3))})))
    reasons = {name: node.reason for name, node in found.items()}
    assert reasons["constant"] == EVALUATED
    assert reasons["dead"] == reasons["dead too"] == NOT_NEEDED
    assert reasons["random"] == "no weights"
    assert reasons["add"] == "element-wise"
    assert found["dead"].macs == 0


def test_nothing_lowered_and_names_missing():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": ["n", 4]}, ["y"])
    found = xbcompile.explain(model)
    assert [(node.node, node.reason) for node in found.nodes] == [("Relu_y", "element-wise")]
    assert (found.totals.lowered, found.totals.weights, found.totals.share_percent) == (0, 0, None)
    assert found.totals.segments == 1


def test_kept_digital():
    found = xbcompile.explain(MODELS / "xor.onnx", digital=["fc1"])
    node = by_name(found)["fc1"]
    assert (node.lowered, node.macs, node.macs_on_arrays, node.reason) == (False, 4, 0, 'kept digital by "fc1"')
    assert found.totals.share_percent == pytest.approx(100 * 2 / 6)


def test_shared_weights_count_once():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    totals = xbcompile.explain(model_of(nodes, {"x": ["n", 4]}, ["y"], {"w": np.ones((4, 4))})).totals
    assert (totals.matrices, totals.weights, totals.macs) == (2, 16, 32)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(models())
def test_every_layer_is_explained_once(case):
    graph, declared, outputs, _ = case
    model = model_of(graph.nodes, {"x": declared}, outputs, graph.constants)
    found = xbcompile.explain(model)
    layers = import_network(load_model(model)).layers
    explained = [m for node in found.nodes for m in node.matrices]
    assert sorted(m.name for m in explained) == sorted(layer.name for layer in layers)
    assert found.totals.macs_on_arrays == sum(node.macs_on_arrays for node in found.nodes)
    assert len(found.nodes) == len(graph.nodes)
    assert all(node.lowered != bool(node.reason) for node in found.nodes)
    assert list(found.to_json()) == ["model", "nodes", "totals", "open_dimensions", "samples"]


# --- MACs of nodes that stay digital


def counted(operator, sizes, output=None, domain="", **attributes):
    names = [f"i{i}" for i in range(len(sizes))]
    known = dict(zip([*names, "o"], [*sizes, output], strict=True))
    return macs_of(helper.make_node(operator, names, ["o"], domain=domain, **attributes), known.get)


def test_macs_by_hand():
    assert counted("MatMul", [(2, 3, 4), (4, 5)], (2, 3, 5)) == 2 * 3 * 4 * 5
    assert counted("MatMul", [(4,), (4,)], ()) == 4
    assert counted("Gemm", [(4, 3), (4, 5)], (3, 5), transA=1) == 3 * 4 * 5
    assert counted("QLinearMatMul", [(3, 4), (), (), (4, 5), (), (), (), ()], (3, 5)) == 3 * 4 * 5
    assert counted("Conv", [(1, 4, 8, 8), (6, 2, 3, 3)], (1, 6, 6, 6), group=2) == 6 * 36 * 2 * 9
    assert counted("QLinearConv", [(1, 4, 8), (), (), (6, 4, 3)], (1, 6, 6)) == 6 * 6 * 4 * 3
    assert counted("ConvTranspose", [(1, 4, 8), (4, 3, 5)], (1, 3, 12)) == 4 * 8 * 3 * 5
    assert counted("LSTM", [(7, 2, 3), (1, 16, 3), (1, 16, 4)]) == 7 * 2 * (16 * 3 + 16 * 4)
    assert counted("MatMulNBits", [(2, 32), (8, 1, 16)], (2, 8), "com.microsoft", K=32, N=8) == 2 * 32 * 8
    assert counted("MatMul", [None, (4, 5)], (3, 5)) is None
    assert counted("MatMul", [(3, 4), (4, 5)], None) is None
    assert counted("DeformConv", [(1, 4, 8, 8)], (1, 4, 8, 8)) is None


LETTERS = "abcde"


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.text(LETTERS, min_size=1, max_size=3), min_size=1, max_size=3), st.booleans())
def test_macs_of_einsum(terms, dots):
    """As many products as numpy has elements when nothing is summed: the full outer index space."""
    sizes = {letter: i + 2 for i, letter in enumerate(LETTERS)}
    letters = sorted(set("".join(terms)))
    operands = [np.ones([sizes[letter] for letter in term] + [3] * dots) for term in terms]
    inputs = ",".join(term + "..." * dots for term in terms)
    space = np.einsum(f"{inputs}->{'...' * dots}{''.join(letters)}", *operands).size
    assert counted("Einsum", [o.shape for o in operands], (), equation=f"{inputs}->" + "..." * dots) == space


def test_reasons_of_operators():
    assert digital_reason(helper.make_node("Softmax", ["x"], ["y"])) == "normalisation"
    assert digital_reason(helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")) == "no weights"
    assert digital_reason(helper.make_node("Odd", ["x"], ["y"], domain="mine")) == "operator of domain mine"

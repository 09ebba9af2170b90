"""Values of tensors inside a network's ideal meaning, those inside recurrences too: against numpy, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from tests.support.model_kit import model_of
from tests.support.recurrence_kit import sequence_model, weights
from xbcompile.onnx_graph.types import numpy_type
from xbcompile.reference.evaluate import computed_tensors, evaluate_model
from xbcompile.reference.host_graph import host_graph
from xbcompile.testing.passes import network_of

STEPS, HIDDEN, INPUTS = 4, 3, 2


def states_before_each_step(x: np.ndarray, reverse: bool) -> np.ndarray:
    """h[t-1] of h[t] = tanh(W x[t] + b_W + R h[t-1] + b_R), float64 [steps, samples, hidden]."""
    w, r, b = (weights("RNN", INPUTS, HIDDEN)[name][0].astype(np.float64) for name in "wrb")
    state, found = np.zeros((len(x), HIDDEN)), np.zeros((STEPS, len(x), HIDDEN))
    for step in reversed(range(STEPS)) if reverse else range(STEPS):
        found[step] = state
        state = np.tanh(x[:, step] @ w.T + state @ r.T + b[:HIDDEN] + b[HIDDEN:])
    return found


@pytest.mark.parametrize("reverse", [False, True])
def test_tensors_inside_a_recurrence_are_stacked_step_by_step(reverse):
    model = sequence_model("RNN", STEPS, HIDDEN, INPUTS)
    if reverse:
        node = next(node for node in model.graph.node if node.op_type == "RNN")
        next(each for each in node.attribute if each.name == "direction").s = b"reverse"
    network = network_of(model)
    graph = host_graph(network)
    (recurrence,) = network.recurrences
    (layer,) = recurrence.layers
    assert computed_tensors(graph) >= {"y", "h", layer.input, layer.output, *recurrence.inner_names}
    x = np.random.default_rng(1).normal(size=(5, STEPS, INPUTS)).astype(np.float32)
    before, product = evaluate_model(graph, network.samples, {"x": x}, [layer.input, layer.output])
    expected = states_before_each_step(x, reverse)
    np.testing.assert_allclose(before[0], expected, atol=1e-6)
    np.testing.assert_allclose(product[0], expected @ weights("RNN", INPUTS, HIDDEN)["r"][0].T, atol=1e-6)


def test_every_computed_tensor_can_be_evaluated():
    network = network_of(sequence_model("LSTM", STEPS, HIDDEN, INPUTS, directions=2))
    graph = host_graph(network)
    names = sorted(computed_tensors(graph))
    values = evaluate_model(graph, network.samples, {"x": np.zeros((2, STEPS, INPUTS), np.float32)}, names)
    assert [len(chunks) for chunks in values] == [1] * len(names)


def test_what_other_control_flow_keeps_to_itself_is_not_computed():
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["inner"])], "branch", [], [])
    branch.output.add(name="inner")
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)
    model = model_of([node], {"x": [1]}, ["y"], {"flag": np.array(True)})
    assert computed_tensors(model) == {"y"}


def test_element_types_of_inputs():
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": [1]}, ["y"], dtype="float16")
    assert numpy_type(model.graph.input[0]) == np.float16
    assert numpy_type(model.graph.output[0]) is None

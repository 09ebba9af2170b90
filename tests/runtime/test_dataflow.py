"""Flows against onnxruntime, with layers evaluated exactly: random networks, recurrences, and layers given in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.random_models import models
from tests.support.recurrence_kit import Case, cases, expected, sequence_model
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import Network
from xbcompile.ir.vectors import gather, lay_out
from xbcompile.runtime.dataflow import Digital, Flow, Pending, count_steps, walk


def exact(network: Network, at: Pending, values: Mapping[str, Any]) -> np.ndarray:
    """A layer's output tensor, in float64 sums."""
    layer = network.layers[at.layer]
    x = values[layer.input]
    vectors, shape = gather(layer, x)
    y = np.matmul(vectors.astype(np.float64), layer.weights).transpose(1, 0, 2)
    y = y.reshape(y.shape[0], layer.groups * layer.outputs) + layer.bias
    return lay_out(layer, y.astype(x.dtype), shape)


def outputs(network: Network, chunks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return walk(Digital(network), chunks, lambda at, values: [exact(network, at, each) for each in values])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(models())
def test_random_networks(case) -> None:
    """Several chunks side by side, each as onnxruntime has it."""
    graph, declared, names, x = case
    model = model_of(graph.nodes, {"x": declared}, names, graph.constants)
    network = import_network(load_model(model))
    for feeds, found in zip(({"x": x}, {"x": -x}), outputs(network, [{"x": x}, {"x": -x}]), strict=True):
        for name, value in run_onnxruntime(model, feeds).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4 * max(1, np.abs(value).max(initial=0)))


@settings(max_examples=40, deadline=None)
@given(cases())
def test_recurrences(case: Case) -> None:
    """Forward, reverse and both ways, states given or not, sizes open or known."""
    wanted = expected(case)
    (found,) = outputs(import_network(load_model(case.model)), [case.feeds])
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-5 * max(1, np.abs(value).max(initial=0)))


def test_no_step_gives_empty_tensors_of_the_right_shape_and_asks_for_no_layer_inside() -> None:
    network = import_network(load_model(sequence_model("LSTM", "t", hidden=3)))
    inside = {network.layers.index(layer) for layer in network.recurrences[0].layers}
    asked = []

    def execute(at: Pending, values: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
        asked.append(at.layer)
        return [exact(network, at, each) for each in values]

    (found,) = walk(Digital(network), [{"x": np.zeros((4, 0, 2), np.float32)}], execute)
    assert (found["y"].shape, found["h"].shape) == ((4, 0, 1, 3), (4, 1, 3))
    assert not found["h"].any()
    assert not inside & set(asked)


def test_a_recurrence_of_known_length_begins_with_its_states() -> None:
    """The product with the state is there to be read before that with the sequence; both orders give the same."""
    model = sequence_model("LSTM", 3)
    network, x = import_network(load_model(model)), np.random.default_rng(1).normal(size=(2, 3, 2)).astype(np.float32)
    results = []
    for order in (min, max):
        flow = Flow(Digital(network), {"x": x})
        assert [(at.layer, at.step) for at in flow.pending] == [(0, 0), (1, 0)]
        while not flow.done:
            at = order(flow.pending)
            flow.give(at, exact(network, at, flow.values(at)))
        results.append(flow.outputs())
    for name, value in run_onnxruntime(model, {"x": x}).items():
        np.testing.assert_allclose(results[0][name], value, atol=1e-6)
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_reverse_recurrences_go_from_the_last_entry() -> None:
    network = import_network(load_model(sequence_model("RNN", "t", directions=2)))
    flow, seen = Flow(Digital(network), {"x": np.zeros((2, 4, 2), np.float32)}), {}
    while not flow.done:
        at = flow.pending[0]
        seen.setdefault(at.layer, []).append((at.step, at.entry))
        flow.give(at, exact(network, at, flow.values(at)))
    reverse = {network.layers.index(layer) for each in network.recurrences if each.reverse for layer in each.layers}
    inside = {network.layers.index(layer) for each in network.recurrences for layer in each.layers}
    assert len(inside) == 2
    for layer in inside:
        entries = range(3, -1, -1) if layer in reverse else range(4)
        assert seen[layer] == list(enumerate(entries))


@given(steps=st.integers(0, 5), directions=st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_steps_are_counted_from_shapes(steps: int, directions: int) -> None:
    network = import_network(load_model(sequence_model("GRU", "t", directions=directions)))
    digital = Digital(network)
    found = count_steps(digital, {"x": np.zeros((3, steps, 2), np.float32)})
    assert found == {each.name: steps for each in network.recurrences}
    assert digital.known_steps == {}  # what is counted is not taken to be known


def test_tensors_are_dropped_once_nothing_reads_them() -> None:
    model = sequence_model("LSTM", 3)
    network = import_network(load_model(model))
    flow = Flow(Digital(network), {"x": np.zeros((2, 3, 2), np.float32)})
    while not flow.done:
        at = flow.pending[0]
        flow.give(at, exact(network, at, flow.values(at)))
    assert set(flow._body.values) == {"y", "h"}


def test_a_layer_that_does_not_wait_cannot_be_given() -> None:
    network = import_network(load_model(sequence_model("LSTM", 3)))
    flow = Flow(Digital(network), {"x": np.zeros((2, 3, 2), np.float32)})
    first = flow.pending[0]
    flow.give(first, exact(network, first, flow.values(first)))
    with pytest.raises(KeyError):
        flow.give(first, np.zeros(1))

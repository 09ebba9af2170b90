"""Crossbars of probabilistic graphs: connections and probabilities by enumeration, currents against networkx."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.errors import DataError
from xbcompile.experiments.graphs.circuits import connection_probability, graph_circuit, paper_graph


@st.composite
def graphs(draw: st.DrawFn, edges: int = 9) -> nx.DiGraph:
    """Up to 6 nodes; 0 is the source and 5 the target, joined at least by one edge."""
    pairs = [(u, v) for u in range(6) for v in range(6)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=edges - 1, unique=True))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(6))
    for u, v in {*chosen, (0, 5)} if draw(st.booleans()) else {*chosen, (0, 1), (1, 5)}:
        graph.add_edge(u, v, probability=draw(st.sampled_from([0.1, 0.25, 0.5, 0.8])))
    return graph


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_probability_by_enumeration(graph: nx.DiGraph) -> None:
    """Sum over all subsets of all edges of the graph, with or without those that take no part."""
    expected = 0.0
    edges = list(graph.edges)
    for there in itertools.product([False, True], repeat=len(edges)):
        part = nx.DiGraph([edge for edge, is_there in zip(edges, there, strict=True) if is_there])
        part.add_nodes_from((0, 5))
        if nx.has_path(part, 0, 5):
            chances = [graph.edges[edge]["probability"] for edge in edges]
            expected += np.prod([p if is_there else 1 - p for p, is_there in zip(chances, there, strict=True)])
    circuit = graph_circuit(graph, 0, 5)
    assert connection_probability(circuit) == pytest.approx(expected, abs=1e-12)
    listed = circuit.connected(circuit.configurations) @ circuit.configuration_probabilities()
    assert listed == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(graphs(14), st.integers(0, 2**32))
def test_current_is_that_of_the_resistance_between_the_nodes(graph: nx.DiGraph, seed: int) -> None:
    """networkx takes the pseudo-inverse of the whole Laplacian; opposite edges are two resistors side by side."""
    circuit = graph_circuit(graph, 0, 5)
    siemens = np.random.default_rng(seed).uniform(1e-4, 1e-3, (3, circuit.edges))
    for one, found in zip(siemens, circuit.conductance(siemens), strict=True):
        resistors = nx.Graph()
        for tail, head, value in zip(circuit.tails.tolist(), circuit.heads.tolist(), one, strict=True):
            before = resistors.edges[tail, head]["siemens"] if resistors.has_edge(tail, head) else 0.0
            resistors.add_edge(tail, head, siemens=before + value)
        ohm = nx.resistance_distance(resistors, 0, len(circuit.nodes) - 1, "siemens", invert_weight=False)
        assert found == pytest.approx(1 / ohm, rel=1e-9)


def test_the_example_of_the_paper() -> None:
    """0.2 + 0.8 * 0.6 * 0.5 = 0.44; a device beside two in series."""
    circuit = graph_circuit(paper_graph(), 0, 2)
    assert connection_probability(circuit) == pytest.approx(0.44, abs=1e-12)
    assert circuit.nodes == (0, 1, 2)
    direct, first, second = 3e-4, 1e-3, 5e-4
    assert circuit.conductance(np.array([direct, first, second])) == pytest.approx(direct + 1 / (1e3 + 2e3))


def test_edges_on_no_path_take_no_part() -> None:
    graph = paper_graph()
    for tail, head in ((2, 0), (1, 3), (4, 2), (1, 1)):
        graph.add_edge(tail, head, probability=0.5)
    assert graph_circuit(graph, 0, 2).edges == 3


def test_a_ring_of_many_nodes_is_computed_exactly() -> None:
    """Two chains side by side: 1 - (1 - p^10)^2; factoring takes a few hundred steps for 20 edges."""
    graph = nx.DiGraph()
    for chain in ("a", "b"):
        nodes = [0, *(f"{chain}{i}" for i in range(9)), 1]
        graph.add_edges_from(itertools.pairwise(nodes), probability=0.9)
    expected = 1 - (1 - 0.9**10) ** 2
    assert connection_probability(graph_circuit(graph, 0, 1)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda graph: graph.remove_node(2), "the graph has no node 2"),
        (lambda graph: graph.edges[0, 1].update(probability=1.0), "edge 0 -> 1 has probability 1.0; allowed"),
        (lambda graph: graph.edges[0, 1].pop("probability"), "edge 0 -> 1 has probability None; allowed"),
        (lambda graph: graph.remove_edges_from([(0, 2), (1, 2)]), "no path leads from 0 to 2"),
    ],
)
def test_graphs_that_are_refused(change, message: str) -> None:
    graph = paper_graph()
    change(graph)
    with pytest.raises(DataError, match=message):
        graph_circuit(graph, 0, 2)
    with pytest.raises(DataError, match="source and target are one node, 0"):
        graph_circuit(paper_graph(), 0, 0)


def test_too_many_edges() -> None:
    graph = nx.DiGraph()
    graph.add_edges_from(itertools.pairwise(range(42)), probability=0.9)
    circuit = graph_circuit(graph, 0, 41)
    with pytest.raises(DataError, match="41 edges are too many for an exact probability; at most 40"):
        connection_probability(circuit)
    with pytest.raises(DataError, match="a crossbar of 41 edges has too many configurations; at most 12"):
        circuit.configuration_probabilities()

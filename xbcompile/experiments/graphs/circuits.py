"""Probabilistic graphs as circuits: small crossbars whose cells are the edges, and when two nodes are connected.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications", Fig. 4a and b. Node i has row
line i and column line i, which are joined, so that a current can go on through a further cell; the edge from u to v is the cell
in row u, column v. (With the joint the example's currents lie about the published threshold, 11.5 uA: 9.3 uA where one of the two
devices in series is off, 12.2 uA where both are on.) The line of the source is driven, that of the target is held at 0 V and its
current read; other nodes float. Cells without an edge, and edges on no path from source to target, are not selected
(assumed): they carry no current. Lines have no resistance, as in the target's description.

A device conducts in both directions, so a graph with edges against the way from source to target has paths in the circuit that it
has not itself; they count as errors.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xbcompile.deferred import library
from xbcompile.errors import DataError

if TYPE_CHECKING:
    from networkx import DiGraph

nx = library("networkx")

MOST_UNDECIDED = 40  # edges of a graph whose probability is computed exactly: the work may double with each
MOST_LISTED = 12  # edges of a crossbar all of whose configurations are listed


@dataclass(frozen=True, eq=False)
class GraphCircuit:
    """The crossbar that tells whether a path leads from source to target.

    Args:
        nodes: those that lie on a path, the source first and the target last.
        tails: int64 [edges], where each edge begins, as an index into the nodes.
        heads: int64 [edges], where it ends.
        probabilities: float64 [edges], of its being there.
    """

    nodes: tuple[Hashable, ...]
    tails: np.ndarray
    heads: np.ndarray
    probabilities: np.ndarray

    @property
    def edges(self) -> int:
        """How many cells take part."""
        return len(self.tails)

    @cached_property
    def configurations(self) -> np.ndarray:
        """All states of the cells, bool [2^edges, edges].

        Raises:
            DataError: too many cells.
        """
        if self.edges > MOST_LISTED:
            raise DataError(
                f"a crossbar of {self.edges} edges has too many configurations; at most {MOST_LISTED} edges"
            )
        return (np.arange(2**self.edges)[:, None] >> np.arange(self.edges) & 1).astype(bool)

    def configuration_probabilities(self) -> np.ndarray:
        """How likely each of the `configurations` is, float64 [2^edges]."""
        on = self.configurations
        return np.where(on, self.probabilities, 1 - self.probabilities).prod(axis=1)

    def connected(self, on: np.ndarray) -> np.ndarray:
        """Whether edges that are there lead from source to target, bool [...] from bool [..., edges]."""
        reached = np.zeros((*on.shape[:-1], len(self.nodes)), bool)
        reached[..., 0] = True
        for _ in range(len(self.nodes) - 1):
            before = reached.copy()
            for edge in range(self.edges):
                reached[..., self.heads[edge]] |= on[..., edge] & reached[..., self.tails[edge]]
            if np.array_equal(before, reached):
                break
        return reached[..., -1]

    def conductance(self, siemens: np.ndarray) -> np.ndarray:
        """Current into the target per volt at the source: float64 [...] from positive siemens [..., edges].

        Kirchhoff's law at each floating node, all circuits at a time: with the conductance matrix L of the nodes, L_ff v_f =
        -L_fs for one volt at the source, and the current is -(L_ts + L_tf v_f).
        """
        count = len(self.nodes)
        laplacian = np.zeros((*siemens.shape[:-1], count, count))
        for edge, (tail, head) in enumerate(zip(self.tails, self.heads, strict=True)):
            through = siemens[..., edge]
            laplacian[..., tail, head] -= through
            laplacian[..., head, tail] -= through
            laplacian[..., tail, tail] += through
            laplacian[..., head, head] += through
        direct = -laplacian[..., -1, 0]
        if count == 2:
            return direct
        floating = slice(1, count - 1)
        voltages = np.linalg.solve(laplacian[..., floating, floating], -laplacian[..., floating, :1])[..., 0]
        return direct - np.einsum("...f,...f->...", laplacian[..., -1, floating], voltages)


def graph_circuit(graph: DiGraph, source: Hashable, target: Hashable) -> GraphCircuit:
    """The crossbar for one question to a graph.

    Args:
        graph: each edge has an attribute `probability` above 0 and below 1.
        source: where paths begin.
        target: where they end.

    Raises:
        DataError: no such node, the two are one, an edge without a probability, or no path at all.
    """
    _check(graph, source, target)
    simple = nx.DiGraph([(u, v) for u, v in graph.edges if v != source and u != target and u != v])
    simple.add_nodes_from((source, target))
    between = (nx.descendants(simple, source) | {source}) & (nx.ancestors(simple, target) | {target})
    kept = [(u, v) for u, v in simple.edges if u in between and v in between]
    if not kept:
        raise DataError(f"no path leads from {source!r} to {target!r}, whatever edges are there")
    nodes = (source, *(node for node in graph if node in between - {source, target}), target)
    place = {node: index for index, node in enumerate(nodes)}
    tails, heads = (np.array([place[edge[end]] for edge in kept], np.int64) for end in (0, 1))
    probabilities = np.array([float(graph.edges[edge]["probability"]) for edge in kept])
    return GraphCircuit(nodes, tails, heads, probabilities)


def _check(graph: DiGraph, source: Hashable, target: Hashable) -> None:
    for node in (source, target):
        if node not in graph:
            raise DataError(f"the graph has no node {node!r}")
    if source == target:
        raise DataError(f"source and target are one node, {source!r}: nothing is to be found out")
    for u, v, attributes in graph.edges(data=True):
        found: Any = attributes.get("probability")
        if not isinstance(found, int | float | np.floating) or not 0 < found < 1:
            raise DataError(f"edge {u!r} -> {v!r} has probability {found!r}; allowed: a number above 0 and below 1")


def connection_probability(circuit: GraphCircuit) -> float:
    """Exact probability that a path leads from source to target, edges being there independently of each other.

    Factoring (Moskowitz, "The analysis of redundancy networks" (1958)): with the nodes that are reached for certain, an edge that
    leaves them is there, and its end is reached, or it is not. Equal questions are answered once.

    Raises:
        DataError: too many edges.
    """
    if circuit.edges > MOST_UNDECIDED:
        raise DataError(f"{circuit.edges} edges are too many for an exact probability; at most {MOST_UNDECIDED}")
    tails, heads = circuit.tails.tolist(), circuit.heads.tolist()
    last, probabilities = len(circuit.nodes) - 1, circuit.probabilities.tolist()
    known: dict[tuple[frozenset[int], frozenset[int]], float] = {}

    def probability(reached: frozenset[int], undecided: frozenset[int]) -> float:
        if last in reached:
            return 1.0
        useful = frozenset(edge for edge in undecided if heads[edge] not in reached)
        leaving = [edge for edge in useful if tails[edge] in reached]
        if not leaving:
            return 0.0
        question = (reached, useful)
        if question not in known:
            edge = min(leaving)
            rest = useful - {edge}
            there = probability(reached | {heads[edge]}, rest)
            known[question] = probabilities[edge] * there + (1 - probabilities[edge]) * probability(reached, rest)
        return known[question]

    return probability(frozenset([0]), frozenset(range(circuit.edges)))


def paper_graph() -> DiGraph:
    """The example of Fig. 4a: from 0 to 2 directly with 0.2, or through 1 with 0.6 and 0.5."""
    graph = nx.DiGraph()
    for tail, head, probability in ((0, 2, 0.2), (0, 1, 0.6), (1, 2, 0.5)):
        graph.add_edge(tail, head, probability=probability)
    return graph

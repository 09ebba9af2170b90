"""Graphs on tiled arrays: what is written and read is the sampled graph, whatever the mapping; networkx says what is reached."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from xbcompile.errors import DataError
from xbcompile.experiments.graphs.circuits import connection_probability, graph_circuit, paper_graph
from xbcompile.experiments.graphs.tiled import TiledGraph, TiledSampling, random_graph
from xbcompile.options import MappingOptions
from xbcompile.targets import Target, load_target

SOT = load_target("sot")


EXACT = {"low_sigma": 0.0, "high_sigma": 0.0, "write_noise": 0.0}


def small(rows: int = 16, columns: int = 12, exact: bool = True) -> Target:
    return SOT.with_quantities("a test", rows=rows, columns=columns, **(EXACT if exact else {}))


@pytest.mark.parametrize(
    "options",
    [
        MappingOptions(arrays=0, effort=0.0),
        MappingOptions(arrays=3, cuts="balanced", packing="dense", effort=0.0),
        MappingOptions(arrays=0, cuts="greedy", packing="none", effort=0.0),
    ],
)
def test_single_rows_read_the_sampled_edges(options: MappingOptions) -> None:
    graph = random_graph(41, 3.0, seed=1)
    tiled = TiledGraph(graph, small(), TiledSampling(threshold=0.5), options=options)
    on = tiled.drawn(0)
    expected = np.zeros((41, 41))
    expected[tiled.tails[on], tiled.heads[on]] = 1
    new = np.eye(41, dtype=bool)
    driven = tiled.rows_of_tiles(new, 0)
    found = np.zeros((41, 41))
    for tile, reading in zip(tiled.tiles, tiled.read(tiled.write(on, 0), driven), strict=True):
        found[:, tile["m0"] : tile["m1"]] += reading
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 99])
def test_parts_of_a_wave_drive_each_row_of_a_tile_once_and_few_at_a_time(rows: int) -> None:
    tiled = TiledGraph(random_graph(41), small(), TiledSampling(rows_at_a_time=rows, threshold=0.5))
    new = np.random.default_rng(0).random((5, 41)) < 0.7
    parts = [tiled.rows_of_tiles(new, part) for part in range(17)]
    for index, tile in enumerate(tiled.tiles):
        driven = np.stack([part[index] for part in parts])
        np.testing.assert_array_equal(driven.sum(axis=0), new[:, tile["k0"] : tile["k1"]])
        assert driven.sum(axis=2).max() <= rows


@pytest.mark.parametrize("rows", [1, 3, 99])
def test_without_errors_waves_reach_what_the_sampled_graph_reaches(rows: int) -> None:
    graph = random_graph(60, 3.0, seed=2)
    tiled = TiledGraph(graph, small(), TiledSampling(rows_at_a_time=rows, threshold=0.5, spread_curves=False))
    reached = tiled.sample([0, 7, 59], 4)
    np.testing.assert_array_equal(reached.found, reached.really)
    assert reached.expectation_error == 0
    assert 0.05 < reached.really.mean() < 0.95
    on = tiled.drawn(2)
    there = nx.DiGraph(zip(tiled.tails[on].tolist(), tiled.heads[on].tolist(), strict=True))
    there.add_nodes_from(range(60))
    assert set(np.flatnonzero(reached.found[2, 1]).tolist()) == {7, *nx.descendants(there, 7)}


def test_reads_are_those_of_tiles_that_have_rows_of_the_wave() -> None:
    """A chain 0 -> 1 -> ... in one row block: each node's row is driven once, in each tile of its row block that has edges."""
    graph = nx.DiGraph()
    graph.add_edges_from([(i, i + 1) for i in range(9)], probability=1 - 1e-9)
    tiled = TiledGraph(graph, small(), TiledSampling(threshold=0.5, spread_curves=False))
    assert tiled.sample([0], 2).reads == 2 * 10 * len(tiled.tiles)


def test_probabilities_are_those_of_the_graph() -> None:
    """500 samples: a standard error of 0.022."""
    graph = paper_graph()
    exact = connection_probability(graph_circuit(graph, 0, 2))
    tiled = TiledGraph(graph, small(4, 4, exact=False), TiledSampling(own_curves=True))
    found = tiled.sample([0], 500)
    assert found.probabilities[0, tiled.nodes.index(2)] == pytest.approx(exact, abs=0.08)
    assert found.probabilities[0, tiled.nodes.index(0)] == 1


def test_fewer_rows_at_a_time_err_less() -> None:
    graph, target = random_graph(100, 3.0), small(exact=False)
    one, all_rows = (
        TiledGraph(graph, target, TiledSampling(rows_at_a_time=rows, threshold=0.5)).sample(range(5), 5)
        for rows in (1, 99)
    )
    assert one.expectation_error < 0.02
    assert all_rows.expectation_error >= one.expectation_error
    assert one.reads > all_rows.reads


def test_threshold_of_the_chip_lies_between_no_edge_and_one() -> None:
    assert 0.2 < TiledGraph(random_graph(60), small(exact=False)).threshold < 0.8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TiledGraph(paper_graph(), load_target("sot-single")), "target sot-single has no pairs"),
        (lambda: TiledGraph(paper_graph(), load_target("mram64")), "target mram64 has no pairs"),
        (lambda: TiledGraph(nx.DiGraph([(0, 0)]), SOT), "no edge between two nodes"),
        (lambda: TiledGraph(nx.DiGraph([(0, 1)]), SOT), "each edge needs a number above 0 and below 1"),
        (lambda: TiledGraph(paper_graph(), SOT, TiledSampling(rows_at_a_time=0)), "at least one row must be driven"),
        (lambda: TiledGraph(paper_graph(), small()).sample([5], 1), "the graph has no node 5"),
        (lambda: TiledGraph(paper_graph(), small()).sample([0], 0), "at least 1 must be taken"),
    ],
)
def test_what_is_refused(make, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()

"""Matrices with several uses: the step table executed naively, writes that serve several uses, joined uses."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import array_sizes, array_spec, check_schedule, matrix_shapes, shared_uses
from xbcompile.ir import Schedule, Use
from xbcompile.ir.schedule import WRITE
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule.workload import group_uses

MANY = settings(deadline=None, derandomize=True, max_examples=100)


def execute(
    schedule: Schedule, weights: Sequence[np.ndarray], inputs: Sequence[np.ndarray], uses: Sequence[Use]
) -> list[np.ndarray]:
    """Follow the step table literally with integers; a use's input is its own plus the sum of all it waits for."""
    tiles = schedule.tiles
    images = np.zeros((schedule.images, schedule.rows, schedule.columns), np.int64)
    for layer, group, k0, k1, m0, m1, image, row, column in tiles.tolist():
        physical = schedule.column_permutation[image, column : column + m1 - m0]
        images[image, row : row + k1 - k0, physical] = weights[layer][group, k0:k1, m0:m1].T
    held = np.zeros((schedule.arrays, schedule.rows, schedule.columns), np.int64)
    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0:
            held[array] = images[image]
    driven: dict[int, np.ndarray] = {}
    outputs = [np.zeros((weights[use.matrix].shape[0], weights[use.matrix].shape[2]), np.int64) for use in uses]
    for operation, array, image, tile, use, _, _, _ in schedule.steps.tolist():
        if operation == WRITE:
            held[array] = images[image]
            continue
        if use not in driven:
            driven[use] = inputs[use] + sum(int(outputs[before].sum()) for before in uses[use].waits_for)
        if array != schedule.copies["array"][np.searchsorted(schedule.copies["image"], image)]:
            continue  # another copy: of the vectors that all are alike here, it reads others
        _, group, k0, k1, m0, m1, image, row, column = tiles[tile].tolist()
        physical = schedule.column_permutation[image, column : column + m1 - m0]
        outputs[use][group, m0:m1] += driven[use][group, k0:k1] @ held[array, row : row + k1 - k0][:, physical]
    return outputs


def direct(weights: Sequence[np.ndarray], inputs: Sequence[np.ndarray], uses: Sequence[Use]) -> list[np.ndarray]:
    """The same from the matrices alone."""
    outputs: list[np.ndarray] = []
    for use, x in zip(uses, inputs, strict=True):
        driven = x + sum(int(outputs[before].sum()) for before in use.waits_for)
        outputs.append(np.einsum("gk,gkm->gm", driven, weights[use.matrix]))
    return outputs


@MANY
@given(
    st.lists(matrix_shapes, min_size=1, max_size=3),
    array_sizes,
    st.integers(0, 12),
    st.sampled_from([(18e-8, 9e-8), (1e-6, 1e-9), (0.0, 1e-7), (1e-7, 0.0), (0.0, 0.0)]),
    st.sampled_from([0.0, 0.02]),
    st.booleans(),
    st.data(),
)
def test_any_schedule_of_shared_matrices_executes_to_the_right_sums(shapes, size, arrays, times, effort, pack, data):
    uses = data.draw(shared_uses(len(shapes), most=6))
    layout, spec = plan_layout(shapes, *size, effort=0, pack=pack), array_spec(*size, *times)
    schedule = make_schedule(layout, uses, spec, arrays=arrays, batch=2, effort=effort)
    check_schedule(schedule, layout, uses, spec, arrays)
    random = np.random.default_rng(0)
    weights = [random.integers(-3, 4, (s.groups, s.inputs, s.outputs)) for s in shapes]
    inputs = [random.integers(-3, 4, weights[use.matrix].shape[:2]) for use in uses]
    for found, expected in zip(execute(schedule, weights, inputs, uses), direct(weights, inputs, uses), strict=True):
        assert np.array_equal(found, expected)


def test_layers_of_a_layout_may_be_numbered_with_gaps():
    # layers 1 and 2 share matrix 0: layer 3 owns the second matrix
    layout, spec = plan_layout([MatrixShape(1, 5, 5), MatrixShape(1, 3, 9)], 4, 4).for_layers([0, 3]), array_spec(4, 4)
    assert set(layout.tiles["layer"].tolist()) == {0, 3}
    uses = [Use(0, 0, 1), Use(1, 0, 2, (0,)), Use(2, 0, 3, (1,)), Use(3, 3, 1, (2,))]
    check_schedule(make_schedule(layout, uses, spec, arrays=2), layout, uses, spec, 2)


def scheduled(uses: Sequence[Use], shapes: Sequence[MatrixShape], arrays: int, **options: float) -> Schedule:
    layout, spec = plan_layout(shapes, 4, 4), array_spec(4, 4, **options)
    schedule = make_schedule(layout, uses, spec, arrays=arrays, effort=0, objective="weight-updates")
    check_schedule(schedule, layout, uses, spec, arrays)
    return schedule


@pytest.mark.parametrize("arrays", [1, 2, 3, 5])
def test_one_write_serves_both_towers_of_a_siamese_net(arrays):
    # two layers of 6 and 2 images, each read by two towers that meet at the end
    shapes = [MatrixShape(1, 24, 4), MatrixShape(1, 4, 8)]
    towers = [Use(0, 0, 5), Use(1, 1, 5, (0,)), Use(2, 0, 5), Use(3, 1, 5, (2,))]
    schedule = scheduled(towers, shapes, arrays)
    # all arrays but one keep an image for ever, the other one takes turns
    assert schedule.images == 8
    assert schedule.weight_updates == schedule.weight_updates_lower_bound == 8 - arrays + 1


@pytest.mark.parametrize(("arrays", "writes"), [(1, 12 * 2), (2, 12), (3, 3)])
def test_a_chain_of_uses_keeps_what_fits(arrays, writes):
    # 3 images, read 12 times in turn: all but one array's worth stay, the last array takes the others in turn, each time from the
    # image that it read last, also around the end of the batch; with an array each, all are written once and for all
    chain = [Use(i, 0, 5, (i - 1,) if i else ()) for i in range(12)]
    schedule = scheduled(chain, [MatrixShape(1, 12, 4)], arrays)
    assert schedule.weight_updates == schedule.weight_updates_lower_bound == writes


def test_alternating_steps_of_a_recurrence_are_read_in_turn():
    # two matrices of one image each, used in turn by 5 steps: with an array each, nothing is written twice
    uses = [Use(i % 2, i % 2, 3, (i - 1,) if i else ()) for i in range(10)]
    schedule = scheduled(uses, [MatrixShape(1, 4, 4)] * 2, 2)
    assert schedule.stationary
    assert schedule.makespan_s == pytest.approx(10 * 3 * 9e-8)
    reads = schedule.steps[schedule.steps["operation"] != WRITE]
    assert reads["use"].tolist() == list(range(10))
    assert scheduled(uses, [MatrixShape(1, 4, 4)] * 2, 1).weight_updates == 10


def test_stationary_uses_do_not_wait_for_each_other():
    # the towers' layers follow each other on an array each: a reads 0 while b reads 1 in the middle
    shapes = [MatrixShape(1, 4, 4)] * 2
    towers = [Use(0, 0, 5), Use(1, 1, 5, (0,)), Use(2, 0, 5), Use(3, 1, 5, (2,))]
    assert scheduled(towers, shapes, 0).makespan_s == pytest.approx(3 * 5 * 9e-8)


@MANY
@given(st.integers(1, 4).flatmap(lambda matrices: shared_uses(matrices, most=10)))
def test_joined_uses_are_of_one_matrix_and_independent(uses):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(uses)))
    graph.add_edges_from((before, i) for i, use in enumerate(uses) for before in use.waits_for)
    groups = group_uses(uses)
    assert sorted(i for group in groups for i in group) == list(range(len(uses)))
    group_of = {i: group for group in groups for i in group}
    for group in groups:
        assert len({uses[i].matrix for i in group}) == 1
        assert not any(nx.has_path(graph, i, j) for i in group for j in group if i != j)
    joined = nx.DiGraph((group_of[a], group_of[b]) for a, b in graph.edges)
    assert nx.is_directed_acyclic_graph(joined)

"""Schedules: list scheduling, fewest writes, the solver."""

import heapq
import itertools

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import CHAIN, array_spec, check_schedule, uses_of
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule.list_scheduling import spread_equal_jobs
from xbcompile.tiler.schedule.residency import NEVER, keep_resident
from xbcompile.tiler.schedule.workload import order_by_dependency

MANY = settings(deadline=None, derandomize=True, max_examples=200)


@MANY
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 40), st.integers(0, 9))
def test_equal_jobs_go_to_the_machine_that_starts_them_first(free, jobs, duration):
    machine, turn = spread_equal_jobs(np.array(free), jobs, duration)
    assert len(machine) == jobs
    starts = np.array(free)[machine] + turn * duration
    for m in range(len(free)):
        assert turn[machine == m].tolist() == list(range((machine == m).sum()))
    if duration:
        queue = [(time, m) for m, time in enumerate(free)]
        heapq.heapify(queue)
        for start, chosen in zip(starts, machine, strict=True):
            assert (start, chosen) == queue[0]
            heapq.heapreplace(queue, (start + duration, chosen))


def fewest_writes(layers, arrays):
    """Exhaustive: all orders of reading, all evictions; a layer is a set of images."""
    states = {frozenset(): 0}
    for images in layers:
        after: dict[frozenset, int] = {}
        for order in itertools.permutations(sorted(images)):
            now = states
            for image in order:
                step: dict[frozenset, int] = {}
                for held, writes in now.items():
                    if image in held:
                        options = [(held, writes)]
                    elif len(held) < arrays:
                        options = [(held | {image}, writes + 1)]
                    else:
                        options = [((held - {out}) | {image}, writes + 1) for out in held]
                    for key, value in options:
                        step[key] = min(step.get(key, value), value)
                now = step
            for key, value in now.items():
                after[key] = min(after.get(key, value), value)
        states = after
    return min(states.values())


def visits_of(layers):
    """Rank and next rank of each visit, as `collect_workload` orders them."""
    visits = [(rank, image) for rank, images in enumerate(layers) for image in sorted(images)]
    following = [
        min((r for r, other in visits if other == image and r > rank), default=int(NEVER)) for rank, image in visits
    ]
    return np.array([rank for rank, _ in visits]), np.array(following)


@MANY
@given(st.lists(st.sets(st.integers(0, 4), min_size=1, max_size=3), min_size=1, max_size=5), st.integers(1, 3))
def test_no_execution_spares_more_writes_than_planned(layers, arrays):
    rank, following = visits_of(layers)
    keep = keep_resident(rank, following, arrays)
    assert not keep[following == NEVER].any()
    bound = len(rank) - int(keep.sum())
    fewest = fewest_writes(layers, arrays)
    assert bound <= fewest


@pytest.mark.parametrize(
    ("layers", "arrays", "writes"),
    [
        ([{0, 1}, {1, 2}, {2, 0}], 1, 4),  # 1 and 2 are kept, 0 is written again
        ([{0, 1}, {1, 2}, {2, 0}], 2, 3),  # 0 waits in the second array
        ([{0, 9}, {1}, {2}, {0, 9}], 2, 5),  # while 1 and 2 are read, only one of 0 and 9 can wait
    ],
)
def test_kept_images(layers, arrays, writes):
    rank, following = visits_of(layers)
    assert len(rank) - keep_resident(rank, following, arrays).sum() == writes == fewest_writes(layers, arrays)


@settings(MANY, max_examples=80)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(2, 3), st.integers(0, 3))
def test_solver_never_worsens_a_schedule(sizes, arrays, shared):
    # layers of one column and `size` rows on 3 x 4: partly shared images
    shapes = [MatrixShape(1, size, 1 + (i + shared) % 4) for i, size in enumerate(sizes)]
    waits = [[i - 1] if i % 3 else [] for i in range(len(shapes))]
    layout, spec = plan_layout(shapes, 3, 4, effort=0), array_spec(3, 4)
    reads = [1 + i % 2 for i in range(len(shapes))]
    uses = uses_of(reads, waits)
    quick, better = (make_schedule(layout, uses, spec, arrays=arrays, effort=effort) for effort in (0.0, 0.01))
    check_schedule(better, layout, uses, spec, arrays)
    assert (better.makespan_s, better.weight_updates) <= (quick.makespan_s, quick.weight_updates)


def test_solver_finds_the_better_assignment():
    # five independent images of 3, 3, 2, 2, 2 time units on two arrays: longest first ends at 7, the best at 6
    layout, spec = plan_layout([MatrixShape(1, 4, 4)] * 5, 4, 4), array_spec(4, 4, 1e-9, 1e-6)
    quick, best = (
        make_schedule(layout, uses_of([300, 300, 200, 200, 200], [[]] * 5), spec, arrays=2, effort=effort)
        for effort in (0, 1)
    )
    assert quick.makespan_s == pytest.approx(700e-6, rel=1e-3)
    assert best.makespan_s == pytest.approx(600e-6, rel=1e-3)


def test_uses_are_ordered_by_dependency_then_index():
    assert order_by_dependency([[2], [], [1], []]) == (1, 2, 0, 3)
    assert order_by_dependency(CHAIN) == (0, 1, 2, 3, 4)


@MANY
@given(st.lists(st.lists(st.integers(-1, 7), max_size=2), max_size=7))
def test_any_order_is_networkx_own(dependencies):
    """Its lexicographical topological sort; cycles, things that wait for themselves and unknown ones are faults."""
    graph = networkx.DiGraph((before, after) for after, waits in enumerate(dependencies) for before in waits)
    graph.add_nodes_from(range(len(dependencies)))
    if len(graph) > len(dependencies):
        with pytest.raises(ValueError, match="dependencies name uses outside"):
            order_by_dependency(dependencies)
    elif not networkx.is_directed_acyclic_graph(graph):
        with pytest.raises(ValueError, match="dependencies of the uses are cyclic"):
            order_by_dependency(dependencies)
    else:
        assert order_by_dependency(dependencies) == tuple(networkx.lexicographical_topological_sort(graph))

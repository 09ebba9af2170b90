"""Batches of any size: exact times, bounds below what is found, and tables that do not grow with the batch."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.tiler_kit import array_spec, check_schedule
from xbcompile.errors import ScheduleError
from xbcompile.ir import Use
from xbcompile.ir.schedule import share_of, shares_of
from xbcompile.targets import target_names
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule import copies as copying
from xbcompile.tiler.schedule.copies import (
    Replication,
    copies_for_latency,
    copies_for_period,
    latency_bound,
    usable_arrays,
)
from xbcompile.tiler.schedule.workload import MOST_READS, TimeBase, collect_workload

MANY = settings(deadline=None, derandomize=True, max_examples=150)
LENET_5 = [
    {"inputs": k, "outputs": m, "vectors": v}
    for k, m, v in [(25, 6, 784), (150, 16, 100), (400, 120, 1), (120, 84, 1), (84, 10, 1)]
]
large = st.integers(1, 2**40) | st.integers(0, 40).map(lambda bits: 2**bits)


@MANY
@given(st.floats(1e-12, 1e3), st.floats(1e-9, 1e6), large, large)
def test_the_most_reads_that_last_so_long(t_read_s, ticks_per_read, reads, limit):
    """By its definition: those reads are in time, and one more is not, or is above the limit."""
    time_base = TimeBase(t_read_s / ticks_per_read, t_read_s, 1, 1)
    ticks = time_base.read_ticks(np.array([reads])) // 3 if reads * ticks_per_read < 2**52 else np.array([2**50])
    (most,) = time_base.most_reads(ticks, np.array([limit]))
    one_more = time_base.read_ticks(np.array([most, most + 1]))
    assert 0 <= most <= limit
    assert one_more[0] <= ticks[0]
    assert most == limit or one_more[1] > ticks[0]


@MANY
@given(st.integers(1, 2**62), st.integers(1, 2**31 - 1), st.data())
def test_shares_of_any_number_of_vectors(vectors, copies, data):
    copy = data.draw(st.integers(0, copies - 1))
    start, end = share_of(copy, copies, vectors)  # Python's integers are exact
    assert shares_of(np.array([copy]), np.array([copies]), np.array([vectors])).tolist() == [end - start]


def replication_of(sizes, batch=1):
    """A chain of layers of one array each: vectors and slices."""
    shapes = [MatrixShape(1, 4, 4)] * len(sizes)
    uses = [Use(i, i, v * s, (i - 1,) if i else (), v) for i, (v, s) in enumerate(sizes)]
    tiles = plan_layout(shapes, 4, 4, pack=False, effort=0).tiles
    time_base = TimeBase.for_reads(tiles, uses, array_spec(4, 4, 1.0, 1e-7), batch)
    work = collect_workload(tiles, uses, [(use,) for use in range(len(uses))], time_base)
    return Replication.of(work, uses, time_base)


@MANY
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=3),
    st.integers(0, 5),
    st.sampled_from([1, 1000, 10**6 + 1, 10**9]),
)
def test_copies_are_the_best_choice_whatever_the_batch(sizes, spare, batch):
    """All choices of copies, timed in Python's integers."""
    replication, arrays = replication_of(sizes, batch), len(sizes) + spare
    times = [
        [
            int(replication.time_base.read_ticks(np.int64(-(-v * batch // c) * s)))
            for (v, s), c in zip(sizes, chosen, strict=True)
        ]
        for chosen in product(range(1, spare + 2), repeat=len(sizes))
        if sum(chosen) <= arrays
    ]
    fast, steady = copies_for_latency(replication, arrays), copies_for_period(replication, arrays)
    assert replication.image_ticks(fast).sum() == latency_bound(replication, arrays) == min(map(sum, times))
    assert replication.image_ticks(steady).max() == min(map(max, times))
    assert max(fast.sum(), steady.sum()) <= arrays


@settings(MANY, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 4)), min_size=1, max_size=6),
    st.integers(1, 60),
    st.sampled_from([1, 977]),
)
def test_a_near_split_has_a_bound_below_the_best_one(sizes, spare, batch):
    replication, arrays = replication_of(sizes, batch), len(sizes) + spare
    best = latency_bound(replication, arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_MOST_OPTIONS", 0)
        bound, copies = latency_bound(replication, arrays), copies_for_latency(replication, arrays)
    assert bound <= best <= replication.image_ticks(copies).sum()
    assert copies.sum() <= arrays


def test_a_near_split_is_near():
    replication = replication_of([(784, 1), (100, 3), (5, 1), (1, 1)], batch=10**7)
    for arrays in (10**4, 10**6):
        found = replication.image_ticks(copies_for_latency(replication, min(arrays, 10**6))).sum()
        bound = latency_bound(replication, min(arrays, 10**6))
        assert bound <= found <= 1.001 * bound


def test_tables_stay_small_on_any_number_of_arrays():
    layout = plan_layout([MatrixShape(1, 8, 4)], 4, 4, effort=0)
    replication = replication_of([(3, 1)], batch=10**9)
    assert usable_arrays(replication.work, 2**31 - 1) == 1_000_001
    uses, spec = [Use(0, 0, 3, (), 3)], array_spec(4, 4, 1.0, 1e-7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_MOST_COPIED_READS", 100)
        schedule = make_schedule(layout, uses, spec, arrays=2**31 - 1, batch=10**9, effort=0)
    check_schedule(schedule, layout, uses, spec, 2**31 - 1)
    assert len(schedule.steps) <= 102
    # all arrays together: 2**30 - 1 copies of each image, whose largest share of 3e9 vectors is 3
    assert schedule.makespan_lower_bound_s == pytest.approx(3e-7, rel=1e-5)


@pytest.mark.parametrize("target", target_names())
@pytest.mark.parametrize("arrays", [0, 1, 7, 40, 300])
def test_plans_of_big_batches_hold(target, arrays):
    """`plan` checks its tables; they are as long for a million inferences as for a billion."""
    steps = set()
    for batch in (200_000, 10**6, 10**9):
        plan = xbcompile.plan(
            LENET_5, target, arrays=arrays, batch=batch, effort=0, cuts="greedy", packing="dense", slices=1
        )
        steps.add(len(plan.schedule.steps))
        assert plan.schedule.makespan_lower_bound_s <= plan.schedule.makespan_s * (1 + 1e-9)
    assert max(steps) - min(steps) <= 8  # a copy more or less, as shares round


def test_more_reads_than_can_be_counted_are_refused():
    layout, spec = plan_layout([MatrixShape(1, 4, 4)], 4, 4, effort=0), array_spec(4, 4)
    uses = [Use(0, 0, 6, (), 3)]
    most = MOST_READS // 6
    assert make_schedule(layout, uses, spec, arrays=1, batch=most, effort=0).batch == most
    for batch in (most + 1, 2**63, 10**400):
        with pytest.raises(
            ScheduleError, match=f"an inference makes 6, and batch=.*; take a batch of {most:,} at most"
        ):
            make_schedule(layout, uses, spec, arrays=1, batch=batch, effort=0)
    with pytest.raises(ScheduleError, match="take fewer vectors"):
        xbcompile.plan([{"inputs": 1, "outputs": 1, "vectors": 2**31 - 1, "slices": 255}] * 3, "ideal")

"""Images that stay: copies on spare arrays and batches that overlap, against all choices and all periods."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import array_spec, check_schedule, shared_uses, uses_of
from xbcompile.ir import Use
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule.copies import Replication, copies_for_period
from xbcompile.tiler.schedule.list_scheduling import stationary_plan
from xbcompile.tiler.schedule.overlap import pipelined, smallest_period
from xbcompile.tiler.schedule.timetable import WriteRules, time_visits
from xbcompile.tiler.schedule.workload import TimeBase, collect_workload

MANY = settings(deadline=None, derandomize=True, max_examples=80)
layer_sizes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=4)  # vectors, slices


def chain_of(sizes):
    shapes = [MatrixShape(1, 4, 4)] * len(sizes)
    uses = [Use(i, i, v * s, (i - 1,) if i else (), v) for i, (v, s) in enumerate(sizes)]
    return plan_layout(shapes, 4, 4, pack=False, effort=0), uses


@settings(MANY, max_examples=40)
@given(layer_sizes, st.integers(0, 4))
def test_copies_are_the_best_choice(sizes, spare):
    # the copies of a layer's one image share its vectors: it lasts for the reads of the largest share
    layout, uses = chain_of(sizes)
    spec, arrays = array_spec(4, 4, 1.0, 1.0), len(sizes) + spare
    times = [
        [-(-vectors // copies) * slices for (vectors, slices), copies in zip(sizes, choice, strict=True)]
        for choice in product(range(1, spare + 2), repeat=len(sizes))
        if sum(choice) <= arrays
    ]
    for objective, best in (("latency", min(map(sum, times))), ("throughput", min(map(max, times)))):
        schedule = make_schedule(layout, uses, spec, arrays=arrays, objective=objective, effort=0)
        check_schedule(schedule, layout, uses, spec, arrays)
        assert schedule.makespan_lower_bound_s == min(map(sum, times))
        assert schedule.period_lower_bound_s == min(map(max, times))
        assert (schedule.makespan_s if objective == "latency" else schedule.period_s) == best
        assert schedule.arrays == len(schedule.copies)
        # no copy is in vain
        for image in np.flatnonzero(np.bincount(schedule.copies["image"]) > 1).tolist():
            copies, (vectors, slices) = int((schedule.copies["image"] == image).sum()), sizes[image]
            assert -(-vectors // (copies - 1)) * slices > -(-vectors // copies) * slices


def test_one_vector_needs_no_copies():
    layout, uses = chain_of([(1, 9), (1, 3)])
    assert make_schedule(layout, uses, array_spec(4, 4), arrays=9).arrays == 2
    # a batch of two has two
    assert make_schedule(layout, uses, array_spec(4, 4), arrays=9, batch=2).arrays == 4
    # copies are weight updates too
    assert make_schedule(layout, uses, array_spec(4, 4), arrays=9, batch=2, objective="weight-updates").arrays == 2


def test_images_of_several_layers_are_copied_for_the_one_that_is_slow():
    # two matrices of 2 x 4 share the array; the first layer reads 100 vectors, the second one 1
    layout = plan_layout([MatrixShape(1, 2, 4), MatrixShape(1, 2, 4)], 4, 4)
    assert layout.images == 1
    uses = [Use(0, 0, 100, (), 100), Use(1, 1, 1, (0,), 1)]
    spec = array_spec(4, 4, 1.0, 1.0)
    schedule = make_schedule(layout, uses, spec, arrays=4)
    check_schedule(schedule, layout, uses, spec, 4)
    assert schedule.makespan_s == schedule.makespan_lower_bound_s == 25 + 1


def stationary_times(uses, images):
    """Work and timetable with a read that lasts for one tick."""
    tiles = plan_layout([MatrixShape(1, 1, 1)] * images, 1, 1, pack=False).tiles
    work = collect_workload(tiles, uses, [(i,) for i in range(len(uses))], TimeBase(1.0, 1.0, 1, 1))
    return work, time_visits(work, stationary_plan(work), WriteRules())


def brute_period(work, timetable):
    """The first period at which no two reads of an array meet, batch by batch."""
    start, length, array = timetable.read_start.tolist(), work.visit_ticks.tolist(), timetable.array.tolist()
    makespan = timetable.makespan(work)
    for period in range(max(length), makespan + 1):
        batches = range(-(makespan // period) - 1, makespan // period + 2)
        if not any(
            max(start[i], start[j] + k * period) < min(start[i] + length[i], start[j] + k * period + length[j])
            for i in range(len(start))
            for j in range(len(start))
            for k in batches
            if array[i] == array[j] and (i, k) != (j, 0)
        ):
            return period
    raise AssertionError("batches that follow each other never meet")


@MANY
@given(st.integers(1, 3).flatmap(lambda images: st.tuples(st.just(images), shared_uses(images, most=6))))
def test_the_period_is_the_smallest_that_the_times_allow(case):
    images, uses = case
    work, timetable = stationary_times(uses, images)
    assert smallest_period(work, timetable) == brute_period(work, timetable)
    later, period = pipelined(work, timetable)
    assert period == work.image_ticks.max()
    assert brute_period(work, later) == period
    ends = later.read_start + work.visit_ticks
    for visit, rank in enumerate(work.rank.tolist()):
        for before in work.waits_for[rank]:
            assert later.read_start[visit] >= ends[work.rank == before].max()


def test_throughput_reads_later_for_a_shorter_period():
    # image 0 is read for 3, image 1 for 2, image 0 for 3 again: at 0, 3 and 5. With a period of 6 the last has room at 3 or 9
    uses = [Use(0, 0, 3), Use(1, 1, 2, (0,)), Use(2, 0, 3, (1,))]
    layout = plan_layout([MatrixShape(1, 4, 4)] * 2, 4, 4)
    spec = array_spec(4, 4, 1.0, 1.0)
    at_once = make_schedule(layout, uses, spec, arrays=0)
    later = make_schedule(layout, uses, spec, arrays=0, objective="throughput")
    assert (at_once.makespan_s, at_once.period_s) == (8, 8)
    assert (later.makespan_s, later.period_s) == (12, 6)


@pytest.mark.parametrize("arrays", [0, 2])
def test_batches_that_rewrite_weights_do_not_overlap(arrays):
    layout, uses = chain_of([(1, 5)] * 3)
    schedule = make_schedule(layout, uses, array_spec(4, 4, 1.0, 1.0), arrays=arrays, objective="throughput")
    assert (schedule.period_s == schedule.makespan_s) == bool(arrays)
    assert arrays or schedule.period_s == 5


def test_copies_share_reads_when_uses_differ_in_vectors():
    layout = plan_layout([MatrixShape(1, 4, 4)], 4, 4)
    uses = uses_of([3], [[]], vectors=7)
    spec = array_spec(4, 4, 1.0, 1.0)
    schedule = make_schedule(layout, uses, spec, arrays=3)
    assert [schedule.reads_of(step, uses[0]) for step in schedule.steps] == [9, 6, 6]


def test_no_copy_is_made_where_another_image_stays_as_busy():
    # two images read for 10 each, one spare array: a copy of either leaves the other one as busy
    layout, uses = chain_of([(10, 1), (10, 1)])
    time_base = TimeBase(1.0, 1.0, 1, 1)
    work = collect_workload(layout.tiles, uses, [(0,), (1,)], time_base)
    replication = Replication.of(work, uses, time_base)
    assert copies_for_period(replication, 3).tolist() == [1, 1]
    assert copies_for_period(replication, 4).tolist() == [2, 2]


def test_what_the_batch_waits_for_is_read_first():
    # image 0 is read for 10 by a use that nothing waits for, and for 1 by one that a read of 10 from image 1 waits for
    uses = [Use(0, 0, 10), Use(1, 0, 1), Use(2, 1, 10, (1,))]
    layout = plan_layout([MatrixShape(1, 4, 4)] * 2, 4, 4)
    assert make_schedule(layout, uses, array_spec(4, 4, 1.0, 1.0), arrays=0, effort=0).makespan_s == 11


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 64])
def test_a_bound_does_not_stand_above_what_was_found_by_rounding(batch):
    """Writes so long that ticks are coarse beside reads: 3 vectors of each inference, shared by two copies."""
    layout = plan_layout([MatrixShape(1, 4, 4)], 4, 4, effort=0)
    uses = uses_of([1], [()], vectors=3)
    spec = array_spec(4, 4, 2.0, 1.67e-6)
    schedule = make_schedule(layout, uses, spec, arrays=2, batch=batch, effort=0, objective="energy")
    assert schedule.makespan_lower_bound_s <= schedule.makespan_s
    assert schedule.period_lower_bound_s <= schedule.period_s

"""Images that take turns: what a batch may find in its arrays, rules of writing, bounds by hand, writes of fewer rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import CHAIN, array_spec, check_schedule, layer_graphs, uses_of
from xbcompile.errors import ScheduleError
from xbcompile.ir.schedule import WRITE
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.schedule.retime import retime

ONE = MatrixShape(1, 4, 4)


def scheduled(reads, waits, arrays, write_s, *, effort=1.0, objective="latency", **rules):
    """One image per layer; a write lasts for `write_s`, a read for 1 s."""
    layout, spec = plan_layout([ONE] * len(reads), 4, 4, pack=False), array_spec(4, 4, write_s / 4, 1.0, **rules)
    uses = uses_of(reads, waits)
    schedule = make_schedule(layout, uses, spec, arrays=arrays, effort=effort, objective=objective)
    check_schedule(schedule, layout, uses, spec, arrays)
    return schedule


@pytest.mark.parametrize(("images", "arrays"), [(5, 2), (5, 3), (5, 4), (2, 1)])
def test_all_but_one_array_keep_an_image(images, arrays):
    # some array is written; the others can hold arrays - 1 images for ever, and no image is in two of them
    waits = [[i - 1] if i else [] for i in range(images)]
    schedule = scheduled([3] * images, waits, arrays, 4, objective="weight-updates")
    assert schedule.weight_updates == schedule.weight_updates_lower_bound == images - arrays + 1
    assert np.count_nonzero(np.bincount(schedule.writes["array"], minlength=arrays)) == 1


def test_a_batch_starts_with_what_the_one_before_ended_with():
    # reads of 5 on two arrays in turn; a write of 4 hides behind the other array's read, also around the end
    schedule = scheduled([5] * 4, CHAIN[:4], 2, 4)
    assert schedule.makespan_s == schedule.makespan_lower_bound_s == 4 * 5
    assert schedule.initial.max() >= 0
    assert schedule.weight_updates == 4


@pytest.mark.parametrize(
    ("reads", "waits", "arrays", "write_s", "shortest"),
    [
        # five equal images, two arrays: one reads and writes three
        ([2] * 5, [[]] * 5, 2, 1, 3 * 2 + 3),
        # of 3, 3, 2, 2, 2 an array has three: at least 2 + 2 + 2
        ([300, 300, 200, 200, 200], [[]] * 5, 2, 1, 603),
        # a chain of three on two arrays: two of any three neighbours on the circle share an array and wait for a write
        ([1, 1, 1], CHAIN[:3], 2, 9, 20),
        # one array: everything after each other
        ([1, 2, 3], CHAIN[:3], 1, 5, 6 + 15),
    ],
)
def test_bounds_by_hand_are_reached(reads, waits, arrays, write_s, shortest):
    schedule = scheduled(reads, waits, arrays, write_s)
    assert schedule.makespan_s == shortest
    assert schedule.makespan_lower_bound_s <= shortest
    assert schedule.makespan_lower_bound_s >= 0.9 * shortest


def test_writes_that_must_not_overlap_reads_are_done_together():
    # four images of one layer, two arrays: each array writes twice, both together, between the reads
    schedule = scheduled([7] * 4, [[]] * 4, 2, 5, writes_while_reading=False)
    assert schedule.makespan_s == 2 * 7 + 2 * 5 == schedule.makespan_lower_bound_s
    # one at a time: each write on its own
    schedule = scheduled([7] * 4, [[]] * 4, 2, 5, writes_while_reading=False, writes_at_a_time=1)
    assert schedule.makespan_s == 2 * 7 + 4 * 5 == schedule.makespan_lower_bound_s


def test_writes_take_turns_where_few_are_allowed():
    # eight short images on four arrays: 8 writes one after another, but for the images that stay in three of them
    free = scheduled([1] * 8, [[]] * 8, 4, 10, effort=0)
    one = scheduled([1] * 8, [[]] * 8, 4, 10, effort=0, writes_at_a_time=1)
    two = scheduled([1] * 8, [[]] * 8, 4, 10, effort=0, writes_at_a_time=2)
    assert free.makespan_s < two.makespan_s < one.makespan_s
    assert one.makespan_s >= 10 * one.weight_updates_lower_bound
    assert one.setup_s == 10 * one.initial_writes
    assert two.setup_s == 10 * -(-two.initial_writes // 2)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=7),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 2),
    st.data(),
)
def test_fewer_rows_take_less_time(reads, arrays, while_reading, at_a_time, data):
    arrays = min(arrays, len(reads) - 1)
    waits = data.draw(layer_graphs(len(reads)))
    layout = plan_layout([ONE] * len(reads), 4, 4, pack=False)
    spec = array_spec(4, 4, 2.0, 1.0, writes_while_reading=while_reading, writes_at_a_time=at_a_time)
    uses = uses_of(reads, waits)
    full = make_schedule(layout, uses, spec, arrays=arrays, effort=0)
    assert len(full.writes)
    same = retime(full, uses, spec, np.full(len(full.writes), 4))
    check_schedule(same, layout, uses, spec, arrays)
    assert same.makespan_s <= full.makespan_s
    rows = data.draw(st.lists(st.integers(0, 4), min_size=len(full.writes), max_size=len(full.writes)))
    fewer = retime(full, uses, spec, np.array(rows))
    check_schedule(fewer, layout, uses, spec, arrays)
    assert fewer.rows_written == sum(rows)
    assert fewer.makespan_s <= full.makespan_s
    assert fewer.period_s == fewer.makespan_s
    written = [s["image"].tolist() for s in (full.writes, fewer.writes)]
    assert sorted(written[0]) == sorted(written[1])


def test_retiming_explains_impossible_rows():
    layout, spec = plan_layout([ONE] * 3, 4, 4, pack=False), array_spec(4, 4)
    uses = uses_of([1] * 3, CHAIN[:3])
    schedule = make_schedule(layout, uses, spec, arrays=1)
    assert np.count_nonzero(schedule.steps["operation"] == WRITE) == 3
    with pytest.raises(ScheduleError, match="rows of 2 writes for a schedule with 3"):
        retime(schedule, uses, spec, np.array([4, 4]))
    with pytest.raises(ScheduleError, match="a write of 1 to 5 rows; an array has 4"):
        retime(schedule, uses, spec, np.array([4, 5, 1]))
    stays = make_schedule(layout, uses, spec, arrays=3)
    assert retime(stays, uses, spec, np.zeros(0, int)) is stays

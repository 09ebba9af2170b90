"""Which write a read sees, row by row, against a literal simulation of the tables; when batches of a session start."""

from __future__ import annotations

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import CODED, convolution_program, dense_model
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program.program import Program
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.runtime.timeline import COMMISSION_BATCH, Clock, VectorRange


def placed_program(program: Program, whole_writes: bool = False) -> PlacedProgram:
    return PlacedProgram(program, no_corrections(program), whole_writes=whole_writes)


@pytest.mark.parametrize("rewrite", ["all", "changed", "matched"])
@pytest.mark.parametrize(("arrays", "batch"), [(1, 1), (2, 3), (5, 1)])
def test_reads_see_what_a_literal_simulation_left(rewrite: str, arrays: int, batch: int) -> None:
    """Arrays as lists of rows: each holds cells, and the number and time of its last write. A read finds its image whole."""
    program = convolution_program("m2tj4", CODED, arrays=arrays, batch=batch, rewrite=rewrite, effort=1)
    placed, schedule, rows = placed_program(program), program.schedule, program.spec.rows
    timeline, clock = placed.timeline, placed.clock
    if rewrite != "changed":  # where random cells change, they mostly do so in every row
        assert np.any(schedule.writes["rows"] < rows) == (rewrite == "matched")
    clock.run(0, 4)
    cells = [np.full((rows, program.spec.columns), -1) for _ in range(schedule.arrays)]
    numbers, times = np.full((schedule.arrays, rows), -1), np.full((schedule.arrays, rows), np.nan)
    count = [0] * schedule.arrays
    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0:
            cells[array] = program.cells(np.array([image]))[0].astype(int)
            numbers[array], times[array], count[array] = 0, timeline.initial_s[array], 1
    for number in range(4):
        start_s = schedule.setup_s + number * schedule.period_s
        for step, row in enumerate(schedule.steps):
            array = int(row["array"])
            image = program.cells(np.array([row["image"]]))[0]
            if row["operation"] == WRITE:
                some = timeline.rows(step) if count[array] else np.arange(rows)
                assert len(some) == row["rows"]
                assert timeline.number(array, int(timeline.place[step]), number) == count[array]
                cells[array][some], numbers[array][some], times[array][some] = image[some], count[array], start_s
                times[array][some] += row["start_s"]
                count[array] += 1
                continue
            assert row["operation"] == READ
            found, found_s = timeline.written(step, number, clock)
            assert np.array_equal(np.broadcast_to(found, rows), numbers[array])
            np.testing.assert_allclose(np.broadcast_to(found_s, rows), times[array], rtol=1e-12)
            assert np.array_equal(cells[array], image)
            assert timeline.number(array, int(timeline.place[step]), number) == numbers[array].max()


def test_commissioning_writes_whole_images() -> None:
    """Whatever rows the schedule's writes leave out: all rows are of the write that the step sees."""
    program = convolution_program("m2tj4", CODED, arrays=1, rewrite="changed")
    placed = placed_program(program)
    for step in np.flatnonzero(program.schedule.steps["operation"] == READ).tolist():
        numbers, _ = placed.timeline.written(step, 2, placed.clock)
        (whole,), _ = placed.timeline.written(step, 2, placed.clock, whole=True)
        assert whole == numbers.max()


def clock() -> Clock:
    return Clock(setup_s=10.0, period_s=2.0, makespan_s=3.0)


def test_runs_follow_each_other() -> None:
    """Three batches from 10 s on, each 2 s after the other and 3 s long: the next run starts at 17 s."""
    time = clock()
    time.run(0, 3)
    assert time.start_s([0, 1, 2]).tolist() == [10.0, 12.0, 14.0]
    assert time.now_s == 17.0
    time.run(3, 2)
    assert time.start_s([3, 4]).tolist() == [17.0, 19.0]
    assert float(time.start_s(2)) == 14.0  # what arrays hold at the start of the run is as old as it is
    assert time.batches == 5


def test_a_run_that_skips_batches() -> None:
    """The batch before it is one period older than its first, and never younger than the run."""
    time = clock()
    time.run(0, 1)
    time.run(1000, 2)
    assert time.start_s([999, 1000, 1001]).tolist() == [11.0, 13.0, 15.0]
    time.run(0, 1)
    assert float(time.start_s(0)) == 18.0
    assert time.batches == 1002


@pytest.mark.parametrize("runs", [0, 1])
def test_commissioning_starts_after_set_up(runs: int) -> None:
    time = clock()
    for first in range(runs):
        time.run(first, 1)
    assert time.start_s([COMMISSION_BATCH, COMMISSION_BATCH + 2]).tolist() == [10.0, 14.0]


def test_set_up_writes_go_side_by_side() -> None:
    program = xbcompile.compile(dense_model(12, 7), "m2tj4", passes=CODED, arrays=0)
    timeline, spec = placed_program(program).timeline, program.spec
    at_a_time = spec.writes_at_a_time or program.schedule.arrays
    expected = [array // at_a_time * spec.t_write_s for array in range(program.schedule.arrays)]
    np.testing.assert_allclose(timeline.initial_s, expected)
    assert timeline.initial_s.max() + spec.t_write_s == pytest.approx(program.schedule.setup_s)


def test_a_read_that_is_not_in_the_schedule_is_our_own_fault() -> None:
    timeline = placed_program(convolution_program()).timeline
    with pytest.raises(ValueError, match="use 1 reads a tile that the schedule does not read for it"):
        timeline.read_steps(1, np.array([0]), np.array([0]))


def test_vectors_count_on() -> None:
    reads = VectorRange(first=5, per_batch=3, step=2, entry=4, counted_from=7, first_batch=1)
    later = reads.after(10)
    assert (later.first, later.drawn_from - reads.drawn_from) == (15, 10)
    assert (later.per_batch, later.step, later.entry, later.first_batch) == (3, 2, 4, 1)
    every = {VectorRange(first=first, entry=entry).drawn_from for first in range(50) for entry in range(50)}
    assert len(every) == 2500

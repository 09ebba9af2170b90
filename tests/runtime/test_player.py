"""The player: events in order of time, batches that overlap, and schedules that cannot be played."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.device_kit import Bench
from tests.support.model_kit import run_onnxruntime
from tests.support.small_programs import CODED, convolution_program, dense_model, images
from xbcompile.errors import ProgramError, TargetError
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.commissioning import commission
from xbcompile.targets.families.ideal import IdealArray

X = {"x": images(7, 2, 4, 4)}


def bench_of(program: Program) -> Bench:
    return Bench(IdealArray(program.spec))


@pytest.mark.parametrize(("arrays", "batch"), [(0, 1), (0, 3), (2, 1), (1, 3), (3, 2)])
def test_events_come_in_order_of_time(arrays: int, batch: int) -> None:
    program = convolution_program(arrays=arrays, batch=batch)
    bench = bench_of(program)
    session = Session(program, bench)
    for _ in range(2):
        session.run_samples(X)
    times = [event.at_s for event in bench.events]
    assert times == sorted(times)
    assert len(bench.writes) == session.counters.weight_updates
    assert len(bench.reads) == session.counters.reads
    assert times[-1] < session.placed.clock.now_s == pytest.approx(session.counters.array_s)


def test_batches_overlap() -> None:
    """Where the period is shorter than the makespan, a batch begins before the one before has ended, and no array does two
    things at once.
    """
    coding = "quantize{scheme=binary},thermometer{bits=3 low=0 high=1}"
    program = xbcompile.compile(dense_model(70, 60, 50, 4), "mram64", passes=coding, arrays=0, packing="none")
    schedule = program.schedule
    assert schedule.period_s < schedule.makespan_s
    bench, x = bench_of(program), {"x": images(7, 70)}
    found = Session(program, bench).run_samples(x)["y"]
    np.testing.assert_array_equal(found, Session(program, "ideal").run_samples(x)["y"])
    samples = [each.vector for each in bench.reads]  # one vector per layer and sample
    assert samples != sorted(samples)
    for array in range(schedule.arrays):
        mine = np.array([each.at_s for each in bench.reads if each.array == array])
        assert np.all(np.diff(mine) > program.spec.t_read_s * (1 - 1e-9))


def test_a_read_before_its_input_is_our_own_fault() -> None:
    """The schedule turned round: the second layer comes first."""
    program = convolution_program(arrays=0)
    steps = program.schedule.steps[::-1].copy()
    steps["start_s"] = np.arange(len(steps))
    turned = replace(program, schedule=replace(program.schedule, steps=steps))
    with pytest.raises(RuntimeError, match="step 0 reads layer 1 at step 0 before its input is there"):
        Session(turned, bench_of(program)).run_samples(X)


def test_a_schedule_that_leaves_out_a_layer_is_our_own_fault() -> None:
    program = convolution_program(arrays=0)
    steps = program.schedule.steps
    short = replace(program, schedule=replace(program.schedule, steps=steps[steps["use"] == 0]))
    with pytest.raises(RuntimeError, match="the schedule ends before all layers are read"):
        Session(short, bench_of(program)).run_samples(X)


def test_reads_before_any_write_are_refused_by_the_device() -> None:
    program = convolution_program(arrays=0)
    session = Session(program, bench_of(program))
    session._set_up = True
    with pytest.raises(TargetError, match=r"RuntimeError: 'array . is read before it is written'"):
        session.run_samples(X)


@pytest.mark.parametrize("batch", [3, 6])
def test_a_batch_of_several_calls_of_the_model(batch: int) -> None:
    """The model takes 3 samples at once; a batch of 6 is two calls side by side, the last batch here is one."""
    model = dense_model(9, 6, 4, batch=3)
    program = xbcompile.compile(model, "m2tj4", passes="quantize,analogue", batch=batch)  # ranges of each vector's own
    bench, x = bench_of(program), {"x": images(9, 9)}
    session = Session(program, bench)
    found, together = session.run_samples(x)["y"], Session(program, "ideal")
    np.testing.assert_allclose(found, together.run_samples(x)["y"], atol=1e-6)
    assert session.counters == together.counters
    assert session.counters.batches == -(-9 // batch)
    exact = xbcompile.compile(model, "ideal", batch=batch)
    y = np.concatenate([run_onnxruntime(model, {"x": part})["y"] for part in np.split(x["x"], 3)])
    np.testing.assert_allclose(Session(exact, bench_of(exact)).run_samples(x)["y"], y, atol=1e-5)


def test_a_batch_that_is_no_whole_number_of_calls_is_refused_one_by_one() -> None:
    program = xbcompile.compile(dense_model(9, 6, 4, batch=3), "ideal", batch=4)
    with pytest.raises(ProgramError, match=r"takes 3 samples at once, and the program's batch is 4.*--batch 6"):
        Session(program, bench_of(program))
    assert Session(program).run_samples({"x": images(9, 9)})["y"].shape == (9, 4)


def test_statistics_are_those_of_the_batched_path() -> None:
    program = xbcompile.compile(dense_model(70, 9, 4), "mram64", passes="quantize{scheme=binary},thermometer{bits=3}")
    chip = program.target.device(seed=1)
    sessions = [Session(program, each) for each in (chip, Bench(chip))]
    for session in sessions:
        session.run_samples({"x": images(11, 70)})
    for one, other in zip(*(session.statistics for session in sessions), strict=True):
        assert (one.readings, one.saturated_fraction) == (other.readings, other.saturated_fraction)
        assert one.mean_absolute_error_lsb == pytest.approx(other.mean_absolute_error_lsb)


def test_what_commissioning_asks_of_a_bench_is_not_counted_as_the_sessions() -> None:
    passes = f"{CODED},recalibrate{{samples=4}}"
    program = xbcompile.compile(dense_model(6, 4, 3), "m2tj4", passes=passes, calibration={"x": images(4, 6)})
    bench = bench_of(program)
    effort = commission(program, bench).effort
    assert (len(bench.writes), len(bench.reads)) == (effort.weight_updates, effort.reads)
    assert sum(len(each.rows) for each in bench.writes) == effort.rows_written

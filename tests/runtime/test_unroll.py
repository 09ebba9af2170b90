"""Recurrences of open length: the schedule of one step is unrolled for what a run finds, and counted so."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import xbcompile
from tests.support.device_kit import Bench
from tests.support.model_kit import run_onnxruntime
from tests.support.recurrence_kit import sequence_model
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.unroll import step_uses, unrolled

ANALOGUE = "quantize{scheme=levels},analogue{low=-1 high=1}"


def sequences(samples: int, steps: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(3).uniform(-1, 1, (samples, steps, 2)).astype(np.float32)}


@cache
def program_of(target: str, steps: int | str = "t", arrays: int = 0, directions: int = 1, batch: int = 2) -> Program:
    model = sequence_model("GRU", steps, hidden=2, directions=directions)
    passes = "" if target == "ideal" else "quantize{scheme=ternary},analogue" if target == "sot" else ANALOGUE
    return xbcompile.compile(model, target, passes=passes, arrays=arrays, batch=batch, packing="none")


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize(("target", "arrays"), [("sot", 0), ("sot", 1), ("sot", 2), ("m2tj4", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_event_by_event_equals_all_together(target: str, arrays: int, directions: int, steps: int) -> None:
    """Bits, counters and clocks; on `sot` every write leaves something else."""
    program = program_of(target, arrays=arrays, directions=directions)
    bench = Bench(program.target.device(seed=4))
    sessions = Session(program, bench), Session(program, program.target.device(seed=4))
    x = sequences(5, steps)
    one, together = (session.run_samples(x) for session in sessions)
    for name, value in together.items():
        np.testing.assert_array_equal(one[name], value)
    assert sessions[0].counters == sessions[1].counters
    assert len(bench.reads) == sessions[0].counters.reads
    assert len(bench.writes) == sessions[0].counters.weight_updates
    assert len({(each.tile, each.use, each.vector, each.slice) for each in bench.reads}) == len(bench.reads)


def test_later_steps_wait_for_what_the_first_one_does_not_need() -> None:
    """Three arrays read the first step of both directions beside the input matrix, whose last tile is read after them."""
    program = xbcompile.compile(sequence_model("RNN", "t", directions=2), "m2tj4", passes=ANALOGUE, arrays=3, effort=0)
    reads = program.schedule.steps[program.schedule.steps["operation"] == READ]
    assert reads["use"][-1] == 0
    sessions = Session(program, Bench(program.target.device())), Session(program)
    one, together = (session.run_samples(sequences(3, 4), chunk=1) for session in sessions)
    for name, value in together.items():
        np.testing.assert_array_equal(one[name], value)
    assert sessions[0].counters == sessions[1].counters


@pytest.mark.parametrize("arrays", [0, 1])
def test_runs_of_different_lengths_follow_each_other(arrays: int) -> None:
    """Numbers of writes go on, and each array is found as it was left."""
    program = program_of("sot", arrays=arrays)
    bench = Bench(program.target.device(seed=4))
    sessions = Session(program, bench), Session(program, program.target.device(seed=4))
    for steps in (3, 1, 0, 4):
        one, together = (session.run_samples(sequences(3, steps)) for session in sessions)
        for name, value in together.items():
            np.testing.assert_array_equal(one[name], value)
    assert sessions[0].counters == sessions[1].counters
    for array in range(program.schedule.arrays):
        numbers = [each.number for each in bench.writes if each.array == array]
        assert numbers == list(range(len(numbers)))
    times = [each.at_s for each in bench.events]
    assert times == sorted(times)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("arrays", [0, 1])
def test_reads_are_those_of_a_schedule_of_known_length(arrays: int, steps: int) -> None:
    """The model with that length compiled: as many reads, and the exact outputs are the model's."""
    program, known = program_of("ideal", arrays=arrays), program_of("ideal", steps, arrays)
    x, counts = sequences(4, steps), []
    for each in (program, known):
        session = Session(each, Bench(each.target.device()))
        found, wanted = session.run_samples(x), run_onnxruntime(sequence_model("GRU", steps, hidden=2), x)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-6)
        counts.append((session.counters.reads, session.counters.dot_products))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("arrays", [0, 1, 2])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_table_can_be_played(arrays: int, steps: int) -> None:
    """Every read finds its image in its array, batch after batch; steps on one array follow each other; every use of the body
    has its reads.
    """
    program = program_of("m2tj4", arrays=arrays)
    network, schedule = program.network, program.schedule
    table, uses = unrolled(network, schedule, program.spec, {network.recurrences[0].name: steps})
    inside = [network.layers.index(layer) for layer in network.recurrences[0].layers]
    for layer in inside:
        assert len(uses.of_layer[layer]) == max(steps, 1)
        tiles = schedule.tiles_of(network.matrices[layer]).tolist()
        for use in uses.of_layer[layer]:
            assert uses.uses[use].layer == layer
            mine = table.steps[(table.steps["operation"] == READ) & (table.steps["use"] == use)]
            assert sorted(mine["tile"].tolist()) == (tiles if steps else [])
    held, free_s = schedule.initial.copy(), np.zeros(schedule.arrays)
    for _ in range(2):
        free_s[:] = 0
        for step in table.steps:
            array = step["array"]
            assert step["start_s"] >= free_s[array] - 1e-15
            free_s[array] = step["end_s"]
            if step["operation"] == WRITE:
                held[array] = step["image"]
            else:
                assert held[array] == step["image"]
    assert table.period_s >= free_s.max() - 1e-15 or table.stationary


def test_uses_of_steps_are_in_order() -> None:
    network = program_of("ideal", 3).network
    uses = step_uses(network)
    for layer, numbers in enumerate(uses.of_layer):
        assert all(network.uses[number].layer == layer for number in numbers)
    assert [len(each) for each in uses.of_layer] == [1, 3, 3]

"""Recurrences from model to readings: wiring, schedules, noise, corrections, program files."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.device_kit import Bench
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.recurrence_kit import Case, cases, expected, sequence_model, weights
from xbcompile.diagnosis.diagnosis import diagnose
from xbcompile.errors import ProgramError
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import Network, State
from xbcompile.ir.corrections import LayerCorrection
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program.program import Program, load_program
from xbcompile.reference.evaluate import evaluate
from xbcompile.runtime import Session
from xbcompile.runtime.references import step_values
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.verification.verify import verify

ANALOGUE = "quantize{scheme=levels},analogue{low=-1 high=1}"


def sequences(samples: int, steps: int, inputs: int = 2, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (samples, steps, inputs)).astype(np.float32)


@cache
def noisy_program(operator: str = "LSTM", passes: str | None = None, directions: int = 1) -> Program:
    model = sequence_model(operator, 6, hidden=5, inputs=4, directions=directions)
    return xbcompile.compile(model, "mram64", passes=passes, calibration={"x": sequences(40, 6, 4, seed=8)})


@settings(max_examples=25, deadline=None)
@given(case=cases())
def test_exact_arrays_equal_onnxruntime(case: Case):
    wanted = expected(case)
    program = xbcompile.compile(case.model, "ideal")  # verified, which compares every layer with the host graph
    found = Session(program, threads=1).run(case.feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-5 * max(1, np.abs(value).max()), rtol=2e-5)


def test_program_file(tmp_path):
    program = noisy_program("GRU", directions=2)
    program.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded.network.layers == program.network.layers
    assert loaded.network.recurrences == program.network.recurrences
    assert loaded.digest == program.digest
    assert verify(loaded) == []
    x = {"x": sequences(3, 6, 4)}
    before, after = Session(program, threads=1).run(x), Session(loaded, threads=1).run(x)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_steps_unknown_when_compiled():
    model = sequence_model("GRU", "t", directions=2)
    session = Session(xbcompile.compile(model, "ideal"), threads=1)
    for steps in (1, 2, 7):
        x = {"x": sequences(4, steps)}
        found, reference = session.run(x), run_onnxruntime(model, x)
        np.testing.assert_allclose(found["y"], reference["y"], atol=1e-6)
        np.testing.assert_allclose(found["h"], reference["h"], atol=1e-6)


@pytest.mark.parametrize("operator", ["LSTM", "RNN"])  # with GRU, onnxruntime 1.32 ends the process
def test_no_step_at_all(operator):
    constants = weights(operator, 2, 3) | {"h0": np.full((1, 4, 3), 7, np.float32)}
    node = helper.make_node(operator, ["x", "w", "r", "b", "", "h0"], ["y", "h"], "rec", hidden_size=3)
    model, x = model_of([node], {"x": ["t", 4, 2]}, ["y", "h"], constants), {"x": np.zeros((0, 4, 2), np.float32)}
    session = Session(xbcompile.compile(model, "ideal"), threads=1)
    found, reference = session.run(x), run_onnxruntime(model, x)
    assert found["y"].shape == reference["y"].shape == (0, 1, 4, 3)
    np.testing.assert_array_equal(found["h"], reference["h"])
    assert session.counters.reads == 0


def test_tensors_inside_are_stacked_over_steps():
    """h[t] enters the product at step t: its values are the outputs one step earlier, behind the initial zeros."""
    model = sequence_model("RNN", 5)
    network = import_network(load_model(model))
    layer, feeds = network.layers[1], {"x": sequences(4, 5)}
    ((entering,), (products,)) = evaluate(network, feeds, [layer.input, layer.output])
    y = run_onnxruntime(model, feeds)["y"][:, :, 0].transpose(1, 0, 2)  # [steps, n, hidden]
    np.testing.assert_allclose(entering, np.concatenate([np.zeros_like(y[:1]), y[:-1]]), atol=1e-6)
    np.testing.assert_allclose(products, entering @ layer.weights[0] + layer.bias, atol=1e-6)


@given(chunk=st.integers(1, 7))
@settings(max_examples=4, deadline=None)
def test_noise_does_not_depend_on_chunks(chunk):
    program, x = noisy_program(passes="quantize{scheme=binary},thermometer"), {"x": sequences(7, 6, 4)}
    whole = Session(program, threads=1).run_samples(x, chunk=7)
    parts = Session(program, threads=1).run_samples(x, chunk=chunk)
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_every_read_has_its_own_noise_counter():
    model = sequence_model("GRU", 4, hidden=3)
    program = xbcompile.compile(model, "ideal")
    bench, x = Bench(IdealArray(program.spec)), {"x": sequences(3, 4)}
    session = Session(program, device=bench)
    found, reference = session.run_samples(x, chunk=2), run_onnxruntime(model, x)
    np.testing.assert_allclose(found["y"], reference["y"], atol=1e-6)
    # Three matrices of at most 3 x 9 are one tile each, read for 4 steps of 3 samples in one slice.
    keys = {(each.tile, each.vector, each.slice) for each in bench.reads}
    assert len(bench.reads) == len(keys) == session.counters.reads == 3 * 4 * 3


def test_schedule_by_hand_packed():
    """An LSTM of one cell: 2 x 4 and 1 x 4 weights lie in one 4 x 4 image, which is written at first and read 1 + 3 times."""
    program = xbcompile.compile(sequence_model("LSTM", 3, hidden=1), "m2tj4", passes=ANALOGUE)
    steps = program.schedule.steps
    assert (program.schedule.images, len(program.network.uses)) == (1, 4)
    assert [use.waits_for for use in program.network.uses] == [(), (), (0, 1), (2,)]
    assert [use.reads for use in program.network.uses] == [3, 1, 1, 1]  # x of all steps at once, h step by step
    assert program.schedule.initial.tolist() == [0]
    assert np.bincount(steps["operation"]).tolist() == [0, 4]
    session = Session(program, threads=1)
    session.run_samples({"x": sequences(5, 3)})
    assert session.counters.reads == 5 * 6


def test_schedule_by_hand_recycled():
    """A GRU of two cells, a matrix per image, one array: both recurrent images are written anew in each of 3 steps."""
    program = xbcompile.compile(sequence_model("GRU", 3, hidden=2), "m2tj4", passes=ANALOGUE, packing="none")
    schedule = program.schedule
    images = [program.schedule.tiles["image"][schedule.tiles_of(i)].tolist() for i in range(3)]
    assert [len(each) for each in images] == [2, 1, 1]  # 2 x 6 in 4 x 4, 2 x 4, 2 x 2
    written = schedule.steps["image"][schedule.steps["operation"] == WRITE].tolist()
    assert sorted(written[:2]) == images[0]
    assert written[2:] == [images[1][0], images[2][0]] * 3
    reads = schedule.steps[schedule.steps["operation"] == READ]
    order = [program.network.uses[use].layer for use in reads["use"]]
    assert order == [0, 0] + [1, 2] * 3
    assert [layer.vectors_per_inference for layer in program.network.layers] == [3, 3, 3]


def test_layers_wait_for_each_other():
    network = import_network(load_model(sequence_model("GRU", 2, directions=2)))
    assert network.layer_dependencies() == [[], [0], [0, 1], [0], [0, 3]]
    waits = [(use.layer, use.waits_for) for use in network.uses]
    assert waits[0] == (0, ())
    # forward: gates at step 0, candidate at step 0 (behind x and gates), gates at step 1 (behind the candidate), ...
    assert waits[1:5] == [(1, ()), (2, (0, 1)), (1, (2,)), (2, (2, 3))]


@pytest.mark.parametrize(
    "passes", ["pca{components=5 layer=rec/recurrent}", "order-rows,pca{components=5 layer=rec/recurrent}"]
)
def test_segments_of_passes_run_in_the_body(passes):
    model = sequence_model("LSTM", 6, hidden=5, inputs=4)
    x = {"x": sequences(30, 6, 4)}
    program = xbcompile.compile(model, "ideal", passes=passes, calibration=x)
    (recurrence,) = program.network.recurrences
    assert len(recurrence.segments) > 1
    found, reference = Session(program, threads=1).run(x), run_onnxruntime(model, x)
    np.testing.assert_allclose(found["y"], reference["y"], atol=1e-5)  # all components kept: exact


def test_recalibrated_on_the_models_own_states():
    """A layer inside is fitted on what enters it in the model, at all steps, to what the model makes of it."""
    program = noisy_program()
    values = step_values(program, {"x": program.calibration["x"]})
    assert list(values) == [1]
    model = import_network(load_model(sequence_model("LSTM", 6, hidden=5, inputs=4)))
    ((inputs,), (outputs,)) = values[1]
    assert inputs.shape == (6, 40, 5)
    np.testing.assert_allclose(outputs, inputs @ model.layers[1].weights[0] + model.layers[1].bias, atol=1e-6)
    executor = Session(program, threads=1).executors[1]
    y, _ = executor.vectors(inputs)
    error = np.square(y.reshape(outputs.shape) - outputs).mean(axis=(0, 1))
    executor.correction = LayerCorrection.none(executor.layer.outputs)
    y, _ = executor.vectors(inputs)
    assert np.all(error < np.square(y.reshape(outputs.shape) - outputs).mean(axis=(0, 1)))


def test_recalibration_helps_the_whole():
    x = {"x": sequences(50, 6, 4)}
    reference = run_onnxruntime(sequence_model("LSTM", 6, hidden=5, inputs=4), x)["y"]
    plain = noisy_program(passes="quantize{scheme=binary},thermometer")
    fitted = noisy_program(passes="quantize{scheme=binary},thermometer,calibrate-offsets,recalibrate")
    errors = [np.square(Session(p, threads=1).run(x)["y"] - reference).mean() for p in (plain, fitted)]
    assert errors[1] < 0.5 * errors[0]


def test_statistics_see_every_step():
    session = Session(noisy_program(passes="quantize{scheme=binary},thermometer{bits=8}"), threads=1)
    session.run_samples({"x": sequences(3, 6, 4)})
    # 3 samples x 6 steps x 8 slices x 20 gates, as one tile
    assert [each.readings for each in session.statistics] == [3 * 6 * 8 * 20] * 2


def test_verify_finds_a_recurrence_that_is_not_the_host_graphs():
    program = noisy_program(directions=2)
    (first, second) = program.network.recurrences
    for changed in (
        replace(first, reverse=not first.reverse),
        replace(first, states=first.states[::-1]),
        replace(first, outputs=()),
        replace(first, sequences=(replace(first.sequences[0], outer=second.sequences[0].outer),)),
    ):
        nodes = tuple(changed if node is first else node for node in program.network.nodes)
        damaged = replace(program, network=replace(program.network, nodes=nodes))
        damaged.__dict__["host_graph"] = program.host_graph
        assert any("recurrence" in finding for finding in verify(damaged, equivalence=False)), changed


def test_a_recurrence_that_cannot_be_executed_is_our_own_fault():
    network = import_network(load_model(sequence_model("LSTM", 2)))
    (recurrence,) = network.recurrences

    def with_body(**changes) -> Network:
        changed = replace(recurrence, **changes)
        return replace(network, nodes=tuple(changed if node is recurrence else node for node in network.nodes))

    network.check()
    for changes, message in (
        ({"nodes": recurrence.nodes[::-1]}, "before anything writes it"),
        ({"nodes": (), "sequences": (), "states": (), "outputs": ()}, "no sequence"),
        ({"states": (replace(recurrence.states[0], end="nothing"), recurrence.states[1])}, "before anything writes it"),
        ({"states": (*recurrence.states, State("x", "x", "x", "last_x"))}, "is a tensor outside"),
    ):
        with pytest.raises(ValueError, match=message):
            with_body(**changes).check()


def test_diagnose_says_what_it_cannot_tell():
    with pytest.raises(ProgramError, match=r"'rec/recurrent' are inside a recurrence.*--digital 'rec'"):
        diagnose(noisy_program(), {"x": sequences(4, 6, 4)})

"""Sessions: equal to replaying the schedule literally, whatever the chunking and the threads; errors of the inputs."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.device_kit import Bench, read_image, write_image
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.errors import DataError, TargetError
from xbcompile.ir.schedule import WRITE
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.targets import BatchedDevice, Device

BINARY = "quantize{scheme=binary},thermometer{bits=3 low=0 high=1}"


@cache
def program_of(kind: str, target: str = "mram64", passes: str = BINARY, **options: int) -> Program:
    models = {
        "conv": convolution_model,
        "dense": lambda: dense_model(100, 70, 5),
        "merged": merged_model,
        "fixed": lambda: dense_model(20, 9, 4, batch=3),
        "two inputs": two_input_model,
    }
    return xbcompile.compile(models[kind](), target, passes=passes, **options)


def merged_model() -> onnx.ModelProto:
    """Four vectors of a sample become rows of axis 0, go through a matrix, and come back."""
    rng = np.random.default_rng(6)
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["m"], name="m"),
        helper.make_node("Reshape", ["m", "back"], ["y"]),
    ]
    constants = {"rows": np.array([-1, 10]), "back": np.array([-1, 4, 3]), "w": rng.normal(size=(10, 3))}
    return model_of(nodes, {"x": ["n", 4, 10]}, ["y"], constants)


def two_input_model() -> onnx.ModelProto:
    """Two matrices with an input each, added; the difference is a second output."""
    rng = np.random.default_rng(7)
    nodes = [
        helper.make_node("MatMul", ["a", "v"], ["p"], name="p"),
        helper.make_node("MatMul", ["b", "w"], ["q"], name="q"),
        helper.make_node("Add", ["p", "q"], ["sum"]),
        helper.make_node("Sub", ["p", "q"], ["difference"]),
    ]
    constants = {"v": rng.normal(size=(6, 4)), "w": rng.normal(size=(9, 4))}
    return model_of(nodes, {"a": ["n", 6], "b": ["n", 9]}, ["sum", "difference"], constants)


def feeds_of(kind: str, samples: int) -> dict[str, np.ndarray]:
    shapes = {"conv": (2, 4, 4), "dense": (100,), "merged": (4, 10), "fixed": (20,)}
    if kind == "two inputs":
        return {"a": images(samples, 6), "b": images(samples, 9, seed=8)}
    return {"x": images(samples, *shapes[kind])}


@pytest.mark.parametrize("kind", ["conv", "dense", "two inputs"])
def test_a_bench_gives_the_bits_of_the_batched_path(kind: str) -> None:
    """mram64 with its converter's jitter: the wrapped device has write and read only."""
    program = program_of(kind)
    bench = Bench(program.target.device(seed=5))
    assert isinstance(bench, Device)
    assert not isinstance(bench, BatchedDevice)
    feeds = feeds_of(kind, 3)
    found, expected = Session(program, bench).run_samples(feeds), Session(program, seed=5).run_samples(feeds)
    for name in expected:
        assert np.array_equal(found[name], expected[name])


@pytest.mark.parametrize("arrays", [0, 1, 2])
def test_a_session_equals_the_schedule_replayed_step_by_step(arrays: int) -> None:
    """A second executor of two dense layers: it follows the steps alone, one write and one read at a time.

    x ~= low + step * sum_t v_t with drives u = 2 v - 1, so a tile's share of the output is
    scale * (step / 2 * (sum_t reading_t - idle) + (low + step T / 2) * sum_k g level).
    """
    program = program_of("dense", arrays=arrays)
    schedule, spec, layers = program.schedule, program.spec, program.network.layers
    assert spec.levels is not None
    x = feeds_of("dense", 2)["x"]
    expected = Session(program, seed=2).run_samples({"x": x})["y"]
    device = program.target.device(seed=2)
    writes = Counter[int]()

    def write(array: int, image: int) -> None:
        write_image(device, array, program.cells(np.array([image]))[0], writes[array], image)
        writes[array] += 1

    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0:
            write(array, image)
    for sample in range(2):
        sums = [np.zeros(layer.outputs) for layer in layers]
        values = {0: x[sample]}
        for operation, array, image, index, *_ in schedule.steps.tolist():
            if operation == WRITE:
                write(array, image)
                continue
            number, _, k0, k1, m0, m1, _, row, column = schedule.tiles[index].tolist()
            if number not in values:
                values[number] = np.maximum(finish(layers[number - 1], sums[number - 1]), 0)
            code = layers[number].input_code
            assert code is not None
            level = np.clip(np.rint(values[number] / np.float32((code.high - code.low) / 3)), 0, 3)
            places = schedule.column_permutation[image, column : column + m1 - m0]
            cells = spec.levels[program.cells(np.array([image]))[0]]
            for t in range(3):
                drive = spec.idle_drive.copy()
                drive[row : row + k1 - k0] = np.where(level[k0:k1] >= t + 1, 1, -1)
                idle = np.ones(spec.rows, bool)
                idle[row : row + k1 - k0] = False
                reading = read_image(device, array, drive, index, sample, t).astype(np.float64)
                idle_sum = (spec.row_weight * spec.idle_drive * idle) @ cells
                sums[number][m0:m1] += (reading - idle_sum)[places]
        np.testing.assert_allclose(finish(layers[-1], sums[-1]), expected[sample], rtol=0, atol=1e-4)


def finish(layer: xbcompile.ir.MatrixLayer, sums: np.ndarray) -> np.ndarray:
    """The digital side of one layer whose input range is 0 to 1 in three thermometer steps."""
    code = layer.weight_code
    assert code is not None
    levels = code.weighted_cells()[0].sum(axis=0, dtype=np.float64)
    y = code.scale[0] * (sums / 6 + 0.5 * levels)
    assert not np.any(code.offset)
    return (y + layer.bias).astype(np.float32)


@pytest.mark.parametrize("device", ["mram64", "mram64-emulator"])
@pytest.mark.parametrize("kind", ["conv", "dense", "merged", "two inputs"])
def test_outputs_do_not_depend_on_chunks(kind: str, device: str) -> None:
    program, feeds = program_of(kind), feeds_of(kind, 23)
    expected = Session(program, device, seed=3).run_samples(feeds)
    for chunk in (1, 7, 100):
        found = Session(program, device, seed=3).run_samples(feeds, chunk=chunk)
        for name in expected:
            assert np.array_equal(found[name], expected[name]), chunk


@pytest.mark.parametrize("kind", ["conv", "dense"])
def test_outputs_do_not_depend_on_threads_or_block_sizes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from xbcompile.runtime import layer_executor
    from xbcompile.targets import linear_images

    program, feeds = program_of(kind), feeds_of(kind, 40)
    expected = Session(program, seed=3, threads=1).run_samples(feeds)["y"]
    monkeypatch.setattr(layer_executor, "BLOCK_VALUES", 3000)
    monkeypatch.setattr(linear_images, "_BLOCK_DRIVES", 7)
    assert np.array_equal(Session(program, seed=3, threads=4).run_samples(feeds)["y"], expected)
    monkeypatch.setattr(layer_executor, "BLOCK_CELLS", 1)  # the row tiles of one column come in several blocks
    assert np.array_equal(Session(program, seed=3, threads=1).run_samples(feeds)["y"], expected)
    monkeypatch.setattr(layer_executor, "KEPT_CELLS", 1)  # and are prepared by themselves
    monkeypatch.setattr(layer_executor, "WAITING_BYTES", 1)
    monkeypatch.setattr(layer_executor, "PART_VECTORS", 3)
    monkeypatch.setattr(layer_executor, "PART_BYTES", 900)
    assert np.array_equal(Session(program, seed=3, threads=2).run_samples(feeds)["y"], expected)


def test_another_seed_is_another_chip_and_another_run_of_the_same_place_is_not() -> None:
    """A session counts on from run to run; a run of samples that were there before gives their readings again."""
    program, feeds = program_of("dense"), feeds_of("dense", 10)
    outputs = [Session(program, seed=seed).run_samples(feeds)["y"] for seed in (0, 1, 0)]
    assert np.array_equal(outputs[0], outputs[2])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    session = Session(program)
    first = session.run_samples(feeds)["y"]
    assert np.array_equal(first, outputs[0])
    assert not np.array_equal(session.run_samples(feeds)["y"], first)
    assert np.array_equal(session.run_samples(feeds, first_sample=0)["y"], first)


def test_two_reads_of_one_input_differ_by_noise_alone() -> None:
    """The same sample at different places of a run draws other errors; their mean is the chip's own error."""
    program = program_of("dense")
    x = np.repeat(feeds_of("dense", 1)["x"], 50, axis=0)
    y = Session(program).run_samples({"x": x})["y"]
    assert len(np.unique(y, axis=0)) > 40


def test_a_fixed_batch_is_kept() -> None:
    program, feeds = program_of("fixed", target="ideal", passes=""), feeds_of("fixed", 9)
    expected = run_onnxruntime(dense_model(20, 9, 4), feeds)["y"]
    for chunk in (None, 1, 5):  # the model's batch of 3 goes before
        found = Session(program).run_samples(feeds, chunk=chunk)["y"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_a_constant_vector_of_a_range_found_at_run_time_reads_no_noise() -> None:
    """Its value is its range's lower end: x = low exactly, whatever the chip reads."""
    program = program_of("dense", passes="quantize{scheme=binary},thermometer{bits=3}")
    x = np.full((4, 100), 0.7, np.float32)
    layer = program.network.layers[0]
    found = Session(program).executors[0].run(x)
    np.testing.assert_allclose(found, x @ layer.weights[0] + layer.bias, rtol=0, atol=1e-4)


def test_progress_counts_samples() -> None:
    program, feeds = program_of("dense"), feeds_of("dense", 10)
    seen: list[int] = []
    Session(program, "ideal").run_samples(feeds, progress=seen.append, chunk=4)
    assert seen == [4, 8, 10]


@pytest.mark.parametrize(
    ("kind", "feeds", "message"),
    [
        ("dense", {}, "model input 'x' is missing; given: none"),
        ("dense", {"x": np.zeros((0, 100), np.float32)}, "there are no samples to run"),
        ("dense", {"z": np.zeros((1, 100), np.float32)}, "model input 'x' is missing; given: z"),
        ("dense", {"x": np.zeros((1, 99), np.float32)}, r"input 'x' has shape 1x99; the model wants \?x100"),
        ("dense", {"x": np.zeros((1, 10, 10), np.float32)}, r"input 'x' has shape 1x10x10; the model wants \?x100"),
        ("dense", {"x": np.zeros((1, 100), complex)}, "input 'x': type complex128 is not numeric"),
        ("dense", {"x": np.zeros((1, 100), np.float32), "u": np.zeros(1)}, "the program has no input 'u'"),
        ("two inputs", {"a": np.zeros((2, 6), "f"), "b": np.zeros((3, 9), "f")}, "different numbers of samples"),
        ("fixed", {"x": np.zeros((4, 20), "f")}, "4 samples do not fill the model's fixed batch of 3; give a multiple"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(kind: str, feeds: dict[str, np.ndarray], message: str) -> None:
    session = Session(program_of(kind, target="ideal", passes=""))
    with pytest.raises(DataError, match=message):
        session.run_samples(feeds)


def test_run_names_a_missing_input() -> None:
    session = Session(program_of("two inputs", target="ideal", passes=""))
    with pytest.raises(DataError, match="model input 'a' is missing; given: none"):
        session.run({})
    with pytest.raises(DataError, match="model input 'b' is missing; given: a"):
        session.run({"a": np.zeros((1, 6), "f")})


def test_devices_are_those_of_the_programs_target() -> None:
    program = program_of("dense")
    with pytest.raises(
        TargetError, match="target 'mram64' has no device 'm2tj4'; allowed: mram64, mram64-emulator, ideal"
    ):
        Session(program, "m2tj4")


def test_statistics_see_saturation_and_errors() -> None:
    """On the exact device nothing errs; on the chip the mean absolute error is of the order of the published 0.47 LSB."""
    program, feeds = program_of("dense"), feeds_of("dense", 30)
    ideal, chip = Session(program, "ideal"), Session(program)
    for session in (ideal, chip):
        session.run_samples(feeds)
    assert [s.layer for s in chip.statistics] == ["fc0", "fc1"]
    for exact, found in zip(ideal.statistics, chip.statistics, strict=True):
        assert (exact.mean_absolute_error_lsb, exact.saturated_fraction) == (0, None)
        assert exact.readings == found.readings
        assert 0.2 < found.mean_absolute_error_lsb < 1.5
    tiles = program.schedule.tiles[program.schedule.tiles_of(0)]  # all used columns, read in 3 slices for 30 samples
    assert chip.statistics[0].readings == int((tiles["m1"] - tiles["m0"]).sum()) * 3 * 30

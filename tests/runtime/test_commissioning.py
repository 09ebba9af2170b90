"""Device passes: corrections fitted through a device whose faults are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import xbcompile
from tests.support.model_kit import run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.ir import ArraySpec
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.timeline import COMMISSION_VECTOR
from xbcompile.targets import Read, Write
from xbcompile.targets.families.ideal import IdealArray


class FaultyColumns:
    """The exact array with a known gain and offset on each physical column of each array."""

    def __init__(
        self,
        spec: ArraySpec,
        gain: float | np.ndarray = 1.0,
        offset: float | np.ndarray = 0.0,
        lsb: float | None = None,
    ) -> None:
        self.exact = IdealArray(spec)
        self.lsb, self.reading_limits = lsb, None
        self.gain = np.broadcast_to(gain, (8, spec.columns))
        self.offset = np.broadcast_to(offset, (8, spec.columns))
        self.vectors: set[int] = set()

    def write(self, event: Write, cells: np.ndarray) -> None:
        self.exact.write(event, cells)

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        self.vectors.add(event.vector)
        return self.gain[event.array] * self.exact.read(event, drive) + self.offset[event.array]


def compiled(model: onnx.ModelProto, target: str, passes: str, **options: object) -> Program:
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return xbcompile.compile(
        model, target, passes=passes, calibration={"x": images(40, *shape)}, **{"effort": 0, **options}
    )


BINARY = "quantize{scheme=binary},thermometer{bits=3}"


@pytest.mark.parametrize("model", [dense_model(150, 20, 4), convolution_model()], ids=["dense", "conv"])
def test_calibrate_offsets_measures_the_offset_of_each_column(model: onnx.ModelProto) -> None:
    """Own offsets on each column of two arrays, whole codes of a converter: readings are exact again."""
    program = compiled(model, "mram64", BINARY + ",calibrate-offsets{samples=10}", arrays=2)
    rng = np.random.default_rng(1)
    lsb = 6.0
    offset = lsb * rng.integers(-3, 4, (8, 64))
    device = FaultyColumns(program.spec, offset=offset, lsb=lsb)
    session = Session(program, device)
    used = np.zeros((program.schedule.arrays, 64), bool)
    for tile in program.schedule.tiles:
        columns = program.schedule.column_permutation[tile["image"], tile["column"] :][: tile["m1"] - tile["m0"]]
        arrays = program.schedule.copies["array"][program.schedule.copies["image"] == tile["image"]]
        vectors = program.network.layers[tile["layer"]].vectors_per_inference
        for array in arrays[: min(len(arrays), vectors)]:  # copies beyond the vectors are never read
            used[array, columns] = True
    fitted = session.corrections.column_offset
    assert fitted is not None
    assert np.array_equal(fitted[used], -offset[: len(used)][used])
    assert np.array_equal(fitted[~used], np.zeros((~used).sum()))
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    feeds = {"x": images(5, *shape, seed=9)}
    exact = Session(compiled(model, "mram64", BINARY, arrays=2), "ideal").run_samples(feeds)["y"]
    assert np.array_equal(session.run_samples(feeds)["y"], exact)
    uncorrected = Session(compiled(model, "mram64", BINARY, arrays=2), device).run_samples(feeds)["y"]
    assert np.abs(uncorrected - exact).max() > 1


def test_calibrate_offsets_without_a_converter_is_not_rounded() -> None:
    model = dense_model(6, 5, 3)
    program = compiled(model, "m2tj4", "quantize,analogue,calibrate-offsets", arrays=0)
    rng = np.random.default_rng(2)
    device = FaultyColumns(program.spec, offset=rng.normal(size=(8, 4)))
    feeds = {"x": images(7, 6, seed=9)}
    exact = Session(compiled(model, "m2tj4", "quantize,analogue", arrays=0), "ideal").run_samples(feeds)["y"]
    np.testing.assert_allclose(Session(program, device).run_samples(feeds)["y"], exact, rtol=0, atol=1e-5)


def test_calibrate_offsets_is_limited_by_the_code() -> None:
    """An offset of 7 with codes of 6 is corrected by 6: digital offsets are whole codes."""
    program = compiled(dense_model(20, 4), "mram64", BINARY + ",calibrate-offsets")
    session = Session(program, FaultyColumns(program.spec, offset=7.0, lsb=6.0))
    fitted = session.corrections.column_offset
    assert fitted is not None
    assert set(np.unique(fitted)) == {-6.0, 0.0}  # 0 on columns that nothing uses


@pytest.mark.parametrize("embed_model", [True, False])
def test_recalibrate_undoes_gain_and_offset_of_each_output(embed_model: bool) -> None:
    """One tile per layer and real weights: a column's gain and offset are its output's, wherever scrambling puts it."""
    model = dense_model(20, 9, 4)
    program = compiled(model, "ideal", "recalibrate{samples=30}", embed_model=embed_model, packing="none")
    rng = np.random.default_rng(3)
    gain, offset = rng.uniform(0.5, 1.5, (8, 64)), rng.normal(size=(8, 64))
    session = Session(program, FaultyColumns(program.spec, gain, offset))
    feeds = {"x": images(12, 20, seed=9)}
    expected = run_onnxruntime(model, feeds)["y"]
    np.testing.assert_allclose(session.run_samples(feeds)["y"], expected, rtol=0, atol=2e-5)
    for image, executor in enumerate(session.executors):
        columns = program.schedule.column_permutation[image, : executor.layer.outputs]
        np.testing.assert_allclose(
            executor.correction.gain,
            1 / gain[program.schedule.copies["array"][image], columns],
            rtol=1e-5,
        )


@pytest.mark.parametrize("model", [dense_model(150, 20, 4), convolution_model()], ids=["dense", "conv"])
def test_recalibrate_undoes_one_gain_and_offset_of_all_columns(model: onnx.ModelProto) -> None:
    """Layers of several tiles: one gain and one offset per reading are linear in each output. No model embedded: the
    reference is the quantized program itself, so that the device's faults are all there is to correct."""
    program = compiled(model, "mram64", BINARY + ",recalibrate{samples=40}", embed_model=False, arrays=2)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    feeds = {"x": images(12, *shape)}  # among the calibration inputs: no threshold is crossed by rounding
    exact = Session(compiled(model, "mram64", BINARY, arrays=2), "ideal").run_samples(feeds)["y"]
    session = Session(program, FaultyColumns(program.spec, 0.8, 2.5))
    largest = np.abs(exact).max()
    for executor in session.executors:
        np.testing.assert_allclose(executor.correction.gain, 1 / 0.8, rtol=1e-3)
    # Inputs of the second layer that sit on a code's edge may fall to either side.
    found = session.run_samples(feeds)["y"]
    assert np.median(np.abs(found - exact)) < 1e-5 * largest
    assert np.abs(found - exact).max() < 0.05 * largest


def test_recalibrate_takes_the_users_model_as_reference() -> None:
    """Binary weights leave a mean error, which the embedded model's own outputs correct: on the calibration inputs the
    mean of each output is then nearly the model's."""
    model = dense_model(60, 5)
    program = compiled(model, "mram64", "quantize{scheme=binary},thermometer{bits=8},recalibrate{samples=40}")
    feeds = {"x": images(40, 60)}
    expected = run_onnxruntime(model, feeds)["y"].mean(axis=0)
    without = compiled(model, "mram64", "quantize{scheme=binary},thermometer{bits=8}")
    left, before = (
        np.abs(Session(each, "ideal").run_samples(feeds)["y"].mean(axis=0) - expected).max()
        for each in (program, without)
    )
    assert left < 0.1 * before  # what shrinkage keeps back with 40 samples
    assert before > 1e-2


def test_two_device_passes_are_fitted_in_order() -> None:
    """Offsets first; what they leave (a fraction of a code) and the gain are recalibrate's."""
    model = dense_model(20, 9, 4)
    program = compiled(model, "ideal", "calibrate-offsets{samples=20},recalibrate{samples=20}")
    rng = np.random.default_rng(4)
    device = FaultyColumns(program.spec, rng.uniform(0.8, 1.2, (8, 64)), rng.normal(size=(8, 64)), lsb=1.0)
    feeds = {"x": images(12, 20, seed=9)}
    found = Session(program, device).run_samples(feeds)["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, feeds)["y"], rtol=0, atol=2e-5)


def test_a_second_recalibration_corrects_what_the_first_left() -> None:
    """The first is misled by a reading that is wrong once; gains multiply, and the first offset is scaled by the second."""
    model = dense_model(20, 9, 4)
    program = compiled(model, "ideal", "recalibrate{samples=3},recalibrate{samples=30}")
    session = Session(program, NoisyStart(program.spec))
    feeds = {"x": images(12, 20, seed=9)}
    np.testing.assert_allclose(session.run_samples(feeds)["y"], run_onnxruntime(model, feeds)["y"], rtol=0, atol=2e-5)


class NoisyStart(FaultyColumns):
    """Gain and offset, and one reading in the first calibration inputs that is wrong by 5, the first time only."""

    def __init__(self, spec: ArraySpec) -> None:
        super().__init__(spec, 0.7, 0.4)
        self.wrong = {COMMISSION_VECTOR}

    def read(self, event: Read, drive: np.ndarray) -> np.ndarray:
        error = 5.0 * (event.vector in self.wrong)
        if event.array == 0 and event.vector == COMMISSION_VECTOR + 2:
            self.wrong.clear()
        return super().read(event, drive) + error


@pytest.mark.parametrize("device_pass", ["recalibrate", "calibrate-offsets"])
def test_commissioning_draws_other_noise_than_any_run(device_pass: str) -> None:
    program = compiled(dense_model(20, 4), "ideal", f"{device_pass}{{samples=5}}")
    device = FaultyColumns(program.spec)
    session = Session(program, device)
    assert device.vectors == {COMMISSION_VECTOR + i for i in range(5)}
    assert (session.counters.inferences, session.counters.reads, session.counters.dot_products) == (0, 0, 0)
    device.vectors.clear()
    session.run_samples({"x": images(3, 20)})
    assert device.vectors == {0, 1, 2}
    assert COMMISSION_VECTOR >= 2**40  # more vectors than any run has


def test_a_constant_output_keeps_its_gain() -> None:
    """A dead neuron's output does not vary: only its offset can be fitted."""
    model = dense_model(6, 3)
    weights = np.zeros((6, 3), np.float32)
    weights[:, 1:] = np.random.default_rng(5).normal(size=(6, 2))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w0"))
    program = compiled(model, "ideal", "recalibrate{samples=30}")
    session = Session(program, FaultyColumns(program.spec, 0.5, 0.25))
    np.testing.assert_allclose(session.executors[0].correction.gain, [1, 2, 2], rtol=1e-5)
    feeds = {"x": images(4, 6)}
    np.testing.assert_allclose(session.run_samples(feeds)["y"], run_onnxruntime(model, feeds)["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("model", "target", "coding"),
    [(dense_model(150, 20, 4), "mram64", BINARY), (convolution_model(), "m2tj4", "quantize,analogue")],
    ids=["dense", "conv"],
)
def test_recalibrate_per_tile_undoes_the_gain_of_each_tile(model: onnx.ModelProto, target: str, coding: str) -> None:
    """Every column of every array has a gain of its own: one gain per output cannot undo that, one per tile can."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    errors = {}
    for per in ("output", "tile"):
        passes = f"{coding},recalibrate{{samples=400 per={per}}}"
        data = {"x": images(400, *shape)}
        options: dict[str, Any] = {"calibration": data, "arrays": 8, "embed_model": False, "effort": 0}
        program = xbcompile.compile(model, target, passes=passes, **options)
        gain = np.random.default_rng(2).uniform(0.8, 1.25, (8, program.spec.columns))
        session = Session(program, FaultyColumns(program.spec, gain=gain))
        x = {"x": images(20, *shape, seed=9)}
        exact = Session(program, "ideal").run(x)["y"]
        errors[per] = np.abs(session.run(x)["y"] - exact).max() / np.abs(exact).max()
    assert errors["tile"] < 0.1 * errors["output"]
    assert errors["output"] > 0.01

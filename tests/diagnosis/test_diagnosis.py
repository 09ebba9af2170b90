"""The parts of an error add up to the whole, and each is what it is called: against onnxruntime, numpy and plain sessions."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import CODED, convolution_program, dense_model, images
from xbcompile.diagnosis.diagnosis import INHERITED, Diagnosis, LayerDiagnosis, _Accumulator, diagnose
from xbcompile.errors import DataError, ProgramError, TargetError
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import evaluate_model
from xbcompile.runtime import Session
from xbcompile.targets import Target, load_target

X = images(40, 9)
MODEL = dense_model(9, 6, 4)
BINARY = "quantize{scheme=binary},thermometer{bits=3}"
FITTED = f"{BINARY},calibrate-offsets{{samples=30}},recalibrate{{samples=30}}"


def compiled(passes: str, target: str | Target = "mram64", model: onnx.ModelProto = MODEL) -> xbcompile.Program:
    return xbcompile.compile(model, target, passes=passes, calibration={"x": X})


def changed(name: str, **values: float) -> Target:
    target = load_target(name)
    quantities = {key: {**target.quantities[key], "value": value} for key, value in values.items()}
    return replace(target, quantities=target.quantities | quantities)


def parts(layer: LayerDiagnosis, corrected: bool = True) -> dict[str, float | None]:
    found = layer.corrected if corrected else layer.uncorrected
    return {each.source: each.mean_square for each in found.sources}


def square(difference: np.ndarray) -> float:
    return float(np.square(difference, dtype=np.float64).mean())


SPREAD = changed("m2tj4", sigma_perp_ohm=20.0, sigma_nl_ohm=10.0)
CASES = {
    "fitted": lambda: (compiled(FITTED), X),
    "as it is": lambda: (compiled(BINARY), X),
    "reduced": lambda: (
        compiled("pca{components=5},quantize{scheme=levels},analogue,recalibrate{samples=30 per=tile}", SPREAD),
        X,
    ),
    "fixed batch": lambda: (compiled(FITTED, model=dense_model(9, 6, 4, batch=10)), X),  # four chunks
    # Two images take turns on one array, and every write leaves something else.
    "recycled": lambda: (
        xbcompile.compile(
            MODEL,
            changed("sot", write_noise=0.1),
            passes="quantize{scheme=ternary},analogue,recalibrate{samples=30}",
            calibration={"x": X},
            packing="none",
            batch=3,
        ),
        X,
    ),
    "convolution": lambda: (convolution_program(), images(6, 2, 4, 4)),
}


@cache
def case(name: str) -> tuple[Program, np.ndarray, Diagnosis]:
    program, x = CASES[name]()
    return program, x, diagnose(program, {"x": x}, seed=2)


@pytest.fixture
def fitted() -> tuple[Program, Diagnosis]:
    return case("fitted")[::2]


@pytest.mark.parametrize("name", CASES)
def test_squares_and_cross_terms_are_the_whole(name: str) -> None:
    found = case(name)[2]
    for layer in found.layers:
        assert layer.reference == "model"
        assert layer.vectors == len(case(name)[1]) * (4 if layer.layer == "conv" else 1)
        for each in (layer.corrected, layer.uncorrected):
            assert [s.source for s in each.sources] == [*found.sources, INHERITED]
            total = sum(s.mean_square for s in each.sources) + each.cross_terms
            assert total == pytest.approx(each.whole, rel=1e-9)
            assert sum(s.share for s in each.sources) == pytest.approx(1)
            assert each.residual < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_whole_of_the_last_layer_is_the_error_of_the_program(name: str) -> None:
    """Against a plain session, and the user's model in onnxruntime."""
    program, x, found = case(name)
    (y,) = evaluate_model(program.source, program.network.samples, {"x": x}, ["y"])
    expected = np.concatenate(y)
    error = Session(program, seed=2).run_samples({"x": x})["y"] - expected
    assert found.layers[-1].corrected.whole == pytest.approx(square(error), rel=1e-4)
    device = next(row for row in found.end_to_end if row.case == "device")
    variance = expected.var(axis=0).mean()
    assert device.relative_error == pytest.approx(np.sqrt(square(error) / variance), rel=1e-4)
    assert found.layers[-1].variance == pytest.approx(variance, rel=1e-4)


def test_the_first_layer_inherits_nothing(fitted: tuple[Program, Diagnosis]) -> None:
    """Exactly: the same inputs, the same noise, and corrections fitted on the same readings."""
    first, second = fitted[1].layers
    assert parts(first)[INHERITED] == parts(first, corrected=False)[INHERITED] == 0
    assert parts(second)[INHERITED] > 1e-3 * second.variance


def test_parts_of_a_layer_without_corrections() -> None:
    """One layer: weights and coding in plain numpy, device and noise from sessions on devices without sources."""
    model = dense_model(9, 4)
    program = compiled(BINARY, model=model)
    (layer,) = program.network.layers
    dequantized, code = layer.weight_code.dequantized()[0], layer.input_code
    step = (code.high - code.low) / code.steps
    coded = code.low + step * np.clip(np.rint((X - code.low) / step), 0, code.steps)
    off = ("systematic", "saturation", "rounding", "random")
    devices = [program.target.device(seed=4, without=off[k:]) for k in range(1, 5)]
    states = [
        run_onnxruntime(model, {"x": X})["y"],
        X @ dequantized + layer.bias,
        coded @ dequantized + layer.bias,
        *(Session(program, device).run_samples({"x": X})["y"] for device in devices),
    ]
    expected = [square(after - before) for before, after in pairwise(states)]
    found = diagnose(program, {"x": X}, seed=4)
    assert found.sources == ("weights", "coding", *off)
    for corrected in (True, False):
        assert list(parts(found.layers[0], corrected).values()) == pytest.approx([*expected, 0], rel=1e-4, abs=1e-9)


def test_corrections_are_fitted_anew_in_each_state() -> None:
    """Least squares per output, a little shrunk: what a gain and an offset can take away is gone from the first state on."""
    model = dense_model(9, 4)
    program = xbcompile.compile(
        model, "m2tj4", passes="quantize{scheme=levels},analogue,recalibrate{samples=40}", calibration={"x": X}
    )
    (layer,) = program.network.layers
    y = run_onnxruntime(model, {"x": X})["y"].astype(np.float64)
    quantized = X @ layer.weight_code.dequantized()[0].astype(np.float64)
    best = [np.polyval(np.polyfit(quantized[:, m], y[:, m], 1), quantized[:, m]) for m in range(4)]
    (found,) = diagnose(program, {"x": X}).layers
    least = square(np.stack(best, axis=1) - y)
    assert least <= parts(found)["weights"] < 1.1 * least
    assert parts(found, corrected=False)["weights"] == pytest.approx(square(quantized + layer.bias - y), rel=1e-4)


def test_offsets_of_columns_count_as_corrections() -> None:
    target = changed("mram64", r_high_sigma_ohm=8000.0)
    program = compiled(f"{BINARY},calibrate-offsets{{samples=30}}", target)
    session = Session(program, seed=2)
    assert session.corrections.column_offset is not None
    assert np.any(session.corrections.column_offset)
    (first, _), plain = diagnose(program, {"x": X}, seed=2).layers, diagnose(compiled(BINARY, target), {"x": X}, seed=2)
    assert first.uncorrected.whole == pytest.approx(plain.layers[0].uncorrected.whole)
    assert first.corrected.whole != pytest.approx(first.uncorrected.whole)


def test_saturation_is_counted_and_told_apart_from_rounding() -> None:
    """A converter of two codes 60 apart rounds; one of two codes 2 apart saturates."""
    coarse = changed("mram64", tdc_codes=2, tdc_lowest_dot=-60, tdc_dots_per_code=30, tdc_jitter_dot=0.0)
    narrow = changed("mram64", tdc_codes=2, tdc_lowest_dot=-2, tdc_dots_per_code=1, tdc_jitter_dot=0.0)
    model = dense_model(60, 4)
    x = images(30, 60)
    layers = []
    for target in (coarse, narrow):
        program = xbcompile.compile(model, target, passes="quantize{scheme=binary},thermometer{bits=3 low=0 high=1}")
        found = diagnose(program, {"x": x})
        assert "random" not in found.sources
        layers.append(found.layers[0])
        session = Session(program)
        session.run_samples({"x": x})
        assert layers[-1].saturated_fraction == session.statistics[0].saturated_fraction
    assert parts(layers[0], False)["rounding"] > 20 * parts(layers[0], False)["saturation"]
    assert parts(layers[1], False)["saturation"] > 20 * parts(layers[1], False)["rounding"]


def test_end_to_end(fitted: tuple[Program, Diagnosis]) -> None:
    """Every source without and alone, in whole sessions; the score sees the first output."""
    program = fitted[0]
    found = diagnose(program, {"x": X}, seed=2, score=lambda output: float(output[0, 0]))
    rows = {(row.case, row.source): row for row in found.end_to_end}
    assert len(rows) == 2 + 2 * 6 == len(found.end_to_end)
    assert rows["model", None].relative_error == 0
    assert rows["model", None].score == run_onnxruntime(MODEL, {"x": X})["y"][0, 0]
    assert rows["device", None].score == Session(program, seed=2).run_samples({"x": X})["y"][0, 0]
    errors = {key: row.relative_error for key, row in rows.items()}
    assert 0 < errors["alone", "random"] < errors["device", None]
    assert errors["without", "weights"] < errors["device", None]
    assert [replace(row, score=None) for row in found.end_to_end] == list(fitted[1].end_to_end)


def test_the_exact_device_has_the_sources_of_the_program_only() -> None:
    found = diagnose(compiled(FITTED), {"x": X}, "ideal")
    assert found.sources == ("weights", "coding")
    assert found.layers[0].saturated_fraction is None
    assert found.layers[0].corrected.largest in found.sources


def test_a_program_without_any_error() -> None:
    """An exact array, inputs and weights as they are: nothing but float rounding is left."""
    (layer, *_) = diagnose(compiled("", "ideal"), {"x": X}).layers
    assert layer.corrected.whole < 1e-12 * layer.variance


def test_a_layer_whose_output_the_model_does_not_have() -> None:
    """A Gemm that adds another input: its product alone is no tensor of the model."""
    node = helper.make_node("Gemm", ["x", "w", "c"], ["y"], "fc")
    constants = {"w": np.random.default_rng(1).normal(size=(9, 4))}
    model = model_of([node], {"x": ["n", 9], "c": ["n", 4]}, ["y"], constants)
    feeds = {"x": X, "c": images(40, 4)}
    program = xbcompile.compile(model, "mram64", passes=f"{BINARY},recalibrate", calibration=feeds)
    found = diagnose(program, feeds)
    (layer,) = found.layers
    assert layer.reference == "program"
    assert parts(layer)["weights"] is None
    assert parts(layer)["coding"] is None
    assert parts(layer)["systematic"] > 0
    assert layer.corrected.residual < 1e-12
    possible = {(row.case, row.source): row.possible for row in found.end_to_end}
    assert not possible["without", "weights"]
    assert not possible["alone", "random"]
    assert possible["without", "random"]


def test_bad_input() -> None:
    program = compiled(FITTED)
    with pytest.raises(DataError, match="1 sample shows no variance"):
        diagnose(program, {"x": X[:1]})
    with pytest.raises(DataError, match="there are no samples"):
        diagnose(program, {"x": X[:0]})
    with pytest.raises(TargetError, match="cannot be switched off one by one; devices that can: mram64, ideal"):
        diagnose(program, {"x": X}, "mram64-emulator")
    with pytest.raises(TargetError, match="has no device 'm2tj4'"):
        diagnose(program, {"x": X}, "m2tj4")
    with pytest.raises(ProgramError, match=r"does not hold its model.*without --no-embed-model"):
        diagnose(convolution_program(passes=CODED, embed_model=False), {"x": images(4, 2, 4, 4)})
    with pytest.raises(DataError, match="tensor 'a0' has values that are not finite"):
        diagnose(program, {"x": np.full((3, 9), np.inf, np.float32)})


@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_accumulated_sums_are_those_of_all_chunks_together(steps: int, chunks: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(steps + 1, sum(chunks), 3))
    accumulator = _Accumulator(steps)
    for first, last in pairwise(np.cumsum([0, *chunks])):
        accumulator.add(list(states[:, first:last]))
    found = accumulator.result(tuple(map(str, range(steps))), ("unseen",))
    errors = np.diff(states, axis=0)
    whole = states[-1] - states[0]
    assert [s.mean_square for s in found.sources] == [None, *(pytest.approx(square(e)) for e in errors)]
    assert [s.share for s in found.sources][1:] == pytest.approx([(e * whole).mean() / square(whole) for e in errors])
    cross = sum((a * b).mean() for i, a in enumerate(errors) for j, b in enumerate(errors) if i != j)
    assert found.cross_terms == pytest.approx(cross, abs=1e-12)
    assert found.whole == pytest.approx(square(whole))


def test_parts_that_miss_the_whole_are_our_fault() -> None:
    accumulator = _Accumulator(1)
    accumulator.add([np.zeros((2, 2)), np.ones((2, 2))])
    accumulator.whole *= 1.001
    with pytest.raises(RuntimeError, match="miss the whole"):
        accumulator.result(("weights",), ())

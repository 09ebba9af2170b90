"""NaN and infinite inputs: what onnxruntime gives for the vectors concerned, where no row clips them; others untouched."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.device_kit import Bench
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model, images
from xbcompile import InferenceSession, Session
from xbcompile.program.program import Program

RNG = np.random.default_rng(3)
GROUPS = model_of(  # 3 x 3 patches of padded images, two groups
    [helper.make_node("Conv", ["x", "w"], ["y"], group=2, pads=[1, 1, 1, 1])],
    {"x": ["n", 4, 4, 4]},
    ["y"],
    {"w": RNG.normal(size=(6, 2, 3, 3))},
)
MODELS = {"dense": (dense_model(6, 4), (6,)), "groups": (GROUPS, (4, 4, 4))}
CODINGS = ["thermometer{bits=3}", "bitserial{bits=3}", "analogue"]
TARGETS = [
    ("m2tj4", "analogue"),
    *(("ideal", coding) for coding in CODINGS),
    ("mram64", CODINGS[0]),
    ("sot", "analogue"),
]


def compiled(model: onnx.ModelProto, target: str, coding: str, calibration: dict[str, np.ndarray] | None) -> Program:
    scheme = {"mram64": "{scheme=binary}", "sot": "{scheme=ternary}"}.get(target, "{scheme=continuous}")
    quantize = "quantize" if target == "m2tj4" else f"quantize{scheme}"
    return xbcompile.compile(model, target, passes=f"{quantize},{coding}", calibration=calibration)


def with_value(x: np.ndarray, value: float) -> np.ndarray:
    x = x.copy()
    x[(1, *[1] * (x.ndim - 1))] = value
    return x


@pytest.mark.parametrize("calibrated", [True, False], ids=["calibrated", "dynamic"])
@pytest.mark.parametrize(("target", "coding"), TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_nan_in_is_nan_out_where_onnxruntime_has_it(name: str, target: str, coding: str, calibrated: bool) -> None:
    """And every other output is that of the same place without the NaN, to the bit."""
    model, shape = MODELS[name]
    x = images(3, *shape)
    program = compiled(model, target, coding, {"x": x} if calibrated else None)
    strange = with_value(x, np.nan)
    expected = np.isnan(run_onnxruntime(model, {"x": strange})["y"])
    assert 0 < expected.sum() < expected.size
    with_nan, without = (Session(program, seed=1).run_samples({"x": each})["y"] for each in (strange, x))
    assert np.array_equal(np.isnan(with_nan), expected)
    assert np.array_equal(with_nan[~expected], without[~expected])
    assert np.array_equal(InferenceSession(program, seed=1).run(None, {"x": strange})[0], with_nan, equal_nan=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("coding", [None, "analogue"])
def test_where_no_row_clips_infinite_inputs_follow_float_arithmetic(value: float, coding: str | None) -> None:
    """Signs included: weights are continuous here, and none is 0."""
    model, shape = MODELS["dense"]
    passes = None if coding is None else f"quantize{{scheme=continuous}},{coding}"
    program = xbcompile.compile(model, "ideal", passes=passes)
    x = with_value(images(3, *shape), value)
    expected = run_onnxruntime(model, {"x": x})["y"]
    np.testing.assert_allclose(Session(program).run({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("coding", ["", "quantize{scheme=continuous},analogue"])
def test_infinite_inputs_of_other_types_are_not_driven_either(dtype: str, coding: str) -> None:
    """On the ideal device as in onnxruntime, and a device that takes events one by one never sees them."""
    weights = np.random.default_rng(4).normal(size=(6, 4))
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 6]}, ["y"], {"w": weights}, dtype=dtype
    )
    x = with_value(images(3, 6), np.inf).astype(dtype)
    program = xbcompile.compile(model, "ideal", passes=coding)
    expected = run_onnxruntime(model, {"x": x})["y"]
    for device in (None, Bench(program.target.device("ideal"))):
        np.testing.assert_allclose(Session(program, device).run({"x": x})["y"], expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_calibrated_range_clips_infinite_inputs(coding: str) -> None:
    """As it clips any value outside: 1e38 gives the same."""
    model, shape = MODELS["dense"]
    x = images(3, *shape)
    program = compiled(model, "ideal", coding, {"x": x})
    for large, infinite in ((1e38, np.inf), (-1e38, -np.inf)):
        outputs = [Session(program).run({"x": with_value(x, value)})["y"] for value in (large, infinite)]
        assert np.isfinite(outputs[0]).all()
        assert np.array_equal(*outputs)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_range_found_at_run_time_that_float32_cannot_hold_gives_no_finite_output(coding: str) -> None:
    """From -3e38 to 3e38 is more than float32 holds: its vector has no finite output, the others are as ever."""
    model, shape = MODELS["dense"]
    program, x = compiled(model, "ideal", coding, None), images(3, *shape)
    wide = with_value(with_value(x, 3e38)[::-1].copy(), 0.5)[::-1].copy()
    wide[1, :2] = 3e38, -3e38
    found, usual = (Session(program).run({"x": each})["y"] for each in (wide, x))
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, True]
    assert not np.isfinite(found[1]).any()
    assert np.array_equal(found[2], usual[2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_event_by_event_as_together(value: float) -> None:
    """A bench never sees such a value; two calls of the model in a batch keep theirs apart."""
    model = dense_model(6, 4, 3, batch=2)
    x = {"x": with_value(images(8, 6), value)}
    x["x"][6] = value
    for passes in ("quantize,analogue", "quantize,analogue{low=0 high=1}"):
        program = xbcompile.compile(model, "m2tj4", passes=passes, batch=4)
        bench = Bench(program.target.device("ideal"))
        one, other = Session(program, bench), Session(program, "ideal")
        played, together = one.run_samples(x)["y"], other.run_samples(x)["y"]
        np.testing.assert_allclose(played, together, atol=1e-6)
        if np.isnan(value):
            assert np.isnan(together).all(axis=1).tolist() == [False, True, False, False, False, False, True, False]
        for each, same in zip(one.statistics, other.statistics, strict=True):
            assert (each.inputs, each.not_finite, each.clipped_fraction) == (
                same.inputs,
                same.not_finite,
                same.clipped_fraction,
            )
    uncoded = xbcompile.compile(model, "ideal", batch=4)
    found = Session(uncoded, Bench(uncoded.target.device())).run_samples(x)["y"]
    expected = np.concatenate([run_onnxruntime(model, {"x": part})["y"] for part in np.split(x["x"], 4)])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_nan_inside_a_recurrence() -> None:
    """An LSTM read step by step: its own sequence alone."""
    constants = {"w": RNG.normal(size=(1, 12, 4)), "r": RNG.normal(size=(1, 12, 3))}
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    model = model_of([node], {"x": [5, 2, 4]}, ["y"], constants)
    x = images(5, 2, 4)
    x[2, 1, 0] = np.nan
    expected = run_onnxruntime(model, {"x": x})["y"]
    assert 0 < np.isnan(expected).sum() < expected.size
    program = xbcompile.compile(model, "m2tj4")
    assert np.array_equal(np.isnan(Session(program).run({"x": x})["y"]), np.isnan(expected))

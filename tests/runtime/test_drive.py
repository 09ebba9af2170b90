"""Input codes: the drives of a layer stand for exactly what the host graph says the input becomes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.support.model_kit import run_onnxruntime
from xbcompile.ir import Contraction, Geometry, InputCode, MatrixLayer, Network, Patches, WeightCode
from xbcompile.ir.vectors import collect, gather
from xbcompile.reference.host_graph import to_onnx
from xbcompile.runtime.drive import code_vectors
from xbcompile.targets.tile_routing import TileRouting

CODES = [
    InputCode("thermometer", 8),
    InputCode("thermometer", 1),
    InputCode("bitserial", 3),
    InputCode("bitserial", 8),
    InputCode("analogue"),
]


def identity_layer(geometry: Geometry, inputs: int, code: InputCode) -> MatrixLayer:
    """A layer whose outputs are its coded inputs."""
    weights = np.eye(inputs, dtype=np.float32)[None]
    return MatrixLayer(
        "layer",
        "x",
        "y",
        weights,
        np.zeros(inputs, np.float32),
        geometry,
        weight_code=WeightCode.continuous(weights),
        input_code=code,
    )


def host_coded(layer: MatrixLayer, x: np.ndarray, opset: int) -> np.ndarray:
    """The coded vectors that the host graph's function body gives in plain onnxruntime, [V, K]."""
    kind = TensorProto.FLOAT
    rank = x.ndim
    network = Network(
        "net",
        (helper.make_tensor_value_info("x", kind, x.shape),),
        (helper.make_tensor_value_info("y", kind, [None] * rank),),
        (layer,),
        (),
        (("", opset),),
        8,
    )
    model: onnx.ModelProto = to_onnx(network)
    return collect(layer, run_onnxruntime(model, {"x": x}, optimized=False)["y"])


def slices_of(code: InputCode, value: np.ndarray, bipolar: bool) -> np.ndarray:
    """Drives [slices, V, K] of coded vectors [V, K] on an array with a row for each input."""
    rows = np.arange(value.shape[1])[None]
    one, none = np.ones(rows.shape), np.zeros(1, np.intp)
    routing = TileRouting(
        tile=none,
        group=none,
        output=none,
        width=none + rows.size,
        source=rows,
        idle=np.zeros(rows.shape, bool),
        idle_drive=np.zeros(rows.size, np.float32),
        row_sign=None,
        columns=rows,
        subtract=0 * one,
        factor=one,
        scheme=code.scheme,
        both_signs=bipolar,
        coefficients=code.coefficients,
    )
    return routing.drives(value[None])[0].transpose(1, 0, 2)


def driven(layer: MatrixLayer, x: np.ndarray, bipolar: bool) -> np.ndarray:
    """What the drives stand for: gain * sum of coefficients times drives + shift, [V, K]."""
    code = layer.input_code
    assert code is not None
    vectors, _ = gather(layer, x)
    coded = code_vectors(layer, x, vectors, bipolar)
    drives = slices_of(code, coded.value[0], bipolar)
    if code.scheme == "analogue":
        assert drives.min() >= (-1 if bipolar else 0)
        assert drives.max() <= 1
    else:
        assert set(np.unique(drives)) <= ({-1, 1} if bipolar else {0, 1})
    total = np.einsum("t,tvk->vk", code.coefficients, drives.astype(np.float64))
    return coded.gain[:, None] * total + coded.shift[:, None]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[float | None, float | None]:
    low = draw(st.sampled_from([None, 0.0, -1.0, -0.3, 0.7]))
    return low, None if low is None else low + draw(st.sampled_from([0.1, 1.0, 2.5]))


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(CODES),
    ranges(),
    st.booleans(),
    st.sampled_from(["dense", "conv", "padded", "columns"]),
    st.sampled_from([11, 17, 18]),
    st.sampled_from([0.0, 3.0, -3.0]),
    st.integers(0, 2**32 - 1),
)
def test_drives_stand_for_the_host_graphs_input(
    code: InputCode,
    span: tuple[float | None, float | None],
    bipolar: bool,
    kind: str,
    opset: int,
    shift: float,
    seed: int,
) -> None:
    """Padded convolutions included, where the range may not contain 0 exactly, or not at all."""
    rng = np.random.default_rng(seed)
    code = replace(code, low=span[0], high=span[1])
    pads = (1, 0, 2, 1) if kind == "padded" else (0, 0, 0, 0)
    x = rng.normal(size=(3, 5) if kind in ("dense", "columns") else (3, 2, 4, 3)).astype("f")
    geometry: Geometry
    if kind == "dense":
        geometry, inputs = Contraction(), 5
    elif kind == "columns":
        geometry, inputs = Contraction(-2, -2), 3
    else:
        geometry, inputs = Patches((2, 2), (1, 1), (1, 1), pads), 8
    if not code.is_dynamic and code.steps:  # some inputs on half a step, where rounding is to even
        step = np.float32((np.float32(code.high) - np.float32(code.low)) / code.steps)
        x.flat[::3] = code.low + step * (rng.integers(0, code.steps + 1, x.flat[::3].shape) + 0.5)
    x.flat[1] = 0.0
    x += np.float32(shift)  # all inputs above 0, below 0, or on both sides
    layer = identity_layer(geometry, inputs, code)
    found = driven(layer, x, bipolar)
    expected = host_coded(layer, x, opset)
    largest = max(np.abs(x).max(), abs(code.low or 0), abs(code.high or 0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * largest)


@pytest.mark.parametrize("bipolar", [True, False])
@pytest.mark.parametrize("code", CODES, ids=lambda code: f"{code.scheme}{code.bits}")
def test_a_code_is_off_by_half_a_step_at_most(code: InputCode, bipolar: bool) -> None:
    layer = identity_layer(Contraction(), 1001, replace(code, low=-0.5, high=1.5))
    x = np.linspace(-0.5, 1.5, 1001, dtype=np.float32)[None]
    found = driven(layer, x, bipolar)
    bound = 1.0 / code.steps if code.steps else 0.0  # half of (high - low) / steps
    assert np.abs(found - x).max() <= bound + 1e-6
    if code.steps:
        assert len(np.unique(np.round(found, 5))) == code.steps + 1
        assert np.abs(found - x).max() >= bound * 0.98
    outside = np.array([[-9.0, 9.0]], np.float32)
    clipped = driven(identity_layer(Contraction(), 2, replace(code, low=-0.5, high=1.5)), outside, bipolar=False)
    np.testing.assert_allclose(clipped, [[-0.5, 1.5]], atol=1e-6)


def test_thermometer_slices_are_nested_and_bit_serial_slices_are_the_bits() -> None:
    value = np.arange(8, dtype=np.float32)
    drives = slices_of(InputCode("thermometer", 7), value[None], False)[:, 0]
    assert np.array_equal(drives, [[level > t for level in range(8)] for t in range(7)])
    drives = slices_of(InputCode("thermometer", 7), value[None], True)[:, 0]
    assert np.array_equal(drives, [[1 if level > t else -1 for level in range(8)] for t in range(7)])
    drives = slices_of(InputCode("bitserial", 3), value[None], False)[:, 0]
    assert np.array_equal(drives, [[level >> t & 1 for level in range(8)] for t in range(3)])


def test_a_constant_vector_has_no_range_but_a_value() -> None:
    """Dynamic ranges of zero width: the step is arbitrary, the value is the vector's own."""
    for code in CODES:
        layer = identity_layer(Contraction(), 4, code)
        x = np.full((2, 4), 0.7, np.float32)
        np.testing.assert_allclose(driven(layer, x, bipolar=False), x, rtol=1e-6)
        np.testing.assert_allclose(host_coded(layer, x, 17), x, rtol=1e-6)

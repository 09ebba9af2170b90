"""Sessions with sources switched off, against plain onnxruntime, numpy, and sessions as they are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import CODED, convolution_model, convolution_program, dense_model, images
from xbcompile.diagnosis.ablation import SOURCES, AblationSession, _model_part, model_layers
from xbcompile.errors import ProgramError
from xbcompile.frontend import import_network, load_model
from xbcompile.onnx_graph.engine import open_session
from xbcompile.runtime import Session

X = images(30, 9)
MODEL = dense_model(9, 6, 4)
FITTED = "quantize{scheme=binary},thermometer{bits=3},calibrate-offsets{samples=20},recalibrate{samples=20}"


def compiled(
    passes: str, target: str = "mram64", model: onnx.ModelProto = MODEL, x: np.ndarray = X
) -> xbcompile.Program:
    return xbcompile.compile(model, target, passes=passes, calibration={"x": x})


def outputs(session: Session, x: np.ndarray = X) -> np.ndarray:
    return session.run_samples({"x": x})["y"]


def test_all_sources_on_is_the_session_as_it_is() -> None:
    program = compiled(FITTED)
    expected = outputs(Session(program, seed=3))
    assert np.array_equal(outputs(AblationSession(program, SOURCES, seed=3)), expected)
    assert not np.array_equal(outputs(AblationSession(program, SOURCES, seed=4)), expected)


@pytest.mark.parametrize(
    "passes",
    [
        FITTED,
        "quantize{scheme=binary per=matrix},bitserial{bits=2}",
        "pca{components=4},quantize{scheme=binary},thermometer{bits=3},calibrate-offsets,recalibrate",
        "use-spare-cells,quantize{scheme=binary},thermometer{bits=3},recalibrate",
        "order-rows,quantize{scheme=binary},thermometer{bits=3},recalibrate{samples=20 per=tile}",
    ],
)
def test_no_source_on_is_the_model(passes: str) -> None:
    """Whatever the passes put before or behind a layer, and however badly they approximate it."""
    program = compiled(passes)
    expected = run_onnxruntime(MODEL, {"x": X})["y"]
    np.testing.assert_allclose(outputs(AblationSession(program, ())), expected, atol=1e-5)
    assert np.abs(outputs(Session(program)) - expected).max() > 0.05


def test_no_source_on_is_the_model_with_groups_and_padding() -> None:
    x = images(5, 2, 4, 4)
    expected = run_onnxruntime(convolution_model(), {"x": x})["y"]
    np.testing.assert_allclose(outputs(AblationSession(convolution_program(), ()), x), expected, atol=1e-5)


@pytest.mark.parametrize("target", ["mram64", "m2tj4"])
def test_weights_alone(target: str) -> None:
    """Plain numpy with what the codes stand for."""
    program = compiled("quantize{scheme=binary},thermometer{bits=2}", target)
    first, second = program.network.layers
    hidden = np.maximum(X @ first.weight_code.dequantized()[0] + first.bias, 0)
    expected = hidden @ second.weight_code.dequantized()[0] + second.bias
    np.testing.assert_allclose(outputs(AblationSession(program, ["weights"])), expected, atol=1e-5)


@pytest.mark.parametrize("coding", ["thermometer{bits=2}", "bitserial{bits=2}"])
def test_coding_alone(coding: str) -> None:
    """Plain numpy with inputs rounded to 3 or 4 values of the calibrated range: the model's own layer on its input, and the
    rounding through the weights as they are written.
    """
    program = compiled(f"quantize{{scheme=binary}},{coding}")
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in MODEL.graph.initializer}
    value = X
    for i, layer in enumerate(program.network.layers):
        code = layer.input_code
        step = (code.high - code.low) / code.steps
        coded = code.low + step * np.clip(np.rint((value - code.low) / step), 0, code.steps)
        rounding = (coded - value) @ layer.weight_code.dequantized()[0]
        value = value @ constants[f"w{i}"] + constants[f"b{i}"] + rounding
        value = np.maximum(value, 0) if i == 0 else value
    np.testing.assert_allclose(outputs(AblationSession(program, ["coding"])), value, atol=1e-5)


def test_weights_and_coding_are_the_exact_device() -> None:
    for program, x in ((compiled(FITTED), X), (convolution_program(), images(5, 2, 4, 4))):
        found = outputs(AblationSession(program, ["weights", "coding"]), x)
        np.testing.assert_allclose(found, outputs(Session(program, "ideal"), x), atol=1e-4)


def test_a_source_of_the_device_alone_adds_what_it_adds_to_the_coded_layer() -> None:
    """On one layer, without corrections: model + (device - exact device)."""
    model = dense_model(9, 4)
    program = compiled("quantize{scheme=binary},thermometer{bits=3}", model=model)
    off = ["saturation", "rounding", "systematic"]
    device = outputs(Session(program, program.target.device(seed=5, without=off)))
    added = device - outputs(Session(program, "ideal"))
    expected = run_onnxruntime(model, {"x": X})["y"] + added
    np.testing.assert_allclose(outputs(AblationSession(program, ["random"], seed=5)), expected, atol=1e-4)
    assert added.std() > 0.01


def test_chunks_and_repeated_runs_do_not_matter() -> None:
    session = AblationSession(compiled("pca{components=4},quantize{scheme=binary},thermometer"), ["coding", "random"])
    whole = session.run_samples({"x": X})["y"]
    again = session.run_samples({"x": X}, chunk=7, first_sample=0)["y"]
    np.testing.assert_allclose(again, whole, atol=1e-5)
    assert np.abs(session.run_samples({"x": X})["y"] - whole).max() > 1e-3  # the next samples draw noise of their own


def test_where_the_model_leads_from_one_tensor_to_a_layer() -> None:
    """`a` is x + c: neither of them alone leads to the product, nor does what is not on the way."""
    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"], "fc"),
        helper.make_node("Neg", ["y"], ["z"]),
    ]
    model = model_of(nodes, {"x": ["n", 3], "c": ["n", 3]}, ["z"], {"w": np.eye(3) * 2})
    (layer,) = import_network(load_model(model)).layers
    for start in ("x", "c", "z", "w", "elsewhere"):
        assert _model_part(model, layer, start, onnx.TensorProto.FLOAT) is None
    part = _model_part(model, layer, "a", onnx.TensorProto.FLOAT)
    assert [node.op_type for node in part.graph.node] == ["MatMul"]
    assert open_session(part).run(["y"], {"a": np.ones((1, 3), np.float32)})[0].tolist() == [[2, 2, 2]]


def test_programs_without_the_model() -> None:
    program = convolution_program(passes=CODED, embed_model=False)
    with pytest.raises(ProgramError, match="does not hold its model"):
        model_layers(program)
    assert np.isfinite(outputs(AblationSession(program, ["weights"]), images(2, 2, 4, 4))).all()
    with pytest.raises(ProgramError, match="in the model no single tensor before it leads to 'c'"):
        AblationSession(program, ["coding"], layers=[None, None])

"""Inputs: initializers among them are constants unless they are kept, others may be fixed; onnxruntime says what is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import DataError, ModelError, elided
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.explain import explain
from xbcompile.frontend.inputs import ModelInputs, parse_inputs
from xbcompile.frontend.lower import nothing_lowered
from xbcompile.options import CompileOptions
from xbcompile.program.program import load_program

RNG = np.random.default_rng(2)
SQUARE = RNG.uniform(-1, 1, (3, 3)).astype(np.float32)
X = RNG.uniform(-1, 1, (2, 3)).astype(np.float32)


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], output, **attributes)


def listed(nodes, constants, ir_version: int = 8, names=None, **inputs) -> onnx.ModelProto:
    """A model that lists initializers among its inputs, as files of IR version 3 must."""
    model = model_of(nodes, inputs or {"x": [2, 3]}, ["y"], constants)
    model.ir_version = ir_version
    for tensor in model.graph.initializer:
        if names is None or tensor.name in names:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def chain(operator: str, **attributes: Any) -> list[onnx.NodeProto]:
    return [node(operator, ["w", *attributes.pop("more", [])], "t", **attributes), node("MatMul", ["x", "t"], "y")]


FORMS: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "MatMul": ([node("MatMul", ["x", "w"], "y")], {"w": SQUARE}),
    "Gemm": ([node("Gemm", ["x", "w", "c"], "y")], {"w": SQUARE, "c": np.ones(3)}),
    "Einsum": ([node("Einsum", ["x", "w"], "y", equation="nk,km->nm")], {"w": SQUARE}),
    "Transpose": (chain("Transpose", perm=[1, 0]), {"w": SQUARE}),
    "Identity": (chain("Identity"), {"w": SQUARE}),
    "Cast": (chain("Cast", to=TensorProto.FLOAT), {"w": SQUARE.astype(np.float16)}),
    "Reshape": (chain("Reshape", more=["s"]), {"w": SQUARE.reshape(9), "s": np.array([3, 3])}),
    "DequantizeLinear": (chain("DequantizeLinear", more=["d"]), {"w": np.eye(3, dtype=np.int8) * 3, "d": 0.5}),
}


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("form", FORMS)
def test_initializers_among_the_inputs_are_constants(form, ir_version) -> None:
    nodes, constants = FORMS[form]
    model = listed(nodes, constants, ir_version)
    before = model.SerializeToString(deterministic=True)
    program = xbcompile.compile(model, "ideal")
    assert model.SerializeToString(deterministic=True) == before
    assert [record.lowered for record in program.network.records] == [True]
    assert [value.name for value in program.network.inputs] == ["x"]
    found = xbcompile.Session(program).run({"x": X})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": X}, optimized=False)["y"], rtol=1e-5, atol=1e-6)
    with pytest.raises(
        DataError, match=r"no input 'w'; its inputs are: x\. .* unless it is compiled with --keep-input w"
    ):
        xbcompile.Session(program).run({"x": X, "w": constants["w"]})


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("form", FORMS)
def test_a_kept_input_is_fed(form, ir_version) -> None:
    """Its own value is no part of the program; the reason names it, whatever stands between it and the product."""
    nodes, constants = FORMS[form]
    model = listed(nodes, constants, ir_version)
    program = xbcompile.compile(model, "ideal", keep_inputs="w")
    assert [value.name for value in program.network.inputs] == ["x", "w"]
    assert all(tensor.name != "w" for tensor in program.host_graph.skeleton.graph.initializer)
    tensor = "w" if len(nodes) == 1 else "t"
    what = "is a graph input" if tensor == "w" else 'is graph input "w" in another form'
    assert (
        program.network.records[0].reason == f'both operands are activations: "x" is a graph input, "{tensor}" {what}'
    )
    other = (constants["w"][::-1] * 2).astype(helper.tensor_dtype_to_np_dtype(model.graph.initializer[0].data_type))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(other, "w"))
    found = xbcompile.Session(program).run({"x": X, "w": other})["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, {"x": X}, optimized=False)["y"], rtol=1e-5, atol=1e-6)
    with pytest.raises(DataError, match="model input 'w' is missing"):
        xbcompile.Session(program).run({"x": X})


def test_a_kept_kernel_and_a_kept_recurrent_matrix_are_named() -> None:
    conv = listed([node("Conv", ["x", "w"], "y")], {"w": np.ones((1, 1, 2, 2))}, x=[1, 1, 3, 3])
    (record,) = import_network(load_model(conv, ModelInputs(keep="w"))).records
    assert record.reason == 'the kernel "w" is a graph input'
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], "lstm", hidden_size=2)
    model = listed([lstm], {"w": np.ones((1, 8, 3)), "r": np.ones((1, 8, 2))}, x=[4, 1, 3])
    (record,) = import_network(load_model(model, ModelInputs(keep=["w"]))).records
    assert '"w" is a graph input' in record.reason


@pytest.mark.parametrize(
    ("element_type", "shape", "value", "array"),
    [
        (TensorProto.FLOAT, [], 0.1, np.float32(0.1)),
        (TensorProto.FLOAT, [2, 2], 3, np.full((2, 2), 3, np.float32)),
        (TensorProto.FLOAT, ["n", 2], [[1, 2.5]], np.array([[1, 2.5]], np.float32)),
        (TensorProto.DOUBLE, [1], [1e300], np.array([1e300])),
        (TensorProto.FLOAT16, None, 0.5, np.float16(0.5)),
        (TensorProto.INT64, [], 2**40, np.int64(2**40)),
        (TensorProto.UINT8, [3], np.array([1, 2, 255], np.uint8), np.array([1, 2, 255], np.uint8)),
        (TensorProto.BOOL, [1], True, np.array([True])),
        (TensorProto.STRING, [1], "fast", np.array(["fast"], object)),
    ],
)
def test_values_take_the_type_and_shape_of_the_input(element_type, shape, value, array) -> None:
    model = model_of([node("Identity", ["x"], "y")], {"x": [1]}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("v", element_type, shape))
    fixed = load_model(model, ModelInputs(fixed={"v": value}))
    assert [each.name for each in fixed.graph.input] == ["x"]
    (tensor,) = fixed.graph.initializer
    found = numpy_helper.to_array(tensor)
    assert (tensor.data_type, found.shape) == (element_type, array.shape)
    assert found.astype(array.dtype).tolist() == array.tolist()


def test_an_input_with_a_value_takes_another() -> None:
    nodes, constants = FORMS["MatMul"]
    program = xbcompile.compile(listed(nodes, constants), "ideal", fixed_inputs={"w": np.eye(3)})
    np.testing.assert_array_equal(xbcompile.Session(program).run({"x": X})["y"], X)


def by_rate() -> onnx.ModelProto:
    """Two sampling rates, two matrices; and a state of an open number of samples, added."""

    def branch(name: str, factor: float) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        weights = numpy_helper.from_array(SQUARE * np.float32(factor), f"{name}_w")
        return helper.make_graph([node("MatMul", ["x", f"{name}_w"], name)], name, [], [out], [weights])

    nodes = [
        node("Equal", ["rate", "wide"], "is_wide"),
        node("If", ["is_wide"], "h", then_branch=branch("then", 1), else_branch=branch("other", 2)),
        node("Add", ["h", "state"], "y"),
    ]
    model = model_of(nodes, {"x": ["n", 3], "state": ["n", 3]}, ["y"], {"wide": np.array(16000)})
    model.graph.input.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
    return model


@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_fixed_input_is_as_if_it_were_fed(rate) -> None:
    state = np.arange(6, dtype=np.float32).reshape(2, 3)
    program = xbcompile.compile(by_rate(), "ideal", fixed_inputs={"rate": rate, "state": state})
    assert [value.name for value in program.network.inputs] == ["x"]
    expected = run_onnxruntime(by_rate(), {"x": X, "state": state, "rate": np.array(rate)})["y"]
    np.testing.assert_allclose(xbcompile.Session(program).run({"x": X})["y"], expected, rtol=1e-6)
    session = xbcompile.InferenceSession(by_rate(), fixed_inputs={"rate": rate})
    assert [each.name for each in session.get_inputs()] == ["x", "state"]
    np.testing.assert_allclose(session.run(None, {"x": X, "state": state})[0], expected, rtol=1e-6)
    with pytest.raises(DataError, match=f"input 'rate' was fixed to {rate} when compiling"):
        session.run(None, {"x": X, "state": state, "rate": np.array(rate)})


def test_options_are_kept_in_the_program_and_taken_by_plan_and_explain(tmp_path) -> None:
    model = listed(FORMS["Gemm"][0], FORMS["Gemm"][1])
    options = CompileOptions(keep_inputs=("c",), fixed_inputs={"c": 1})
    with pytest.raises(ModelError, match='input "c" is kept and fixed'):
        xbcompile.compile(model, "ideal", options=options)
    program = xbcompile.compile(model, "ideal", keep_inputs="c", fixed_inputs={"x": np.ones((2, 3))}, dims={})
    program.save(tmp_path / "p.xbar")
    again = load_program(tmp_path / "p.xbar")
    assert (again.options.keep_inputs, again.options.fixed_inputs) == (("c",), {"x": np.ones((2, 3)).tolist()})
    model = listed(FORMS["MatMul"][0], FORMS["MatMul"][1])
    assert explain(model).totals.share_percent == 100
    assert explain(model, keep_inputs="w").totals.share_percent == 0
    assert xbcompile.plan(model, "ideal").summary["totals"]["weights"] == 9
    with pytest.raises(ModelError, match="no matrix"):
        xbcompile.plan(model, "ideal", keep_inputs="w")
    with pytest.raises(ModelError, match="inputs belong to models; shapes have none"):
        xbcompile.plan([[3, 3]], "ideal", fixed_inputs={"x": 1})
    with pytest.raises(ModelError, match="inputs belong to models; a program is compiled already"):
        xbcompile.plan(program, keep_inputs="w")


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"keep": ["x"]}, '--keep-input x: the model has no initializer "x" among its inputs; those are: w, c'),
        ({"keep": ["nothing"]}, 'the model has no initializer "nothing" among its inputs'),
        ({"fixed": {"nothing": 1}}, 'the model has no input "nothing" to be fixed; its inputs are: x, i, b, s, q'),
        ({"fixed": {"x": [1, 2]}}, "its shape is ?x3, of at most 1,048,576 values, and the value's 2"),
        ({"fixed": {"x": 1}}, "one value, which fills a shape without open dimensions (--dim fixes those)"),
        ({"fixed": {"x": [[1, 2], [3]]}}, "it takes float values, and lists in it must be of one length"),
        ({"fixed": {"x": [[1, 2, "a"]]}}, "it takes float values; found text"),
        ({"fixed": {"x": [[1, 2, 1e39]]}}, "found values that are out of its range"),
        ({"fixed": {"x": [[1, 2, float("nan")]]}}, "found values that are out of its range"),
        ({"fixed": {"i": 0.5}}, 'input "i" cannot be fixed to 0.5: it takes int8 values; found float64'),
        ({"fixed": {"i": 128}}, "found values that are out of its range"),
        ({"fixed": {"i": True}}, "it takes int8 values; found bool"),
        ({"fixed": {"b": 1}}, "it takes bool values; found int64"),
        ({"fixed": {"s": 1}}, "it takes string values; found int64"),
        ({"fixed": {"q": 1}}, "it is no tensor, or the model does not say its element type"),
        ({"fixed": {"i": list(range(100))}}, "cannot be fixed to [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11..."),
    ],
)
def test_what_does_not_fit_is_refused(inputs, text) -> None:
    nodes, constants = FORMS["Gemm"]
    model = listed(nodes, constants, x=["n", 3])
    for name, kind in {"i": TensorProto.INT8, "b": TensorProto.BOOL, "s": TensorProto.STRING}.items():
        model.graph.input.append(helper.make_tensor_value_info(name, kind, []))
    model.graph.input.append(helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, None))
    with pytest.raises(ModelError) as caught:
        load_model(model, ModelInputs(**inputs))
    assert text in str(caught.value)


def test_settings_of_the_command_line() -> None:
    assert parse_inputs(["a=1", "b=[1, 2.5]", "c=true", "d=fast", "e=x=y"]) == {
        "a": 1,
        "b": [1, 2.5],
        "c": True,
        "d": "fast",
        "e": "x=y",
    }
    for wrong in ("a", "=1", "a="):
        with pytest.raises(ModelError, match=f"--input {wrong}: write --input NAME=VALUE"):
            parse_inputs([wrong])
    with pytest.raises(ModelError, match="--input a is given twice"):
        parse_inputs(["a=1", "a=2"])


def test_names_in_messages_are_few() -> None:
    """As many as have room in 100 characters: 15 of 5 characters and the commas between them are 103, 14 are 96."""
    assert elided([]) == "none"
    assert elided(["w"] * 2) == "w, w"
    assert elided([f"n{i:04}" for i in range(200)]).endswith(", n0013 and 186 more")
    assert elided(["w" * 150, "v"]) == "w" * 150 + " and 1 more"
    assert elided(["w" * 300, "v"]) == "'" + "w" * 199 + "... and 1 more"
    model = listed([node("MatMul", ["x" if i == 0 else f"h{i}", "w"], f"h{i + 1}") for i in range(60)], {"w": SQUARE})
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("h60", TensorProto.FLOAT, None))
    warnings: list[str] = []
    xbcompile.compile(model, "ideal", keep_inputs="w", warn=warnings.append)
    assert "(and 59 more; xbcompile explain lists them)" in warnings[0]
    assert max(map(len, warnings)) <= 250
    assert nothing_lowered(()) == "the model has no Conv, Gemm, MatMul or the like"

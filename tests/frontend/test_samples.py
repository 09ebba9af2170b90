"""Finding what counts as a sample. What is right follows from what each operator does along each axis."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.frontend.sample_candidates import parse_axes

RNG = np.random.default_rng(5)
W = RNG.uniform(-1, 1, (6, 4)).astype(np.float32)
node = helper.make_node
PRODUCT = node("MatMul", ["x", "w"], ["z"], "fc")


def after(
    operator: str, shape: list[Any], constants: dict[str, Any] | None = None, **attributes: Any
) -> onnx.ModelProto:
    """x W, then one operator."""
    nodes = [PRODUCT, node(operator, ["z", *(constants or {})], ["y"], **attributes)]
    return model_of(nodes, {"x": shape}, ["y"], {"w": W, **(constants or {})})


def lstm(steps: int | str | None, batch: int | str | None, states: bool = False) -> onnx.ModelProto:
    weights = {"k": (1, 20, 6), "r": (1, 20, 5), "b": (1, 40)}
    constants = {name: RNG.uniform(-1, 1, shape) for name, shape in weights.items()}
    inputs = {"x": [steps, batch, 6]} | ({"h": [1, batch, 5], "c": [1, batch, 5]} if states else {})
    read = ["x", "k", "r", "b", *(["", "h", "c"] if states else [])]
    nodes = [node("LSTM", read, ["s"], hidden_size=5), node("Squeeze", ["s", "one"], ["y"])]
    return model_of(nodes, inputs, ["y"], {**constants, "one": np.array([1])})


def attention() -> onnx.ModelProto:
    """Rows look at each other."""
    nodes = [
        node("MatMul", ["x", "q"], ["a"]),
        node("Transpose", ["x"], ["t"]),
        node("MatMul", ["a", "t"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "x"], ["y"]),
    ]
    return model_of(nodes, {"x": ["n", 6]}, ["y"], {"q": RNG.uniform(-1, 1, (6, 6))})


def reshaped(shape: list[Any], inside: list[int], back: list[int]) -> onnx.ModelProto:
    """A layer on what a Reshape makes of x."""
    nodes = [node("Reshape", ["x", "i"], ["f"]), node("MatMul", ["f", "w"], ["z"]), node("Reshape", ["z", "o"], ["y"])]
    return model_of(nodes, {"x": shape}, ["y"], {"w": W, "i": np.array(inside), "o": np.array(back)})


def small_share() -> onnx.ModelProto:
    """A thousandth of the mean over axis 0 is taken away."""
    nodes = [
        PRODUCT,
        node("ReduceMean", ["z"], ["m"], axes=[0]),
        node("Mul", ["m", "e"], ["s"]),
        node("Sub", ["z", "s"], ["y"]),
    ]
    return model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": W, "e": np.float32(1e-3)})


def divided_by_number() -> onnx.ModelProto:
    nodes = [
        PRODUCT,
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "i"], ["g"]),
        node("Cast", ["g"], ["n"], to=TensorProto.FLOAT),
        node("Div", ["z", "n"], ["y"]),
    ]
    return model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": W, "i": np.array(0)})


def joined(second: list[Any], operator: str = "Add") -> onnx.ModelProto:
    """x W and v W in one sum or product."""
    nodes = [PRODUCT, node("MatMul", ["v", "w"], ["p"]), node(operator, ["z", "p"], ["y"])]
    return model_of(nodes, {"x": ["n", 6], "v": second}, ["y"], {"w": W})


def columns() -> onnx.ModelProto:
    return model_of([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": [6, "n"]}, ["y"], {"w": W})


def over_axis_0() -> onnx.ModelProto:
    """A kernel of 3 over the open axis, without padding."""
    nodes = [node("Transpose", ["x"], ["t"]), node("Unsqueeze", ["t", "o"], ["u"]), node("Conv", ["u", "k"], ["y"])]
    return model_of(nodes, {"x": [-1, 10]}, ["y"], {"k": RNG.uniform(-1, 1, (4, 10, 3)), "o": np.array([0])})


MIXED: dict[str, onnx.ModelProto] = {
    "softmax": after("Softmax", ["n", 6], axis=0),
    "softmax without a name": after("Softmax", [None, 6], axis=0),
    "softmax of a fixed number": after("Softmax", [4, 6], axis=0),
    "cumulative sum": after("CumSum", ["n", 6], {"a": np.array(0)}),
    "mean": after("ReduceMean", ["n", 6], axes=[0]),
    "largest": after("ArgMax", ["n", 6], axis=0),
    "a small share of the mean": small_share(),
    "divided by their number": divided_by_number(),
    "attention": attention(),
    "convolution": over_axis_0(),
    "one vector": model_of([node("MatMul", ["x", "w"], ["y"], "fc")], {"x": [6]}, ["y"], {"w": W}),
}


@pytest.mark.parametrize("name", MIXED)
def test_a_call_is_one_sample_where_samples_would_mix(name: str) -> None:
    samples = import_network(load_model(MIXED[name])).samples
    assert (dict(samples.inputs), dict(samples.outputs), samples.call) == ({"x": None}, {"y": None}, None)


# Axis of x (and others), of y, samples of a call, of each layer its axis and its vectors per sample.
SEPARATE: dict[str, tuple[onnx.ModelProto, dict[str, int | None], int, int | None, list[tuple[int, int | None]]]] = {
    "rows": (after("Relu", ["n", 6]), {"x": 0}, 0, None, [(0, 1)]),
    "a fixed number": (after("Softmax", [4, 6], axis=1), {"x": 0}, 0, 4, [(0, 1)]),
    "one": (after("Softmax", [1, 6], axis=0), {"x": 0}, 0, 1, [(0, 1)]),
    "named axis 1": (after("Relu", [28, "N", 6]), {"x": 1}, 1, None, [(1, 28)]),
    "two names": (after("Relu", ["time", "batch", 6]), {"x": 1}, 1, None, [(1, None)]),
    "one sequence": (after("Relu", [1, "T", 6]), {"x": 0}, 0, 1, [(0, None)]),
    "columns": (columns(), {"x": 1}, 0, None, [(1, 1)]),
    "turned": (after("Transpose", ["n", 3, 6], perm=[2, 1, 0]), {"x": 0}, 2, None, [(0, 3)]),
    "sequences": (lstm("a", "b"), {"x": 1}, 1, None, [(0, None)] * 2),
    "sequences without names": (lstm(None, None), {"x": 1}, 1, None, [(0, None)] * 2),
    "sequences of a fixed number": (lstm(7, 3), {"x": 1}, 1, 3, [(0, 7)] * 2),
    "one long sequence": (lstm("t", 1), {"x": 1}, 1, 1, [(0, None)] * 2),
    "states": (lstm("t", "n", states=True), {"x": 1, "h": 1, "c": 1}, 1, None, [(0, None)] * 2),
    "several rows each": (reshaped(["n", 5, 6], [-1, 6], [-1, 5, 4]), {"x": 0}, 0, None, [(0, 5)]),
    "rows that take turns": (reshaped([5, "n", 6], [-1, 6], [5, -1, 4]), {"x": 1}, 1, 1, [(0, 5)]),
    "two inputs": (joined(["m", 6]), {"x": 0, "v": 0}, 0, None, [(0, 1)] * 2),
    "a vector for all": (joined([1, 6]), {"x": 0, "v": None}, 0, 1, [(0, 1)] * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", SEPARATE)
def test_axes_of_samples_are_found(name: str) -> None:
    model, inputs, output, call, layers = SEPARATE[name]
    network = import_network(load_model(model))
    samples = network.samples
    assert (dict(samples.inputs), dict(samples.outputs), samples.call) == (inputs, {"y": output}, call)
    assert [(layer.sample_axis, layer.vectors_per_inference) for layer in network.layers] == layers


@pytest.mark.parametrize(
    "name", ["named axis 1", "columns", "turned", "sequences", "several rows each", "rows that take turns"]
)
def test_samples_of_one_call_are_those_of_many(name: str) -> None:
    """onnxruntime itself: cut along the axes that were found, and joined along those of outputs, it is one call."""
    model = SEPARATE[name][0]
    samples = import_network(load_model(model)).samples
    shape = [d.dim_value or 5 for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": RNG.uniform(-1, 1, shape).astype(np.float32)}
    assert samples.samples(feeds) == 5
    found = samples.join([run_onnxruntime(model, samples.part(feeds, i, i + 1)) for i in range(5)])
    np.testing.assert_allclose(found["y"], run_onnxruntime(model, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_ranges_over_a_call_leave_samples_apart() -> None:
    """A DynamicQuantizeLinear takes one range for all rows: each sample is then a call, as one alone would be."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "o"]),
        node("DequantizeLinear", ["q", "s", "o"], ["d"]),
        node("MatMul", ["d", "w"], ["y"], "fc"),
    ]
    model = model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": W})
    samples = import_network(load_model(model)).samples
    assert (samples.call, samples.mixed, samples.inputs["x"]) == (1, True, 0)
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    session = xbcompile.Session(xbcompile.compile(model, "ideal"))
    alone = [run_onnxruntime(model, {"x": x[i : i + 1]})["y"] for i in range(4)]
    np.testing.assert_allclose(session.run_samples({"x": x})["y"], np.concatenate(alone), atol=1e-5)
    np.testing.assert_allclose(session.run({"x": x})["y"], run_onnxruntime(model, {"x": x})["y"], atol=1e-5)


def test_outputs_that_all_share_and_random_ones() -> None:
    nodes = [
        PRODUCT,
        node("Identity", ["w"], ["v"]),
        node("RandomNormalLike", ["z"], ["r"]),
        node("Add", ["z", "r"], ["y"]),
    ]
    samples = import_network(load_model(model_of(nodes, {"x": ["n", 6]}, ["y", "v"], {"w": W}))).samples
    assert (dict(samples.outputs), samples.shared) == ({"y": 0, "v": None}, ("v",))


def test_users_have_the_last_word() -> None:
    """Even where samples mix: each is then run alone."""
    model = after("Softmax", ["n", 6], axis=0)
    network = import_network(load_model(model), batch_axis={"*": 0})
    assert (network.samples.inputs["x"], network.samples.outputs["y"], network.samples.call) == (0, 0, 1)
    rows = after("Relu", ["n", "m", 6])
    assert import_network(load_model(rows), batch_axis={"x": 1}).samples.inputs == {"x": 1}
    assert import_network(load_model(rows), batch_axis={"*": None}).samples.inputs == {"x": None}
    program = xbcompile.compile(model, "ideal", batch_axis={"x": 0})
    x = RNG.normal(size=(3, 6)).astype(np.float32)
    np.testing.assert_array_equal(xbcompile.Session(program).run_samples({"x": x})["y"], np.ones((3, 4)))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("x=5", "--batch-axis x=5: the input has 2 axes, counted from 0"),
        ("z=0", "--batch-axis z: the model's inputs are x"),
        ("x=first", "--batch-axis x=first: write --batch-axis AXIS"),
        ("-1", "--batch-axis -1: write --batch-axis AXIS"),
    ],
)
def test_axes_that_there_are_not(setting: str, text: str) -> None:
    with pytest.raises(ModelError, match=re.escape(text)):
        import_network(load_model(after("Relu", ["n", 6])), batch_axis=parse_axes([setting]))


def test_sizes_that_are_too_small_are_not_counted() -> None:
    """10 channels, an open axis that is time, a kernel of 3: a single entry would leave -1 positions."""
    found = xbcompile.explain(over_axis_0())
    assert (found.totals.macs, found.totals.uncounted) == (0, 1)
    assert xbcompile.explain(over_axis_0(), dims={"x:0": 7}).totals.macs == 4 * 10 * 3 * (7 - 2)
    program = xbcompile.compile(over_axis_0(), "m2tj4", passes="quantize,analogue{low=0 high=1}", effort=0)
    assert (program.schedule.steps["end_s"] >= program.schedule.steps["start_s"]).all()
    assert all(use.vectors == 1 for use in program.network.uses)


@pytest.mark.parametrize("mixes", [True, False])
def test_large_weights_are_stood_for_by_others_as_large(mixes: bool) -> None:
    """Behind 12 matrices of 260 x 260 samples still differ, so that a difference from their mean tells that they mix."""
    constants = {f"w{i}": RNG.normal(size=(260, 260)) / 16 for i in range(12)}
    nodes = [node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]) for i in range(12)]
    mean = node("ReduceMean", ["h12"], ["m"], axes=[0 if mixes else 1], keepdims=1)
    model = model_of([*nodes, mean, node("Sub", ["h12", "m"], ["y"])], {"x": ["n", 260]}, ["y"], constants, opset=13)
    assert import_network(load_model(model)).samples.inputs == {"x": None if mixes else 0}

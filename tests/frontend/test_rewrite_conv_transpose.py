"""ConvTranspose against onnxruntime; cells and positions are counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

node = helper.make_node


def uniform(rng, *shape, dtype="float32"):
    return rng.uniform(-1, 1, shape).astype(dtype)


def run(build, check, rng, x, w, bias=None, declared=None, opset=17, dtype="float32", tolerance=2e-5, **attributes):
    """Import the node beside a plain MatMul, so that there is always a layer; its record, layers and digital operators.

    `bias`: "constant", "activation" or none.
    """
    constants = {"w": uniform(rng, *w, dtype=dtype), "q": np.eye(2, dtype=dtype)}
    feeds = {"x": uniform(rng, *x, dtype=dtype), "p": uniform(rng, 2, 2, dtype=dtype)}
    inputs = {"x": declared or x, "p": (2, 2)}
    if bias == "constant":
        constants["b"] = uniform(rng, w[1] * attributes.get("group", 1), dtype=dtype)
    elif bias:
        feeds["b"] = uniform(rng, w[1] * attributes.get("group", 1), dtype=dtype)
        inputs["b"] = feeds["b"].shape
    nodes = [
        node("ConvTranspose", ["x", "w", "b"][: 3 if bias else 2], ["y"], "n", **attributes),
        node("MatMul", ["p", "q"], ["z"], "other"),
    ]
    network = check(build(nodes, inputs, ["y", "z"], constants, opset=opset, dtype=dtype), feeds, tolerance)
    record = next(record for record in network.records if record.node == "n")
    layers = [layer for layer in network.layers if layer.name != "other"]
    return record, layers, [n.op_type for s in network.segments for n in s.model.graph.node]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
@pytest.mark.parametrize("bias", [None, "constant", "activation"])
def test_opsets(build, check, rng, opset, bias):
    declared = ["n", 3, "h", "w"]
    record, _, operators = run(
        build, check, rng, (2, 3, 4, 5), (3, 2, 3, 3), bias, declared, opset, strides=[2, 2], pads=[1, 1, 0, 1]
    )
    assert record.lowered
    assert ("Add" in operators) == (bias == "activation")


def test_float16(build, check, rng):
    case = {"strides": [2], "pads": [1, 0], "dtype": "float16", "tolerance": 4e-3}
    record, layers, _ = run(build, check, rng, (2, 3, 4), (3, 2, 3), "constant", **case)
    assert record.lowered
    assert layers[0].element_type == TensorProto.FLOAT16


@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 5))
def test_cells(build, check, rng, kernel, stride):
    """Each tap is in one phase: ceil(kernel / stride) taps per phase, `stride` phases, along each axis."""
    _, (layer,), _ = run(build, check, rng, (2, 3, 4, 4), (3, 2, kernel, kernel), strides=[stride, stride])
    cells = 3 * 2 * (math.ceil(kernel / stride) * stride) ** 2
    assert layer.weights.size == cells
    taps = np.count_nonzero(layer.weights)
    assert taps == 3 * 2 * kernel**2


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups(build, check, rng, groups):
    _, (layer,), _ = run(build, check, rng, (2, 4, 3), (4, 3, 2), "constant", group=groups, strides=[2])
    assert layer.weights.shape == (groups, 4 // groups, 6)  # one tap per phase, two phases of three outputs


def test_stride_one_is_one_convolution(build, check, rng):
    """A kernel with its dilation and nothing behind it, but a padding of what the taps reach less the pads."""
    record, (layer,), operators = run(
        build, check, rng, (2, 3, 6, 6), (3, 2, 3, 3), dilations=[2, 1], pads=[1, 1, 2, 0]
    )
    assert record.lowered
    assert operators == []
    assert layer.geometry.pads == (3, 1, 2, 2)
    assert layer.geometry.dilations == (2, 1)


def test_pads_save_positions(build, check, rng):
    """Kernel 4, stride 2, pads 1 give twice the size: of 6 positions of each phase 5 are needed."""
    _, (layer,), operators = run(build, check, rng, (1, 3, 4), (3, 2, 4), strides=[2], pads=[1, 1])
    assert layer.vectors_per_inference == 5
    assert operators == ["Reshape", "Transpose", "Reshape", "Slice"]


def test_kernel_of_the_stride_needs_no_crop(build, check, rng):
    _, (layer,), operators = run(build, check, rng, (1, 3, 4, 5), (3, 2, 2, 3), strides=[2, 3])
    assert layer.vectors_per_inference == 20
    assert operators == ["Reshape", "Transpose", "Reshape"]


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 3), (4, 3), (5, 2), (4, 1)])
def test_auto_pad(build, check, rng, auto_pad, kernel, stride):
    record, _, _ = run(
        build, check, rng, (1, 2, 5), (2, 3, kernel), declared=[1, 2, "l"], strides=[stride], auto_pad=auto_pad
    )
    assert record.lowered


@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("size", [8, 9, 10, 11])
def test_output_shape(build, check, rng, auto_pad, size):
    attributes = {"strides": [2], "output_shape": [size], "auto_pad": auto_pad}
    assert run(build, check, rng, (1, 2, 5), (2, 3, 3), **attributes)[0].lowered
    record, _, _ = run(build, check, rng, (1, 2, 5), (2, 3, 3), declared=[1, 2, "l"], **attributes)
    assert record.reason == "output_shape is given and the size of the input is not known"


@pytest.mark.parametrize("between", ["Identity", "Relu"])
def test_sizes_that_onnx_infers_wrongly(build, check, rng, between):
    """SAME with output padding: onnx 1.23 adds the padding to a size that does not grow by it."""
    nodes = [
        node("ConvTranspose", ["x", "v"], ["a"], "first", auto_pad="SAME_UPPER", output_padding=[2], strides=[3]),
        node(between, ["a"], ["b"]),
        node("ConvTranspose", ["b", "w"], ["y"], "second", strides=[2], pads=[1, 1]),
        node("ConvTranspose", ["b", "w"], ["z"], "third", strides=[2], output_shape=[25]),
    ]
    constants = {"v": uniform(rng, 2, 3, 3), "w": uniform(rng, 3, 2, 4)}
    network = check(build(nodes, {"x": (1, 2, 4)}, ["y", "z"], constants), {"x": uniform(rng, 1, 2, 4)})
    reasons = {record.node: record.reason for record in network.records}
    assert reasons == {
        "first": "",
        "second": "",
        "third": "output_shape is given and the size of the input is not known",
    }


def test_matrix_of_empty_phases_stays_digital(build, check, rng):
    """A stride of 2^14 along both axes: 2^28 phases of one tap."""
    stride = 2**14
    record, _, _ = run(build, check, rng, (1, 1, 1, 1), (1, 1, 1, 1), strides=[stride, stride])
    assert record.reason == f"strides [{stride}, {stride}] make a matrix of more than {2**27} elements"


def test_activation_as_kernel_stays_digital(build, check, rng):
    nodes = [node("ConvTranspose", ["x", "k"], ["y"], "n"), node("MatMul", ["x", "q"], ["z"])]
    model = build(nodes, {"x": (1, 2, 5), "k": (2, 3, 3)}, ["y", "z"], {"q": uniform(rng, 5, 2)})
    network = check(model, {"x": uniform(rng, 1, 2, 5), "k": uniform(rng, 2, 3, 3)})
    assert network.records[0].reason == 'the kernel "k" is a graph input'


@st.composite
def cases(draw):
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    each = [
        (draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2)))
        for _ in range(rank)
    ]
    size, kernel, strides, dilations = (list(values) for values in zip(*each, strict=True))
    attributes = {"group": groups, "strides": strides, "dilations": dilations}
    added = [0] * rank
    if draw(st.booleans()):
        added = [draw(st.integers(0, s - 1)) for s in strides]
        attributes["output_padding"] = added
    full = [(n - 1) * s + (k - 1) * d + 1 + a for (n, k, s, d), a in zip(each, added, strict=True)]
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad != "NOTSET":
        attributes["auto_pad"] = auto_pad
    elif draw(st.booleans()):
        before = [draw(st.integers(0, min(2, n - 1))) for n in full]
        behind = [draw(st.integers(0, min(2, n - 1 - b))) for n, b in zip(full, before, strict=True)]
        attributes["pads"] = before + behind
    x = (2, 2 * groups, *size)
    declared = [None if draw(st.booleans()) else n for n in x]
    bias = draw(st.sampled_from([None, "constant"]))
    return x, (2 * groups, draw(st.integers(1, 2)), *kernel), bias, declared, attributes


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases(), opset=st.sampled_from([7, 11, 13, 22]))
def test_random_attributes(build, check, case, opset):
    x, w, bias, declared, attributes = case
    rng = np.random.default_rng(sum(x) + sum(w))
    if any(
        (n - 1) * s + (k - 1) * d + 1 < n * s
        for n, k, s, d in zip(x[2:], w[2:], attributes["strides"], attributes["dilations"], strict=True)
    ) and attributes.get("auto_pad", "").startswith("SAME"):
        attributes = {name: value for name, value in attributes.items() if name != "auto_pad"}
    record, _, _ = run(build, check, rng, x, w, bias, declared, opset, **attributes)
    assert record.lowered

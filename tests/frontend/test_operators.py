from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model
from xbcompile.ir import Contraction, Patches

node = helper.make_node

BOTH = [(0, 0), (0, 1), (1, 0), (1, 1)]


def uniform(rng, *shape, dtype="float32"):
    return rng.uniform(-1, 1, shape).astype(dtype)


# --- Gemm


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
@pytest.mark.parametrize(("trans_a", "trans_b"), BOTH)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0)])
def test_gemm(build, check, rng, opset, trans_a, trans_b, alpha, beta):
    gemm = node("Gemm", ["x", "w", "c"], ["y"], "g", transA=trans_a, transB=trans_b, alpha=alpha, beta=beta)
    weights = rng.uniform(-1, 1, (3, 5) if trans_b else (5, 3))
    shape = (5, 4) if trans_a else (4, 5)
    model = build([gemm], {"x": shape}, ["y"], {"w": weights, "c": rng.uniform(-1, 1, 3)}, opset=opset)
    network = check(model, {"x": uniform(rng, *shape)})
    (layer,) = network.nodes
    assert layer.geometry == Contraction(input_axis=-2 if trans_a else -1)
    assert layer.weights.shape == (1, 5, 3)
    assert layer.weights.dtype == layer.bias.dtype == np.float32
    assert layer.vectors_per_inference == (4 if trans_a else 1)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1), (1, 3)])
def test_gemm_constant_bias(build, check, rng, shape):
    gemm = node("Gemm", ["x", "w", "c"], ["y"], beta=1.5)
    model = build([gemm], {"x": ["n", 5]}, ["y"], {"w": rng.uniform(-1, 1, (5, 3)), "c": rng.uniform(-1, 1, shape)})
    (layer,) = check(model, {"x": uniform(rng, 4, 5)}).nodes
    assert np.abs(layer.bias).min() > 0


@pytest.mark.parametrize("beta", [1.0, -0.5, 0.0])
@pytest.mark.parametrize("shape", [(4, 1), (4, 3)])
def test_gemm_bias_per_row_is_digital(build, check, rng, shape, beta):
    gemm = node("Gemm", ["x", "w", "c"], ["y"], beta=beta)
    constants = {"w": rng.uniform(-1, 1, (5, 3)), "c": rng.uniform(-1, 1, shape)}
    network = check(build([gemm], {"x": [4, 5]}, ["y"], constants), {"x": uniform(rng, 4, 5)})
    expected = {1.0: ["Add"], -0.5: ["Mul", "Add"], 0.0: []}[beta]
    assert [n.op_type for s in network.segments for n in s.model.graph.node] == expected
    assert not network.layers[0].bias.any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 3)])
def test_gemm_dynamic_bias_is_digital(build, check, rng, shape, dtype):
    gemm = node("Gemm", ["x", "w", "c"], ["y"], beta=0.5)
    weights = rng.uniform(-1, 1, (5, 3)).astype(dtype)
    model = build([gemm], {"x": [4, 5], "c": shape}, ["y"], {"w": weights}, dtype=dtype)
    feeds = {"x": uniform(rng, 4, 5, dtype=dtype), "c": uniform(rng, *shape, dtype=dtype)}
    network = check(model, feeds, 3e-3 if dtype == "float16" else 2e-5)
    assert [n.op_type for s in network.segments for n in s.model.graph.node] == ["Mul", "Add"]


@pytest.mark.parametrize(("trans_a", "trans_b"), BOTH)
@pytest.mark.parametrize("bias", [None, (), (4, 1), (3,), (4, 3)])
def test_gemm_constant_left(build, check, rng, trans_a, trans_b, bias):
    gemm = node("Gemm", ["w", "x"] + ["c"] * (bias is not None), ["y"], transA=trans_a, transB=trans_b, alpha=2.0)
    constants = {"w": rng.uniform(-1, 1, (5, 4) if trans_a else (4, 5))}
    if bias is not None:
        constants["c"] = rng.uniform(-1, 1, bias)
    shape = (3, 5) if trans_b else (5, 3)
    network = check(build([gemm], {"x": shape}, ["y"], constants), {"x": uniform(rng, *shape)})
    assert network.layers[0].geometry == Contraction(input_axis=-1 if trans_b else -2, output_axis=-2)
    assert len(network.segments) == (bias in ((3,), (4, 3)))


# --- MatMul


@pytest.mark.parametrize("x", [(5,), (4, 5), (2, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("w", [(5,), (5, 3), (5, 1), (1, 5, 3), (1, 1, 5, 3)])
def test_matmul_constant_right(build, check, rng, x, w):
    constants = {"w": rng.uniform(-1, 1, w), "v": rng.uniform(-1, 1, (5, 5))}
    model = build(
        [node("MatMul", ["x", "v"], ["h"]), node("MatMul", ["h", "w"], ["y"], "m")], {"x": x}, ["y"], constants
    )
    network = check(model, {"x": uniform(rng, *x)})
    assert network.records[1].lowered
    assert network.layers[1].geometry == Contraction(squeeze=len(w) == 1)
    assert network.layers[1].vectors_per_inference == int(np.prod(x[1:-1]))


@pytest.mark.parametrize("x", [(5,), (5, 4), (2, 5, 4), (2, 3, 5, 1)])
@pytest.mark.parametrize("w", [(5,), (3, 5), (1, 5), (1, 3, 5)])
def test_matmul_constant_left(build, check, rng, x, w):
    constants = {"w": rng.uniform(-1, 1, w), "v": rng.uniform(-1, 1, x[-1:] * 2)}
    model = build(
        [node("MatMul", ["x", "v"], ["h"]), node("MatMul", ["w", "h"], ["y"], "m")], {"x": x}, ["y"], constants
    )
    network = check(model, {"x": uniform(rng, *x)})
    assert network.records[1].lowered
    if len(w) <= 2 or len(x) >= len(w):  # with more axes it is a rewriting's
        axis = -1 if len(x) == 1 else -2
        assert network.layers[1].geometry == Contraction(axis, -1 if len(w) == 1 else axis, len(w) == 1)


def test_matmul_of_activations_stays_digital(build, check, rng):
    nodes = [node("MatMul", ["x", "a"], ["h"], "one"), node("MatMul", ["h", "x"], ["y"], "two")]
    network = check(build(nodes, {"x": [5, 5]}, ["y"], {"a": rng.uniform(-1, 1, (5, 5))}), {"x": uniform(rng, 5, 5)})
    assert network.records[1].reason == 'both operands are activations: "x" is a graph input'
    assert not network.records[1].lowered


def test_matmul_of_unknown_rank(build, check, rng):
    nodes = [
        node("MatMul", ["x", "a"], ["h"], "right"),
        node("MatMul", ["a", "h"], ["i"], "left"),
        node("MatMul", ["i", "b"], ["y"], "deep"),
    ]
    constants = {"a": rng.uniform(-1, 1, (5, 5)), "b": rng.uniform(-1, 1, (1, 5, 5))}
    network = check(build(nodes, {"x": None}, ["y"], constants), {"x": uniform(rng, 5, 5)})
    assert [record.reason for record in network.records] == [
        "",
        "the constant is on the left and the other operand's rank is unknown",
        "the constant has 3 axes and the other operand's rank is unknown",
    ]
    assert network.layers[0].vectors_per_inference is None


@pytest.mark.parametrize(
    ("bias", "fused"),
    [
        *[(shape, True) for shape in ((3,), (), (1,), (1, 3), (1, 1, 3))],
        *[(shape, False) for shape in ((4, 1), (4, 3), (1, 1, 1, 3))],
    ],
)
@pytest.mark.parametrize("swap", [False, True])
def test_matmul_bias(build, check, rng, bias, fused, swap):
    add = node("Add", ["c", "h"] if swap else ["h", "c"], ["y"])
    constants = {"w": rng.uniform(-1, 1, (5, 3)), "c": rng.uniform(-1, 1, bias)}
    model = build([node("MatMul", ["x", "w"], ["h"]), add], {"x": ["n", 4, 5]}, ["y"], constants)
    network = check(model, {"x": uniform(rng, 2, 4, 5)})
    assert len(network.segments) == (not fused)
    assert network.layers[0].bias.any() == fused
    assert network.layers[0].output == ("y" if fused else "h")


@pytest.mark.parametrize(("bias", "fused"), [((3, 1), True), ((), True), ((3, 4), False), ((4,), False)])
def test_matmul_bias_constant_left(build, check, rng, bias, fused):
    constants = {"w": rng.uniform(-1, 1, (3, 5)), "c": rng.uniform(-1, 1, bias)}
    nodes = [node("MatMul", ["w", "x"], ["h"]), node("Add", ["h", "c"], ["y"])]
    network = check(build(nodes, {"x": [2, 5, 4]}, ["y"], constants), {"x": uniform(rng, 2, 5, 4)})
    assert len(network.segments) == (not fused)


@pytest.mark.parametrize(("bias", "fused"), [((), True), ((1,), True), ((1, 1, 1), False), ((4,), False)])
def test_matmul_bias_of_vector(build, check, rng, bias, fused):
    constants = {"w": rng.uniform(-1, 1, 5), "c": rng.uniform(-1, 1, bias)}
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])]
    network = check(build(nodes, {"x": [2, 4, 5]}, ["y"], constants), {"x": uniform(rng, 2, 4, 5)})
    assert len(network.segments) == (not fused)


@pytest.mark.parametrize("outputs", [["y"], ["y", "h"]])
@pytest.mark.parametrize("second_reader", [False, True])
def test_matmul_bias_needs_a_single_reader(build, check, rng, outputs, second_reader):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])]
    if second_reader:
        nodes.append(node("Relu", ["h"], ["r"]))
        outputs = [*outputs, "r"]
    constants = {"w": rng.uniform(-1, 1, (5, 3)), "c": rng.uniform(-1, 1, 3)}
    network = check(build(nodes, {"x": [2, 5]}, outputs, constants), {"x": uniform(rng, 2, 5)})
    assert len(network.segments) == (outputs != ["y"])


def test_matmul_with_one_output_broadcast_by_add(build, check, rng):
    constants = {"w": rng.uniform(-1, 1, (5, 1)), "c": rng.uniform(-1, 1, 3)}
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])]
    network = check(build(nodes, {"x": [2, 5]}, ["y"], constants), {"x": uniform(rng, 2, 5)})
    assert len(network.segments) == 1


def test_matmul_bias_by_adding_itself(build, check, rng):
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "h"], ["y"])]
    check(build(nodes, {"x": [2, 5]}, ["y"], {"w": rng.uniform(-1, 1, (5, 3))}), {"x": uniform(rng, 2, 5)})


# --- Conv

ATTRIBUTES_2D = [
    {},
    {"strides": [2, 1]},
    {"pads": [1, 0, 2, 1]},
    {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
    {"strides": [2, 3], "pads": [2, 1, 0, 1], "dilations": [1, 2]},
    {"auto_pad": "VALID", "strides": [2, 2]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 2]},
]


@pytest.mark.parametrize("attributes", ATTRIBUTES_2D, ids=str)
@pytest.mark.parametrize(("groups", "channels", "outputs"), [(1, 3, 4), (2, 4, 6), (4, 4, 4), (4, 4, 8)])
def test_conv_2d(build, check, rng, attributes, groups, channels, outputs):
    conv = node("Conv", ["x", "w", "b"], ["y"], "c", group=groups, kernel_shape=[3, 2], **attributes)
    constants = {"w": rng.uniform(-1, 1, (outputs, channels // groups, 3, 2)), "b": rng.uniform(-1, 1, outputs)}
    network = check(
        build([conv], {"x": ["n", channels, 8, 9]}, ["y"], constants), {"x": uniform(rng, 2, channels, 8, 9)}
    )
    (layer,) = network.nodes
    assert layer.weights.shape == (groups, channels // groups * 6, outputs // groups)
    geometry = layer.geometry
    assert isinstance(geometry, Patches)
    assert layer.vectors_per_inference == np.prod(geometry.output_size((8, 9)))
    assert layer.geometry.auto_pad == attributes.get("auto_pad", "NOTSET")


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_conv_1d_and_3d(build, check, rng, rank, bias, auto_pad):
    pads = {"pads": [1] * rank + [0] * rank} if auto_pad == "NOTSET" else {}
    conv = node("Conv", ["x", "w"] + ["b"] * bias, ["y"], group=2, strides=[2] * rank, auto_pad=auto_pad, **pads)
    constants = {"w": rng.uniform(-1, 1, (4, 1, *[3] * rank)), "b": rng.uniform(-1, 1, 4)}
    network = check(
        build([conv], {"x": ["n", 2, *[6] * rank]}, ["y"], constants), {"x": uniform(rng, 2, 2, *[6] * rank)}
    )
    assert len(network.nodes) == 1


def test_conv_dynamic_bias(build, check, rng):
    conv = node("Conv", ["x", "w", "b"], ["y"], "c")
    model = build([conv], {"x": [2, 3, 5, 5], "b": [4]}, ["y"], {"w": rng.uniform(-1, 1, (4, 3, 2, 2))})
    network = check(model, {"x": uniform(rng, 2, 3, 5, 5), "b": uniform(rng, 4)})
    assert [n.op_type for s in network.segments for n in s.model.graph.node] == ["Reshape", "Add"]


def test_conv_dynamic_sizes(build, check, rng):
    conv = node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])
    model = build([conv], {"x": ["n", 3, "h", "v"]}, ["y"], {"w": rng.uniform(-1, 1, (4, 3, 3, 3))})
    for size in ((5, 6), (8, 7)):
        network = check(model, {"x": uniform(rng, 2, 3, *size)})
    assert network.layers[0].vectors_per_inference is None
    assert [d.dim_param for d in network.inputs[0].type.tensor_type.shape.dim] == ["n", "", "h", "v"]


def test_conv_with_dynamic_kernel_stays_digital(build, check, rng):
    nodes = [node("Conv", ["x", "w"], ["h"], "fixed"), node("Conv", ["h", "k"], ["y"], "dynamic")]
    model = build(nodes, {"x": [1, 1, 5, 5], "k": [1, 1, 2, 2]}, ["y"], {"w": rng.uniform(-1, 1, (1, 1, 2, 2))})
    network = check(model, {"x": uniform(rng, 1, 1, 5, 5), "k": uniform(rng, 1, 1, 2, 2)})
    assert network.records[1].reason == 'the kernel "k" is a graph input'


# --- element types


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 3e-3), ("float64", 1e-6)])
def test_element_types(build, check, rng, dtype, tolerance):
    nodes = [node("Gemm", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["i"]), node("Relu", ["i"], ["y"])]
    constants = {"w": rng.uniform(-1, 1, (5, 4)).astype(dtype), "v": rng.uniform(-1, 1, (4, 3)).astype(dtype)}
    network = check(
        build(nodes, {"x": ["n", 5]}, ["y"], constants, dtype=dtype), {"x": uniform(rng, 3, 5, dtype=dtype)}, tolerance
    )
    assert {layer.element_type for layer in network.layers} == {helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    assert all(layer.weights.dtype == np.float32 for layer in network.layers)


def test_float16_conv(build, check, rng):
    weights = rng.uniform(-1, 1, (4, 3, 3, 3)).astype("float16")
    model = build([node("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 6, 6]}, ["y"], {"w": weights}, dtype="float16")
    check(model, {"x": uniform(rng, 1, 3, 6, 6, dtype="float16")}, 3e-3)


def test_integer_matmul_stays_digital(build, check, rng):
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "real"),
        node("Cast", ["h"], ["i"], to=onnx.TensorProto.INT32),
        node("MatMul", ["i", "v"], ["y"], "whole"),
    ]
    constants = {"w": rng.uniform(-9, 9, (5, 4)), "v": np.arange(8, dtype=np.int32).reshape(4, 2)}
    network = check(build(nodes, {"x": [3, 5]}, ["y"], constants), {"x": uniform(rng, 3, 5)})
    assert network.records[1].reason == "element type int32 is not lowered"


def test_bfloat16_stays_digital(build, rng):
    import ml_dtypes

    nodes = [
        node("MatMul", ["x", "w"], ["h"], "float"),
        node("Cast", ["h"], ["i"], to=onnx.TensorProto.BFLOAT16),
        node("MatMul", ["i", "v"], ["y"], "brain"),
    ]
    constants = {"w": rng.uniform(-1, 1, (5, 4)), "v": rng.uniform(-1, 1, (4, 2)).astype(ml_dtypes.bfloat16)}
    network = import_network(load_model(build(nodes, {"x": [3, 5]}, ["y"], constants)))
    assert network.records[1].reason == "element type bfloat16 is not lowered"


def test_empty_matrix_stays_digital(build, check, rng):
    nodes = [node("MatMul", ["x", "w"], ["y"], "full"), node("MatMul", ["x", "e"], ["z"], "empty")]
    constants = {"w": rng.uniform(-1, 1, (5, 4)), "e": np.zeros((5, 0))}
    network = check(build(nodes, {"x": [3, 5]}, ["y", "z"], constants), {"x": uniform(rng, 3, 5)})
    assert network.records[1].reason == '"e" is empty, of shape [5, 0]'


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_odd_shapes(build, check, rng, shape):
    model = build([node("Gemm", ["x", "w"], ["y"])], {"x": ["n", shape[0]]}, ["y"], {"w": rng.uniform(-1, 1, shape)})
    check(model, {"x": uniform(rng, 1, shape[0])})


@pytest.mark.parametrize(("operator", "w"), [("Gemm", (6, 3)), ("MatMul", (6, 3)), ("MatMul", (6,)), ("Conv", (4, 5))])
def test_shapes_that_do_not_fit(build, rng, operator, w):
    model = load_model(
        build([node(operator, ["x", "w"], ["y"], "n")], {"x": (4, 5)}, ["y"], {"w": rng.uniform(-1, 1, w)})
    )
    with pytest.raises(ModelError, match=rf"onnxruntime cannot load the model: .*Node \(n\) Op \({operator}\)"):
        import_network(model)


@pytest.mark.parametrize(("x", "w", "groups"), [((1, 2, 5, 5), (4, 3, 2, 2), 1), ((1, 3, 5, 5), (4, 1, 2, 2), 3)])
def test_channels_that_do_not_fit(build, rng, x, w, groups):
    conv = node("Conv", ["x", "w"], ["y"], "n", group=groups)
    model = load_model(build([conv], {"x": x}, ["y"], {"w": rng.uniform(-1, 1, w)}))
    expected = rf'node "n" \(Conv\): "w" of shape .* does not fit {groups} groups of the channels of "x", of shape \[1,'
    with pytest.raises(ModelError, match=expected):
        import_network(model)

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from xbcompile.errors import ModelError
from xbcompile.frontend import import_network, load_model

node = helper.make_node


def feeds(rng, *shape):
    return {"x": rng.uniform(-1, 1, shape).astype("f")}


def operators(network):
    return [n.op_type for segment in network.segments for n in segment.model.graph.node]


def int8(rng, *shape):
    return rng.integers(-127, 127, shape, dtype=np.int8)


def test_dequantized_and_joined_weights(build, check, rng):
    nodes = [
        node("DequantizeLinear", ["a", "s", "z"], ["fa"], axis=1),
        node("DequantizeLinear", ["b", "t"], ["fb"]),
        node("Concat", ["fa", "fb"], ["w"], axis=1),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"a": int8(rng, 90, 80), "b": int8(rng, 90, 70), "s": rng.uniform(0.01, 0.1, 80), "t": 0.02}
    constants["z"] = int8(rng, 80)
    network = check(build(nodes, {"x": ["n", 90]}, ["y"], constants), feeds(rng, 3, 90))
    (layer,) = network.nodes
    assert layer.weights.shape == (1, 90, 150)


def test_fake_quantized_model(build, check, rng):
    """The weights' quantization folds away, the activations' stays."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("QuantizeLinear", ["w", "s", "z8"], ["wq"]),
        node("DequantizeLinear", ["wq", "s", "z8"], ["wd"]),
        node("Conv", ["d", "wd", "b"], ["h"], "conv"),
        node("Relu", ["h"], ["y"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (4, 3, 3, 3)), "b": rng.uniform(-1, 1, 4), "s": 0.01}
    constants |= {"z": np.uint8(128), "z8": np.int8(0)}
    network = check(build(nodes, {"x": [1, 3, 6, 6]}, ["y"], constants), feeds(rng, 1, 3, 6, 6), optimized=False)
    assert operators(network) == ["QuantizeLinear", "DequantizeLinear", "Relu"]
    assert np.allclose(network.layers[0].weights * 100, np.round(network.layers[0].weights * 100), atol=1e-3)


def test_int4_weights(build, check, rng):
    import ml_dtypes

    weights = rng.integers(-8, 8, (90, 80)).astype(ml_dtypes.int4)
    nodes = [node("DequantizeLinear", ["w", "s"], ["f"]), node("MatMul", ["x", "f"], ["y"])]
    model = build(nodes, {"x": ["n", 90]}, ["y"], {"w": weights, "s": 0.02}, opset=21, ir_version=10)
    (layer,) = check(model, feeds(rng, 3, 90), optimized=False).nodes
    assert layer.weights.shape == (1, 90, 80)


def test_contrib_dequantize(build, check, rng):
    """onnx does not know the result's type and shape, onnxruntime does."""
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["f"], domain="com.microsoft"),
        node("MatMul", ["x", "f"], ["y"]),
    ]
    constants = {"w": int8(rng, 9, 8), "s": 0.02, "z": np.int8(3)}
    model = build(nodes, {"x": ["n", 9]}, ["y"], constants, domains={"com.microsoft": 1})
    assert len(check(model, feeds(rng, 3, 9), optimized=False).nodes) == 1


def test_reshape_by_a_computed_shape(build, check, rng):
    """The shape that Div computes is only known after a first run; the second folds the weights."""
    nodes = [
        node("Shape", ["w"], ["shape"]),
        node("Div", ["shape", "two"], ["half"]),
        node("Mul", ["half", "factors"], ["target"]),
        node("Reshape", ["w", "target"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("Mul", ["t", "scale"], ["f"]),
        node("Gemm", ["x", "f"], ["y"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (8, 6)), "two": np.array([2]), "factors": np.array([1, 4]), "scale": 3.0}
    network = check(build(nodes, {"x": ["n", 12]}, ["y"], constants), feeds(rng, 3, 12))
    assert len(network.nodes) == 1


@pytest.mark.parametrize(
    ("attribute", "value"), [("value_float", 2.0), ("value_floats", [1.0, 2.0, 3.0]), ("value", np.float32(4))]
)
def test_constant_nodes(build, check, rng, attribute, value):
    if attribute == "value":
        value = numpy_helper.from_array(np.asarray(value), "another name")
    nodes = [
        node("Constant", [], ["c"], **{attribute: value}),
        node("Constant", [], ["shape"], value_ints=[2, 3]),
        node("Reshape", ["x", "shape"], ["r"]),
        node("Mul", ["r", "c"], ["s"]),
        node("MatMul", ["s", "w"], ["h"]),
        node("Mul", ["h", "c"], ["y"]),
    ]
    check(build(nodes, {"x": [6]}, ["y"], {"w": rng.uniform(-1, 1, (3, 3))}), feeds(rng, 6))


def test_text_constants(build, check, rng):
    nodes = [
        node("Constant", [], ["c"], value_strings=[b"one", b"two"]),
        node("Identity", ["c"], ["text"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    network = import_network(load_model(build(nodes, {"x": [6, 3]}, ["y", "text"], {"w": rng.uniform(-1, 1, (3, 3))})))
    (initializer,) = network.segments[0].model.graph.initializer
    assert list(initializer.string_data) == [b"one", b"two"]


def test_constant_if_folds(build, check, rng):
    then = helper.make_graph([node("Identity", ["w"], ["t"])], "then", [], [onnx.ValueInfoProto(name="t")])
    other = helper.make_graph([node("Neg", ["w"], ["e"])], "else", [], [onnx.ValueInfoProto(name="e")])
    nodes = [node("If", ["c"], ["f"], then_branch=then, else_branch=other), node("MatMul", ["x", "f"], ["y"])]
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "c": np.array(False)}
    (layer,) = check(build(nodes, {"x": [2, 3]}, ["y"], constants), feeds(rng, 2, 3)).nodes
    assert np.array_equal(layer.weights[0], -constants["w"].astype("f"))


def test_sequences_of_constants_stay(build, check, rng):
    """A sequence is no initializer: its node stays, what is behind it folds, and what follows folds too."""
    nodes = [
        node("Neg", ["w"], ["n"]),
        node("SequenceConstruct", ["n", "w"], ["s"]),
        node("SequenceAt", ["s", "i"], ["f"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("SequenceAt", ["s", "one"], ["g"]),
        node("SequenceInsert", ["s", "h"], ["y"]),
        node("Add", ["f", "h"], ["z"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "i": np.array(0), "one": np.array(1)}
    network = check(build(nodes, {"x": [3, 3]}, ["y", "z"], constants), feeds(rng, 3, 3))
    assert "Neg" not in operators(network)
    assert "SequenceConstruct" in operators(network)


def test_random_operators_stay(build, rng):
    nodes = [
        node("RandomNormalLike", ["w"], ["r"], seed=1.0),
        node("RandomUniform", [], ["u"], shape=[3, 3]),
        node("Dropout", ["w", "ratio", "train"], ["d"]),
        node("MatMul", ["x", "w"], ["h"]),
        *(node("MatMul", ["h", name], [f"y{name}"], name) for name in "rud"),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "ratio": np.float32(0.5), "train": np.array(True)}
    network = import_network(load_model(build(nodes, {"x": [2, 3]}, ["yr", "yu", "yd"], constants)))
    assert [record.lowered for record in network.records] == [True, False, False, False]
    assert {"RandomNormalLike", "RandomUniform", "Dropout"} <= set(operators(network))


def test_random_operators_in_a_body_stay(build, rng):
    body = [node("RandomNormalLike", ["w"], ["t"])]
    branch = helper.make_graph(body, "branch", [], [onnx.ValueInfoProto(name="t")])
    nodes = [
        node("If", ["c"], ["f"], then_branch=branch, else_branch=branch),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "f"], ["y"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "c": np.array(True)}
    assert operators(import_network(load_model(build(nodes, {"x": [3, 3]}, ["y"], constants)))) == [
        "RandomNormalLike",
        "Add",
    ]
    nodes[0].metadata_props.add(key="xbcompile", value="digital")  # the body stays, but is not evaluated either
    assert operators(import_network(load_model(build(nodes, {"x": [3, 3]}, ["y"], constants)))) == ["If", "Add"]


def test_untrained_dropout_folds(build, check, rng):
    nodes = [node("Dropout", ["w"], ["d"]), node("MatMul", ["x", "d"], ["y"])]
    assert (
        len(check(build(nodes, {"x": [2, 3]}, ["y"], {"w": rng.uniform(-1, 1, (3, 3))}), feeds(rng, 2, 3)).nodes) == 1
    )


@pytest.mark.parametrize(("size", "folds"), [(4000, True), (5000, False)])
def test_huge_expansions_stay(build, rng, size, folds):
    """16.8 million floats are 64 MiB."""
    nodes = [
        node("Expand", ["one", "shape"], ["e"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "e"], ["y"]),
    ]
    constants = {"one": [[1.0]], "shape": np.array([size, size]), "w": rng.uniform(-1, 1, (3, 1))}
    network = import_network(load_model(build(nodes, {"x": [1, 3]}, ["y"], constants)))
    assert ("Expand" in operators(network)) is not folds


def test_growth_adds_up_along_a_chain(build, rng):
    nodes = [
        node("Expand", ["one", "shape"], ["e"]),
        node("Expand", ["e", "twice"], ["f"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "f"], ["y"]),
    ]
    constants = {"one": [[1.0]], "shape": np.array([3000, 3000]), "twice": np.array([2, 3000, 3000])}
    constants["w"] = rng.uniform(-1, 1, (3, 1))
    network = import_network(load_model(build(nodes, {"x": [1, 3]}, ["y"], constants)))
    assert "Expand" in operators(network)


def test_weights_may_grow_further_than_other_values(build, rng):
    """4200 x 4200 floats are 67 MiB; as weights they are constants, behind other nodes too, as an addend they are not."""
    nodes = [
        node("ConstantOfShape", ["shape"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Mul", ["ones", "two"], ["w"]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Expand", ["two", "shape"], ["e"]),
        node("Add", ["h", "e"], ["y"]),
    ]
    constants = {"shape": np.array([4200, 4200]), "two": 2.0}
    network = import_network(load_model(build(nodes, {"x": [1, 4200]}, ["y"], constants)))
    assert operators(network) == ["Expand", "Add"]
    np.testing.assert_array_equal(network.layers[0].weights[0, [0, 4199], [0, 4199]], 2)


def test_element_types_do_not_count_as_growth(build, rng):
    """4600 x 4600 bytes become 81 MiB of floats."""
    nodes = [node("DequantizeLinear", ["w", "s"], ["f"]), node("MatMul", ["x", "f"], ["y"])]
    constants = {"w": np.ones((4600, 4600), np.int8), "s": 0.5}
    network = import_network(load_model(build(nodes, {"x": [1, 4600]}, ["y"], constants)))
    assert network.layers[0].weights.shape == (1, 4600, 4600)


def test_constants_that_cannot_be_evaluated(build, rng):
    nodes = [node("Reshape", ["w", "shape"], ["r"]), node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "g"], ["y"])]
    nodes.insert(1, node("Gather", ["r", "index"], ["g"]))
    constants = {"w": rng.uniform(-1, 1, (3, 3)), "shape": np.array([9]), "index": np.array([99])}
    with pytest.raises(ModelError, match=r"onnxruntime cannot evaluate the model's constants: .*indices element"):
        import_network(load_model(build(nodes, {"x": [2, 3]}, ["y"], constants)))


@pytest.mark.parametrize("bounds", [{}, {"start": 1}, {"start": -2, "end": -1}])
def test_shapes_of_fixed_size_are_constants(build, check, rng, bounds):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Shape", ["h"], ["s"], **bounds),
        node("ReduceProd", ["s"], ["p"], keepdims=0),
        node("Cast", ["p"], ["y"], to=onnx.TensorProto.FLOAT),
        node("MatMul", ["x", "v"], ["z"]),
    ]
    constants = {"w": rng.uniform(-1, 1, (3, 4)), "v": rng.uniform(-1, 1, (3, 2))}
    network = check(build(nodes, {"x": [2, 5, 3]}, ["y", "z"], constants), {"x": rng.random((2, 5, 3), np.float32)})
    assert operators(network) == ["Identity"]
    assert len(network.layers) == 1  # the product whose shape alone was asked for is not needed


def test_shapes_of_open_size_stay(build, check, rng):
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Shape", ["h"], ["s"]),
        node("Reshape", ["h", "s"], ["y"]),
    ]
    network = check(build(nodes, {"x": ["n", 3]}, ["y"], {"w": rng.uniform(-1, 1, (3, 4))}), feeds(rng, 2, 3))
    assert operators(network) == ["Shape", "Reshape"]


def test_declared_shapes_of_outputs_are_not_believed(build, check, rng):
    """The model says [1, 4] of an output that has two rows; onnxruntime only warns, and its optimizer believes it."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Shape", ["h"], ["y"])]
    model = build(nodes, {"x": ["n", 3]}, ["h", "y"], {"w": rng.uniform(-1, 1, (3, 4))})
    model.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [1, 4]))
    check(model, feeds(rng, 2, 3), optimized=False)

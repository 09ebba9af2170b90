"""fold-batchnorm against onnxruntime on the model as it was, and all the places where it must not fold."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.support.model_kit import model_of
from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer
from xbcompile.passes.fold_batchnorm import FoldBatchNorm
from xbcompile.passes.quantize import Quantize
from xbcompile.testing.passes import assert_equals_model, assert_idempotent, context_of, network_of, text_of

CONTEXT = context_of()


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def norm(source, result, name="bn", **attributes):
    inputs = [source, f"{name}_g", f"{name}_b", f"{name}_m", f"{name}_v"]
    return helper.make_node("BatchNormalization", inputs, [result], f"to_{result}", **attributes)


def statistics(rng, channels, name="bn"):
    return {
        f"{name}_g": rng.normal(size=channels),
        f"{name}_b": rng.normal(size=channels),
        f"{name}_m": rng.normal(size=channels),
        f"{name}_v": rng.uniform(0.1, 2, channels),
    }


def folded(model):
    return FoldBatchNorm()(network_of(model), CONTEXT)


def assert_untouched(model):
    network = network_of(model)
    assert FoldBatchNorm()(network, CONTEXT) is network


def batch_norms(network):
    return sum(n.op_type == "BatchNormalization" for segment in network.segments for n in segment.model.graph.node)


CASES = [("gemm", 1), ("conv1d", 1), ("conv1d", 2), ("conv2d", 1), ("conv2d", 2), ("conv2d", 4)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "groups"), CASES)
def test_equals_onnxruntime(rng, kind, groups, bias):
    channels, outputs = 4, 8
    constants = statistics(rng, outputs)
    if kind == "gemm":
        constants["w"], shape = rng.normal(size=(channels, outputs)), [channels]
        node = helper.make_node("Gemm", ["x", "w", *(["c"] * bias)], ["h"], "layer")
    else:
        rank = int(kind[4])
        constants["w"], shape = rng.normal(size=(outputs, channels // groups, *[3] * rank)), [channels, *[7] * rank]
        node = helper.make_node("Conv", ["x", "w", *(["c"] * bias)], ["h"], "layer", group=groups)
    if bias:
        constants["c"] = rng.normal(size=outputs)
    model = model_of(
        [node, norm("h", "n", epsilon=0.01), helper.make_node("Relu", ["n"], ["y"])],
        {"x": ["batch", *shape]},
        ["y"],
        constants,
    )
    network = folded(model)
    assert batch_norms(network) == 0
    assert_equals_model(network, model, {"x": rng.normal(size=(5, *shape)).astype("f")})
    assert_idempotent(FoldBatchNorm(), network, CONTEXT)


def test_text(rng):
    """The norm is gone from the segment, and the layer writes what the norm wrote."""
    constants = {"w": rng.normal(size=(3, 2)), **statistics(rng, 2)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
        norm("h", "n"),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 3]}, ["y"], constants)
    assert text_of(network_of(model)) == [
        "matrix fc: x -> h: [1x3x2], real weights, inputs as they are",
        "digital digital1: (h) -> (y): BatchNormalization, Relu",
    ]
    assert text_of(folded(model)) == [
        "matrix fc: x -> n: [1x3x2], real weights, inputs as they are",
        "digital digital1: (n) -> (y): Relu",
    ]


def test_by_hand():
    """x 2 + 1, then (y - 3) / sqrt(4 + 0) * 6 + 5: 6 x - 1."""
    constants = {"w": [[2.0]], "c": [1.0], "bn_g": [6.0], "bn_b": [5.0], "bn_m": [3.0], "bn_v": [4.0]}
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["h"]), norm("h", "y", epsilon=0.0)]
    (layer,) = folded(model_of(nodes, {"x": ["batch", 1]}, ["y"], constants)).nodes
    assert isinstance(layer, MatrixLayer)
    assert (layer.weights.item(), layer.bias.item(), layer.output) == (6, -1, "y")


def test_chains_and_norm_as_output(rng):
    """Two norms behind one layer, another layer behind them, a norm that is the model's output: nothing stays digital."""
    constants = {"w": rng.normal(size=(3, 4)), "v": rng.normal(size=(4, 2))}
    for name, channels in (("a", 4), ("b", 4), ("c", 2)):
        constants |= statistics(rng, channels, name)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        norm("h", "h1", "a"),
        norm("h1", "h2", "b"),
        helper.make_node("MatMul", ["h2", "v"], ["k"]),
        norm("k", "y", "c"),
    ]
    model = model_of(nodes, {"x": ["batch", 3]}, ["y"], constants)
    network = folded(model)
    assert not network.segments
    assert_equals_model(network, model, {"x": rng.normal(size=(5, 3)).astype("f")})


def test_result_of_the_norm_read_twice(rng):
    """The norm's own result may be read anywhere: by a segment, by another layer, as an output."""
    constants = {"w": rng.normal(size=(3, 4)), "v": rng.normal(size=(4, 2)), **statistics(rng, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        norm("h", "n"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MatMul", ["n", "v"], ["y"]),
        helper.make_node("MatMul", ["r", "v"], ["z"]),
    ]
    model = model_of(nodes, {"x": ["batch", 3]}, ["y", "z", "n"], constants)
    network = folded(model)
    assert batch_norms(network) == 0
    assert_equals_model(network, model, {"x": rng.normal(size=(5, 3)).astype("f")})


def test_two_layers_share_a_norm_s_constants(rng):
    constants = {"w": rng.normal(size=(3, 4)), "v": rng.normal(size=(4, 4)), **statistics(rng, 4)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        norm("h", "n"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["k"]),
        norm("k", "m"),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 3]}, ["y"], constants)
    network = folded(model)
    assert batch_norms(network) == 0
    assert_equals_model(network, model, {"x": rng.normal(size=(5, 3)).astype("f")})


def dense(rng, *more, outputs=("y",), shape=("batch", 3), **constants):
    constants = {"w": rng.normal(size=(3, 4)), **statistics(rng, 4), **constants}
    return model_of([helper.make_node("MatMul", ["x", "w"], ["h"], "fc"), *more], {"x": shape}, outputs, constants)


def relu(source, result):
    return helper.make_node("Relu", [source], [result])


def test_layer_with_another_reader(rng):
    assert_untouched(dense(rng, norm("h", "y"), relu("h", "z"), outputs=("y", "z")))
    more = [norm("h", "y"), helper.make_node("MatMul", ["h", "v"], ["z"])]
    assert_untouched(dense(rng, *more, outputs=("y", "z"), v=rng.normal(size=(4, 2))))


def test_layer_that_is_an_output(rng):
    assert_untouched(dense(rng, norm("h", "y"), outputs=("y", "h")))


def test_training_mode(rng):
    """It normalises by the statistics of the batch at hand, which no constant holds."""
    node = norm("h", "n", training_mode=1)
    node.output.extend(["mean", "variance"])
    assert_untouched(dense(rng, node, relu("n", "y")))


def test_norm_behind_another_operator(rng):
    assert_untouched(dense(rng, relu("h", "r"), norm("r", "y")))


def test_statistics_that_are_no_constants(rng):
    model = dense(rng, norm("h", "y"))
    model.graph.input.append(helper.make_tensor_value_info("bn_g", TensorProto.FLOAT, [4]))
    model.graph.initializer.remove(next(i for i in model.graph.initializer if i.name == "bn_g"))
    assert_untouched(model)


def test_norm_over_another_axis(rng):
    """Behind a MatMul of rank 3, axis 1 holds vectors and not the layer's outputs, even when their numbers agree."""
    assert_untouched(dense(rng, norm("h", "y"), shape=("batch", 4, 3)))
    assert_untouched(dense(rng, norm("h", "y"), shape=("batch", 1, 3), **statistics(rng, 1)))
    constants = {"w": rng.normal(size=(4, 3)), **statistics(rng, 4)}
    left = helper.make_node("MatMul", ["w", "x"], ["h"])
    assert_untouched(model_of([left, norm("h", "y")], {"x": ["batch", 3, 2]}, ["y"], constants))


def test_captured_by_a_branch(rng):
    """A branch of an If reads the layer's result without naming it as an input of the If."""

    def branch(name):
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Neg", ["h"], [name])], name, [], [value])

    choice = helper.make_node("If", ["c"], ["z"], then_branch=branch("p"), else_branch=branch("q"))
    model = dense(rng, norm("h", "y"), choice, outputs=("y", "z"))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    assert_untouched(model)


def test_variance_below_zero(rng):
    """Its square root is no number: the norm stays where it is."""
    assert_untouched(dense(rng, norm("h", "y"), bn_v=-np.ones(4)))


def test_overflow(rng):
    assert_untouched(dense(rng, norm("h", "y"), bn_g=np.full(4, 3e38)))


def test_half_precision(rng):
    constants = {"w": rng.normal(size=(3, 4)), **statistics(rng, 4)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), norm("h", "y")]
    assert_untouched(model_of(nodes, {"x": ["batch", 3]}, ["y"], constants, dtype="float16"))


def test_after_quantize(rng):
    network = Quantize("binary")(network_of(dense(rng, norm("h", "y"))), CONTEXT)
    with pytest.raises(PassError, match="weights are already quantized; put fold-batchnorm before quantize"):
        FoldBatchNorm()(network, CONTEXT)


@pytest.mark.parametrize("seed", range(8))
def test_random_convolutions(seed):
    """Chains of grouped convolutions with norms at random places, dilated, strided and padded."""
    rng = np.random.default_rng(seed)
    rank, name, channels = int(rng.integers(1, 3)), "x", 4
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    foldable = 0
    for i in range(3):
        groups = int(rng.choice([1, 2, 4]))
        constants[f"w{i}"] = rng.normal(size=(4, channels // groups, *[2] * rank))
        attributes = {
            "group": groups,
            "strides": [int(rng.integers(1, 3))] * rank,
            "dilations": [int(rng.integers(1, 3))] * rank,
            "pads": [int(p) for p in rng.integers(0, 3, 2 * rank)],
        }
        nodes.append(helper.make_node("Conv", [name, f"w{i}"], [f"h{i}"], **attributes))
        name = f"h{i}"
        if rng.random() < 0.7:
            constants |= statistics(rng, 4, f"bn{i}")
            nodes.append(norm(name, f"n{i}", f"bn{i}"))
            name, foldable = f"n{i}", foldable + 1
    nodes.append(relu(name, "y"))
    model = model_of(nodes, {"x": ["batch", channels, *[16] * rank]}, ["y"], constants)
    network = folded(model)
    assert batch_norms(network) == 0
    assert batch_norms(network_of(model)) == foldable
    assert_equals_model(network, model, {"x": rng.normal(size=(2, channels, *[16] * rank)).astype("f")}, 1e-4)

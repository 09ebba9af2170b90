"""Linear models of ai.onnx.ml: labels, scores and targets equal onnxruntime's, their coefficients on arrays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

ML = {"ai.onnx.ml": 3}


def classifier(build, coefficients, intercepts, labels, post_transform="NONE", **attributes):
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        "classifier",
        domain="ai.onnx.ml",
        coefficients=np.asarray(coefficients, np.float32).ravel().tolist(),
        intercepts=list(intercepts),
        post_transform=post_transform,
        **{"classlabels_ints" if isinstance(labels[0], int) else "classlabels_strings": labels},
        **attributes,
    )
    return build([node], {"x": ["n", 5]}, ["label", "scores"], domains=ML)


@pytest.mark.parametrize("post_transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"])
@pytest.mark.parametrize("labels", [[3, 1, 7, 4], ["a", "b", "c", "d"]])
def test_classifier_of_several_classes(build, check, rng, labels, post_transform):
    model = classifier(build, rng.uniform(0, 0.1, (4, 5)), [0.1, 0.2, 0.0, 0.15], labels, post_transform)
    network = check(model, {"x": rng.uniform(0, 1, (6, 5)).astype(np.float32)}, tolerance=1e-4)
    (layer,) = network.layers
    assert (layer.name, layer.weights.shape) == ("classifier", (1, 5, 4))
    assert [(r.operator, r.lowered, r.layers) for r in network.records] == [("LinearClassifier", True, ("classifier",))]


@pytest.mark.parametrize("post_transform", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]])
def test_binary_classifier_of_one_row(build, check, rng, labels, post_transform):
    """One row of coefficients decides between two classes by its sign."""
    model = classifier(build, rng.uniform(-1, 1, (1, 5)), [0.05], labels, post_transform)
    network = check(model, {"x": rng.uniform(-1, 1, (30, 5)).astype(np.float32)}, tolerance=1e-4)
    assert network.layers[0].weights.shape == (1, 5, 1)


@pytest.mark.parametrize("targets", [1, 3])
def test_regressor(build, check, rng, targets):
    node = helper.make_node(
        "LinearRegressor",
        ["x"],
        ["y"],
        "regressor",
        domain="ai.onnx.ml",
        coefficients=rng.uniform(-1, 1, targets * 5).tolist(),
        intercepts=rng.uniform(-1, 1, targets).tolist(),
        targets=targets,
    )
    network = check(
        build([node], {"x": ["n", 5]}, ["y"], domains=ML), {"x": rng.uniform(-1, 1, (4, 5)).astype(np.float32)}
    )
    assert network.layers[0].weights.shape == (1, 5, targets)


def test_kept_digital(build, check, rng):
    model = classifier(build, rng.uniform(-1, 1, (3, 5)), [0.0, 0.0, 0.0], [0, 1, 2])
    product = helper.make_node("MatMul", ["scores", "w"], ["z"], "product")
    model.graph.node.append(product)
    model.graph.initializer.append(helper.make_tensor("w", 1, [3, 2], rng.uniform(-1, 1, 6).astype(np.float32)))
    model.graph.output[1].name = "z"
    network = check(model, {"x": rng.uniform(-1, 1, (4, 5)).astype(np.float32)}, digital=["classifier"])
    assert [(r.node, r.lowered) for r in network.records] == [("classifier", False), ("product", True)]
    assert network.records[0].reason == 'kept digital by "classifier"'


def test_whole_number_inputs_stay_digital(build, check, rng):
    """The operator takes them, the product of floats would not."""
    model = classifier(build, rng.uniform(-1, 1, (3, 5)), [0.0, 0.0, 0.0], [0, 1, 2])
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    network = check(model, {"x": rng.integers(-9, 9, (4, 5))})
    assert [(r.lowered, r.reason) for r in network.records] == [(False, "element type int64 is not lowered")]

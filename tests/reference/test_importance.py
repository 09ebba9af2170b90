"""What an error of each output costs at the network's outputs: against derivatives by hand."""

from __future__ import annotations

import numpy as np
from onnx import helper

from tests.support.model_kit import model_of
from tests.support.small_programs import images
from xbcompile.reference.importance import output_importance
from xbcompile.testing.passes import network_of


def test_importance_of_linear_layers_by_hand():
    """y = (x W0 + b) W1: moving output m of the first layer by d moves y by d W1[m]; the outputs themselves count 1."""
    rng = np.random.default_rng(4)
    constants = {"w": rng.normal(size=(5, 4)), "v": rng.normal(size=(4, 3))}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["y"])]
    network = network_of(model_of(nodes, {"x": ["n", 5]}, ["y"], constants))
    first, last = output_importance(network, {"x": images(20, 5)}, 0.1)
    np.testing.assert_allclose(first, np.square(constants["v"]).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(last, np.ones(3), rtol=1e-4)


def test_importance_behind_patches_and_dead_outputs():
    """A convolution's output channel moves at all positions; one whose weights are 0 does not vary and counts 0."""
    rng = np.random.default_rng(4)
    w, v = rng.normal(size=(3, 1, 2, 2)), rng.normal(size=(3 * 9, 2))
    w[1] = 0
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    network = network_of(model_of(nodes, {"x": ["n", 1, 4, 4]}, ["y"], {"w": w, "v": v}))
    expected = np.square(v.reshape(3, 9, 2).sum(axis=1)).sum(axis=1)
    found = output_importance(network, {"x": images(10, 1, 4, 4)}, 0.2)[0]
    np.testing.assert_allclose(found, expected * [1, 0, 1], rtol=1e-4)

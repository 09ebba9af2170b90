"""pca against onnxruntime, numpy's singular values, and projections worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import dense_model
from xbcompile.errors import PassError
from xbcompile.passes.pca import PrincipalComponents
from xbcompile.passes.quantize import Quantize
from xbcompile.passes.thermometer import Thermometer
from xbcompile.reference.evaluate import evaluate
from xbcompile.testing.passes import assert_equals_model, assert_idempotent, context_of, network_of, outputs_of, text_of

KEPT_ALL = PrincipalComponents(components=6)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def samples(rng):
    """60 samples whose 6 variables have very different variances and are mixed."""
    spread = np.array([5, 2, 1, 0.5, 0.2, 0.1])
    mixing, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    return ((rng.normal(size=(60, 6)) * spread) @ mixing + rng.normal(size=6)).astype("f")


@pytest.fixture
def model():
    return dense_model(6, 4, 3)


@pytest.fixture
def context(samples):
    return context_of(calibration={"x": samples})


def singular_shares(samples):
    """Share of the variance that the first 1, 2, ... components explain, by numpy's singular values."""
    values = np.linalg.svd(samples - samples.mean(axis=0, dtype=float), compute_uv=False) ** 2
    return np.cumsum(values) / values.sum()


def test_all_components_are_exact(model, context, rng):
    """Also on inputs that the pass has never seen, and far from them."""
    network = KEPT_ALL(network_of(model), context)
    assert_equals_model(network, model, {"x": rng.normal(size=(50, 6)).astype("f") * 10})


def test_text(model, context):
    network = PrincipalComponents(components=2)(network_of(model), context)
    assert text_of(network)[:2] == [
        "digital fc0/pca: (x) -> (fc0/pca/components): Sub, MatMul",
        "matrix fc0: fc0/pca/components -> a0: [1x2x4], real weights, inputs as they are",
    ]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999, 1.0])
def test_variance_keeps_the_count_that_numpy_gives(model, context, samples, share):
    network = PrincipalComponents(variance=share)(network_of(model), context)
    expected = 1 + int(np.flatnonzero(singular_shares(samples.astype(float)) >= share - 1e-12)[0])
    assert network.layers[0].inputs == expected


def test_projection_is_the_best_one(model, context, samples):
    """What is kept of the calibration inputs is numpy's truncated singular value decomposition."""
    network = PrincipalComponents(components=2)(network_of(model), context)
    (chunks,) = evaluate(network, {"x": samples}, ["fc0/pca/components"])
    components = np.concatenate(chunks)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in network.segments[0].model.graph.initializer}
    rebuilt = components @ constants["fc0/pca/basis"].T + constants["fc0/pca/mean"]
    mean = samples.mean(axis=0, dtype=float)
    u, s, v = np.linalg.svd(samples - mean, full_matrices=False)
    np.testing.assert_allclose(rebuilt, mean + (u[:, :2] * s[:2]) @ v[:2], atol=1e-4)


def test_weights_and_bias_are_rewritten(model, context, samples):
    """y = x W + b becomes y = z (V^T W) + (mean W + b): with z = (x - mean) V, what is lost is only outside V."""
    before = network_of(model)
    after = PrincipalComponents(components=2)(before, context)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in after.segments[0].model.graph.initializer}
    basis, mean = constants["fc0/pca/basis"].astype(float), constants["fc0/pca/mean"].astype(float)
    weights = before.layers[0].weights[0].astype(float)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(after.layers[0].weights[0], basis.T @ weights, atol=1e-5)
    np.testing.assert_allclose(after.layers[0].bias, mean @ weights + before.layers[0].bias, atol=1e-5)
    # Inputs within the mean plus span(V) lose nothing.
    x = (mean + np.random.default_rng(1).normal(size=(20, 2)) @ basis.T).astype("f")
    np.testing.assert_allclose(outputs_of(after, {"x": x})["y"], run_onnxruntime(model, {"x": x})["y"], atol=1e-4)


def test_signs_are_fixed(model, context):
    """The largest entry of each component is positive, so equal data give equal programs on any machine."""
    network = KEPT_ALL(network_of(model), context)
    basis = onnx.numpy_helper.to_array(network.segments[0].model.graph.initializer[1])
    assert (basis[np.abs(basis).argmax(axis=0), np.arange(6)] > 0).all()


def test_only_the_calibration_inputs_count(model, samples):
    """Other samples give another projection; the same ones, the same."""
    fitted = [
        PrincipalComponents(components=2)(network_of(model), context_of(calibration={"x": x}))
        for x in (samples[:30], samples[:30], samples[30:])
    ]
    basis = [onnx.numpy_helper.to_array(f.segments[0].model.graph.initializer[1]) for f in fitted]
    assert np.array_equal(basis[0], basis[1])
    assert not np.allclose(basis[0], basis[2], atol=1e-3)


def test_a_later_layer_sees_its_own_inputs(model, context, samples):
    """The second layer's components are those of the activations between the layers, by onnxruntime."""
    network = PrincipalComponents(variance=0.9, layer="fc1")(network_of(model), context)
    between = model_of([], {}, [])
    between.CopyFrom(model)
    between.graph.output.append(onnx.ValueInfoProto(name="r0"))
    hidden = run_onnxruntime(between, {"x": samples})["r0"].astype(float)
    assert network.layers[1].inputs == 1 + int(np.flatnonzero(singular_shares(hidden) >= 0.9)[0])
    assert network.layers[0].inputs == 6
    full = PrincipalComponents(components=4, layer="fc1")(network_of(model), context)
    assert_equals_model(full, model, {"x": samples})


def test_more_axes(rng):
    """A dense layer over the last of three axes: every vector is a sample."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    model = model_of(nodes, {"x": ["batch", 3, 4]}, ["y"], {"w": rng.normal(size=(4, 5))})
    x = rng.normal(size=(9, 3, 4)).astype("f")
    context = context_of(calibration={"x": x})
    assert_equals_model(PrincipalComponents(components=4)(network_of(model), context), model, {"x": x})
    kept = PrincipalComponents(variance=0.6)(network_of(model), context).layers[0].inputs
    assert kept == 1 + int(np.flatnonzero(singular_shares(x.reshape(-1, 4).astype(float)) >= 0.6)[0])


def test_constant_inputs(model):
    """No variance at all: any number of components explains it, and the mean carries everything."""
    x = np.ones((10, 6), np.float32)
    network = PrincipalComponents(components=3)(network_of(model), context_of(calibration={"x": x}))
    assert_equals_model(network, model, {"x": x})


def test_second_run(model, context):
    for each in (PrincipalComponents(components=2), KEPT_ALL):
        assert_idempotent(each, each(network_of(model), context), context)
    network = PrincipalComponents(components=3)(network_of(model), context)
    for each in (PrincipalComponents(components=2), PrincipalComponents(variance=0.9)):
        with pytest.raises(PassError, match="layer 'fc0' are already reduced to 3 components; give pca once"):
            each(network, context)
    PrincipalComponents(components=2, layer="fc1")(network, context)  # another layer is another matter


def test_preconditions(model, context, samples, rng):
    network = network_of(model)
    each = PrincipalComponents(components=2)
    with pytest.raises(PassError, match="pca needs calibration inputs; give them with --calibration"):
        each(network, context_of())
    with pytest.raises(PassError, match="there is no matrix layer 'fc9'; allowed: fc0, fc1"):
        replace(each, layer="fc9")(network, context)
    with pytest.raises(PassError, match="components=7 exceeds the 6 inputs of layer 'fc0'"):
        PrincipalComponents(components=7)(network, context)
    for coding in (Quantize("binary"), Thermometer(low=0, high=1)):
        with pytest.raises(PassError, match="already coded; put pca before quantize and input coding"):
            each(coding(network, context), context)
    with pytest.raises(PassError, match="5 components cannot be estimated from 5 calibration vectors; give more"):
        PrincipalComponents(components=5)(network, context_of(calibration={"x": samples[:5]}))
    half = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        {"x": ["n", 6]},
        ["y"],
        {"w": rng.normal(size=(6, 2))},
        dtype="float16",
    )
    with pytest.raises(PassError, match="layer 'fc' is not float32"):
        each(network_of(half), context)
    conv = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv")],
        {"x": ["n", 2, 4, 4]},
        ["y"],
        {"w": rng.normal(size=(3, 2, 2, 2))},
    )
    with pytest.raises(PassError, match="layer 'conv' is no dense layer over the last axis; choose another"):
        each(network_of(conv), context)


def test_activations_that_are_not_finite(rng):
    nodes = [helper.make_node("Exp", ["x"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"], "fc")]
    model = model_of(nodes, {"x": ["n", 6]}, ["y"], {"w": rng.normal(size=(6, 2))})
    context = context_of(calibration={"x": np.full((9, 6), 1000, np.float32)})
    with pytest.raises(PassError, match="inputs of layer 'fc' are not finite on the calibration inputs"):
        PrincipalComponents(components=2)(network_of(model), context)


def test_options():
    with pytest.raises(PassError, match=r"give one of variance= and components="):
        PrincipalComponents()
    with pytest.raises(PassError, match=r"give one of variance= and components="):
        PrincipalComponents(variance=0.9, components=2)
    for wrong in (0.0, -1.0, 1.1, np.nan):
        with pytest.raises(PassError, match=r"variance=.* is out of range; allowed: above 0, up to 1"):
            PrincipalComponents(variance=wrong)
    with pytest.raises(PassError, match="components=0 is out of range; allowed: 1 or more"):
        PrincipalComponents(components=0)


def test_87_components_of_mnist(mnist):
    """The published network keeps 87 of 784 components at 90 % of the variance of all 60,000 training images."""
    images, _ = mnist("train", 60_000)
    centred = images - images.mean(axis=0)
    variances = np.linalg.eigvalsh(centred.T @ centred)[::-1]
    assert int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.9)) + 1 == 87


def test_activations_that_are_too_large(rng):
    """The mean times the weights is the new bias, and float32 cannot hold it."""
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"x": ["n", 2]}, ["y"], {"w": np.full((2, 1), 9.0)}
    )
    context = context_of(calibration={"x": (rng.random((9, 2)) * 1e38 + 1e38).astype(np.float32)})
    with pytest.raises(
        PassError, match="inputs of layer 'fc' are too large on the calibration inputs: its bias overflows"
    ):
        PrincipalComponents(components=1)(network_of(model), context)

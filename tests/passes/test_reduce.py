"""reduce against onnxruntime, numpy's least squares, and the best that any real factor could do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.model_kit import MODELS, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.passes.contract import PassContext
from xbcompile.passes.quantize import Quantize
from xbcompile.passes.reduce import Reduce, factors
from xbcompile.reference.evaluate import evaluate
from xbcompile.testing.passes import (
    assert_equals_model,
    assert_idempotent,
    context_of,
    network_of,
    outputs_of,
    spec_with,
    text_of,
)

FOUR = np.linspace(-1, 1, 4).astype(np.float32)


def calibration(inputs: int, dead: dict[int, float] | None = None, samples: int = 200) -> dict[str, np.ndarray]:
    """Correlated inputs; `dead` ones keep a value."""
    rng = np.random.default_rng(5)
    x = (rng.random((samples, inputs)) @ rng.normal(size=(inputs, inputs)) / inputs**0.5).astype("f")
    for each, value in (dead or {}).items():
        x[:, each] = value
    return {"x": x}


@given(st.sets(st.integers(0, 7), max_size=8), st.floats(-2, 2, width=32))
@settings(max_examples=10, deadline=None)
def test_dropping_dead_inputs_is_exact(dead, value):
    """Whichever inputs never vary: the outputs are the model's wherever those keep their value."""
    model, feeds = dense_model(8, 5, 3), calibration(8, dict.fromkeys(dead, value), 20)
    network = Reduce(inputs="dead")(network_of(model), context_of(calibration=feeds))
    assert network.layers[0].inputs == max(8 - len(dead), 1)
    assert_equals_model(network, model, feeds)
    assert_idempotent(Reduce(inputs="dead"), network, context_of(calibration=feeds))


def test_dead_inputs_of_one_layer():
    """layer= drops them there alone; fc1's dead input is a ReLU that never opens."""
    model, feeds = dense_model(8, 5, 3), calibration(8, {2: 0.0})
    bias = next(i for i in model.graph.initializer if i.name == "b0")
    values = np.frombuffer(bias.raw_data, np.float32).copy()
    values[3] = -100
    bias.raw_data = values.tobytes()
    one = Reduce(inputs="dead", layer="fc1")(network_of(model), context_of(calibration=feeds))
    hidden = np.concatenate(evaluate(network_of(model), feeds, ["r0"])[0])
    live = int((hidden.min(axis=0) < hidden.max(axis=0)).sum())
    assert live < 5
    assert [layer.inputs for layer in one.layers] == [8, live]
    every = Reduce(inputs="dead")(network_of(model), context_of(calibration=feeds))
    assert [layer.inputs for layer in every.layers] == [7, live]
    assert_equals_model(every, model, feeds)


def test_convolutions_stay():
    network = network_of(convolution_model())
    feeds = {"x": np.zeros((3, 2, 4, 4), np.float32)}
    after = Reduce(inputs="dead")(network, context_of(calibration=feeds))
    assert after.layers[0] == network.layers[0]
    assert after.layers[1].inputs == 1  # nothing varies; one input is kept


def reduced(components: int, model=None, **options):
    model = model or dense_model(12, 9, 3)
    feeds = calibration(12)
    spec = spec_with(FOUR)
    return model, feeds, Reduce(components=components, **options)(network_of(model), context_of(spec, feeds))


def test_text():
    _, _, network = reduced(4)
    assert text_of(network)[0] == "digital fc0/reduce: (x) -> (fc0/reduce/components): MatMul"
    assert "[1x4x9], 4 levels" in text_of(network)[1]


@pytest.mark.parametrize("components", [2, 5, 9])
def test_projection_is_the_best_for_its_levels(components):
    """No real P does better on the calibration inputs, whatever their covariance: numpy's least squares gives the same.

    The mean error is in the bias, so what is left is centred and P solves `min |(x - mean) (W - P B)|`.
    """
    model, feeds, network = reduced(components)
    weights = network_of(model).layers[0].weights[0].astype(float)
    (layer, *_), (segment, *_) = network.layers, network.segments
    projection = np.frombuffer(segment.model.graph.initializer[0].raw_data, np.float32).reshape(12, components)
    stored = layer.weights[0].astype(float)
    assert np.array_equal(layer.weights, layer.weight_code.dequantized())
    x = feeds["x"].astype(float)
    centred = x - x.mean(axis=0)
    # x P B: the columns of P are unknowns of one big linear system
    best = np.linalg.lstsq(np.kron(centred, stored.T), (centred @ weights).ravel(), rcond=None)[0].reshape(12, -1)
    least = np.square(centred @ (weights - best @ stored)).sum()
    found = np.square(centred @ (weights - projection.astype(float) @ stored)).sum()
    np.testing.assert_allclose(found, least, rtol=1e-4, atol=1e-6 * np.square(centred @ weights).sum())
    own, reached = outputs_of_layer(network, feeds), run_layer(model, feeds)
    np.testing.assert_allclose(np.mean(own - reached, axis=0), 0, atol=1e-5)


def outputs_of_layer(network, feeds):
    (chunks,) = evaluate(network, feeds, ["a0"])
    return np.concatenate(chunks)


def run_layer(model, feeds):
    return outputs_of_layer(network_of(model), feeds)


def test_error_lies_between_the_rank_bound_and_levels_after_the_fact():
    """Not below the best real product of that size (Eckart and Young), and below coding that product's factor."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 20))
    covariance, weights = np.cov(x.T, bias=True), rng.normal(size=(20, 12))
    coder = Quantize(levels=4, method="data-aware")
    projection, found = factors(covariance, weights, 6, FOUR, coder)
    coded = found.scale * FOUR[found.codes] + found.offset
    root = np.linalg.cholesky(covariance).T
    error = np.square(root @ (weights - projection @ coded)).sum()
    left, singular, right = np.linalg.svd(root @ weights)
    assert error >= np.square(singular[6:]).sum()
    codes, scale, offset = coder.fit(right[:6], None, FOUR)
    late = (left[:, :6] * singular[:6]) @ (scale * FOUR[codes] + offset)
    assert error < 0.9 * np.square(root @ weights - late).sum()


def test_rounds_lower_the_error(monkeypatch):
    """The alternation keeps the best: more rounds are never worse, and ten better than one."""
    rng = np.random.default_rng(3)
    root, weights = rng.normal(size=(20, 20)), rng.normal(size=(20, 12))
    errors = []
    for rounds in (1, 2, 5, 10):
        monkeypatch.setattr("xbcompile.passes.reduce.ROUNDS", rounds)
        projection, found = factors(root.T @ root, weights, 6, FOUR, Quantize(levels=4, method="data-aware"))
        coded = found.scale * FOUR[found.codes] + found.offset
        errors.append(np.square(root @ (weights - projection @ coded)).sum())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.98 * errors[0]


def test_levels_that_suffice_lose_nothing():
    """Weights that are a real matrix times a few-level one: found exactly from enough components."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 4, size=(2, 30))
    weights = rng.normal(size=(8, 2)) @ FOUR[levels].astype(float)
    projection, found = factors(np.eye(8), weights, 2, FOUR, Quantize(levels=4, method="data-aware"))
    coded = found.scale * FOUR[found.codes] + found.offset
    assert np.square(weights - projection @ coded).sum() < 0.02 * np.square(weights).sum()


def test_quantize_aims_behind_it_at_the_model():
    """The layer behind is fitted to what the model has there, not to what the reduced layer gives.

    Its weights then make up for part of the loss; numpy's least squares of the model's outputs on the arriving inputs is
    what no weights beat.
    """
    model, feeds, network = reduced(2)
    wanted = run_onnxruntime(model, feeds)["y"]
    (arriving,) = evaluate(network, feeds, ["r0"])
    design = np.c_[np.concatenate(arriving), np.ones(len(wanted))]
    least = np.square(wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]).sum()

    def error(context):
        return np.square(outputs_of(Quantize(method="data-aware")(network, context), feeds)["y"] - wanted).sum()

    base = context_of(spec_with(FOUR), feeds)
    aimed = error(PassContext(base.spec, feeds, base.row_weights, model=network_of(model)))
    blind = error(base)
    assert least <= aimed < blind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of inputs=dead and components="),
        ({"inputs": "dead", "components": 2}, "give one of"),
        ({"inputs": "live"}, "inputs=live is unknown; allowed: dead"),
        ({"components": 0}, "components=0 is out of range; allowed: 1 or more"),
        ({"inputs": "dead", "levels": 4}, "go with components="),
        ({"components": 2, "samples": -1}, "samples=-1 is out of range"),
        ({"components": 2, "levels": 300}, "levels=300 is out of range"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(PassError, match=message):
        Reduce(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 10}, "allowed: 1 to 9"),
        ({"components": 2, "layer": "fc7"}, "there is no matrix layer 'fc7'; allowed: fc0, fc1"),
        ({"components": 2, "levels": 5}, "5 levels do not fit"),
    ],
)
def test_what_does_not_fit(options, message):
    with pytest.raises(PassError, match=message):
        reduced(**options)


def test_order_of_passes():
    model, feeds, network = reduced(3)
    context = context_of(spec_with(FOUR), feeds)
    assert_idempotent(Reduce(components=3), network, context)
    with pytest.raises(PassError, match="already reduced to 3 components"):
        Reduce(components=4)(network, context)
    with pytest.raises(PassError, match="already coded; put reduce before quantize"):
        Reduce(components=3)(Quantize()(network_of(model), context), context)
    with pytest.raises(PassError, match="needs calibration inputs"):
        Reduce(components=3)(network_of(model), context_of(spec_with(FOUR)))
    with pytest.raises(PassError, match="not finite"):
        Reduce(inputs="dead")(network_of(model), context_of(calibration={"x": feeds["x"] * np.nan}))
    context = context_of(spec_with(FOUR), {"x": np.ones((2, 2, 4, 4), np.float32)})
    with pytest.raises(PassError, match="no dense float32 layer"):
        Reduce(components=2)(network_of(convolution_model()), context)


def test_digital_cost_is_listed():
    """784 x 8 multiplications, of 784 x 128 that the layer takes by itself."""
    import xbcompile
    from xbcompile.report.summary import summarize

    rng = np.random.default_rng(0)
    program = xbcompile.compile(
        MODELS / "mnist_mlp.onnx",
        "m2tj4",
        passes="reduce{components=8},quantize{levels=4},analogue",
        calibration={"input": rng.random((300, 784), dtype=np.float32)},
        packing="none",
    )
    first, second = summarize(program)["layers"]
    assert (first["digital_macs_per_inference"], first["digital_macs_share"]) == (784 * 8, 8 / 128)
    assert second["digital_macs_per_inference"] is None

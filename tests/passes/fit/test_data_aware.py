"""data_aware against brute force over all codes, plain least squares, dense equivalents of convolutions, and MNIST."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.model_kit import MODELS, model_of
from tests.support.small_programs import convolution_model, dense_model, images
from xbcompile.errors import PassError, PipelineError
from xbcompile.ir.vectors import gather
from xbcompile.passes.fit import closed_forms, data_aware, least_squares
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.passes.quantize import Quantize
from xbcompile.testing.passes import assert_idempotent, context_of, network_of, outputs_of, spec_with

TABLES = {"binary": [-1, 1], "ternary": [-1, 0, 1], "levels": [-1, -1 / 3, 1 / 3, 1]}


def least_squares_fit(weights, table, g=None, scheme="levels"):
    if scheme == "levels":
        fit = least_squares.fit_levels(weights, np.asarray(table, float), g)
        return data_aware.DataAwareFit(fit.codes, fit.scale, fit.offset)
    codes, scale = {"binary": closed_forms.fit_binary, "ternary": closed_forms.fit_ternary}[scheme](weights, g)
    return data_aware.DataAwareFit(codes, scale, 0 * scale)


def fit(x, weights, scheme="levels", g=None, x0=None, table=None):
    """(weights meant, those of the least-squares codes): the inputs x0 of the original network default to x."""
    table = np.asarray(TABLES[scheme] if table is None else table, float)
    start = least_squares_fit(weights, table, g, scheme)
    x0 = x if x0 is None else x0
    (seen,) = data_aware.moments([(x[None], x[None] if x0 is x else x0[None])])
    found = data_aware.fit(seen, weights, table, start, g, with_offset=scheme == "levels")
    assert (found.scale >= 0).all()
    assert found.codes.dtype == np.uint8
    g = 1 if g is None else g
    return tuple(g * f.scale * table[f.codes] + f.offset for f in (found, start))


def output_error(x, weights, meant, x0=None):
    """Mean squared error of the outputs per column, after the best bias."""
    error = (x if x0 is None else x0) @ weights - x @ meant
    return np.square(error - error.mean(axis=0)).mean(axis=0)


def amount_of(x):
    """The absolute damping, of its definition."""
    variance = x.var(axis=0)
    live = variance[variance > 1e-12 * variance.max()]
    return data_aware.DAMPING * live.mean() if live.size else 1.0


def damped_error(x, weights, meant):
    return output_error(x, weights, meant) + amount_of(x) * np.square(weights - meant).sum(axis=0)


def correlated(rng, vectors, inputs):
    """Inputs that move together, not centred, as images and activations are."""
    few = rng.random((vectors, max(1, inputs // 2)))
    return few @ rng.random((few.shape[1], inputs)) + 0.2 * rng.random((vectors, inputs))


def least_damped_error(x, w, table, g, with_offset):
    """Over all codes, each with its best scale >= 0 and offset, of the definition."""
    centred = x - x.mean(axis=0)
    root = np.sqrt(amount_of(x) * len(x))
    rows = np.vstack([centred, root * np.eye(x.shape[1])])
    best = np.inf
    for codes in product(range(len(table)), repeat=len(w)):
        columns = (g * np.asarray(table)[list(codes)])[:, None]
        if with_offset:
            columns = np.hstack([columns, np.ones_like(columns)])
        used = rows @ columns
        solution = np.linalg.lstsq(used, rows @ w, rcond=None)[0]
        if solution[0] >= 0:
            best = min(best, np.square(used @ solution - rows @ w).sum() / len(x))
    return best


@pytest.mark.parametrize("with_rows", [False, True])
@pytest.mark.parametrize("scheme", TABLES)
def test_brute_force(scheme, with_rows):
    """Never below the optimum over all codes, within 1e-9; at it in at least 24 of 30 problems of 5 weights."""
    rng = np.random.default_rng(11)
    reached = 0
    for _ in range(10):
        x, weights = correlated(rng, 40, 5), rng.normal(size=(5, 3))
        rows = np.linspace(1.5, 0.5, 5)
        g = np.repeat(rows[:, None], 3, axis=1) if with_rows else None
        meant, _ = fit(x, weights, scheme, g)
        errors = damped_error(x, weights, meant)
        offset = scheme == "levels" and not with_rows
        for m in range(3):
            least = least_damped_error(x, weights[:, m], TABLES[scheme], rows if with_rows else np.ones(5), offset)
            assert errors[m] >= least * (1 - 1e-9) - 1e-12
            reached += errors[m] <= least * (1 + 1e-6) + 1e-12
    assert reached >= 24


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    seed=st.integers(0, 10**6),
    inputs=st.integers(1, 12),
    vectors=st.integers(1, 30),
    scheme=st.sampled_from(sorted(TABLES)),
    with_rows=st.booleans(),
    other=st.booleans(),
)
def test_never_worse_than_least_squares(seed, inputs, vectors, scheme, with_rows, other):
    """Also with fewer vectors than inputs (a singular Hessian), dead inputs, and other inputs than the original's."""
    rng = np.random.default_rng(seed)
    x = correlated(rng, vectors, inputs)
    x[:, rng.random(inputs) < 0.2] = 0.0
    x0 = x + 0.1 * rng.normal(size=x.shape) if other else x
    weights = rng.normal(size=(inputs, 3)) + 0.3
    g = np.repeat(rng.uniform(0.4, 1.6, (inputs, 1)), 3, axis=1) if with_rows else None
    meant, plain = fit(x, weights, scheme, g, x0)
    scale = np.square(x @ weights).mean() + 1
    assert (output_error(x, weights, meant, x0) <= output_error(x, weights, plain, x0) + 1e-8 * scale).all()


def test_correlated_inputs_gain_much():
    """What it is for: errors that cancel over inputs that move together."""
    rng = np.random.default_rng(3)
    x, weights = correlated(rng, 500, 40), rng.normal(size=(40, 8))
    meant, plain = fit(x, weights)
    assert output_error(x, weights, meant).mean() < 0.3 * output_error(x, weights, plain).mean()


@pytest.mark.parametrize("scheme", TABLES)
def test_uncorrelated_inputs_are_plain_least_squares(scheme):
    """Where the Hessian is a multiple of the identity the least-squares codes are the optimum."""
    weights = np.random.default_rng(5).normal(size=(8, 6))
    x = np.vstack([np.eye(8), -np.eye(8)]) + 3.0
    meant, plain = fit(x, weights, scheme)
    np.testing.assert_allclose(output_error(x, weights, meant), output_error(x, weights, plain), rtol=1e-7)
    np.testing.assert_allclose(meant, plain, atol=1e-9)


@pytest.mark.parametrize("with_rows", [False, True])
@pytest.mark.parametrize("scheme", TABLES)
def test_representable_weights_stay_exact(scheme, with_rows):
    rng = np.random.default_rng(7)
    table = np.array(TABLES[scheme])
    g = np.repeat(rng.uniform(0.4, 1.6, (20, 1)), 4, axis=1) if with_rows else None
    codes = rng.integers(0, len(table), (20, 4))
    weights = (1 if g is None else g) * table[codes] * 0.37 + (0.21 if scheme == "levels" and not with_rows else 0)
    meant, _ = fit(correlated(rng, 100, 20), weights, scheme, g)
    np.testing.assert_allclose(meant, weights, atol=1e-9)


def test_dead_inputs():
    """An input that never varies changes no output, and its code is the level nearest to its own weight."""
    rng = np.random.default_rng(8)
    x, weights = correlated(rng, 200, 12), rng.normal(size=(12, 5))
    x[:, 3], x[:, 7] = 0.0, 5.0
    meant, plain = fit(x, weights)
    assert (output_error(x, weights, meant) <= output_error(x, weights, plain)).all()
    for k in (3, 7):
        for m in range(5):
            held = np.abs(np.unique(meant[:, m]) - weights[k, m])
            assert abs(meant[k, m] - weights[k, m]) == held.min()


def test_no_input_varies():
    """One vector, or the same one: the least-squares codes, as all outputs are bias."""
    weights = np.random.default_rng(9).normal(size=(6, 3))
    for x in (np.ones((1, 6)), np.full((20, 6), 0.7), np.zeros((5, 6))):
        meant, plain = fit(x, weights)
        np.testing.assert_allclose(meant, plain, atol=1e-9)


def test_zeros_constants_and_a_single_input():
    x = correlated(np.random.default_rng(1), 30, 4)
    for weights in (np.zeros((4, 2)), np.full((4, 2), -3.0)):
        np.testing.assert_allclose(fit(x, weights)[0], weights, atol=1e-9)
    np.testing.assert_allclose(fit(x[:, :1], np.array([[2.0, -1.0]]))[0], [[2, -1]], atol=1e-9)


def test_tables_that_are_no_symmetric_steps():
    """Levels far from zero and unequal steps: the offset takes their place."""
    rng = np.random.default_rng(2)
    x, weights = correlated(rng, 200, 16), rng.normal(size=(16, 4))
    first, plain = fit(x, weights, table=[0.0, 0.3, 0.5, 1.0])
    moved, _ = fit(x, weights, table=[1000.0, 1000.3, 1000.5, 1001.0])
    assert (output_error(x, weights, first) <= output_error(x, weights, plain)).all()
    np.testing.assert_allclose(moved, first, atol=1e-6)


def test_moments():
    """Pieces add up to numpy's own moments, far from zero too."""
    rng = np.random.default_rng(4)
    x, x0 = rng.normal(size=(2, 50, 3)) + 1000, rng.normal(size=(2, 50, 3)) - 200
    found = data_aware.moments([(x[:, a:b], x0[:, a:b]) for a, b in ((0, 20), (20, 20), (20, 50))])
    alone = data_aware.moments([(v, v) for v in (x[:, :20], x[:, 20:])])
    for g in range(2):
        expected = np.cov(np.hstack([x[g], x0[g]]), rowvar=False, bias=True)
        np.testing.assert_allclose(found[g].mean, x[g].mean(axis=0))
        np.testing.assert_allclose(found[g].mean_original, x0[g].mean(axis=0))
        np.testing.assert_allclose(found[g].covariance, expected[:3, :3], atol=1e-10)
        np.testing.assert_allclose(found[g].cross, expected[:3, 3:], atol=1e-10)
        np.testing.assert_allclose(alone[g].cross, expected[:3, :3], atol=1e-10)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="moments need at least one vector"):
        data_aware.moments([])
    (seen,) = data_aware.moments([(np.ones((1, 2, 2)), np.ones((1, 2, 2)))])
    start = least_squares_fit(np.ones((2, 1)), TABLES["levels"])
    with pytest.raises(ValueError, match="damping must be positive, found 0"):
        data_aware.fit(seen, np.ones((2, 1)), np.array(TABLES["levels"]), start, damping=0)


# The pass


AWARE = Quantize(method="data-aware")


def moved_outputs(network, after, feeds):
    """Mean error of every output tensor."""
    return {
        name: (value - outputs_of(network, feeds)[name]).mean(axis=0)
        for name, value in outputs_of(after, feeds).items()
    }


@pytest.mark.parametrize("scheme", TABLES)
@pytest.mark.parametrize("target", ["ideal", "m2tj4"])
def test_pass_on_a_grouped_convolution(scheme, target):
    """Closer than least squares; the last layer's mean error is gone."""
    feeds = {"x": images(200, 2, 4, 4)}
    network, context = network_of(convolution_model()), context_of(target, feeds)
    options = {"scheme": scheme, "levels": 4 if scheme == "levels" else 0}
    after = Quantize(**options, method="data-aware")(network, context)
    plain = Quantize(**options)(network, context)
    expected = outputs_of(network, feeds)["y"]
    errors = [np.square(outputs_of(n, feeds)["y"] - expected).mean() for n in (after, plain)]
    assert errors[0] < 0.6 * errors[1]
    assert np.abs(moved_outputs(network, after, feeds)["y"]).max() < 1e-4
    assert_idempotent(Quantize(**options, method="data-aware"), after, context)


def test_convolution_equals_its_dense_equivalent():
    """Each group gets the code that a dense layer gets on that group's gathered patches."""
    feeds = {"x": images(60, 2, 4, 4)}
    network = network_of(convolution_model())
    conv = network.layers[0]
    coded = AWARE(network, context_of("m2tj4", feeds)).layers[0]
    vectors, _ = gather(conv, feeds["x"])
    for g in range(2):
        node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
        alone = network_of(model_of([node], {"x": ["n", 9]}, ["y"], {"w": conv.weights[g].astype(float)}))
        (layer,) = AWARE(alone, context_of("m2tj4", {"x": vectors[g]})).layers
        assert np.array_equal(layer.weight_code.codes[0], coded.weight_code.codes[g])
        np.testing.assert_allclose(layer.weight_code.dequantized()[0], coded.weight_code.dequantized()[g], rtol=1e-6)
        moved = (coded.bias - conv.bias).reshape(2, 3)[g]
        np.testing.assert_allclose(layer.bias, moved, atol=1e-5)


def test_later_layers_make_up_for_earlier_ones():
    """The second layer is fitted on what the quantized first one gives, towards the original outputs."""
    network, feeds = network_of(dense_model(12, 8, 5)), {"x": images(400, 12)}
    context = context_of("m2tj4", feeds)
    after = AWARE(network, context)
    first = network.with_layers(after.layers[:1])
    apart = first.with_layers([AWARE(network, context).layers[0], AWARE(network, context).layers[1]])
    assert apart == after
    # The last layer fitted on the original inputs instead, where it is the first of its own network.
    inputs = np.concatenate(context.layer_inputs(network, "test")["fc1"])
    last = network.layers[1]
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc1")
    constants = {"w": last.weights[0].astype(float), "b": last.bias.astype(float)}
    alone = network_of(model_of([node], {"x": ["n", 8]}, ["y"], constants))
    (layer,) = AWARE(alone, context_of("m2tj4", {"x": inputs})).layers
    naive = first.with_layers([replace(layer, input=last.input, output=last.output)])
    expected = outputs_of(network, feeds)["y"]
    errors = [np.square(outputs_of(n, feeds)["y"] - expected).mean() for n in (after, naive)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("scheme", TABLES)
def test_pass_with_row_weights(scheme):
    """The rows' weights are part of what is stored, and there is no offset."""
    g = np.linspace(1.6, 0.4, 10, dtype=np.float32)[None, :, None].repeat(6, axis=2)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
    weights = np.random.default_rng(1).normal(size=(10, 6))
    network = network_of(model_of([node], {"x": ["n", 10]}, ["y"], {"w": weights}))
    feeds = {"x": correlated(np.random.default_rng(2), 100, 10).astype("f")}
    context = context_of(spec_with(TABLES[scheme]), feeds, row_weights=lambda network: [g])
    (found,) = Quantize(scheme, method="data-aware")(network, context).layers
    (plain,) = Quantize(scheme)(network, context).layers
    assert np.array_equal(found.weight_code.row_weight, g)
    assert not found.weight_code.offset.any()
    errors = [output_error(feeds["x"], weights, n.weight_code.dequantized()[0]) for n in (found, plain)]
    assert (errors[0] <= errors[1] + 1e-9).all()
    assert errors[0].sum() < 0.6 * errors[1].sum()


def test_the_same_again():
    network, feeds = network_of(convolution_model()), {"x": images(50, 2, 4, 4)}
    assert AWARE(network, context_of("m2tj4", feeds)) == AWARE(network, context_of("m2tj4", feeds))


def test_samples():
    """The first inputs count, and no others; a fixed batch size is kept."""
    network, feeds = network_of(dense_model(6, 4, 3, batch=8)), {"x": images(40, 6)}
    cut = {"x": feeds["x"][:16]}
    few = Quantize(method="data-aware", samples=23)(network, context_of("m2tj4", feeds))
    assert few == AWARE(network, context_of("m2tj4", cut))
    assert few != AWARE(network, context_of("m2tj4", feeds))


def test_pieces_and_thinned_vectors(monkeypatch):
    """Small pieces give the same codes; thinned vectors still come from everywhere in a picture."""
    network, feeds = network_of(convolution_model()), {"x": images(400, 2, 4, 4)}
    whole = AWARE(network, context_of("m2tj4", feeds))
    monkeypatch.setattr("xbcompile.passes.quantize.CHUNK_VALUES", 1000)
    pieces = AWARE(network, context_of("m2tj4", feeds))
    for one, other in zip(whole.layers, pieces.layers, strict=True):
        assert np.array_equal(one.weight_code.codes, other.weight_code.codes)
    monkeypatch.setattr("xbcompile.passes.quantize.MAX_VECTORS", 800)
    thinned = AWARE(network, context_of("m2tj4", feeds))
    expected = outputs_of(network, feeds)["y"]
    error = np.square(outputs_of(thinned, feeds)["y"] - expected).mean()
    assert error < 1.3 * np.square(outputs_of(whole, feeds)["y"] - expected).mean()


def test_inputs_along_the_first_axis():
    """Gemm with transA: axis 0 of its input holds the inputs."""
    node = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("Gemm", ["t", "w"], ["y"], "fc", transA=1),
    ]
    weights = np.random.default_rng(1).normal(size=(7, 4))
    network = network_of(model_of(node, {"x": ["n", 7]}, ["y"], {"w": weights}))
    x = correlated(np.random.default_rng(2), 90, 7).astype("f")
    meant = AWARE(network, context_of("m2tj4", {"x": x})).layers[0].weight_code.dequantized()[0]
    np.testing.assert_allclose(meant, fit(x.astype(float), weights.astype("f").astype(float))[0], atol=1e-5)


def test_layers_that_are_coded_already_stay():
    network, context = network_of(dense_model(6, 4, 3)), context_of("m2tj4", {"x": images(50, 6)})
    mixed = network.with_layers(Quantize("binary")(network, context).layers[:1])
    after = AWARE(mixed, context)
    assert after.layers[0] is mixed.layers[0]
    assert after.layers[1].weight_code is not None


def test_errors():
    network = network_of(dense_model(6, 4, 3))
    with pytest.raises(PassError, match=r"quantize\{method=data-aware\} needs calibration inputs; give them with"):
        AWARE(network, context_of("m2tj4"))
    with pytest.raises(PassError, match="inputs of layer 'fc0' are not finite on the calibration inputs"):
        AWARE(network, context_of("m2tj4", {"x": np.full((3, 6), np.nan, "f")}))
    with pytest.raises(PassError, match="method=gptq is unknown; allowed: least-squares, data-aware"):
        Quantize(method="gptq")
    with pytest.raises(PassError, match="method=data-aware is per column; per=matrix goes with method=least-squares"):
        Quantize(per="matrix", method="data-aware")
    with pytest.raises(PassError, match="samples=0 is out of range; allowed: 1 or more"):
        Quantize(samples=0)
    with pytest.raises(PassError, match="samples=50 goes with method=data-aware, not method=least-squares"):
        Quantize(samples=50)
    with pytest.raises(PipelineError, match="pass quantize: method=data-aware is per column"):
        parse_pipeline("quantize{per=matrix method=data-aware}")


@pytest.mark.parametrize(("levels", "points"), [(2, 3.0), (3, 1.6), (4, 1.0)])
def test_mnist(mnist, levels, points):
    """The drop on 2,000 test images, against the goals on all 10,000 of 2.0, 0.9 and 0.4 points.

    The difference of two accuracies that disagree on a share p of n images has a standard error of at most
    sqrt(p / n): with p = 5 %, 2.5 % and 1 % that is 0.5, 0.35 and 0.22 points; two of them and the goal make the limit,
    with 4 levels rounded up as the first test images are harder than the rest.
    """
    from xbcompile.frontend import load_model

    calibration, (x, labels) = {"input": mnist("train", 3000)[0]}, mnist("test", 2000)
    network = network_of(load_model(MODELS / "mnist_mlp.onnx"))
    after = Quantize(levels=levels, method="data-aware")(network, context_of("m2tj4", calibration))

    def accuracy(each):
        (scores,) = outputs_of(each, {"input": x}).values()
        return 100 * np.mean(scores.argmax(axis=1) == labels)

    assert accuracy(network) - accuracy(after) <= points


def test_recalibration_takes_nothing_back(mnist):
    """On the array, 4 levels, 2,000 test images: recalibrated or not, the accuracy is the same.

    The gain and offset that `recalibrate` fits after `data-aware` are nearly 1 and 0. Where the two disagree on at most
    0.5 % of the images, two standard errors are 0.32 points.
    """
    from xbcompile.api import compile
    from xbcompile.runtime.session import Session

    calibration, (x, labels) = {"input": mnist("train", 2000)[0]}, mnist("test", 2000)
    accuracy = []
    for more in ("", ",recalibrate{samples=1000}"):
        passes = "quantize{scheme=levels method=data-aware},analogue" + more
        program = compile(MODELS / "mnist_mlp.onnx", "m2tj4", passes=passes, calibration=calibration, packing="none")
        (scores,) = Session(program).run_samples({"input": x}).values()
        accuracy.append(100 * np.mean(scores.argmax(axis=1) == labels))
    assert accuracy[1] >= accuracy[0] - 0.32

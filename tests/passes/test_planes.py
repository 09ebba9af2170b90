"""planes against every combination of codes, numpy's least squares, and the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.model_kit import run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer
from xbcompile.passes.fit.plane_fit import PlaneFit, refine
from xbcompile.passes.planes import Planes
from xbcompile.passes.quantize import Quantize
from xbcompile.testing.passes import assert_idempotent, context_of, network_of, outputs_of, spec_with, text_of

BINARY = np.array([-1, 1], np.float32)
FOUR = np.linspace(-1, 1, 4).astype(np.float32)


def sum_of_planes(layer: MatrixLayer, planes: int) -> np.ndarray:
    """Weights [inputs, outputs] that the coded layer stands for."""
    stored = layer.weight_code.dequantized()[0].astype(float)
    return stored.reshape(layer.inputs, planes, -1).sum(axis=1)


def best_error(w: np.ndarray, planes: int) -> float:
    """Least squared error of binary planes without offset: all signs, scales by numpy."""
    least = np.inf
    for signs in product(product((-1, 1), repeat=len(w)), repeat=planes):
        u = np.array(signs, float).T
        scales = np.linalg.lstsq(u, w, rcond=None)[0]
        least = min(least, float(np.square(w - u @ scales).sum()))
    return least


@given(st.lists(st.integers(-20, 20), min_size=3, max_size=5))
@settings(max_examples=15, deadline=None)
def test_near_the_best_of_all_signs(values):
    """Two binary planes of a column: not below the best of all 2^2K signs, and never far from it (a local optimum)."""
    w = np.array(values, float)[:, None]
    network = network_of(dense_model(len(values), 1))
    network = network.with_layers([replace(network.layers[0], weights=w.astype("f")[None])])
    found = sum_of_planes(Planes(k=2, scheme="binary")(network, context_of(spec_with(BINARY))).layers[0], 2)
    error, best = float(np.square(w - found).sum()), best_error(w[:, 0], 2)
    assert error >= best - 1e-4
    assert error <= best + 0.1 * np.square(w).sum() + 1e-4


def test_each_step_is_at_its_optimum():
    """At the end no weight has a better combination, and the scales are numpy's least squares for the codes."""
    rng = np.random.default_rng(0)
    w, gain = rng.normal(size=(40, 3)), rng.uniform(0.5, 1.5, size=(2, 40, 3))
    start = PlaneFit(rng.integers(0, 4, size=(2, 40, 3)).astype(np.uint8), np.ones((2, 3)), np.zeros(3))
    found = refine(np.eye(40), w, FOUR, [start], gain, with_offset=False)
    table = FOUR.astype(float)
    for m in range(3):
        u = (gain[:, :, m] * table[found.codes[:, :, m]]).T
        np.testing.assert_allclose(found.scale[:, m], np.linalg.lstsq(u, w[:, m], rcond=None)[0], rtol=1e-6)
        scale = found.scale[:, m, None] * gain[:, :, m]
        values = scale[0][:, None, None] * table[:, None] + scale[1][:, None, None] * table
        nearest = np.abs(values.reshape(40, -1) - w[:, m, None]).min(axis=1)
        np.testing.assert_allclose(np.abs(u @ found.scale[:, m] - w[:, m]), nearest, atol=1e-6)


def test_offset_is_the_best_one():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(30, 30))
    h = root @ root.T + np.eye(30)
    b = h @ rng.normal(size=(30, 2))
    start = PlaneFit(rng.integers(0, 2, size=(2, 30, 2)).astype(np.uint8), np.ones((2, 2)), np.zeros(2))
    found = refine(h, b, BINARY, [start], np.ones((2, 30, 2)))
    for m in range(2):
        unknowns = np.c_[BINARY.astype(float)[found.codes[:, :, m]].T, np.ones(30)]
        solved = np.linalg.solve(unknowns.T @ h @ unknowns, unknowns.T @ b[:, m])
        np.testing.assert_allclose([*found.scale[:, m], found.offset[m]], solved, rtol=1e-6, atol=1e-9)


def test_the_better_start_wins():
    """Never worse than any of the starts."""
    rng = np.random.default_rng(2)
    w = rng.normal(size=(50, 4))
    gain = np.ones((3, 50, 4))
    starts = [
        PlaneFit(rng.integers(0, 2, size=(3, 50, 4)).astype(np.uint8), rng.random((3, 4)), np.zeros(4))
        for _ in range(4)
    ]

    def errors(some):
        found = refine(np.eye(50), w, BINARY, some, gain, with_offset=False)
        return np.square(found.weights(BINARY, gain) - w).sum(axis=0)

    np.testing.assert_allclose(errors(starts), np.min([errors([each]) for each in starts], axis=0), rtol=1e-8)


@pytest.mark.parametrize(("table", "levels"), [(BINARY, 2), (FOUR, 4)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_error_is_at_most_that_of_one_finer_table(table, levels, k):
    """k planes can be levels^k equidistant levels, whose optimum quantize proves."""
    network = network_of(dense_model(60, 5))
    fine = Quantize(levels=levels**k)(network, context_of("ideal"))
    after = Planes(k=k)(network, context_of(spec_with(table)))
    w = network.layers[0].weights[0]
    bound = np.square(fine.layers[0].weight_code.dequantized()[0] - w).sum(axis=0)
    found = np.square(sum_of_planes(after.layers[0], k) - w).sum(axis=0)
    if levels**k <= 16:
        assert (found <= bound * (1 + 1e-6)).all()
    assert found.sum() < {2: 0.7, 4: 0.2}[levels] ** (k - 1) * np.square(w).sum()


def test_text():
    network = Planes(k=2)(network_of(dense_model(4, 5)), context_of(spec_with(BINARY)))
    assert text_of(network) == [
        "matrix fc0: x -> fc0/planes/outputs: [1x4x10], 2 levels, inputs as they are",
        "digital fc0/planes: (fc0/planes/outputs) -> (y): Split, Sum",
    ]
    assert_idempotent(Planes(k=2), network, context_of(spec_with(BINARY)))


def test_the_network_computes_the_sum():
    """Dense layers and convolutions; the grouped one is left to quantize."""
    model, context = dense_model(12, 7, 3), context_of(spec_with(FOUR))
    network = Planes(k=3)(network_of(model), context)
    x = np.random.default_rng(0).normal(size=(9, 12)).astype("f")
    first, second = network.layers
    bias = [layer.bias.reshape(3, -1).sum(axis=0) for layer in network.layers]
    hidden = np.maximum(x @ sum_of_planes(first, 3) + bias[0], 0)
    expected = hidden @ sum_of_planes(second, 3) + bias[1]
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], expected, atol=1e-4)
    convolution = Planes(k=2)(network_of(convolution_model()), context)
    assert [layer.weight_code is None for layer in convolution.layers] == [True, False]


def test_row_weights_are_respected():
    """Where rows weigh differently, also from plane to plane: the error is that of the weighted cells."""
    rng = np.random.default_rng(1)
    network = network_of(dense_model(20, 4))
    row_weight = rng.uniform(0.5, 1.5, size=(1, 20, 8)).astype("f")
    context = context_of(spec_with(BINARY), row_weights=lambda _: [row_weight])
    layer = Planes(k=2)(network, context).layers[0]
    assert np.array_equal(layer.weight_code.row_weight, row_weight)
    assert not layer.weight_code.offset.any()
    w = network.layers[0].weights[0]
    blind = Planes(k=2)(network, context_of(spec_with(BINARY))).layers[0].weight_code
    misled = replace(blind, row_weight=row_weight).dequantized()[0].reshape(20, 2, 4).sum(axis=1)
    assert np.square(sum_of_planes(layer, 2) - w).sum() < 0.8 * np.square(misled - w).sum()


def test_data_aware_keeps_the_outputs():
    """Less output error on the calibration inputs than the least-squares planes, and none of it in the mean."""
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(400, 24)) @ rng.normal(size=(24, 24)) + 1).astype("f")
    model, context = dense_model(24, 10, 4), context_of(spec_with(BINARY), {"x": x})
    wanted = run_onnxruntime(model, {"x": x})["y"]
    results = {
        method: outputs_of(Planes(k=2, method=method)(network_of(model), context), {"x": x})["y"] - wanted
        for method in ("least-squares", "data-aware")
    }
    errors = {method: np.square(each).mean() for method, each in results.items()}
    assert errors["data-aware"] < 0.5 * errors["least-squares"]
    np.testing.assert_allclose(results["data-aware"].mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0 is out of range; allowed: 1 to 8"),
        ({"scheme": "continuous"}, "scheme=continuous is unknown; allowed: binary, ternary, levels"),
        ({"method": "exact"}, "method=exact is unknown; allowed: least-squares, data-aware"),
        ({"samples": 5}, "samples=5 goes with method=data-aware"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(PassError, match=message):
        Planes(**options)


def test_what_does_not_fit():
    network, context = network_of(dense_model(4, 5)), context_of(spec_with(FOUR))
    with pytest.raises(
        PassError, match="k=5 planes of 4 levels make 1024 values of a weight; allowed: 256, so k up to 4"
    ):
        Planes(k=5)(network, context)
    with pytest.raises(PassError, match="there is no matrix layer 'fc9'; allowed: fc0"):
        Planes(layer="fc9")(network, context)
    with pytest.raises(PassError, match="needs calibration inputs"):
        Planes(method="data-aware")(network, context)
    with pytest.raises(PassError, match="layer 'conv' is neither a dense float32 layer nor a convolution of one group"):
        Planes(layer="conv")(network_of(convolution_model()), context)


def test_compiles_and_verifies():
    """Through the array's tables: twice the images' columns, checked by verify against onnxruntime."""
    feeds = {"x": np.random.default_rng(1).random((60, 70), dtype=np.float32)}
    passes = "planes{k=2 method=data-aware},thermometer{bits=3},recalibrate{samples=60}"
    program = xbcompile.compile(dense_model(70, 20, 5), "mram64", passes=passes, calibration=feeds)
    assert [layer.outputs for layer in program.network.layers] == [40, 10]
    assert np.isfinite(xbcompile.Session(program).run_samples(feeds)["y"]).all()


@pytest.mark.parametrize("embed_model", [True, False])
def test_planes_of_copies_are_recalibrated_to_their_own_meaning(embed_model):
    """Behind use-spare-cells a plane is no copy of the output: fitted to it, k planes would give k times as much."""
    model, feeds = dense_model(9, 2), {"x": np.random.default_rng(4).random((40, 9), dtype=np.float32)}
    passes = "use-spare-cells{outputs=2},planes{k=2},analogue,recalibrate"
    program = xbcompile.compile(model, "sot", passes=passes, calibration=feeds, embed_model=embed_model)
    assert [layer.outputs for layer in program.network.layers] == [2 * 2 * 2]
    (wanted,) = run_onnxruntime(model, feeds).values()
    found = xbcompile.Session(program, device="ideal", threads=1).run_samples(feeds)["y"]
    assert np.square(found - wanted).mean() < 0.05 * wanted.var()

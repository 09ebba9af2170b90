"""planes against every combination of codes, numpy's least squares, and the model."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model, images
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


def best_error(w: np.ndarray, planes: int, offset: bool = False) -> float:
    """Least squared error of binary planes, without offset or with one: all signs, scales by numpy."""
    least = np.inf
    for signs in product(product((-1, 1), repeat=len(w)), repeat=planes):
        u = np.array([*signs, *[(1,) * len(w)] * offset], float).T
        scales = np.linalg.lstsq(u, w, rcond=None)[0]
        least = min(least, float(np.square(w - u @ scales).sum()))
    return least


@given(st.lists(st.integers(-20, 20), min_size=3, max_size=5))
@settings(max_examples=15, deadline=None)
def test_near_the_best_of_all_signs(values):
    """Two binary planes of a column: not below the best of all 2^2K signs with an offset, which exact codes may have, and never
    far from the best without (a local optimum).
    """
    w = np.array(values, float)[:, None]
    network = network_of(dense_model(len(values), 1))
    network = network.with_layers([replace(network.layers[0], weights=w.astype("f")[None])])
    found = sum_of_planes(Planes(k=2, scheme="binary")(network, context_of(spec_with(BINARY))).layers[0], 2)
    error, best = float(np.square(w - found).sum()), best_error(w[:, 0], 2)
    assert error >= best_error(w[:, 0], 2, offset=True) - 1e-4
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
    """Dense layers, and convolutions of groups, whose planes lie side by side group by group."""
    model, context = dense_model(12, 7, 3), context_of(spec_with(FOUR))
    network = Planes(k=3)(network_of(model), context)
    x = np.random.default_rng(0).normal(size=(9, 12)).astype("f")
    first, second = network.layers
    bias = [layer.bias.reshape(3, -1).sum(axis=0) for layer in network.layers]
    hidden = np.maximum(x @ sum_of_planes(first, 3) + bias[0], 0)
    expected = hidden @ sum_of_planes(second, 3) + bias[1]
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], expected, atol=1e-4)
    convolution = network_of(convolution_model())
    network, x = Planes(k=2)(convolution, context), images(9, 2, 4, 4)
    stored = [layer.weight_code.dequantized() for layer in network.layers]
    stood_for = [
        replace(layer, weights=w.reshape(layer.groups, layer.inputs, 2, layer.outputs).sum(axis=2))
        for layer, w in zip(convolution.layers, stored, strict=True)
    ]
    expected = outputs_of(convolution.with_layers(stood_for), {"x": x})["y"]
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], expected, atol=1e-4)


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
        PassError,
        match="k=5 planes of 4 levels make 1024 values of a weight; allowed: 256, so k up to 4; more only for",
    ):
        Planes(k=5)(network, context)
    with pytest.raises(PassError, match="make 16777216 values of a weight; allowed: 65536, so k up to 5"):
        Planes(k=8, levels=8)(network, context_of("ideal"))
    with pytest.raises(PassError, match="there is no matrix layer 'fc9'; allowed: fc0"):
        Planes(layer="fc9")(network, context)
    with pytest.raises(PassError, match="needs calibration inputs"):
        Planes(method="data-aware")(network, context)


GRIDS = {
    "int8": (np.arange(-128, 128), 1.0),
    "symmetric int8": (np.arange(-127, 128), 0.013),
    "uint8 less 7": (np.arange(256) - 7.0, 0.25),
    "int4": (np.arange(-8, 8), 0.1),
    "uint4": (np.arange(16), 3.0),
    "one value": (np.array([5.0]), 0.1),
    "{0, 1}": (np.arange(2), 1.0),
}


@pytest.mark.parametrize(
    ("k", "scheme", "levels"),
    [(4, "levels", 4), (2, "levels", 16), (8, "levels", 2), (8, "binary", 0), (6, "ternary", 0), (4, "levels", 8)],
)
def test_grids_are_held_exactly(k, scheme, levels):
    """Each weight by its digits, whatever step its column has; symmetric ones without offset where levels are odd."""
    rng = np.random.default_rng(0)
    columns = [step * np.r_[values[[0, -1]], rng.choice(values, 30)] for values, step in GRIDS.values()]
    w = np.stack(columns, axis=1).astype(np.float32)
    network = network_of(dense_model(32, len(columns)))
    network = network.with_layers([replace(network.layers[0], weights=w[None])])
    layer = Planes(k=k, scheme=scheme, levels=levels)(network, context_of("ideal")).layers[0]
    np.testing.assert_allclose(sum_of_planes(layer, k), w, rtol=0, atol=1e-6 * np.abs(w).max(axis=0).max())
    scale = layer.weight_code.scale.reshape(k, -1)[:, : list(GRIDS).index("one value")]
    base = {"binary": 2, "ternary": 3}.get(scheme, levels)
    np.testing.assert_allclose(scale[:-1] / scale[1:], base, rtol=3e-7)
    if scheme == "ternary":
        assert not layer.weight_code.offset.reshape(k, -1)[:, 1].any()


def test_sixteen_bits_are_held_exactly_and_real_weights_beside_them_refused():
    w = np.random.default_rng(0).integers(-(2**15), 2**15, (1, 60, 2)).astype(np.float32)
    w[0, 0], w[0, 1] = -(2**15), 2**15 - 1
    network = network_of(dense_model(60, 2))
    (layer,) = network.layers
    for k, levels in [(4, 16), (8, 4)]:
        after = Planes(k=k, levels=levels)(network.with_layers([replace(layer, weights=w)]), context_of("ideal"))
        np.testing.assert_allclose(sum_of_planes(after.layers[0], k), w[0], rtol=0, atol=4e-3)
    with pytest.raises(
        PassError, match="more only for weights on a grid of so many values, which those of layer 'fc0'"
    ):
        Planes(k=4, levels=16)(network, context_of("ideal"))


def whole_number_model(kind: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """One product of bytes of the kind that is named, and inputs for it."""
    rng = np.random.default_rng(0)
    convolves = "Conv" in kind
    x = rng.integers(0, 256, (3, 4, 5, 5) if convolves else (3, 24)).astype(np.uint8)
    groups = 2 if kind.endswith("groups") else 1
    shape = (6, 4 // groups, 3, 3) if convolves else (24, 6)
    constants = {"w": rng.integers(-128, 128, shape).astype(np.int8), "z": np.uint8(77), "zw": np.int8(3)}
    constants |= {"s": np.float32(0.05), "t": np.float32(7.0), "sw": rng.uniform(0.01, 0.1, 6).astype("f")}
    constants |= {"zws": np.zeros(6, np.int8)}
    attributes = {"pads": [1] * 4, "group": groups} if convolves else {}
    if "QDQ" in kind:
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "sw", "zws"], ["b"], axis=0 if convolves else 1),
            helper.make_node("Conv" if convolves else "MatMul", ["a", "b"], ["y"], **attributes),
        ]
    else:
        names = ["x", "s", "z", "w", "sw", "zws", "t", "z"] if "QLinear" in kind else ["x", "w", "z", "zw"]
        nodes = [helper.make_node(kind.split()[0], names, ["y"], **attributes)]
    used = {name for node in nodes for name in node.input}
    model = model_of(nodes, {"x": x.shape}, ["y"], {name: constants[name] for name in constants if name in used})
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return model, x


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        ("m2tj4", "planes{k=4},bitserial{bits=8}"),
        ("sot-single", "planes{k=8 scheme=binary},bitserial{bits=8}"),
        ("sot", "planes{k=6},analogue"),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        "MatMulInteger",
        "ConvInteger",
        "ConvInteger of groups",
        "QLinearMatMul",
        "QLinearConv",
        "QLinearConv of groups",
        "QDQ MatMul",
        "QDQ Conv",
    ],
)
def test_quantized_layers_give_the_bits_of_onnxruntime(kind, target, passes):
    """8-bit weights in as many planes as hold them, on arrays without errors: the integers themselves."""
    model, x = whole_number_model(kind)
    expected = run_onnxruntime(model, {"x": x})["y"]
    program = xbcompile.compile(model, target, passes=passes, effort=0)
    found = xbcompile.Session(program, device="ideal").run({"x": x})["y"]
    if expected.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("left", [True, False])
def test_a_product_with_a_vector_has_planes_too(left, dtype):
    """The planes lie where the inputs lay, and are added up into a tensor without that axis."""
    rng = np.random.default_rng(0)
    x = rng.random((2, 12, 5) if left else (2, 5, 12)).astype(dtype)
    node = helper.make_node("MatMul", ["w", "x"] if left else ["x", "w"], ["y"], "fc")
    model = model_of([node], {"x": x.shape}, ["y"], {"w": rng.integers(-127, 128, 12).astype(float)}, dtype=dtype)
    found = outputs_of(Planes(k=4)(network_of(model), context_of(spec_with(FOUR))), {"x": x})["y"]
    tolerance = 1e-5 if dtype == "float32" else 5e-3
    expected = run_onnxruntime(model, {"x": x})["y"]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=100 * tolerance)


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

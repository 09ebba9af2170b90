"""quantize against brute force over all codes, onnxruntime on dequantized weights, and published levels."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.passes.fit.least_squares import fit_levels
from xbcompile.passes.quantize import Quantize, _embedding
from xbcompile.targets import load_target
from xbcompile.testing.passes import assert_idempotent, context_of, network_of, outputs_of, spec_with, text_of

MODELS = Path(__file__).parents[2] / "models"
FOUR = np.linspace(-1, 1, 4)
TABLES = {"binary": [-1, 1], "ternary": [-1, 0, 1], "levels": [-1, -1 / 3, 1 / 3, 1]}


def dense_of(weights):
    """A network of one layer with these weights [inputs, outputs]."""
    weights = np.asarray(weights, float)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "fc")
    return model_of([node], {"x": ["n", weights.shape[0]]}, ["y"], {"w": weights})


def code_of(weights, each, context):
    return each(network_of(dense_of(weights)), context).layers[0].weight_code


def least_error(column, table, g=None, offset=True):
    """Smallest squared error of any codes with the best scale >= 0 (and offset), over all assignments."""
    g = np.ones(len(column)) if g is None else g
    best = np.inf
    for codes in product(range(len(table)), repeat=len(column)):
        used = g * np.asarray(table, float)[list(codes)]
        columns = np.stack([used, np.ones(len(column))], axis=1) if offset else used[:, None]
        solution = np.linalg.lstsq(columns, column, rcond=None)[0]
        if solution[0] < 0:  # without a scale only the offset is left
            solution = np.array([0, column.mean()]) if offset else np.zeros(1)
        best = min(best, float(np.square(columns @ solution - column).sum()))
    return best


@pytest.mark.parametrize("scheme", TABLES)
@pytest.mark.parametrize("seed", range(3))
def test_columns_are_least_squares(scheme, seed):
    """Binary and ternary weights have no offset, so that their cells alone carry the sign."""
    weights = np.random.default_rng(seed).normal(size=(5, 4)) + 0.3
    each = Quantize(scheme, levels=4 if scheme == "levels" else 0)
    code = code_of(weights, each, context_of())
    errors = np.square(code.dequantized()[0] - weights).sum(axis=0)
    for m in range(4):
        expected = least_error(weights[:, m], TABLES[scheme], offset=scheme == "levels")
        assert errors[m] == pytest.approx(expected, rel=1e-4, abs=1e-9)


VALUES: dict[str, list[list[float]]] = {
    "binary": [[0, 1], [-0.3, 0.6], [1000, 1001], [-5, -4.9], [-0.2, 0], [-0.7, 0.7], [0.4, 0.4]],
    "ternary": [[0, 1], [-0.3, 0.6], [1, 2, 3], [-5, -4.9], [-0.5, 0, 0.5], [-3, -1, 1], [0.4, 0.4]],
    "levels": [[0, 1], [-0.3, 0.6], [1, 2, 3], [-3, -2, -1, 0], [-0.1, 0, 0.2], [-0.5, 0, 0.5], [0.4, 0.4]],
}


@pytest.mark.parametrize("per", ["column", "matrix"])
@pytest.mark.parametrize("scheme", TABLES)
def test_values_that_the_levels_hold_get_their_own_code(scheme, per):
    """As many values as levels, equidistant, or any two, anywhere: no error, and no offset where none is needed."""
    each = Quantize(scheme, levels=4 if scheme == "levels" else 0, per=per)
    rng = np.random.default_rng(3)
    columns = [np.r_[values, rng.choice(values, 9 - len(values))] for values in VALUES[scheme]]
    for weights in [np.stack(columns, axis=1), *(column[:, None] for column in columns)]:
        if per == "matrix" and weights.shape[1] > 1:
            continue
        code = code_of(weights, each, context_of(spec_with(np.array(TABLES[scheme], np.float32))))
        np.testing.assert_allclose(
            code.dequantized()[0], weights.astype("f"), rtol=2e-7, atol=1e-7 * np.abs(weights).max()
        )
        if scheme != "levels":
            alone = [least_error(w, TABLES[scheme], offset=False) < 1e-9 for w in weights.T]
            assert [bool(offset) for offset in code.offset[0]] == [not exact for exact in alone]


@pytest.mark.parametrize("scheme", ["binary", "levels"])
def test_two_values_err_less_with_an_offset_where_rows_weigh_differently(scheme):
    """g s q + o: with codes given, s and o are numpy's least squares; a column of one value is exact; +-a needs no offset."""
    rng = np.random.default_rng(5)
    weights = np.stack([rng.permutation([0.0, 1.0] * 5), np.full(10, -0.4), rng.permutation([-0.3, 0.3] * 5)], axis=1)
    g = rng.uniform(0.5, 1.5, (1, 10, 3)).astype("f")
    levels = 2 if scheme == "levels" else 0
    code = code_of(weights, Quantize(scheme, levels), context_of("mram64", row_weights=lambda _: [g]))
    both = np.stack([g[0, :, 0] * (2 * weights[:, 0] - 1), np.ones(10)], axis=1)
    solved = np.linalg.lstsq(both, weights[:, 0], rcond=None)[0]
    np.testing.assert_allclose([code.scale[0, 0], code.offset[0, 0]], solved, rtol=1e-5)
    np.testing.assert_array_equal(code.dequantized()[0, :, 1], weights[:, 1].astype("f"))
    assert code.offset[0, 2] == 0


def test_data_aware_keeps_an_offset_that_makes_a_code_exact():
    """{0, 1} weights on binary cells: no output error on any input."""
    rng = np.random.default_rng(6)
    weights = rng.integers(0, 2, (8, 3)).astype(float)
    x = (rng.normal(size=(60, 8)) + 1).astype("f")
    context = context_of(spec_with(np.array([-1, 1], "f")), {"x": x})
    network = Quantize("binary", method="data-aware")(network_of(dense_of(weights)), context)
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], x @ weights, atol=1e-4)


@pytest.mark.parametrize("scheme", TABLES)
def test_matrix_is_least_squares(scheme):
    """One scale and offset for all weights: the same as one long column."""
    weights = np.random.default_rng(4).normal(size=(3, 2)) + 0.3
    each = Quantize(scheme, levels=4 if scheme == "levels" else 0, per="matrix")
    code = code_of(weights, each, context_of())
    assert len(np.unique(code.scale)) == len(np.unique(code.offset)) == 1
    error = np.square(code.dequantized()[0] - weights).sum()
    assert error == pytest.approx(least_error(weights.ravel(), TABLES[scheme], offset=scheme == "levels"), rel=1e-4)


def test_binary_is_sign_and_mean():
    """XNOR-Net, equation 6: alpha = mean of |W|, B = sign of W."""
    weights = np.random.default_rng(1).normal(size=(30, 7)).astype("f")
    code = code_of(weights, Quantize("binary"), context_of("mram64"))
    assert np.array_equal(code.codes[0], weights >= 0)
    np.testing.assert_allclose(code.scale[0], np.abs(weights).mean(axis=0), rtol=1e-6)
    assert not code.offset.any()
    assert code.levels.tolist() == [-1, 1]


@pytest.mark.parametrize("per", ["column", "matrix"])
@pytest.mark.parametrize("scheme", TABLES)
@pytest.mark.parametrize("target", ["ideal", "m2tj4"])
def test_grouped_convolution_equals_onnxruntime(scheme, per, target):
    """onnxruntime on the user's model with each constant replaced by what its code stands for."""
    model = convolution_model()
    each = Quantize(scheme, levels=4 if scheme == "levels" else 0, per=per)
    context = context_of(target)
    network = each(network_of(model), context)
    conv, fc = network.layers
    assert conv.groups == 2
    scales = [len(np.unique(conv.weight_code.scale[g])) for g in range(2)]
    assert scales == ([3, 3] if per == "column" else [1, 1])
    new = {
        "w": conv.weight_code.dequantized().transpose(0, 2, 1).reshape(6, 1, 3, 3),
        "g": fc.weight_code.dequantized()[0],
    }
    for i, tensor in enumerate(model.graph.initializer):
        if tensor.name in new:
            model.graph.initializer[i].CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    x = np.random.default_rng(5).random((6, 2, 4, 4), np.float32)
    np.testing.assert_allclose(outputs_of(network, {"x": x})["y"], run_onnxruntime(model, {"x": x})["y"], atol=1e-4)
    assert_idempotent(each, network, context)


@pytest.mark.parametrize("per", ["column", "matrix"])
@pytest.mark.parametrize("scheme", TABLES)
def test_groups_are_independent(scheme, per):
    """Each group of a convolution gets the code that a dense layer with its weights gets."""
    rng = np.random.default_rng(10)
    weights, g = rng.normal(size=(2, 5, 3)).astype("f"), rng.uniform(0.4, 1.6, (2, 5, 3)).astype("f")
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", group=2)
    kernel = weights.transpose(0, 2, 1).reshape(6, 5, 1)
    grouped = network_of(model_of([node], {"x": ["n", 10, 4]}, ["y"], {"w": kernel}))
    each = Quantize(scheme, per=per)
    for row_weight in (None, g):
        context = context_of(spec_with(TABLES[scheme]), row_weights=lambda network: [row_weight])  # noqa: B023
        code = each(grouped, context).layers[0].weight_code
        for i in range(2):
            own = None if row_weight is None else row_weight[i : i + 1]
            context = context_of(spec_with(TABLES[scheme]), row_weights=lambda network: [own])  # noqa: B023
            alone = code_of(weights[i], each, context)
            np.testing.assert_allclose(code.dequantized()[i], alone.dequantized()[0], rtol=1e-6)


@pytest.mark.parametrize("scheme", ["binary", "ternary", "levels"])
def test_row_weights(scheme):
    """A row's weight is part of the product: W ~ g scale level, least squares over all codes, without an offset."""
    rng = np.random.default_rng(6)
    g, weights = np.array([1.6, 1.2, 0.9, 0.5, 0.4]), rng.normal(size=(5, 3))
    row_weight = np.repeat(g[None, :, None], 3, axis=2).astype("f")
    context = context_of(spec_with(TABLES[scheme]), row_weights=lambda network: [row_weight])
    code = code_of(weights, Quantize(scheme), context)
    assert np.array_equal(code.row_weight, row_weight)
    assert not code.offset.any()
    errors = np.square(code.dequantized()[0] - weights).sum(axis=0)
    for m in range(3):
        expected = least_error(weights[:, m], TABLES[scheme], g.astype("f").astype(float), offset=False)
        assert errors[m] == pytest.approx(expected, rel=1e-4)


def test_row_weights_come_from_the_target_s_rows():
    """A network trained for the array's row weights is exact on it: its weights are +-g."""
    from xbcompile.api import compile

    passes = "quantize{scheme=binary},thermometer{low=0 high=1}"
    # trained for the rows of these cuts
    program = compile(MODELS / "mnist_bnn.onnx", "mram64", passes=passes, cuts="greedy")
    network = network_of(onnx.load(MODELS / "mnist_bnn.onnx"))
    for stored, own in zip(program.network.layers, network.layers, strict=True):
        assert stored.weight_code.row_weight.min() < 0.5 < 1.5 < stored.weight_code.row_weight.max()
        size = np.abs(own.weights).max()
        np.testing.assert_allclose(stored.weight_code.dequantized(), own.weights, atol=2e-3 * size)


@pytest.mark.parametrize(
    ("each", "own", "index"),
    [
        (Quantize("binary"), FOUR, [0, 3]),
        (Quantize("ternary"), FOUR, [0, 1, 2]),
        (Quantize("levels", levels=2), FOUR, [0, 3]),
        (Quantize("levels", levels=3), FOUR, [0, 1, 2]),
        (Quantize("levels", levels=4), FOUR, [0, 1, 2, 3]),
        (Quantize("binary"), np.linspace(-1, 1, 16), [0, 15]),
        (Quantize("ternary"), np.linspace(-1, 1, 16), [0, 7, 14]),
        (Quantize("levels", levels=6), np.linspace(-1, 1, 16), [0, 3, 6, 9, 12, 15]),
        (Quantize("binary"), [-1, -0.2, 0.3, 1], [0, 3]),  # any two states are an affine picture of two levels
        (Quantize("levels"), [-1, -0.2, 0.3, 1], [0, 1, 2, 3]),
    ],
)
def test_embedding(each, own, index):
    """A smaller table sits on states as far apart as they go, and means the same real weights as on a table of its own."""
    weights = np.random.default_rng(8).normal(size=(12, 5))
    own = np.asarray(own, np.float32)
    code = code_of(weights, each, context_of(spec_with(own)))
    assert np.array_equal(code.levels, own)
    assert set(np.unique(code.codes)) <= set(index)
    alone = code_of(weights, each, context_of(spec_with(each.level_table(context_of(spec_with(own))))))
    np.testing.assert_allclose(code.dequantized(), alone.dequantized(), atol=1e-5)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(data=st.data())
def test_embedding_against_all_choices(data):
    """It exists exactly where evenly chosen states from the first on are spaced like the table, and says how."""
    own = np.array(sorted(data.draw(st.sets(st.integers(-8, 8), min_size=2, max_size=7)))) / 8
    table = np.array(sorted(data.draw(st.sets(st.integers(-4, 4), min_size=2, max_size=len(own))))) / 4
    steps = range(1, (len(own) - 1) // (len(table) - 1) + 1)

    def spaced_alike(chosen):
        a, b = np.diff(chosen), np.diff(table)
        return np.allclose(a / a.sum(), b / b.sum())

    fitting = [s for s in steps if spaced_alike(own[np.arange(len(table)) * s])]
    found = _embedding(table, own)
    assert (found is not None) == bool(fitting)
    if found is not None:
        index, factor, shift = found
        assert index.tolist() == (np.arange(len(table)) * max(fitting)).tolist()
        assert factor > 0
        np.testing.assert_allclose(factor * own[index] + shift, table, atol=1e-6)


def test_cells_of_any_value_hold_the_levels():
    """On an exact array there is no table: cells hold the levels as numbers."""
    weights = np.random.default_rng(9).normal(size=(6, 3))
    code = code_of(weights, Quantize("levels", levels=4), context_of("ideal"))
    assert code.levels is None
    assert code.codes.dtype == np.float32
    assert set(np.unique(code.codes)) <= set(FOUR.astype(np.float32))


def test_published_xor_levels():
    """Deliverable D4.2, section 3.1.2: the hidden weights become 8.58, 9.72, 10.87, 12.01."""
    network = Quantize(per="matrix")(network_of(onnx.load(MODELS / "xor.onnx")), context_of("m2tj4"))
    code = network.layers[0].weight_code
    levels = code.scale[0, 0] * load_target("m2tj4").array_spec.levels.astype(float) + code.offset[0, 0]
    np.testing.assert_allclose(levels, [8.58, 9.72, 10.87, 12.01], atol=0.006)
    # Both weights of one hidden neuron are on the highest level, both of the other on the lowest.
    assert sorted(code.codes[0].sum(axis=0).tolist()) == [0, 6]


def test_text():
    network = Quantize()(network_of(dense_model(6, 4, 3)), context_of("m2tj4"))
    assert text_of(network) == [
        "matrix fc0: x -> a0: [1x6x4], 4 levels, inputs as they are",
        "digital digital1: (a0) -> (r0): Relu",
        "matrix fc1: r0 -> y: [1x4x3], 4 levels, inputs as they are",
    ]


def test_layers_that_are_coded_already_stay():
    network, context = network_of(dense_model(6, 4, 3)), context_of("m2tj4")
    binary = Quantize("binary")(network, context)
    mixed = network.with_layers(binary.layers[:1])
    after = Quantize()(mixed, context)
    assert after.layers[0] is mixed.layers[0]
    assert after.layers[1] == Quantize()(network, context).layers[1]


def test_the_rest_stays():
    """Only codes are added: weights, bias and everything else are as they were."""
    from dataclasses import replace

    network = network_of(dense_model(6, 4, 3))
    after = Quantize()(network, context_of("m2tj4"))
    assert after.with_layers(replace(layer, weight_code=None) for layer in after.layers) == network


def test_zeros_and_constants():
    """A column of one value, zero included, is exact; a single row too."""
    for weights in (np.zeros((4, 2)), np.full((4, 2), -3.0), np.array([[2.0, -1.0, 0.0]])):
        code = code_of(weights, Quantize(), context_of("m2tj4"))
        np.testing.assert_allclose(code.dequantized()[0], weights, atol=1e-6)


def test_preconditions():
    network = network_of(dense_model(6, 4, 3))
    with pytest.raises(PassError, match="5 levels do not fit the target's 4 cell states; use fewer levels"):
        Quantize(levels=5)(network, context_of("m2tj4"))
    with pytest.raises(PassError, match="the target's cells hold any real value; say how many levels"):
        Quantize()(network, context_of("ideal"))
    with pytest.raises(PassError) as caught:
        Quantize("ternary")(network, context_of(spec_with([-1, -0.2, 0.3, 1])))
    assert str(caught.value) == (
        "levels [-1, 0, 1] are not spaced like any of the target's cell states [-1, -0.2, 0.3, 1]; "
        "use scheme=levels without levels= to take the target's own"
    )


def test_options():
    with pytest.raises(PassError, match="scheme=int8 is unknown; allowed: binary, ternary, levels"):
        Quantize("int8")
    with pytest.raises(PassError, match="per=row is unknown; allowed: column, matrix"):
        Quantize(per="row")
    with pytest.raises(PassError, match="levels=4 goes with scheme=levels, not scheme=binary"):
        Quantize("binary", levels=4)
    for wrong in (1, -2, 257):
        with pytest.raises(PassError, match=f"levels={wrong} is out of range; allowed: 2 to 256, or 0"):
            Quantize(levels=wrong)


def bounded_spec(limit: float, **options):
    from dataclasses import replace

    return replace(spec_with(None, "signed"), cell_limit=limit, **options)


@pytest.mark.parametrize("per", ["column", "matrix"])
@given(arrays=st.integers(0, 10**6), limit=st.sampled_from([1.0, 0.3, 7.0]))
@settings(max_examples=20, deadline=None)
def test_continuous_cells_stand_for_the_weights(per, arrays, limit):
    """Nothing is lost, no cell is beyond its limit, and the largest weight of each scope is at it."""
    weights = np.random.default_rng(arrays).normal(size=(5, 3)) * [1, 100, 0.01]
    code = code_of(weights, Quantize("continuous", per=per), context_of(bounded_spec(limit)))
    np.testing.assert_allclose(code.dequantized()[0], weights, rtol=1e-6)
    largest = np.abs(code.cell_values()[0])
    largest = largest.max(axis=0) if per == "column" else largest.max()
    assert np.all(largest <= limit)
    np.testing.assert_allclose(largest, limit, rtol=1e-6)


def test_continuous_cells_under_row_weights_and_without_weights():
    g = np.random.default_rng(1).uniform(0.4, 1.6, (1, 4, 2)).astype("f")
    weights = np.array([[1.0, 0], [2, 0], [-3, 0], [0.5, 0]])
    context = context_of(bounded_spec(1.0), row_weights=lambda network: [g])
    code = code_of(weights, Quantize("continuous"), context)
    np.testing.assert_allclose(code.dequantized()[0], weights, rtol=1e-6)
    assert np.abs(code.codes[0, :, 0]).max() == pytest.approx(1)
    assert np.all(code.codes[0, :, 1] == 0)


def test_continuous_needs_cells_without_levels():
    with pytest.raises(PassError, match="hold 4 levels only; use scheme=levels"):
        Quantize("continuous")(network_of(dense_model(6, 4)), context_of("m2tj4"))
    with pytest.raises(PassError, match="no levels to choose"):
        Quantize("continuous", method="data-aware")


def test_few_levels_on_bounded_cells():
    weights = np.random.default_rng(1).normal(size=(6, 2))
    code = code_of(weights, Quantize("ternary"), context_of(bounded_spec(0.5)))
    assert set(np.unique(code.codes)) <= {-0.5, 0, 0.5}
    free = code_of(weights, Quantize("ternary"), context_of())
    np.testing.assert_allclose(code.dequantized(), free.dequantized(), rtol=1e-6)


@pytest.mark.parametrize("levels", [4, 7, 64, 100])
def test_equidistant_tables_are_known_for_such_in_spite_of_float32(levels):
    """Levels are stored in float32; the search for the optimum needs to know that they are equidistant."""
    weights = np.random.default_rng(1).normal(size=(16, 2))
    code = code_of(weights, Quantize(levels=levels), context_of())
    fit = fit_levels(weights, np.linspace(-1, 1, levels))
    error = np.square(code.dequantized()[0] - weights).sum(axis=0)
    np.testing.assert_allclose(error, fit.squared_error, rtol=1e-3)

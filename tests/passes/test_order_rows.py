"""order-rows against the model, all orders by brute force, and what one array's pads add up to."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.options import MappingOptions
from xbcompile.passes.contract import PassContext
from xbcompile.passes.edit.row_order import _slots, place, spread
from xbcompile.passes.order_rows import OrderRows
from xbcompile.passes.quantize import Quantize
from xbcompile.planning.network_mapper import NetworkMapper
from xbcompile.targets import load_target
from xbcompile.testing.passes import assert_equals_model, assert_idempotent, network_of

SPEC = replace(
    load_target("mram64").array_spec,
    rows=8,
    columns=6,
    row_weight=np.linspace(1.6, 0.4, 8),
    idle_drive=np.ones(8, np.float32),
    neutral_level=np.zeros(8, np.uint8),
)


def context_for(feeds, spec=SPEC, pack=False):
    options = MappingOptions(arrays=0, cuts="greedy", packing="dense" if pack else "none")
    mapper = NetworkMapper(spec, options, None)
    return PassContext(spec, feeds, mapper.row_weights, mapper.images)


def inputs(count, samples=40):
    rng = np.random.default_rng(4)
    return {"x": (rng.normal(size=(samples, count)) * np.linspace(0, 2, count)).astype("f")}


importances = st.lists(st.floats(0, 10), min_size=1, max_size=5)


@given(importances, st.lists(st.floats(0.3, 1.7), min_size=5, max_size=7), st.booleans())
@settings(max_examples=50, deadline=None)
def test_every_input_has_one_or_two_rows(importance, gain, pairs):
    source = place(np.array(importance), np.array(gain), pairs)
    used = np.bincount(source[source >= 0], minlength=len(importance))
    assert source.shape == (len(gain),)
    assert used.min() >= 1
    assert used.max() <= (2 if pairs else 1)
    assert source.max() < len(importance)


@given(st.lists(st.floats(0, 10), min_size=5, max_size=5), st.lists(st.floats(0.3, 1.7), min_size=5, max_size=5))
@settings(max_examples=25, deadline=None)
def test_without_spare_rows_no_order_is_better(importance, gain):
    """All 120 orders, each with its own best middle out of those that the pass tries."""
    from xbcompile.passes.edit.row_order import MIDDLES

    importance, gain = np.array(importance), np.array(gain)
    misfit = np.square(1 - gain[:, None] / MIDDLES)  # [rows, middles]
    best = min((importance[list(order)] @ misfit).min() for order in permutations(range(5)))
    source = place(importance, gain, pairs=True)
    found = (importance[source] @ misfit).min()
    np.testing.assert_allclose(found, best, rtol=1e-9, atol=1e-12)


def test_two_light_rows_make_one():
    """Rows of 0.4 and 0.6 share the input that neither of them could hold; the heavy row stays for the one that idles."""
    source = place(np.array([3.0, 2.0, 0.0]), np.array([1.6, 1.0, 0.6, 0.4]), pairs=True)
    assert source.tolist() == [2, 0, 1, 1] or source.tolist() == [2, 1, 0, 0]
    assert place(np.array([3.0, 2.0, 0.0]), np.array([1.6, 1.0, 0.6, 0.4]), pairs=False)[1] == 0


def test_light_rows_find_the_partner_that_fills_them_up():
    """For a middle of 1: 0.3 takes 0.72 (sum 1.02, rather than 0.6 or 0.8), then 0.4 takes 0.6."""
    slots, sums = _slots(np.array([0.8, 0.72, 0.6, 0.4, 0.3, 1.5]), 1.0, 2)
    assert slots == [(4, 1), (3, 2), (0,), (5,)]
    np.testing.assert_allclose(sums, [1.02, 1.0, 0.8, 1.5])


def test_shares_follow_the_row_weights():
    """6 over rows of 0.4 and 0.6 is 2.4 and 3.6; the pads get the scale 6 of the column, once each way."""
    gain = np.array([[1.5], [0.4], [0.6], [0.5]])
    found = spread(np.array([[6.0]]), np.array([-1, 0, 0, -1]), gain, 4)
    np.testing.assert_allclose(found[:, 0], [1.5 * 6, 2.4, 3.6, -0.5 * 6])


@given(st.integers(1, 20), st.integers(1, 9), st.sampled_from(["on", "off"]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_exact_and_at_no_more_images(count, outputs, pairs, pack):
    model, feeds = dense_model(count, outputs, 3), inputs(count)
    context, network = context_for(feeds, pack=pack), network_of(model)
    after = OrderRows(pairs=pairs)(network, context)
    assert_equals_model(after, model, feeds)
    assert_idempotent(OrderRows(pairs=pairs), after, context)
    assert context.images(after) <= context.images(network)
    if not pack:
        assert after.layers[0].inputs == -(-count // 8) * 8


def test_binary_weights_come_nearer():
    """Weights +-1 coded as +- row weight: the error that order-rows minimises falls, and by much with pairs."""
    rng = np.random.default_rng(0)
    model, feeds = dense_model(13, 6, 3), inputs(13)
    network, context = network_of(model), context_for(feeds)
    layer = replace(network.layers[0], weights=np.sign(rng.normal(size=(1, 13, 6))).astype("f"))
    network = network.with_layers([layer])
    variance = feeds["x"].var(axis=0)

    def error(each):
        coded = Quantize(scheme="binary")(each, context).layers[0].weight_code.dequantized()[0]
        source = np.arange(13)
        if each is not network:
            source = np.asarray(_source(each))
        total = np.zeros((13, 6))
        np.add.at(total, source[source >= 0], coded[source >= 0])
        return float((variance @ np.square(total - layer.weights[0])).mean())

    plain, alone = error(network), error(OrderRows(pairs="off")(network, context))
    assert alone < 0.5 * plain
    assert error(OrderRows()(network, context)) < 0.6 * alone


def _source(network):
    constants = {i.name: i for i in network.segments[0].model.graph.initializer}
    from onnx import numpy_helper

    source = numpy_helper.to_array(constants["fc0/order-rows/source"])
    if "fc0/order-rows/used" in constants:
        source = np.where(numpy_helper.to_array(constants["fc0/order-rows/used"]), source, -1)
    return source


def test_pads_cancel_on_each_array():
    """Their row weights add up to nearly nothing in every column of every array, whatever the inputs do."""
    model, feeds = dense_model(11, 6), inputs(11)
    after = Quantize(scheme="binary")(OrderRows(pairs="off")(network_of(model), context_for(feeds)), context_for(feeds))
    pads = _source(after) < 0
    cells = after.layers[0].weight_code.weighted_cells()[0] * pads[:, None]
    assert pads.sum() == 5
    per_array = cells.reshape(2, 8, 6).sum(axis=1)
    assert np.abs(per_array).max() <= SPEC.row_weight.max()
    code = after.layers[0].weight_code
    without = Quantize(scheme="binary").fit(
        after.layers[0].weights[0][~pads], code.row_weight[0][~pads], np.array([-1, 1], "f")
    )
    np.testing.assert_allclose(code.scale[0], without[1], rtol=1e-6)  # pads do not move the scale


def test_infinite_inputs_stay_apart():
    """A pad is no product with 0: an infinity elsewhere must not become a NaN there."""
    model, feeds = dense_model(5, 4), inputs(5)
    after = OrderRows(pairs="off")(network_of(model), context_for(feeds))
    x = feeds["x"][:1].copy()
    x[0, 0] = np.inf
    from xbcompile.reference.evaluate import evaluate

    (chunks,) = evaluate(after, {"x": x}, ["fc0/order-rows/inputs"])
    assert np.isinf(chunks[0]).sum() == 1
    assert not np.isnan(chunks[0]).any()


def test_nothing_to_do():
    """Rows that count alike, convolutions, coded layers."""
    network, feeds = network_of(dense_model(5, 4)), inputs(5)
    assert OrderRows()(network, context_for(feeds, load_target("m2tj4").array_spec)) is network
    convolution = network_of(convolution_model())
    context = context_for({"x": np.ones((2, 2, 4, 4), np.float32)})
    assert OrderRows()(convolution, context).layers[0] == convolution.layers[0]
    coded = Quantize(scheme="binary")(network, context_for(feeds))
    assert OrderRows()(coded, context_for(feeds)) is coded


def test_bad_use():
    network = network_of(dense_model(5, 4))
    for options, message in (
        ({"pairs": "yes"}, "pairs=yes is unknown; allowed: on, off"),
        ({"samples": 0}, "samples=0"),
    ):
        with pytest.raises(PassError, match=message):
            OrderRows(**options)
    with pytest.raises(PassError, match="needs calibration inputs"):
        OrderRows()(network, context_for(None))
    with pytest.raises(PassError, match="not finite"):
        OrderRows()(network, context_for({"x": np.full((2, 5), np.nan, np.float32)}))


def test_compiles_and_verifies():
    """The whole way, on the exact device: what onnxruntime gives on the program's own meaning (checked by verify)."""
    feeds = {"x": np.random.default_rng(1).random((60, 70), dtype=np.float32)}
    passes = "order-rows,quantize{scheme=binary method=data-aware},thermometer{bits=3},recalibrate{samples=60}"
    program = xbcompile.compile(dense_model(70, 20, 5), "mram64", passes=passes, calibration=feeds, packing="none")
    assert program.network.layers[0].inputs == 128
    outputs = xbcompile.Session(program, device="ideal").run_samples(feeds)["y"]
    assert np.isfinite(outputs).all()

"""use-spare-cells against the model, the reference of copies by hand, and the averaging of errors that it is for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from tests.support.small_programs import convolution_model, dense_model
from xbcompile.errors import PassError
from xbcompile.options import MappingOptions
from xbcompile.passes.contract import PassContext
from xbcompile.passes.quantize import Quantize
from xbcompile.passes.use_spare_cells import UseSpareCells, copies_by_need
from xbcompile.planning.network_mapper import NetworkMapper
from xbcompile.program.program import load_program
from xbcompile.runtime.references import reference_outputs
from xbcompile.targets import load_target
from xbcompile.testing.passes import assert_equals_model, assert_idempotent, network_of, text_of


def context_for(rows=8, columns=12, feeds=None, pack=False, levels=(-1, 1)):
    spec = replace(
        load_target("m2tj4").array_spec,
        rows=rows,
        columns=columns,
        levels=np.array(levels, np.float32),
        row_weight=np.ones(rows),
        idle_drive=np.zeros(rows, np.float32),
        neutral_level=np.zeros(rows, np.uint8),
    )
    options = MappingOptions(arrays=0, cuts="greedy", packing="dense" if pack else "none")
    mapper = NetworkMapper(spec, options, None)
    return PassContext(spec, feeds, mapper.row_weights, mapper.images)


def inputs(count, samples=30):
    return {"x": np.random.default_rng(4).normal(size=(samples, count)).astype("f")}


@given(st.integers(1, 20), st.integers(1, 14), st.integers(0, 4), st.booleans(), st.sampled_from(["on", "off"]))
@settings(max_examples=20, deadline=None)
def test_exact_and_at_no_more_images(count, outputs, most, pack, rows):
    model, feeds = dense_model(count, outputs, 3), inputs(count)
    context, network = context_for(feeds=feeds, pack=pack), network_of(model)
    each = UseSpareCells(outputs=most, inputs=rows)
    after = each(network, context)
    assert_equals_model(after, model, feeds)
    assert_idempotent(each, after, context)
    assert context.images(after) <= context.images(network)
    if not pack:
        copies = min(max(12 // outputs, 1), most or 12)
        assert after.layers[0].outputs == copies * outputs
        assert after.layers[0].inputs == (-(-count // 8) * 8 if rows == "on" else count)


def test_packed_copies_take_only_what_is_free():
    """8x5 and 8x7 share one image of 12 columns; copies would need another, and there is no room for one."""
    model = dense_model(8, 5, 7)
    network = network_of(model)
    layers = network.layers
    assert [(n.inputs, n.outputs) for n in layers] == [(8, 5), (5, 7)]
    packed, loose = context_for(pack=True), context_for(pack=False)
    assert [n.outputs for n in UseSpareCells()(network, packed).layers] == [5, 7]
    assert [n.outputs for n in UseSpareCells()(network, loose).layers] == [10, 7]


def test_text():
    network = UseSpareCells()(network_of(dense_model(4, 5)), context_for())
    assert text_of(network) == [
        "matrix fc0: x -> fc0/spare-columns/outputs: [1x4x10], real weights, inputs as they are",
        "digital fc0/spare-columns: (fc0/spare-columns/outputs) -> (y): Split, Mean",
    ]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_convolutions_in_every_opset(opset):
    """Copies of channels side by side on axis 1; grouped convolutions stay."""
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Conv", ["c", "v"], ["y"], name="grouped", group=2),
    ]
    constants = {"w": rng.normal(size=(4, 2, 2, 2)), "b": rng.normal(size=4), "v": rng.normal(size=(4, 2, 2, 2))}
    model = model_of(nodes, {"x": ["n", 2, 5, 5]}, ["y"], constants, opset=opset)
    network = UseSpareCells()(network_of(model), context_for())
    assert [layer.outputs for layer in network.layers] == [12, 2]
    assert_equals_model(network, model, {"x": rng.normal(size=(3, 2, 5, 5)).astype("f")})


def test_codes_are_copied():
    """Before or after quantize, the copies hold the same codes."""
    network, context = network_of(dense_model(4, 5)), context_for(levels=(-1, 0, 1))
    coder = Quantize(scheme="levels")
    late = UseSpareCells()(coder(network, context), context).layers[0]
    early = coder(UseSpareCells()(network, context), context).layers[0]
    assert np.array_equal(late.weight_code.codes, early.weight_code.codes)
    assert np.array_equal(late.weight_code.codes[..., :5], late.weight_code.codes[..., 5:])
    np.testing.assert_allclose(late.weight_code.dequantized(), early.weight_code.dequantized(), rtol=1e-6)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_spare_rows_go_where_they_help_most(importance, spare):
    """Against every way to hand them out: the least sum of importance / cells^2."""
    from itertools import combinations_with_replacement

    importance = np.array(importance)

    def left(extra):
        cells = 1 + np.bincount(np.array(extra, int), minlength=len(importance))
        return float((importance / cells**2).sum())

    best = min(left(c) for c in combinations_with_replacement(range(len(importance)), spare))
    np.testing.assert_allclose(left(copies_by_need(importance, spare)), best, rtol=1e-9)


def test_copies_of_inputs_make_finer_weights():
    """Four levels and half the rows idle: the data-aware fit has less error with copies than without."""
    feeds = inputs(8, 300)
    model = dense_model(8, 6)
    network, context = network_of(model), context_for(rows=16, columns=6, feeds=feeds, levels=(-1, -1 / 3, 1 / 3, 1))
    coder = Quantize(method="data-aware")
    wanted = run_onnxruntime(model, feeds)["y"]

    def error(each):
        from xbcompile.testing.passes import outputs_of

        return np.square(outputs_of(coder(each, context), feeds)["y"] - wanted).mean()

    assert error(UseSpareCells(inputs="on")(network, context)) < 0.5 * error(network)


def copied_program(**options):
    feeds = {"x": np.random.default_rng(1).random((80, 60), dtype=np.float32)}
    passes = "quantize{scheme=binary},use-spare-cells,thermometer{bits=3},recalibrate{samples=80}"
    model = dense_model(60, 10)
    return model, feeds, xbcompile.compile(model, "mram64", passes=passes, calibration=feeds, packing="none", **options)


def test_reference_of_copies(tmp_path):
    """recalibrate fits each copy to the model's own output, also from the file."""
    model, feeds, program = copied_program()
    program.save(tmp_path / "p.xbar")
    (own,) = run_onnxruntime(model, feeds).values()
    for each in (program, load_program(tmp_path / "p.xbar")):
        assert each.network.layers[0].stands_for == "y"
        (reference,) = reference_outputs(each, feeds)
        np.testing.assert_allclose(np.concatenate(reference), np.tile(own, (1, 6)), atol=1e-5)
    assert load_program(tmp_path / "p.xbar") == program


def test_reference_without_the_model_is_the_ideal_meaning():
    _, feeds, program = copied_program(embed_model=False)
    (reference,) = reference_outputs(program, feeds)
    found = np.concatenate(reference)
    assert found.shape == (80, 60)
    np.testing.assert_allclose(found[:, :10], found[:, 50:])


def test_copies_average_the_errors_of_the_array():
    """Six copies leave about a sixth of the squared error of the device over a copy's own; at most a third here."""
    _, feeds, program = copied_program()
    single = xbcompile.compile(
        dense_model(60, 10),
        "mram64",
        passes="quantize{scheme=binary},thermometer{bits=3},recalibrate{samples=80}",
        calibration=feeds,
        packing="none",
    )
    errors = []
    for each in (program, single):
        ideal = xbcompile.Session(each, device="ideal").run_samples(feeds)["y"]
        found = [xbcompile.Session(each, seed=seed).run_samples(feeds)["y"] for seed in range(2)]
        errors.append(np.mean([np.square(y - ideal).mean() for y in found]))
    assert errors[0] < errors[1] / 3


def test_other_layers_stay():
    network = network_of(convolution_model())
    after = UseSpareCells()(network, context_for(columns=4))
    assert after is network  # two groups; 5 outputs on 4 columns


def test_bad_use():
    network = network_of(dense_model(4, 5))
    for options, message in (
        ({"outputs": -1}, "outputs=-1 is out of range"),
        ({"inputs": "yes"}, "inputs=yes is unknown; allowed: on, off"),
        ({"samples": 0}, "samples=0 is out of range"),
    ):
        with pytest.raises(PassError, match=message):
            UseSpareCells(**options)
    with pytest.raises(PassError, match="needs calibration inputs"):
        UseSpareCells(inputs="on")(network, context_for())
    assert UseSpareCells(outputs=1)(network, context_for()) is network

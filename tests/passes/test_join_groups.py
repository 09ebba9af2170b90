"""join-groups against plain onnxruntime on the exact device, against loops over cells, and counts derived by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of, run_onnxruntime
from xbcompile.errors import PassError, PipelineError
from xbcompile.ir import WeightCode
from xbcompile.passes.contract import PassContext
from xbcompile.passes.join_groups import JoinGroups, block_diagonal, joined_code
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.passes.quantize import Quantize
from xbcompile.targets import load_target
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.testing.passes import assert_equals_model, assert_idempotent, context_of, network_of, spec_with


def grouped_model(
    groups: int, inputs: int = 1, outputs: int = 1, seed: int = 1, **attributes: object
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A 3x3 convolution of so many groups, each of so many channels in and out, and inputs for it."""
    rng = np.random.default_rng(seed)
    conv = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", group=groups, **attributes)
    constants = {"w": rng.normal(size=(groups * outputs, inputs, 3, 3)), "b": rng.normal(size=groups * outputs)}
    model = model_of([conv], {"x": ["n", groups * inputs, 7, 6]}, ["y"], constants)
    return model, {"x": rng.normal(size=(2, groups * inputs, 7, 6)).astype(np.float32)}


def separable_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Two MobileNet blocks: depthwise (the first with stride 2 and multiplier 2), then pointwise."""
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Conv", ["x", "d1"], ["a"], name="depth1", group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
        helper.make_node("Conv", ["b", "p1"], ["c"], name="point1"),
        helper.make_node("Conv", ["c", "d2"], ["d"], name="depth2", group=10, auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Conv", ["e", "p2"], ["y"], name="point2"),
    ]
    constants = {
        "d1": rng.normal(size=(12, 1, 3, 3)),
        "p1": rng.normal(size=(10, 12, 1, 1)),
        "d2": rng.normal(size=(10, 1, 3, 3)),
        "p2": rng.normal(size=(4, 10, 1, 1)),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    model = model_of(nodes, {"x": ["n", 6, 9, 8]}, ["y"], constants)
    return model, {"x": rng.normal(size=(3, 6, 9, 8)).astype(np.float32)}


def array_of(rows: int, columns: int) -> PassContext:
    return context_of(load_target("ideal").with_quantities("test", rows=rows, columns=columns).array_spec)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_block_diagonal_by_loops(results, count, inputs, outputs, seed):
    blocks = np.random.default_rng(seed).integers(1, 9, (results * count, inputs, outputs))
    expected = np.full((results, count * inputs, count * outputs), 7)
    for g, k, m in np.ndindex(blocks.shape):
        expected[g // count, (g % count) * inputs + k, (g % count) * outputs + m] = blocks[g, k, m]
    assert np.array_equal(block_diagonal(blocks, count, 7), expected)


@given(
    st.integers(1, 12), st.integers(1, 2), st.integers(1, 3), st.integers(0, 6), st.integers(9, 64), st.integers(1, 12)
)
@settings(max_examples=40, deadline=None)
def test_equals_onnxruntime_and_joins_the_largest_divisor_that_fits(groups, inputs, outputs, most, rows, columns):
    model, feeds = grouped_model(groups, inputs, outputs, pads=[1, 0, 1, 2], strides=[2, 1])
    network, context = network_of(model), array_of(rows, columns)
    joined = JoinGroups(groups=most)(network, context)
    fits = [
        n
        for n in range(1, groups + 1)
        if groups % n == 0 and n * 9 * inputs <= rows and n * outputs <= columns and n <= (most or groups)
    ]
    count = max(fits, default=1)
    assert joined.layers[0].weights.shape == (groups // count, count * 9 * inputs, count * outputs)
    assert_equals_model(joined, model, feeds)


@pytest.mark.parametrize(("groups", "first", "second"), [(0, (1, 54, 12), (2, 45, 5)), (3, (2, 27, 6), (5, 18, 2))])
def test_depthwise_separable_runs_as_onnxruntime(groups, first, second):
    """On the exact 64x64 array: of 6 groups 6 or 3 are joined, of 10 there are 5 (10 have 90 rows) or 2."""
    model, feeds = separable_model()
    program = xbcompile.compile(model, "ideal", passes=f"join-groups{{groups={groups}}}")
    assert [layer.weights.shape for layer in program.network.layers][0::2] == [first, second]
    found = xbcompile.Session(program).run(feeds)["y"]
    np.testing.assert_allclose(found, run_onnxruntime(model, feeds)["y"], rtol=2e-5, atol=2e-5)


def test_reads_and_images_before_and_after():
    """64 channels on a 64x64 array: 64 tiles of 9x1, 7 to a column of the array, so 10 columns of one image and 64 reads per
    vector; 4 joined (7 would fit, and do not divide 64): 16 tiles of 36x4, side by side in one image, and 16 reads.
    """
    model, _ = grouped_model(64, pads=[1, 1, 1, 1])
    before, after = (xbcompile.compile(model, "ideal", passes=passes) for passes in ("", "join-groups"))
    assert (len(before.schedule.tiles), before.schedule.images) == (64, 1)
    assert (len(after.schedule.tiles), after.schedule.images) == (16, 1)
    used = after.schedule.tiles
    assert set((used["k1"] - used["k0"]).tolist()) == {36}
    assert set((used["m1"] - used["m0"]).tolist()) == {4}


def test_ternary_codes_and_scales_stay_and_the_device_reads_the_same():
    """What quantize fitted without the zeros is what each group still has; the network's meaning does not change at all."""
    model, feeds = grouped_model(8, outputs=2)
    coded = Quantize(scheme="ternary")(network_of(model), context_of("sot"))
    joined = JoinGroups()(coded, context_of("sot"))
    before, after = coded.layers[0].weight_code, joined.layers[0].weight_code
    assert after.codes.shape == (2, 36, 8)  # of 64 rows: 7 groups would fit, 4 divide 8
    assert np.array_equal(after.scale.ravel(), before.scale.ravel())
    assert np.array_equal(after.dequantized(), block_diagonal(before.dequantized(), 4, 0.0))
    assert np.count_nonzero(after.cell_values()) == np.count_nonzero(before.cell_values())

    passes = "quantize{scheme=ternary},join-groups,analogue"
    plain, program = (
        xbcompile.compile(model, "sot", passes=p, calibration=feeds)
        for p in (passes.replace("join-groups,", ""), passes)
    )
    exact = [xbcompile.Session(p, device=IdealArray(p.spec)).run(feeds)["y"] for p in (plain, program)]
    np.testing.assert_allclose(exact[1], exact[0], rtol=1e-6, atol=1e-6)


def test_levels_without_zero_become_values_where_cells_are_real():
    rng = np.random.default_rng(3)
    levels = np.array([-1, 0.5], np.float32)
    ones = np.ones((4, 2), np.float32)
    code = WeightCode(levels, rng.integers(0, 2, (4, 3, 2)).astype(np.uint8), ones, 0 * ones)
    joined = joined_code(code, 2)
    assert joined.levels is None
    assert np.array_equal(joined.dequantized(), block_diagonal(code.dequantized(), 2, 0.0))


def test_layers_of_one_matrix_still_share_it():
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=4, pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Conv", ["a", "w"], ["y"], group=4, pads=[1, 1, 1, 1], name="second"),
    ]
    model = model_of(nodes, {"x": ["n", 4, 5, 5]}, ["y"], {"w": rng.normal(size=(4, 1, 3, 3))})
    for passes, target in (
        ("join-groups", "ideal"),
        ("quantize{scheme=ternary},join-groups,analogue{low=0 high=1}", "sot"),
    ):
        program = xbcompile.compile(model, target, passes=passes)
        assert program.network.matrices == (0, 0)
        assert program.network.layers[1].weights.shape == (1, 36, 4)


def test_nothing_to_join_and_nothing_left_to_join():
    model, _ = grouped_model(5)
    network = network_of(model)
    assert JoinGroups(groups=4)(network, context_of("ideal")) is network  # 5 is prime
    assert JoinGroups()(network, array_of(17, 64)) is network
    assert JoinGroups()(network, context_of("m2tj4")) is network  # does not fit, so its levels do not matter
    assert_idempotent(JoinGroups(), JoinGroups()(network, context_of("ideal")), context_of("ideal"))


def test_refusals_say_why():
    model, _ = grouped_model(4)
    network = network_of(model)
    no_zero = spec_with([-1, 1], target="sot")
    with pytest.raises(PassError, match="'conv': its 4 groups cannot be joined: the array's 2 levels have no 0"):
        JoinGroups()(network, context_of(no_zero))
    with pytest.raises(PassError, match="not coded yet; put join-groups behind quantize"):
        JoinGroups()(network, context_of("sot"))
    with pytest.raises(PassError, match="not coded yet"):
        JoinGroups()(network, context_of("memristor20"))
    weighted = replace(spec_with([-1, 0, 1], target="sot"), row_weight=np.linspace(0.5, 1.5, 64))
    with pytest.raises(PassError, match="rows weigh differently"):
        JoinGroups()(network, context_of(weighted))
    coded = Quantize(scheme="ternary")(network, context_of("sot"))
    layer = coded.layers[0]
    shifted = replace(layer, weight_code=replace(layer.weight_code, offset=layer.weight_code.offset + 1))
    with pytest.raises(PassError, match="its code has offsets"):
        JoinGroups()(coded.with_layers([shifted]), context_of("sot"))
    with pytest.raises(PipelineError, match="groups=-1 is out of range; allowed: 1 or more, or 0"):
        parse_pipeline("join-groups{groups=-1}")

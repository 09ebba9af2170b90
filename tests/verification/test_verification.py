"""Every corruption of a program's tables and codes is found, or leaves the program equivalent.

What cannot be found, because the corrupted program computes the same in the same time:
- tiles.row and tiles.column, where the tile moves onto free cells and all rows count alike;
- column_permutation, where the corrupted row is still a bijection (where columns sit is arbitrary);
- steps.start_s and end_s together, where the step moves into a gap of its array and of its layer's order;
- codes, scale, offset and bias, where the host graph holds the same values (then it is another program, not a wrong one).
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import xbcompile
from tests.support.model_kit import model_of
from tests.support.small_programs import convolution_model, convolution_program, images
from xbcompile.ir import Schedule
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.verification import schedule_checks
from xbcompile.verification.differences import differences
from xbcompile.verification.verify import _differences, verify

TILE_FIELDS = ("layer", "group", "k0", "k1", "m0", "m1", "image", "row", "column")


def corrupted(program: Program, **tables: object) -> Program:
    """The program with other schedule fields."""
    return replace(program, schedule=replace(program.schedule, **tables))


def with_entry(program: Program, table: str, field: str | None, index: object, value: object) -> Program:
    """The program with one entry of one table replaced."""
    changed = getattr(program.schedule, table).copy()
    (changed if field is None else changed[field])[index] = value
    return corrupted(program, **{table: changed})


def with_weight_code(program: Program, layer: int, **fields: object) -> Program:
    """The program with another weight code, its host graph as it was: what a damaged file would hold."""
    node = program.network.layers[layer]
    code = replace(node.weight_code, **fields)
    result = replace(program, network=program.network.with_layers([replace(node, weight_code=code)]))
    result.__dict__["host_graph"] = program.host_graph
    return result


def same_outputs(program: Program, other: Program) -> bool:
    feeds = {"x": images(3, 2, 4, 4)}
    left, right = (Session(p, "ideal").run(feeds)["y"] for p in (program, other))
    return bool(np.allclose(left, right, rtol=1e-6, atol=1e-6))


@pytest.mark.parametrize("arrays", [0, 1, 2, 5])
@pytest.mark.parametrize("target", ["m2tj4", "mram64", "ideal"])
def test_a_right_program_has_no_findings(target: str, arrays: int) -> None:
    passes = {"m2tj4": "quantize,analogue", "mram64": None, "ideal": None}[target]
    assert verify(convolution_program(target, passes, arrays=arrays)) == []


@pytest.mark.parametrize("change", [-1, 1, 1000, -1000])
@pytest.mark.parametrize("field", TILE_FIELDS)
@pytest.mark.parametrize("target", ["m2tj4", "mram64"])
def test_each_field_of_each_tile_is_checked(target: str, field: str, change: int) -> None:
    program = convolution_program(target, None if target == "mram64" else "quantize,analogue{low=0 high=1}")
    found = 0
    for tile in range(len(program.schedule.tiles)):
        other = with_entry(program, "tiles", field, tile, program.schedule.tiles[field][tile] + change)
        if verify(other):
            found += 1
        else:
            assert field == "column" or (field == "row" and target == "m2tj4")
            assert same_outputs(program, other)
    assert found > 0


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.lists(st.tuples(st.sampled_from(TILE_FIELDS), st.integers(0, 17), st.integers(-2, 12)), min_size=1, max_size=4)
)
def test_random_corruptions_of_tiles_are_found_or_harmless(entries: list[tuple[str, int, int]]) -> None:
    program = convolution_program()
    other = program
    for field, tile, value in entries:
        other = with_entry(other, "tiles", field, tile % len(program.schedule.tiles), value)
    assert verify(other) or same_outputs(program, other)


def test_exchanged_tiles_are_found() -> None:
    program = convolution_program()
    tiles = program.schedule.tiles
    for first in range(len(tiles) - 1):
        exchanged = tiles.copy()
        exchanged[[first, first + 1]] = tiles[[first + 1, first]]
        # Steps name tiles by index: the exchanged ones are in other images, or other layers' order breaks.
        other = corrupted(program, tiles=exchanged)
        assert verify(other) or same_outputs(program, other)


def test_a_tile_left_out_or_doubled_is_found() -> None:
    program = convolution_program()
    tiles = program.schedule.tiles
    assert any("in no tile" in finding for finding in verify(corrupted(program, tiles=tiles[:-1])))
    doubled = np.concatenate([tiles, tiles[-1:]])
    assert any("in more than one tile" in finding for finding in verify(corrupted(program, tiles=doubled)))


def test_overlapping_tiles_are_named() -> None:
    program = convolution_program()
    tiles = program.schedule.tiles
    shared = np.flatnonzero(np.bincount(tiles["image"])[tiles["image"]] > 1)
    first, second = np.flatnonzero(tiles["image"] == tiles["image"][shared[0]])[:2]
    moved = tiles.copy()
    for field in ("row", "column"):
        moved[field][[first, second]] = 0
    findings = verify(corrupted(program, tiles=moved), equivalence=False)
    assert findings == [f"tiles: tile {second} overlaps another in image {tiles['image'][first]}"]


@pytest.mark.parametrize("value", [-1, 2, "other"])
def test_each_image_is_on_the_array_that_its_steps_use(value: int | str) -> None:
    program = convolution_program()
    for image in range(program.schedule.images):
        array = 1 - program.schedule.copies["array"][image] if value == "other" else value
        findings = verify(with_entry(program, "copies", "array", image, array))
        assert any("array" in finding for finding in findings)


def test_column_permutations_must_be_bijections() -> None:
    program = convolution_program()
    permutation = program.schedule.column_permutation
    for image in range(program.schedule.images):
        doubled = with_entry(program, "column_permutation", None, (image, 0), permutation[image, 1])
        assert any(f"image {image} has no bijection" in finding for finding in verify(doubled))
        beyond = with_entry(program, "column_permutation", None, (image, 2), 4)
        assert any(f"image {image} has no bijection" in finding for finding in verify(beyond))
        other = with_entry(program, "column_permutation", None, image, np.roll(permutation[image], 1))
        assert verify(other) == []  # still a bijection:
        assert same_outputs(program, other)
    assert verify(corrupted(program, column_permutation=permutation[:-1]))
    short = corrupted(program, column_permutation=permutation[:, :-1])
    assert any("permutations: table has shape" in finding for finding in verify(short))


@pytest.mark.parametrize("field", ["operation", "array", "image", "tile", "use", "rows", "start_s", "end_s"])
@pytest.mark.parametrize("change", [-1, 1, 200])
def test_each_field_of_each_step_is_checked(field: str, change: int) -> None:
    program = convolution_program()
    steps = program.schedule.steps
    unit = 1e-7 if field.endswith("_s") else 1  # a tenth of a read
    for step in range(len(steps)):
        value = float(steps[field][step]) + change * unit
        if field == "operation":
            value = {1: 1 - int(steps["operation"][step]), 200: 7, -1: 2}[change]
        assert verify(with_entry(program, "steps", field, step, value)), f"step {step}"


@pytest.mark.parametrize("target", ["m2tj4", "ideal"])
def test_exchanged_steps_are_found_unless_their_order_is_free(target: str) -> None:
    """Where steps take no time (ideal), the order of the table alone says what comes first."""
    program = convolution_program(target, None if target == "ideal" else "quantize,analogue")
    steps = program.schedule.steps
    reads = np.flatnonzero(steps["operation"] == READ)
    layer = program.schedule.tiles["layer"][steps["tile"][reads]]
    pairs = [(int(reads[layer == 0][0]), int(reads[layer == 1][-1]))]
    pairs += [(int(write), int(reads[0])) for write in np.flatnonzero(steps["operation"] == WRITE)[:1]]
    for pair in pairs:
        exchanged = steps.copy()
        exchanged[list(pair)] = steps[list(pair[::-1])]
        assert verify(corrupted(program, steps=exchanged)), pair


def test_reads_of_each_others_tiles_are_found() -> None:
    """Two reads of one layer in different images exchange their tiles: each reads what its array does not hold."""
    program = convolution_program()
    steps = program.schedule.steps
    layer = program.schedule.tiles["layer"][steps["tile"]]
    reads = np.flatnonzero((steps["operation"] == READ) & (layer == 0))
    first, second = reads[0], reads[steps["image"][reads] != steps["image"][reads[0]]][0]
    exchanged = steps.copy()
    exchanged["tile"][[first, second]] = steps["tile"][[second, first]]
    assert verify(corrupted(program, steps=exchanged)) == [
        "steps: a read names another image than the one that holds its tile"
    ]


def test_a_step_left_out_or_doubled_is_found() -> None:
    program = convolution_program()
    steps = program.schedule.steps
    for step in range(len(steps)):
        assert verify(corrupted(program, steps=np.delete(steps, step))), f"without step {step}"
        assert verify(corrupted(program, steps=np.insert(steps, step, steps[step]))), f"step {step} twice"


@pytest.mark.parametrize(
    ("fields", "finding"),
    [
        ({"rows": 5}, "array of 5x4"),
        ({"columns": 3}, "outside its 4x3 array|array of 4x3"),
        ({"arrays": 1}, "array indices outside"),
        ({"batch": 2}, "does not last as long"),
        ({"batch": 0}, "batch is 0"),
        ({"period_s": 1e-9}, "batches overlap"),
        ({"period_s": 0.0}, "batches overlap"),
        ({"setup_s": 1e-6}, "setup takes"),
        ({"initial": np.array([0, -1], np.int32)}, "has no copy|at the end of a batch|before its image"),
        ({"initial": np.array([0, -1, -1], np.int32)}, "initial images: table has shape"),
        ({"images_lower_bound": 1000}, "lower bound of images"),
        ({"images_lower_bound": 1}, "lower bound of images"),
        ({"weight_updates_lower_bound": 1000}, "lower bound of weight updates"),
        ({"makespan_lower_bound_s": 1000.0}, "lower bound of makespan"),
        ({"period_lower_bound_s": 1000.0}, "lower bound of period"),
    ],
)
def test_what_the_schedule_says_of_itself_is_checked(fields: dict[str, object], finding: str) -> None:
    findings = verify(corrupted(convolution_program(), **fields))
    assert any(re.search(finding, each) for each in findings), findings


def test_images_that_no_one_writes_are_missed() -> None:
    program = convolution_program(arrays=0)
    schedule = program.schedule
    assert schedule.stationary
    assert not schedule.steps["operation"].any() or not len(schedule.writes)
    for array in range(schedule.arrays):
        findings = verify(with_entry(program, "initial", None, array, -1))
        assert any("before its image is written" in each for each in findings), findings


def test_batches_may_overlap_where_no_array_serves_two_at_a_time() -> None:
    """Stationary weights: a period of the busiest array's time is enough only where each array's reads fit together."""
    program = convolution_program(arrays=0)
    steps = program.schedule.steps
    busy = np.bincount(steps["array"], weights=steps["end_s"] - steps["start_s"])
    assert any("for two batches at a time" in f for f in verify(corrupted(program, period_s=0.9 * float(busy.max()))))
    apart = [
        period
        for period in np.linspace(float(busy.max()), program.schedule.makespan_s, 60)
        if not _collide(steps, float(period))
    ]
    for period in (*apart, program.schedule.makespan_s):
        assert verify(corrupted(program, period_s=float(period))) == []
    for period in np.linspace(float(busy.max()), program.schedule.makespan_s * 0.999, 60):
        assert bool(verify(corrupted(program, period_s=float(period)))) == _collide(steps, float(period))


def test_a_step_that_reaches_into_the_next_batch_is_seen() -> None:
    """Reads of one array at 0 to 1 and 3 to 4: every 3.5 the second meets the first of the next batch, every 4 it does not."""
    schedule = convolution_program(arrays=0).schedule
    steps = schedule.steps[:2].copy()
    steps["array"], steps["start_s"], steps["end_s"] = 0, [0.0, 3.0], [1.0, 4.0]
    for period, findings in ((3.5, 1), (2.0, 0), (3.9999, 1)):  # every 2: at 0 to 1 and 1 to 2
        found = schedule_checks._overlapping_batches(replace(schedule, steps=steps, period_s=period))
        assert len(found) == findings, period


def test_copies_are_in_order_and_apart() -> None:
    program = convolution_program(arrays=0)
    copies = program.schedule.copies
    for wrong in (copies[::-1], np.concatenate([copies[:1], copies])):
        assert any("not in order of image" in each for each in verify(corrupted(program, copies=wrong)))


def _collide(steps: np.ndarray, period: float) -> bool:
    """Whether two steps of one array meet when every batch of many starts a period after the one before."""
    spans = [
        (int(array), start + batch * period, end + batch * period)
        for batch in range(12)
        for array, start, end in zip(steps["array"], steps["start_s"], steps["end_s"], strict=True)
    ]
    spans.sort()
    tolerance = 1e-6 * period
    return any(one[0] == two[0] and two[1] < one[2] - tolerance for one, two in pairwise(spans))


@pytest.mark.parametrize(
    ("quantity", "value", "finding"),
    [("writes_at_a_time", 1, "written at a time"), ("writes_while_reading", 0, "while another")],
)
def test_what_the_target_allows_of_writes_is_checked(quantity: str, value: int, finding: str) -> None:
    program = convolution_program()
    target = program.target.with_quantities("test", **{quantity: value})
    findings = verify(replace(program, target=target))
    assert any(finding in each for each in findings), findings


def test_each_code_is_compared_with_the_host_graph() -> None:
    program = convolution_program()
    for layer, node in enumerate(program.network.layers):
        for position in range(0, node.weights.size, 7):
            codes = node.weight_code.codes.copy()
            codes.flat[position] ^= 1
            findings = verify(with_weight_code(program, layer, codes=codes))
            assert findings == [f"codes: layer {node.name!r} differs from the host graph's"]


@pytest.mark.parametrize("target", ["m2tj4", "mram64", "ideal"])
def test_each_cell_that_is_written_is_compared_with_the_codes(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the inputs are: one wrong cell under any weight is found, one where no tile sits harms nothing."""
    program = convolution_program(target, None if target != "m2tj4" else "quantize,analogue")
    cells, schedule = Program.cells, program.schedule
    for image in range(schedule.images):
        used = np.zeros((schedule.rows, schedule.columns), bool)
        for tile in schedule.tiles[schedule.tiles["image"] == image]:
            columns = schedule.column_permutation[image, tile["column"] :][: tile["m1"] - tile["m0"]]
            used[tile["row"] : tile["row"] + tile["k1"] - tile["k0"], columns] = True
        for k, m in [*np.argwhere(used)[::23].tolist(), *np.argwhere(~used)[:2].tolist()]:

            def corrupted_cells(
                self: Program, images: np.ndarray, at: tuple[int, int, int] = (image, k, m)
            ) -> np.ndarray:
                wrong = cells(self, images).copy()
                wrong[images == at[0], at[1], at[2]] += 1
                return wrong

            monkeypatch.setattr(Program, "cells", corrupted_cells)
            found = [each for each in verify(program, equivalence=False) if each.startswith("cells")]
            assert len(found) == used[k, m]
            assert all(f"cells: image {image} does not hold the codes of layer" in each for each in found)


def test_codes_beyond_the_level_table_are_found() -> None:
    program = convolution_program()
    codes = program.network.layers[0].weight_code.codes.copy()
    codes[1, 2, 0] = 4
    assert any("beyond the target's 4 levels" in each for each in verify(with_weight_code(program, 0, codes=codes)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["scale", "offset"])
def test_scales_and_offsets_must_be_finite(field: str, value: float) -> None:
    program = convolution_program()
    values = getattr(program.network.layers[1].weight_code, field).copy()
    values[0, 3] = value
    findings = verify(with_weight_code(program, 1, **{field: values}))
    assert findings == [f"codes: layer 'fc' has a {field} that is not finite"]


def test_a_bias_must_be_finite() -> None:
    program = convolution_program()
    layer = program.network.layers[0]
    bias = layer.bias.copy()
    bias[2] = np.nan
    other = replace(program, network=program.network.with_layers([replace(layer, bias=bias)]))
    assert verify(other) == ["codes: layer 'conv' has a bias that is not finite"]


@pytest.mark.parametrize("field", ["scale", "offset"])
def test_scales_and_offsets_are_compared_with_the_host_graph(field: str) -> None:
    program = convolution_program()
    for layer, node in enumerate(program.network.layers):
        values = getattr(node.weight_code, field) + np.float32(0.01)
        findings = verify(with_weight_code(program, layer, **{field: values}))
        assert len(findings) == 1
        assert f"equivalence: layer {node.name!r} differs from the host graph" in findings[0]


def test_row_weights_must_be_those_of_the_rows() -> None:
    """mram64 weighs row 0 by 1.653 and row 63 by 0.347: a code made for other rows is wrong by the ratio."""
    program = convolution_program("mram64", None)
    weight = program.network.layers[1].weight_code.row_weight
    findings = verify(with_weight_code(program, 1, row_weight=weight[:, ::-1]))
    assert len(findings) == 1
    assert "equivalence: layer 'fc'" in findings[0]


def test_a_layer_without_code_is_found() -> None:
    program = convolution_program()
    layer = replace(program.network.layers[0], weight_code=None)
    other = corrupted(program)
    other = replace(other, network=program.network.with_layers([layer]))
    assert "codes: layer 'conv' has none" in verify(other)


def test_compiling_refuses_a_wrong_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is verified before it is returned: a broken tiler cannot hand one out."""
    from xbcompile.api import compiling
    from xbcompile.errors import VerifyError
    from xbcompile.tiler.reuse.reuse_cells import reuse_cells

    def broken(*args: object, **options: object) -> Schedule:
        schedule = reuse_cells(*args, **options)
        tiles = schedule.tiles.copy()
        tiles["k0"][0] = 1
        return replace(schedule, tiles=tiles)

    monkeypatch.setattr(compiling, "reuse_cells", broken)
    with pytest.raises(VerifyError, match="weights of layer 'conv' are in no tile") as caught:
        xbcompile.compile(convolution_model(), "ideal")
    assert len(caught.value.findings) == 1


def test_a_model_with_open_sizes_is_verified_layer_by_layer() -> None:
    """No guess of the open size fits the matrix: the layer runs alone, and a wrong scale is found all the same."""
    nodes = [helper.make_node("Softmax", ["x"], ["s"]), helper.make_node("MatMul", ["s", "w"], ["y"], name="m")]
    weights = np.random.default_rng(0).normal(size=(5, 3))
    program = xbcompile.compile(model_of(nodes, {"x": ["n", "k"]}, ["y"], {"w": weights}), "ideal")
    assert verify(program) == []
    findings = verify(with_weight_code(program, 0, scale=np.full((1, 3), 1.01, np.float32)))
    assert len(findings) == 1
    assert "equivalence: layer 'm' differs from the host graph" in findings[0]


def test_rounding_is_measured_against_the_range_of_the_input_code() -> None:
    """Inputs in 0..1 far below a range of 1e6: drives stand for the whole range, and so does their rounding."""
    passes = "quantize{scheme=binary},thermometer{bits=8 low=-1e6 high=1e6}"
    assert verify(convolution_program("mram64", passes)) == []


def whole_model() -> onnx.ModelProto:
    """A 3 x 3 convolution of bytes with 8 kernels of 8-bit weights, requantized; real inputs in front."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {"w": np.clip(np.rint(rng.normal(size=(8, 1, 3, 3)) * 25), -127, 127).astype(np.int8)}
    constants |= {"s": np.float32(1 / 255), "z": np.uint8(0), "sw": np.float32(0.01), "zw": np.int8(0)}
    constants |= {"sy": np.float32(0.04), "zy": np.uint8(100)}
    names = ["q", "s", "z", "w", "sw", "zw", "sy", "zy"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", names, ["y"], name="conv", pads=[1] * 4),
    ]
    return model_of(nodes, {"x": [16, 1, 6, 6]}, ["y"], constants)


@pytest.mark.parametrize("target", ["mram64", "m2tj4"])
def test_whole_sums_at_a_tie_may_be_rounded_to_either_side(target: str) -> None:
    """Float32 and float64 sums of 34,000 differ by 1e-3: among 4,608 of them some are that near a half."""
    program = xbcompile.compile(whole_model(), target, calibration=None, effort=0)
    (layer,) = program.network.layers
    assert layer.element_type == onnx.TensorProto.INT32
    wrong = layer.weight_code.scale * np.float32(1.0001)
    assert "layer 'conv' differs" in verify(with_weight_code(program, 0, scale=wrong))[0]


@pytest.mark.parametrize(
    ("exact", "reference", "found"),
    [(10.4, 11, 1), (10.4999, 11, 0), (10.5001, 10, 0), (-3.5001, -3, 0), (10.5, 12, 2), (10.0, 11, 1), (10.0, 10, 0)],
)
def test_only_ties_may_differ_and_by_one_only(exact: float, reference: int, found: int) -> None:
    """Sums of a size of 1,000 are equal to 0.02; whole ones, as exact codes give, are never near a tie."""
    (layer,) = convolution_program().network.layers[1:]
    layer = replace(layer, element_type=onnx.TensorProto.INT32, input_code=None)
    x = np.full((1, layer.inputs), 1000 / np.abs(layer.weights).sum(axis=1).max()).astype(np.float32)
    layer = replace(layer, bias=np.zeros_like(layer.bias))
    findings = _differences(layer, x.astype(np.int32), np.array([exact]), np.array([reference], np.int32))
    assert len(findings) == bool(found)
    assert not findings or f"layer 'fc' differs from the host graph by {found} of " in findings[0]


@pytest.mark.parametrize("operator", ["MatMul", "Einsum"])
def test_a_layer_whose_output_is_a_number_is_compared_like_any_other(operator: str) -> None:
    """The product of two vectors has no axis; what is no number equals itself, and nothing else."""
    attributes = {"equation": "i,i"} if operator == "Einsum" else {}
    w = np.arange(3, dtype=np.float32)
    model = model_of([helper.make_node(operator, ["x", "w"], ["y"], **attributes)], {"x": [3]}, ["y"], {"w": w})
    program = xbcompile.compile(model, "ideal")
    assert len(program.network.layers) == 1
    assert Session(program).run({"x": w + 1})["y"] == 8.0
    number, nothing = np.float32(1.5), np.float32(np.nan)
    pairs = ((number, number + 1), (nothing, nothing), (number, nothing), (nothing, number))
    assert [float(differences(np.array(a), np.array(b))) for a, b in pairs] == [1.0, 0.0, np.inf, np.inf]

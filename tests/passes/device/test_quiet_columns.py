"""quiet-columns against brute force over permutations, and chips whose errors are known."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xbcompile
from tests.support.device_kit import chip_view
from tests.support.small_programs import CODED, convolution_model, dense_model, images
from xbcompile.errors import PassError, PipelineError
from xbcompile.ir import Schedule
from xbcompile.passes.device.calibrate_offsets import column_offset
from xbcompile.passes.device.quiet_columns.assignment import TileColumnErrors, TileColumns, mean_errors, sweep
from xbcompile.passes.device.quiet_columns.measure import (
    columns_of_tiles,
    errors_on_columns,
    errors_on_images,
    sensitivity,
)
from xbcompile.passes.device.quiet_columns.quiet_columns import QuietColumns
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.runtime import Session, commission
from xbcompile.runtime.placed import no_corrections
from xbcompile.targets import LoadedImages
from xbcompile.targets.families.ideal import IdealArray


class ErringArray(IdealArray):
    """Exact but for its columns: reading = gain[array, column] * exact + shift[array, column]."""

    def __init__(self, spec, gain: np.ndarray, shift: np.ndarray) -> None:
        super().__init__(spec)
        self.gain, self.shift = gain, shift

    def load(self, written):
        return _Erring(super().load(written), self.gain[written.arrays], self.shift[written.arrays])


class _Erring(LoadedImages):
    def __init__(self, exact, gain, shift) -> None:
        self.exact, self.gain, self.shift = exact, gain, shift

    def read(self, drives, reads):
        exact = self.exact.read(drives, reads)
        return self.gain[:, None, None] * exact + self.shift[:, None, None]


def measured(program, chip: ErringArray) -> TileColumnErrors:
    """Errors as the program's own pass measures them, with each output as important as any."""
    (each,) = [p for p in parse_pipeline(program.pipeline) if isinstance(p, QuietColumns)]
    view, corrections = chip_view(program, chip), no_corrections(program)
    importance = [np.ones(layer.groups * layer.outputs) for layer in program.network.layers]
    used = columns_of_tiles(program.schedule, corrections, sensitivity(view, importance))
    if each.measure == "columns":
        return errors_on_columns(view, each.patterns, each.vectors, used)
    return errors_on_images(view, program.calibration, each.vectors, corrections, used)


def program_of(passes: str, target: str = "m2tj4", model=None, **options):
    model = dense_model(6, 4, 3) if model is None else model
    feeds = {"x": images(60, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]))}
    return xbcompile.compile(model, target, passes=f"{CODED},{passes}", calibration=feeds, **options)


def chip_of(program, seed: int = 0, gain: float = 0.2, shift: float = 0.0) -> ErringArray:
    rng, shape = np.random.default_rng(seed), (program.schedule.arrays, program.spec.columns)
    return ErringArray(program.spec, 1 + gain * rng.normal(size=shape), shift * rng.normal(size=shape))


def layer_error(session: Session) -> float:
    """Mean squared error of the first layer's outputs on inputs that nothing was measured on."""
    dims = session.program.network.inputs[0].type.tensor_type.shape.dim[1:]
    x = images(200, *(dim.dim_value for dim in dims), seed=9)
    exact = Session(session.program, device=IdealArray(session.program.spec)).executors[0]
    return float(np.square(session.executors[0].run(x) - exact.run(x)).mean())


@given(st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_assign_is_the_best_of_all_permutations(columns, seed):
    rng = np.random.default_rng(seed)
    cost, start = rng.normal(size=(columns, columns)), rng.permutation(columns)
    found = QuietColumns().assign(cost, start)
    assert sorted(found.tolist()) == list(range(columns))
    least = min(sum(cost[m, p] for m, p in enumerate(each)) for each in permutations(range(columns)))
    assert cost[np.arange(columns), found].sum() == pytest.approx(least)


@given(st.integers(1, 30), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_assign_sorts_where_the_cost_is_a_product(columns, seed):
    """Rearrangement inequality: the column that matters most on the one that errs least."""
    rng = np.random.default_rng(seed)
    matters, errs = rng.random(columns), rng.random(columns)
    found = QuietColumns().assign(np.outer(matters, errs), np.arange(columns))
    assert (matters * errs[found]).sum() == pytest.approx((np.sort(matters) * np.sort(errs)[::-1]).sum())


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_assign_refuses_costs_without_number(number):
    """Errors may be finite, and their squares not: those of a program whose weights fill float32."""
    with pytest.raises(PassError, match=r"not finite .* or too large for their squares"):
        QuietColumns().assign(np.array([[1.0, number], [0.0, 1.0]]), np.arange(2))


def test_assign_keeps_what_cannot_be_better():
    start = np.array([2, 0, 1])
    assert QuietColumns().assign(np.ones((3, 3)), start) is start


def errors_of(rng: np.random.Generator, tiles: int, columns: int, outputs: int) -> TileColumnErrors:
    """Tiles as wide as the array, one image each but for the last two, which share theirs."""
    shape = (tiles * columns, columns)
    entries = TileColumns(
        tile=np.repeat(np.arange(tiles), columns),
        image=np.repeat(np.minimum(np.arange(tiles), max(tiles - 2, 0)), columns),
        logical=np.tile(np.arange(columns), tiles),
        output=np.tile(np.arange(columns), tiles) % outputs,
        weight=np.tile((1 + np.arange(columns) % outputs).astype(float), tiles),
        sign=rng.choice([-1.0, 1.0], tiles * columns),
    )
    mean = rng.normal(size=shape)
    return TileColumnErrors(entries, np.arange(len(mean)), mean, np.square(mean) + rng.random(shape))


def whole_cost(errors: TileColumnErrors, column: np.ndarray, offset: np.ndarray) -> float:
    """Mean squared errors of outputs, by loops: variances add up, and means before they are squared."""
    total, cost, e = {}, 0.0, errors.entries
    for i in range(len(e.tile)):
        p = column[e.image[i], e.logical[i]]
        cost += e.weight[i] * (errors.power[i, p] - errors.mean[i, p] ** 2)
        total.setdefault((e.output[i], e.weight[i]), []).append(e.sign[i] * (errors.mean[i, p] + offset[e.image[i], p]))
    return cost + sum(weight * sum(means) ** 2 for (_, weight), means in total.items())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_sweep_never_raises_the_error(tiles, columns, outputs, seed):
    rng = np.random.default_rng(seed)
    errors = errors_of(rng, tiles, columns, outputs)
    count = int(errors.entries.image.max()) + 1
    offset, column = rng.normal(size=(count, columns)), rng.permuted(np.tile(np.arange(columns), (count, 1)), axis=1)
    before = whole_cost(errors, column, offset)
    runs = [np.flatnonzero(errors.entries.image == image) for image in range(count)]
    sweep(errors, column, offset, QuietColumns().assign, runs)
    assert whole_cost(errors, column, offset) <= before + 1e-9
    assert np.array_equal(np.sort(column, axis=1), np.tile(np.arange(columns), (count, 1)))


@pytest.mark.parametrize("seed", range(10))
def test_a_sweep_over_one_image_finds_the_best_of_all_permutations(seed):
    rng = np.random.default_rng(seed)
    errors, offset = errors_of(rng, 1, 4, 4), rng.normal(size=(1, 4))
    column = rng.permutation(4)[None]
    sweep(errors, column, offset, QuietColumns().assign, [np.arange(4)])
    least = min(whole_cost(errors, np.array([each]), offset) for each in permutations(range(4)))
    assert whole_cost(errors, column, offset) == pytest.approx(least)


def test_every_layer_output_has_a_number_of_its_own():
    """10 outputs in column strips of 4 or fewer on 4x4 arrays, then a second layer; tiles of one output share its number."""
    program = program_of("quiet-columns{measure=columns weigh=scale}", model=dense_model(6, 10, 3))
    e = measured(program, chip_of(program)).entries
    tiles = program.schedule.tiles[e.tile]
    outputs = tiles["m0"] + e.logical - tiles["column"]
    pairs = set(zip(tiles["layer"].tolist(), outputs.tolist(), strict=True))
    assert len(pairs) == 13
    assert len(set(zip(tiles["layer"].tolist(), outputs.tolist(), e.output.tolist(), strict=True))) == 13
    assert len(set(e.output.tolist())) == 13
    unit = [
        layer.weight_code.scale[0] * (layer.input_code.high - layer.input_code.low) for layer in program.network.layers
    ]
    expected = [float(unit[layer][m]) ** 2 for layer, m in zip(tiles["layer"], outputs, strict=True)]
    np.testing.assert_allclose(e.weight, expected, rtol=1e-5)


def test_copies_of_an_image_are_all_measured():
    table = np.array([(0, 0), (0, 2), (1, 1)], [("image", "<i4"), ("array", "<i4")])
    schedule = cast(Schedule, SimpleNamespace(copies=table))
    assert Schedule.arrays_of(schedule, np.array([1, 0])).tolist() == [[1, 1], [0, 2]]


def test_offsets_are_those_that_calibrate_offsets_would_fit():
    """Minus the mean error of the columns where they sit, image 0 and 1 in array 1, in whole codes of 0.5."""
    errors = errors_of(np.random.default_rng(6), 3, 3, 3)
    column, array = np.array([[2, 0, 1], [0, 1, 2]]), np.array([1, 1])
    found = column_offset(mean_errors(errors, column, array, 2), 0.5)
    expected = np.zeros((2, 3))
    for p in range(3):
        here = [
            i
            for i, (g, m) in enumerate(zip(errors.entries.image, errors.entries.logical, strict=True))
            if column[g, m] == p
        ]
        expected[1, p] = -0.5 * np.rint(np.mean([errors.mean[i, p] for i in here]) / 0.5)
    np.testing.assert_allclose(found, expected)
    assert np.any(expected)


@pytest.mark.parametrize("measure", ["images", "columns"])
@pytest.mark.parametrize("arrays", [0, 1])
def test_measured_errors_are_those_of_the_chip(measure, arrays):
    """A column of gain g and shift b errs by (g - 1) y + b: mean and mean square follow from the exact sums y."""
    program = program_of(f"quiet-columns{{measure={measure}}}", arrays=arrays)
    chip = chip_of(program, shift=0.1)
    chip.gain[:] = 1.0
    found = measured(program, chip)
    array = program.schedule.copies["array"][found.entries.image]
    np.testing.assert_allclose(found.mean[found.row], chip.shift[array], atol=1e-6)
    np.testing.assert_allclose(found.power[found.row], np.square(chip.shift[array]), atol=1e-6)


def test_chosen_columns_are_the_best_of_all_permutations():
    """One matrix of 4x4 in one image: all 24 permutations, the error of each by running it on the chip."""
    program = program_of("quiet-columns{weigh=scale}", model=dense_model(4, 4))
    chip = chip_of(program, seed=3)
    session = Session(program, device=chip)
    x, weight = images(60, 4), program.network.layers[0].weight_code.scale[0].astype(np.float64)
    plain = replace(program, calibration={})
    exact = Session(plain, device=IdealArray(program.spec)).executors[0].run(x)

    def error(columns) -> float:
        schedule = replace(program.schedule, column_permutation=np.array([columns], np.uint16))
        found = Session(replace(plain, schedule=schedule), device=chip).executors[0].run(x)
        return float(np.square(found - exact).mean())

    assert weight.std() > 0
    least = min(error(columns) for columns in permutations(range(4)))
    assert error(session.placed.cells.column_permutation[0]) == pytest.approx(least)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("passes", ["", ",calibrate-offsets", ",recalibrate"])
def test_errs_less_than_the_scrambling_on_the_same_chip(seed, passes):
    model = dense_model(30, 12, 3)
    with_pass = program_of(f"quiet-columns{{weigh=scale}}{passes}", "m2tj4", model)
    without = replace(with_pass, pipeline=with_pass.pipeline.replace(",quiet-columns{weigh=scale}", ""))
    chip = chip_of(with_pass, seed, gain=0.1, shift=0.3)
    assert layer_error(Session(with_pass, device=chip)) < layer_error(Session(without, device=chip))


@pytest.mark.parametrize("measure", ["images", "columns"])
@pytest.mark.parametrize("code", ["thermometer{bits=3}", "bitserial{bits=3}"])
def test_errors_of_slices_count_per_read(code, measure):
    """A column that is off by b in each read is off by b on the weighted mean of the slices, whatever the code."""
    program = xbcompile.compile(
        dense_model(6, 4),
        "mram64",
        passes=f"quantize{{scheme=binary}},{code},quiet-columns{{measure={measure} samples=10}}",
        calibration={"x": images(20, 6)},
    )
    rng = np.random.default_rng(1)
    chip = ErringArray(program.spec, np.ones((1, 64)), rng.normal(size=(1, 64)))
    found = measured(program, chip)
    np.testing.assert_allclose(found.mean[found.row], np.tile(chip.shift[0], (4, 1)), atol=1e-5)
    (layer,) = program.network.layers
    low, high = layer.input_code.low, layer.input_code.high
    slices = {"thermometer": 3, "bitserial": 7}[layer.input_code.scheme]  # reads of one vector, weighted
    unit = layer.weight_code.scale[0].astype(float) * (high - low) / (layer.input_code.steps * 2) * slices
    weight = dict(zip(found.entries.output.tolist(), found.entries.weight.tolist(), strict=True))
    np.testing.assert_allclose([weight[m] for m in range(4)], np.square(unit), rtol=1e-4)


@pytest.mark.parametrize(("passes", "share"), [("", 0.5), (",calibrate-offsets", 0.9), (",recalibrate", 1.0)])
def test_errs_less_on_sampled_chips(passes, share):
    """The physics of mram64: deviating paths, converter and jitter, three tiles of an output on one array; four chips."""
    text = f"quantize{{scheme=binary}},thermometer{{bits=4}},quiet-columns{passes}"
    model, feeds = dense_model(150, 8), {"x": images(300, 150)}
    found = []
    for each in (text, text.replace(",quiet-columns", "")):
        program = xbcompile.compile(model, "mram64", passes=each, calibration=feeds, arrays=1, packing="none")
        found.append(sum(layer_error(Session(program, seed=chip)) for chip in range(4)))
    assert found[0] < share * found[1]


def test_mean_errors_of_an_output_cancel_over_its_tiles():
    """Tiles of an output on columns of equal size of error: those of opposite sign, as nothing later removes the mean."""
    model = dense_model(32, 4)  # 8 tiles of 4x4 on one array
    program = program_of("quiet-columns{weigh=scale}", model=model, arrays=1)
    chip = chip_of(program, gain=0.0)
    chip.shift[0] = [0.2, -0.2, 0.2, -0.2]
    assert layer_error(Session(program, device=chip)) < 1e-9
    chip.shift[0] = [0.2, -0.3, 0.1, 0.4]
    recalibrated = program_of("quiet-columns{weigh=scale},recalibrate", model=model, arrays=1)
    found = Session(recalibrated, device=chip).placed.cells.column_permutation
    assert np.array_equal(found, recalibrated.schedule.column_permutation)  # a mean error is no reason to move


def test_meaning_stays_on_the_exact_device():
    model = convolution_model()
    program = program_of("quiet-columns", "m2tj4", model, arrays=2)
    x = {"x": images(8, 2, 4, 4, seed=8)}
    chip = chip_of(program)
    moved = Session(program, device=chip).corrections.column_permutation
    assert not np.array_equal(moved, program.schedule.column_permutation)
    for permutation in moved:
        assert sorted(permutation.tolist()) == list(range(program.spec.columns))
    plain = replace(program, calibration={})
    exact = IdealArray(program.spec)
    expected = Session(plain, device=exact).run(x)["y"]
    found = Session(plain, exact, corrections=replace(commission(plain, exact), column_permutation=moved)).run(x)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    still = commission(program, exact).column_permutation  # nothing errs, nothing moves
    assert np.array_equal(still, program.schedule.column_permutation)


@pytest.mark.parametrize("measure", ["images", "columns"])
def test_composes_with_routes_around_defects(measure):
    """On a chip with stuck cells: routes keep their rows and signs, cells stay within what devices hold, and the chosen
    columns err less than those of avoid-defects alone, as the cells' deviations count too (never more, by columns).
    """
    model = dense_model(18, 9, seed=5)
    passes = "quantize{scheme=continuous per=matrix},analogue{low=0 high=1},avoid-defects"
    feeds = {"x": images(100, 18)}
    programs = [
        xbcompile.compile(model, "memristor20", passes=p, calibration=feeds)
        for p in (f"{passes},recalibrate", f"{passes},quiet-columns{{measure={measure}}},recalibrate")
    ]
    routed, moved = (Session(program, seed=4) for program in programs)
    assert moved.corrections.routes is not None
    for before, after in zip(routed.corrections.routes, moved.corrections.routes, strict=True):
        assert np.array_equal(before.row, after.row)
        assert np.array_equal(before.row_sign, after.row_sign)
        assert np.array_equal(before.column_sign, after.column_sign)
    for route, column in zip(moved.corrections.routes, moved.placed.cells.column_permutation, strict=True):
        assert np.array_equal(route.column, column)
    assert (
        (layer_error(moved) < layer_error(routed)) if measure == "images" else layer_error(moved) == layer_error(routed)
    )


def test_same_chip_same_columns():
    program = program_of("quiet-columns", "m2tj4", arrays=1)
    first, second = (Session(program, seed=4).corrections.column_permutation for _ in range(2))
    assert first is not None
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("measure=rows", "allowed: images, columns"),
        ("weigh=all", "allowed: outputs, scale"),
        ("vectors=1", "allowed: 2 or more"),
        ("patterns=0", "allowed: 1 or more"),
        ("step=0", "allowed: more than 0"),
        ("samples=0", "allowed: 1 or more"),
    ],
)
def test_bad_options(text, words):
    with pytest.raises(PipelineError, match=words):
        parse_pipeline(f"quiet-columns{{{text}}}")


def test_needs_calibration_inputs():
    with pytest.raises(PassError, match="quiet-columns needs calibration inputs"):
        xbcompile.compile(dense_model(4, 3), "m2tj4", passes=f"{CODED},quiet-columns")

"""Least-squares codes against brute force over all codes, published values and what the optimum must obey."""

import dataclasses
import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.passes.fit import least_squares
from xbcompile.passes.fit.closed_forms import fit_binary, fit_ternary
from xbcompile.passes.fit.least_squares import LevelsFit, fit_levels

Floats = npt.NDArray[np.float64]

exhaustive = settings(deadline=None, derandomize=True, max_examples=150)


def equidistant(count: int) -> Floats:
    return np.linspace(-1, 1, count)


def brute_force(w: Floats, levels: Floats, g: Floats | None = None, offset: bool = True) -> float:
    """Least squared error over every assignment of codes, each with its closed-form scale >= 0 and offset."""
    used = levels[np.array(list(product(range(levels.size), repeat=w.size)))]
    used = used if g is None else used * g
    if offset:
        used, w = used - used.mean(axis=1, keepdims=True), w - w.mean()
    power, moment = np.square(used).sum(axis=1), used @ w
    scale = np.where(power > 1e-12, np.maximum(moment, 0) / np.maximum(power, 1e-12), 0)
    return float(np.square(w - scale[:, np.newaxis] * used).sum(axis=1).min())


def lloyd(w: Floats, levels: Floats) -> float:
    """Squared error where alternating between codes and fit ends from levels spread evenly over the weights."""
    scale, offset = (w.max() - w.min()) / (levels[-1] - levels[0]), (w.max() + w.min()) / 2
    for _ in range(100):
        used = levels[np.abs(w[:, np.newaxis] - scale * levels - offset).argmin(axis=1)]
        scale = np.cov(used, w)[0, 1] / used.var(ddof=1)
        offset = w.mean() - scale * used.mean()
    return float(np.square(w - scale * used - offset).sum())


def assert_consistent(fit: LevelsFit, w: Floats, levels: Floats, g: Floats | float = 1.0) -> None:
    """Shapes and dtypes are as promised, and the errors are those of this very fit."""
    assert fit.codes.dtype == np.uint8
    assert fit.codes.shape == w.shape
    assert fit.scale.shape == fit.offset.shape == fit.lower_bound.shape == (w.shape[1],)
    assert (fit.codes < levels.size).all()
    assert (fit.scale >= 0).all()
    error = np.square(w - g * fit.scale * levels[fit.codes] - fit.offset).sum(axis=0)
    np.testing.assert_allclose(fit.squared_error, error, rtol=1e-9, atol=1e-12 * np.square(w).sum())
    assert (fit.lower_bound <= fit.squared_error).all()


def assert_optimal(fit: LevelsFit, w: Floats, levels: Floats, expected: float) -> None:
    assert_consistent(fit, w, levels)
    assert fit.squared_error[0] == pytest.approx(expected, abs=1e-9)
    assert fit.lower_bound[0] == pytest.approx(expected, abs=1e-9)


coarse = st.integers(-6, 6).map(float)  # repeated values and ties
fine = st.floats(-4, 4).map(lambda x: round(x, 3))
columns = st.one_of(st.lists(coarse, min_size=1, max_size=6), st.lists(fine, min_size=1, max_size=6)).map(np.array)
row_weights = st.lists(st.sampled_from([0.35, 0.5, 1.0, 1.65]), min_size=6, max_size=6).map(np.array)
tables = st.one_of(
    st.integers(2, 5).map(equidistant),
    st.lists(st.integers(-20, 20), min_size=2, max_size=5, unique=True).map(lambda x: np.array(sorted(x)) / 10),
)


@exhaustive
@given(columns, tables)
def test_any_table_reaches_the_brute_force_optimum(w: Floats, levels: Floats) -> None:
    assert_optimal(fit_levels(w[:, np.newaxis], levels), w[:, np.newaxis], levels, brute_force(w, levels))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_seven_weights_reach_the_brute_force_optimum(count: int) -> None:
    rng = np.random.default_rng(count)
    for levels in (equidistant(count), np.sort(rng.normal(size=count))):
        w = rng.normal(size=(7, 4))
        fit = fit_levels(w, levels)
        expected = [brute_force(w[:, m], levels) for m in range(4)]
        np.testing.assert_allclose(fit.squared_error, expected, rtol=1e-9)


@pytest.mark.parametrize("count", [6, 7, 8])
def test_more_levels_than_weights_reach_the_brute_force_optimum(count: int) -> None:
    rng = np.random.default_rng(count)
    for levels in (equidistant(count), np.sort(rng.normal(size=count))):
        w = np.concatenate([rng.integers(0, 9, (5, 6)).astype(float), rng.normal(size=(5, 3))], axis=1)
        fit = fit_levels(w, levels)
        expected = [brute_force(w[:, m], levels) for m in range(9)]
        np.testing.assert_allclose(fit.squared_error, expected, rtol=0, atol=1e-9)


@exhaustive
@given(columns, row_weights, st.integers(2, 5), st.floats(0.1, 3))
def test_row_weights_reach_the_brute_force_optimum(w: Floats, g: Floats, count: int, bend: float) -> None:
    levels = equidistant(count)
    levels = np.sign(levels) * np.abs(levels) ** bend
    g = g[: w.size]
    fit = fit_levels(w[:, np.newaxis], levels, g[:, np.newaxis])
    assert_consistent(fit, w[:, np.newaxis], levels, g[:, np.newaxis])
    uniform = bool((g == g[0]).all())
    assert fit.squared_error[0] == pytest.approx(brute_force(w, levels, g, offset=uniform), abs=1e-9)
    assert fit.lower_bound[0] == pytest.approx(fit.squared_error[0], abs=1e-9)
    assert uniform or fit.offset[0] == 0


@exhaustive
@given(columns, row_weights)
def test_binary_and_ternary_reach_the_brute_force_optimum(w: Floats, g: Floats) -> None:
    g = g[: w.size]
    for fit, levels in ((fit_binary, np.array([-1.0, 1.0])), (fit_ternary, np.array([-1.0, 0.0, 1.0]))):
        codes, scale = fit(w[:, np.newaxis], g[:, np.newaxis])
        assert codes.dtype == np.uint8
        assert codes.shape == (w.size, 1)
        assert scale.shape == (1,)
        error = np.square(w - g * scale[0] * levels[codes[:, 0]]).sum()
        assert error == pytest.approx(brute_force(w, levels, g, offset=False), abs=1e-9)


def test_binary_takes_signs_and_the_mean_size() -> None:
    codes, scale = fit_binary(np.array([[1.0, 0.0], [-2.0, 0.0], [0.0, 0.0]]))
    assert codes.tolist() == [[1, 1], [0, 1], [1, 1]]
    assert scale.tolist() == [1.0, 0.0]


def test_ternary_drops_small_weights_and_leaves_a_column_of_zeros() -> None:
    codes, scale = fit_ternary(np.array([[1.0, 0.0], [-1.0, 0.0], [0.1, 0.0], [-0.1, 0.0]]))
    assert codes.tolist() == [[2, 1], [0, 1], [1, 1], [1, 1]]
    assert scale.tolist() == [1.0, 0.0]


def test_two_pairs_of_weights_take_the_outermost_of_four_levels() -> None:
    """The published levels 8.58, 9.72, 10.87, 12.01: two means, not those means on neighbouring levels."""
    fit = fit_levels(np.array([[8.57], [8.58], [11.97], [12.06]]), equidistant(4))
    assert fit.codes.ravel().tolist() == [0, 0, 3, 3]
    positions = fit.scale * equidistant(4) + fit.offset
    np.testing.assert_allclose(positions, [8.575, 8.575 + 3.44 / 3, 8.575 + 6.88 / 3, 12.015], rtol=1e-12)


@pytest.mark.parametrize("levels", [equidistant(5), np.array([-1, -0.9, 0.2, 0.3, 1.0])])
@pytest.mark.parametrize("g", [None, np.array([[0.5], [1.0], [2.0], [1.5]])])
def test_two_values_take_the_outermost_levels(levels: Floats, g: Floats | None) -> None:
    if g is not None:
        levels = (levels - levels[::-1]) / 2
    w = np.array([[-3.0], [3.0], [3.0], [-3.0]]) * (1 if g is None else g)
    assert fit_levels(w, levels, g).codes.ravel().tolist() == [0, 4, 4, 0]


@pytest.mark.parametrize(
    ("levels", "weights", "codes"),
    [
        (np.array([-1, -0.35, 0.35, 1]), [0, 0, 5, 6], [0, 0, 3, 3]),  # two levels in use
        (equidistant(4), [0, 1, 6, 6], [0, 0, 3, 3]),
        (equidistant(6), [0, 1, 2, 1], [0, 2, 4, 2]),  # codes 0, 1, 2 times two
        (equidistant(6), [0, 1, 5, 10], [0, 0, 2, 4]),
        (equidistant(5), [0, 3, 6, 7], [0, 2, 4, 4]),
    ],
)
def test_codes_further_out_are_preferred_at_equal_error(levels: Floats, weights: list[int], codes: list[int]) -> None:
    w = np.array(weights, dtype=float)
    fit = fit_levels(w[:, np.newaxis], levels)
    assert fit.codes.ravel().tolist() == codes
    assert fit.squared_error[0] == pytest.approx(brute_force(w, levels), abs=1e-12)


def test_weights_that_need_part_of_the_table_only() -> None:
    """Three equidistant values are exact on four levels only if the fourth lies outside of the weights."""
    w = np.array([0.0, 0.0, 1.0, 2.0])
    fit = fit_levels(w[:, np.newaxis], equidistant(4))
    assert fit.squared_error[0] == pytest.approx(0, abs=1e-28)
    assert lloyd(w, equidistant(4)) == pytest.approx(2 / 27)


def test_lloyd_from_evenly_spread_levels_ends_above_the_optimum() -> None:
    """Weights 0, 0, 3, 4 on three levels: Lloyd keeps 3 on the middle level and ends at 8/11; the optimum is 1/2."""
    w = np.array([0.0, 0.0, 3.0, 4.0])
    assert lloyd(w, equidistant(3)) == pytest.approx(8 / 11)
    assert fit_levels(w[:, np.newaxis], equidistant(3)).squared_error[0] == pytest.approx(1 / 2)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 16, 64, 256])
def test_weights_already_on_the_levels_are_kept_exactly(count: int) -> None:
    rng = np.random.default_rng(count)
    levels = equidistant(count)
    codes = np.concatenate([np.arange(count), rng.integers(0, count, 50)])
    g = rng.uniform(0.35, 1.65, codes.size)
    with_offset = fit_levels((0.3 * levels[codes] + 5)[:, np.newaxis], levels)
    weighted = fit_levels((0.3 * g * levels[codes])[:, np.newaxis], levels, g[:, np.newaxis])
    for fit, offset in ((with_offset, 5), (weighted, 0)):
        assert fit.codes.ravel().tolist() == codes.tolist()
        assert fit.scale[0] == pytest.approx(0.3)
        assert fit.offset[0] == pytest.approx(offset)
        assert fit.squared_error[0] < 1e-24
        assert fit.lower_bound[0] <= fit.squared_error[0]


@exhaustive
@given(columns, tables, st.floats(1e-3, 1e3), st.integers(-50, 50))
def test_scaling_and_shifting_the_weights_changes_scale_and_offset_alone(
    w: Floats, levels: Floats, factor: float, shift: int
) -> None:
    fit = fit_levels(w[:, np.newaxis], levels)
    moved = fit_levels(factor * (w + shift)[:, np.newaxis], levels)
    assert moved.squared_error[0] / factor**2 == pytest.approx(fit.squared_error[0], abs=1e-9)
    assert_consistent(moved, factor * (w + shift)[:, np.newaxis], levels)


def test_equivariance_of_a_generic_column() -> None:
    w = np.random.default_rng(1).normal(size=(200, 1))
    fit, moved = fit_levels(w, equidistant(8)), fit_levels(3 * w - 7, equidistant(8))
    np.testing.assert_array_equal(moved.codes, fit.codes)
    np.testing.assert_allclose(moved.scale, 3 * fit.scale)
    np.testing.assert_allclose(moved.offset, 3 * fit.offset - 7)


def test_moving_the_level_table_moves_scale_and_offset_alone() -> None:
    w = np.random.default_rng(2).normal(size=(100, 3))
    levels = np.array([-1, -0.5, 0.1, 0.8])
    fit, moved = fit_levels(w, levels), fit_levels(w, 1e-6 * levels + 1e-4)
    np.testing.assert_array_equal(moved.codes, fit.codes)
    np.testing.assert_allclose(moved.scale, 1e6 * fit.scale)
    np.testing.assert_allclose(moved.squared_error, fit.squared_error)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("shape", ["normal", "laplace", "uniform"])
def test_the_gap_of_a_random_column_is_proven(count: int, shape: str) -> None:
    rng = np.random.default_rng(count)
    w = getattr(rng, shape)(size=(300, 4))
    measured = np.sort(equidistant(count) + rng.uniform(-0.4, 0.4, count) / (count - 1))
    for levels in (equidistant(count), measured):
        fit = fit_levels(w, levels)
        assert_consistent(fit, w, levels)
        rounding = 1e-13 * np.square(w - w.mean(axis=0)).sum(axis=0)
        assert (fit.squared_error - fit.lower_bound <= 1e-9 * fit.squared_error + rounding).all()
        assert (fit.squared_error <= [lloyd(w[:, m], levels) * (1 + 1e-12) for m in range(4)]).all()


def test_a_small_budget_gives_a_lower_bound_that_holds() -> None:
    w = np.random.default_rng(3).normal(size=(300, 2))
    full = fit_levels(w, equidistant(16))
    gap = []
    for max_boxes in (1, 600, 1200):
        fit = fit_levels(w, equidistant(16), max_boxes=max_boxes)
        assert_consistent(fit, w, equidistant(16))
        assert (fit.lower_bound <= full.squared_error).all()
        assert (fit.squared_error >= full.squared_error * (1 - 1e-9)).all()
        gap.append((fit.squared_error - fit.lower_bound).max())
    assert gap[0] > gap[1] > gap[2] > 0


def test_a_wider_gap_is_kept() -> None:
    w = np.random.default_rng(4).normal(size=(300, 2))
    exact, loose = fit_levels(w, equidistant(8)), fit_levels(w, equidistant(8), relative_gap=0.2)
    assert (loose.lower_bound >= 0.8 * loose.squared_error * (1 - 1e-12)).all()
    assert (loose.lower_bound <= exact.squared_error).all()


@pytest.mark.parametrize("row_weight", [None, np.linspace(0.35, 1.65, 60)[:, np.newaxis] * np.ones((1, 5))])
def test_columns_are_independent_of_each_other(row_weight: Floats | None) -> None:
    w = np.random.default_rng(5).normal(size=(60, 5))
    together = fit_levels(w, equidistant(4), row_weight)
    for m in range(5):
        alone = fit_levels(w[:, [m]], equidistant(4), None if row_weight is None else row_weight[:, [m]])
        np.testing.assert_array_equal(alone.codes[:, 0], together.codes[:, m])
        for name in ("scale", "offset", "lower_bound", "squared_error"):
            assert getattr(alone, name)[0] == getattr(together, name)[m]


def test_equal_row_weights_divide_the_scale_and_keep_the_offset() -> None:
    w = np.random.default_rng(6).normal(size=(50, 2)) + 3
    plain, weighted = fit_levels(w, equidistant(4)), fit_levels(w, equidistant(4), np.full((50, 2), 1.65))
    np.testing.assert_array_equal(weighted.codes, plain.codes)
    np.testing.assert_allclose(weighted.scale, plain.scale / 1.65)
    np.testing.assert_allclose(weighted.offset, plain.offset)


def test_the_scan_under_row_weights_agrees_with_binary_and_ternary() -> None:
    rng = np.random.default_rng(7)
    w, g = rng.normal(size=(200, 3)), rng.uniform(0.35, 1.65, (200, 3))
    for fit, levels in ((fit_binary, equidistant(2)), (fit_ternary, equidistant(3))):
        codes, scale = fit(w, g)
        scanned = fit_levels(w, levels, g)
        np.testing.assert_array_equal(scanned.codes, codes)
        np.testing.assert_allclose(scanned.scale, scale, rtol=1e-12)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_a_single_weight_and_constant_columns_cost_nothing(count: int) -> None:
    for w in (np.array([[-2.5]]), np.full((7, 1), 0.1), np.zeros((3, 2)), np.arange(6.0)[np.newaxis]):
        fit = fit_levels(w, equidistant(count))
        assert_consistent(fit, w, equidistant(count))
        assert not fit.codes.any()
        assert not fit.scale.any()
        assert fit.offset.tolist() == w[0].tolist()
        assert not fit.squared_error.any()


def test_zeros_under_row_weights_cost_nothing() -> None:
    fit = fit_levels(np.zeros((2, 1)), equidistant(4), np.array([[1.0], [2.0]]))
    assert fit.scale[0] == fit.offset[0] == fit.squared_error[0] == 0


@pytest.mark.parametrize("size", [5e-324, 1e-150, 1e150, 1e300])
def test_very_small_and_very_large_weights_keep_their_codes(size: float) -> None:
    w = np.array([[-3.0], [1.0], [3.0], [-1.0]]) * size
    if size < 1e100:  # beyond, the squared error itself overflows
        assert fit_levels(w, equidistant(4)).codes.ravel().tolist() == [0, 2, 3, 1]
    assert fit_binary(w)[0].ravel().tolist() == [0, 1, 1, 0]
    assert fit_ternary(w)[0].ravel().tolist() == [0, 1, 2, 1]


def test_neighbouring_floats_are_told_apart() -> None:
    w = np.array([[1.0], [np.nextafter(1.0, 2)], [1.0]])
    assert fit_levels(w, equidistant(3)).codes.ravel().tolist() == [0, 2, 0]


def test_float32_and_integer_weights_are_taken_as_they_are() -> None:
    w = np.array([[1, 2], [3, 5], [8, 1]])
    plain = fit_levels(w.astype(np.float64), equidistant(3))
    for other in (w, w.astype(np.float32), w.tolist()):
        fit = fit_levels(other, equidistant(3))
        for field in dataclasses.fields(fit):
            np.testing.assert_array_equal(getattr(fit, field.name), getattr(plain, field.name))


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_level_table_with_close_neighbours_is_searched_far_out(mirror: int) -> None:
    """The exact fit uses three levels within 2 % of the table: the last level lies 98 spacings away."""
    levels = np.sort(mirror * np.array([0, 0.01, 0.02, 1.0]))
    w = mirror * np.array([0.0, 1.0, 2.0, 2.0])
    fit = fit_levels(w[:, np.newaxis], levels)
    np.testing.assert_allclose(levels[fit.codes[:, 0]], w / 100)
    assert fit.squared_error[0] == pytest.approx(0, abs=1e-20)


def sorted_column(w: Floats) -> least_squares._Column:
    v = np.sort(w - w.mean()) / (w.max() - w.min())
    return least_squares._Column(v, least_squares._prefix_sums(v), least_squares._prefix_sums(v * v))


@pytest.mark.parametrize("levels", [equidistant(2), equidistant(5), np.array([-1, -0.9, 0.3, 0.5, 1.0])])
def test_the_bound_of_a_box_holds_everywhere_in_it_and_tightens_quadratically(levels: Floats) -> None:
    rng = np.random.default_rng(8)
    plan = least_squares._search_plan(levels)
    column = sorted_column(rng.normal(size=2000))
    slack = []
    for width in (1.0, 0.1, 0.01):
        gaps = []
        for a0, b0 in rng.uniform([-0.5, 0], [0, 0.5], (100, 2)) - [width, 0]:
            a, b = rng.uniform([[a0], [b0]], [[a0 + width], [b0 + width]], (2, 30))
            a[:4], b[:4] = a0 + width * np.array([0, 0, 1, 1]), b0 + width * np.array([0, 1, 0, 1])  # the corners
            place = a + (b - a) * plan.place[:, np.newaxis]
            least = np.square(column.v[:, np.newaxis, np.newaxis] - place).min(axis=1).sum(axis=0).min()
            bound = least_squares._bound(column, plan, (a0, a0 + width, b0, b0 + width))[0]
            assert bound <= least * (1 + 1e-12)
            gaps.append(least - bound)
        slack.append(np.mean(gaps))
    assert slack[2] < slack[1] / 30


def test_the_error_of_a_refit_on_close_levels_is_accurate() -> None:
    levels = np.array([0, 0.9, 0.9 + 1e-5, 0.9 + 2e-5, 1.0])
    column, plan = sorted_column(np.array([0.0, 1.0, 2.1])), least_squares._search_plan(levels)
    step = 0.5 / 1e-5
    a = column.v[0] - 0.9 * step
    error, a, b = least_squares._refit(column, plan, a, a + step)
    direct = np.square(column.v - (a + (b - a) * plan.place[1:4])).sum()
    assert error == pytest.approx(direct, rel=1e-9)
    assert error == pytest.approx((0.1 / 2.1) ** 2 / 6, rel=1e-6)


def test_prefix_sums_are_correct_to_the_last_digits() -> None:
    values = np.random.default_rng(9).normal(size=2000) * np.tile([1e8, 1.0], 1000)
    sums = least_squares._prefix_sums(values)
    exact = [math.fsum(values[:k]) for k in range(values.size + 1)]
    np.testing.assert_allclose(sums, exact, rtol=4e-16, atol=1e-12)


GOOD = np.array([[0.0, 1.0], [2.0, 4.0]])


@pytest.mark.parametrize("fit", [fit_binary, fit_ternary, lambda w, g=None: fit_levels(w, [-1, 1], g)])
@pytest.mark.parametrize(
    ("weights", "row_weight", "text"),
    [
        ([[0.0, np.nan]], None, r"weights must be finite, found nan at index \[0, 1\]"),
        ([[np.inf]], None, r"weights must be finite, found inf at index \[0, 0\]"),
        (np.zeros((0, 3)), None, r"non-empty array \[inputs, outputs\], found shape \(0, 3\)"),
        (np.zeros((3, 0)), None, r"non-empty array \[inputs, outputs\], found shape \(3, 0\)"),
        ([1.0, 2.0], None, r"array \[inputs, outputs\], found shape \(2,\)"),
        ([[1j]], None, "weights must be real numbers, found dtype complex128"),
        (GOOD, np.ones((2, 1)), r"row_weight must have the shape of weights \(2, 2\), found \(2, 1\)"),
        (GOOD, [[1.0, 1.0], [0.0, 1.0]], r"row_weight must be positive, found 0.0 at index \[1, 0\]"),
        (GOOD, [[1.0, 1.0], [np.nan, 1.0]], r"row_weight must be finite, found nan at index \[1, 0\]"),
    ],
)
def test_unusable_weights_are_refused(fit, weights, row_weight, text) -> None:  # type: ignore[no-untyped-def]  # parametrized
    with pytest.raises(ValueError, match=text):
        fit(weights, row_weight)


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ([0.0], r"2 to 256 values, found shape \(1,\)"),
        (np.arange(257), r"2 to 256 values, found shape \(257,\)"),
        ([[0.0, 1.0]], r"2 to 256 values, found shape \(1, 2\)"),
        ([0.0, 1.0, 1.0], "increase strictly, found 1.0 then 1.0 at index 2"),
        ([0.0, -1.0], "increase strictly, found 0.0 then -1.0 at index 1"),
        ([0.0, np.inf], r"levels must be finite, found inf at index \[1\]"),
        ([0.0, 0.5, 0.5 + 1e-8, 0.5 + 2e-8, 1.0], "levels 1 to 3 lie within 1e-06 of the table's range"),
    ],
)
def test_unusable_level_tables_are_refused(levels: npt.ArrayLike, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fit_levels(GOOD, levels)


def test_row_weights_need_a_symmetric_table() -> None:
    with pytest.raises(
        ValueError, match=r"must be symmetric about 0 where row weights differ, found 0.0 .. 1.0 for co"
    ):
        fit_levels(GOOD, [0, 0.5, 1], [[1.0, 1.0], [1.0, 2.0]])


@pytest.mark.parametrize("relative_gap", [-1e-9, 1.0, np.nan])
def test_the_gap_lies_between_zero_and_one(relative_gap: float) -> None:
    with pytest.raises(ValueError, match="allowed are 0 <= relative_gap < 1"):
        fit_levels(GOOD, [0, 1], relative_gap=relative_gap)


def test_at_least_one_box_is_needed() -> None:
    with pytest.raises(ValueError, match="max_boxes is 0; at least 1"):
        fit_levels(GOOD, [0, 1], max_boxes=0)

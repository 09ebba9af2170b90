"""avoid-defects against brute force over all routes of tiny arrays, and its promise never to be worse."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbcompile.errors import PipelineError
from xbcompile.ir.image_route import ImageRoute, RoutingProblem
from xbcompile.passes.device.avoid_defects import AvoidDefects
from xbcompile.passes.pipeline import parse_pipeline


def plain_route(rows: int, columns: int) -> ImageRoute:
    return ImageRoute(np.arange(rows), np.arange(columns), np.ones(rows, np.float32), np.ones(columns, np.float32))


def random_problem(seed: int, rows: int, columns: int, stuck: float, **free: bool) -> RoutingProblem:
    rng = np.random.default_rng(seed)
    limits = np.stack([np.full((rows, columns), -1.0), np.full((rows, columns), 1.0)])
    where = rng.random((rows, columns)) < stuck
    value = rng.uniform(0, 1, (rows, columns))
    limits[0][where] = value[where] - 1  # the plus device of a pair is stuck
    limits[1][where] = value[where]
    options = {"rows_are_free": True, "rows_have_signs": True, "columns_have_signs": True} | free
    cells, weight = rng.uniform(-1, 1, (rows, columns)), rng.uniform(0, 2, (rows, columns))
    return RoutingProblem(cells, weight, limits, **options)


def cost_by_loops(problem: RoutingProblem, row, column, row_sign, column_sign) -> float:
    total = 0.0
    for k, m in product(*map(range, problem.cells.shape)):
        wanted = row_sign[k] * column_sign[m] * problem.cells[k, m]
        low, high = problem.limits[:, row[k], column[m]]
        total += problem.weight[k, m] * max(low - wanted, 0.0, wanted - high) ** 2
    return total


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_cost_is_the_sum_over_cells(seed, rows, columns):
    problem, rng = random_problem(seed, rows, columns, 0.5), np.random.default_rng(seed)
    route = ImageRoute(
        rng.permutation(rows),
        rng.permutation(columns),
        rng.choice(np.float32([-1, 1]), rows),
        rng.choice(np.float32([-1, 1]), columns),
    )
    expected = cost_by_loops(problem, route.row, route.column, route.row_sign, route.column_sign)
    assert problem.cost(route) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(8))
def test_finds_the_best_of_all_routes(seed):
    """3 x 3 with signs: all 3! * 3! * 2^6 routes."""
    problem = random_problem(seed, 3, 3, 0.6)
    signs = list(product([-1, 1], repeat=3))
    best = min(
        cost_by_loops(problem, row, column, row_sign, column_sign)
        for row in permutations(range(3))
        for column in permutations(range(3))
        for row_sign in signs
        for column_sign in signs
    )
    found = AvoidDefects(tries=60).route(problem, plain_route(3, 3))
    assert problem.cost(found) == pytest.approx(best, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_never_worse_and_within_its_rights(seed, rows, columns, free, row_signs, column_signs):
    problem = random_problem(
        seed,
        rows,
        columns,
        0.5,
        rows_are_free=free,
        rows_have_signs=free and row_signs,
        columns_have_signs=column_signs,
    )
    start = plain_route(rows, columns)
    found = AvoidDefects(tries=2).route(problem, start)
    assert problem.cost(found) <= problem.cost(start)
    assert sorted(found.row) == list(range(rows))
    assert sorted(found.column) == list(range(columns))
    if not free:
        assert found.row.tolist() == list(range(rows))
        assert np.all(found.row_sign == 1)
    if not column_signs:
        assert np.all(found.column_sign == 1)


def test_search_options():
    problem, start = random_problem(3, 5, 4, 0.6), plain_route(5, 4)
    assert AvoidDefects(search="none").route(problem, start) is start
    columns = AvoidDefects(search="columns").route(problem, start)
    assert columns.row.tolist() == list(range(5))
    everything = AvoidDefects().route(problem, start)
    assert problem.cost(everything) < problem.cost(columns) < problem.cost(start)


def test_whole_array_keeps_its_route():
    problem, start = random_problem(1, 4, 4, 0.0), plain_route(4, 4)
    assert AvoidDefects().route(problem, start) is start


@pytest.mark.parametrize(("text", "words"), [("search=rows", "allowed: all"), ("tries=-1", "allowed: 0 to 10000")])
def test_bad_options(text, words):
    with pytest.raises(PipelineError, match=words):
        parse_pipeline(f"avoid-defects{{{text}}}")

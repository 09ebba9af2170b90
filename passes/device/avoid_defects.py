"""avoid-defects: weights that a chip's stuck devices cannot hold go to cells that can, or where they matter least.

    cells [k, m]  ->  physical cell (row[k], column[m]) with value row_sign[k] * column_sign[m] * cells[k, m]

The drive of row k and the reading of column m take the same signs, so the ideal result stays the same. Three means: the
whole device of a differential pair is tuned so that the pair's difference comes out right where its partner is stuck (the
device does that on writing once its defects may be used); signs, as a pair with a stuck device still spans half of its range;
permutations of rows and columns.

Exactness: for fixed columns the best rows are a linear assignment problem, solved exactly (each row with its better sign),
and the reverse; the two alternate until nothing improves, from the route given and from random ones. The cost never rises.
Sources: hardware-aware import: Merrikh Bayat et al., Nature Communications 9, 2331 (2018), "Pattern
classification": stuck devices excluded from tuning; assignment: Kuhn (1955), here of SciPy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.deferred import library
from xbcompile.ir import ArraySpec
from xbcompile.ir.corrections import Corrections
from xbcompile.ir.image_route import ImageRoute, RoutingProblem
from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.passes.contract import Advice, ChipView, DevicePass, Feeds, LayerTrouble, Stage

optimize = library("scipy.optimize")

SEARCHES = ("all", "columns", "none")
MOST_TRIES = 10_000  # assumed: an hour for an array of 64 x 64
_MAX_ROUNDS = 50


@dataclass(frozen=True)
class AvoidDefects(DevicePass):
    """Use the defect map of the chip that a session runs on.

    Args:
        search: "all" (rows, columns and their signs, as far as the array allows), "columns" (columns and their signs), or
            "none" (compensation by the partner of a stuck device alone).
        tries: random routes from which the search starts besides the program's own.
    """

    name: ClassVar[str] = "avoid-defects"
    stage: ClassVar[Stage] = Stage.ROUTES
    helps_against: ClassVar[Mapping[str, int]] = {"systematic": 1}
    search: str = "all"
    tries: int = 10

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """Where chips have defects."""
        return super().advice(trouble) if trouble.has_defects else None

    def note(self, has_defects: bool) -> str | None:
        """Where there is nothing to avoid."""
        return None if has_defects else f"{self} changes nothing: chips of this target have no defects"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("search", SEARCHES)
        self._check_count("tries", 0, MOST_TRIES)

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """Routes around the defects of the arrays that hold each image; a chip without a defect map is taken to be whole."""
        if not chip.knows_defects():
            return corrections
        corrections = replace(corrections, defects_known=True)
        schedule, routes, changed = chip.schedule, [], False
        for image in range(schedule.images):
            plain = _plain_route(chip, image)
            limits = _limits(chip, schedule.copies["array"][schedule.copies["image"] == image])
            found = plain if limits is None else self.route(_problem(chip, image, limits, corrections), plain)
            changed |= found is not plain
            routes.append(found)
        return replace(corrections, routes=tuple(routes)) if changed else corrections

    def route(self, problem: RoutingProblem, route: ImageRoute) -> ImageRoute:
        """Alternate exact assignments of rows and columns; the best of all starts, never worse than the route given."""
        best, cost = route, problem.cost(route)
        if self.search == "none" or cost == 0:
            return best
        if self.search == "columns":
            problem = replace(problem, rows_are_free=False, rows_have_signs=False)
        generator = np.random.default_rng(0)
        for start in [route, *(_random_route(problem, route, generator) for _ in range(self.tries))]:
            found, found_cost = _descend(problem, start)
            if found_cost < cost:
                best, cost = found, found_cost
            if cost == 0:
                break
        return best


def _random_route(problem: RoutingProblem, route: ImageRoute, generator: np.random.Generator) -> ImageRoute:
    rows, columns = problem.cells.shape
    found = replace(route, column=generator.permutation(columns))
    if problem.rows_are_free:
        found = replace(found, row=generator.permutation(rows))
    if problem.columns_have_signs:
        found = replace(found, column_sign=generator.choice(np.array([-1, 1], np.float32), columns))
    return found


def _descend(problem: RoutingProblem, route: ImageRoute) -> tuple[ImageRoute, float]:
    cost = problem.cost(route)
    for _ in range(_MAX_ROUNDS):
        if problem.rows_are_free:
            low, high = problem.limits[:, :, route.column]
            wanted = problem.cells * route.column_sign
            row, sign = _assign(wanted, problem.weight, low, high, route.row_sign, problem.rows_have_signs)
            route = replace(route, row=row, row_sign=sign)
        low, high = problem.limits[:, route.row].transpose(0, 2, 1)
        wanted = (problem.cells * route.row_sign[:, None]).T
        column, sign = _assign(wanted, problem.weight.T, low, high, route.column_sign, problem.columns_have_signs)
        route = replace(route, column=column, column_sign=sign)
        found = problem.cost(route)
        if not found < cost * (1 - 1e-12):
            break
        cost = found
    return route, problem.cost(route)


def _assign(
    wanted: np.ndarray, weight: np.ndarray, low: np.ndarray, high: np.ndarray, sign: np.ndarray, free_signs: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Best place of each line of `wanted` [lines, cells] among the lines of `low` and `high` [places, cells], and its sign."""
    signs = np.array([1, -1], np.float32) if free_signs else np.array([1], np.float32)
    used = wanted if free_signs else wanted * sign[:, None]
    costs = np.empty((len(signs), len(wanted), len(low)))
    for s, each in enumerate(signs):
        for i, line in enumerate(used * each):
            costs[s, i] = (weight[i] * np.square(line - np.clip(line, low, high))).sum(axis=1)
    _, place = optimize.linear_sum_assignment(costs.min(axis=0))
    chosen = costs[:, np.arange(len(wanted)), place].argmin(axis=0)
    return place, signs[chosen] if free_signs else sign


def _limits(chip: ChipView, arrays: np.ndarray) -> np.ndarray | None:
    """The values that each cell of an image can take in all of its arrays, see `cell_limits`; None: any."""
    found = [limits for limits in map(chip.cell_limits, arrays.tolist()) if limits is not None]
    if not found:
        return None
    low = np.max([limits[0] for limits in found], axis=0)
    return np.stack([low, np.maximum(np.min([limits[1] for limits in found], axis=0), low)])


def _plain_route(chip: ChipView, image: int) -> ImageRoute:
    """The program's own route: rows where they are, columns as the schedule permutes them, no signs."""
    spec = chip.spec
    return ImageRoute(
        row=np.arange(spec.rows),
        column=chip.schedule.column_permutation[image].astype(np.intp),
        row_sign=np.ones(spec.rows, np.float32),
        column_sign=np.ones(spec.columns, np.float32),
    )


def _problem(chip: ChipView, image: int, limits: np.ndarray, corrections: Corrections) -> RoutingProblem:
    """Cells count as the square of their column's scale; unused ones not at all."""
    spec, tiles = chip.spec, chip.schedule.tiles
    physical = chip.cells(np.array([image]), corrections)[0]
    cells = physical[:, chip.schedule.column_permutation[image]]
    values = (cells if spec.levels is None else spec.levels[cells]).astype(np.float64)
    weight = np.zeros_like(values)
    mine = tiles[tiles["image"] == image]
    for tile, height, width in zip(mine, tile_rows(mine), tile_columns(mine), strict=True):
        code = chip.network.layers[tile["layer"]].weight_code
        assert code is not None
        scale = code.scale[tile["group"], tile["m0"] : tile["m1"]].astype(np.float64)
        row, column = tile["row"], tile["column"]
        weight[row : row + height, column : column + width] = np.square(scale)
    return RoutingProblem(
        cells=values,
        weight=weight,
        limits=limits,
        rows_are_free=not spec.has_row_weights,
        rows_have_signs=spec.drives_both_signs and _is_symmetric(spec),
        columns_have_signs=_is_symmetric(spec),
    )


def _is_symmetric(spec: ArraySpec) -> bool:
    """Whether the negative of each cell value is a cell value."""
    return spec.levels is None or bool(np.allclose(spec.levels, -spec.levels[::-1], atol=1e-6))

"""Exact packing of few rectangles with OR-Tools CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xbcompile.deferred import library
from xbcompile.tiler.effort import Allowance, solve
from xbcompile.tiler.pack.bands import Bin, Kind, images_of
from xbcompile.tiler.pack.rules import PackingRules

networkx = library("networkx")
if TYPE_CHECKING:
    from ortools.sat.python import cp_model
else:
    cp_model = library("ortools.sat.python.cp_model")

SOLVER_TILES = 60  # more residual tiles than this are left to the heuristics


def prove_or_improve(
    kinds: Sequence[Kind],
    counts: Sequence[int],
    rules: PackingRules,
    *,
    bins: list[Bin],
    bound: int,
    allowance: Allowance,
) -> tuple[list[Bin], int]:
    """Decide for each number of arrays from `bound` up whether the rectangles fit, until they do.

    Args:
        kinds: row (-1 when free), height and width of each kind.
        counts: rectangles of each kind.
        rules: the array; what the kinds take of it is theirs alone.
        bins: the best packing known.
        bound: the best lower bound known.
        allowance: deterministic time for all decisions together.

    Returns:
        A packing that is no worse, and a bound that is no weaker.
    """
    items = [kind for kind, count in enumerate(counts) for _ in range(count)]
    items.sort(key=lambda kind: (-kinds[kind][1] * kinds[kind][2], kind))
    rows, columns = rules.rows, rules.columns
    apart = _rivals([kinds[kind] for kind in items], rows, columns)
    bound = max(bound, len(apart))
    last = images_of(bins) - 1
    for images in range(bound, last + 1):
        model = _PackingModel(kinds, items, apart, rows, columns, images)
        solver = allowance.solver(share=1.0 if images == last else 0.5)
        status = solve(solver, model.model)
        allowance.spend(solver, status)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return model.bins(solver), bound
        if status == cp_model.INFEASIBLE:
            bound = images + 1
        if allowance.left <= 0:
            break
    return bins, bound


def _rivals(rectangles: Sequence[Kind], rows: int, columns: int) -> list[int]:
    """A largest set of rectangles of which no two can share an array."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(rectangles)))
    for one, (row, height, width) in enumerate(rectangles):
        for two, (other_row, other_height, other_width) in enumerate(rectangles[:one]):
            if row >= 0:
                meet = row < other_row + other_height and other_row < row + height
            else:
                meet = height + other_height > rows
            if meet and width + other_width > columns:
                graph.add_edge(one, two)
    clique, _ = networkx.max_weight_clique(graph, weight=None)
    return sorted(clique)


class _PackingModel:
    """Whether rectangles fit into `images` arrays that lie side by side as one strip."""

    def __init__(
        self, kinds: Sequence[Kind], items: Sequence[int], apart: Sequence[int], rows: int, columns: int, images: int
    ) -> None:
        self.kinds, self.items, self.columns = kinds, items, columns
        self.model = model = cp_model.CpModel()
        self.x: list[cp_model.IntVar] = []
        self.y: list[cp_model.IntVar] = []
        self.inside: list[list[cp_model.IntVar]] = []
        intervals: tuple[list[cp_model.IntervalVar], list[cp_model.IntervalVar]] = ([], [])
        for item, kind in enumerate(items):
            row, height, width = kinds[kind]
            lanes = [[image * columns, image * columns + columns - width] for image in range(images)]
            x = model.new_int_var_from_domain(cp_model.Domain.from_intervals(lanes), f"x{item}")
            y = model.new_int_var(0, rows - height, f"y{item}") if row < 0 else model.new_constant(row)
            self.x.append(x)
            self.y.append(y)
            intervals[0].append(model.new_fixed_size_interval_var(x, width, f"columns{item}"))
            intervals[1].append(model.new_fixed_size_interval_var(y, height, f"rows{item}"))
            inside = [model.new_bool_var(f"in{item}_{image}") for image in range(images)]
            model.add_exactly_one(inside)
            for image, literal in enumerate(inside):
                model.add_linear_constraint(x, *lanes[image]).only_enforce_if(literal)
            self.inside.append(inside)
        model.add_no_overlap_2d(*intervals)
        areas = [kinds[kind][1] * kinds[kind][2] for kind in items]
        for image in range(images):
            weights = sum(area * inside[image] for area, inside in zip(areas, self.inside, strict=True))
            model.add(weights <= rows * columns)
        self._break_symmetry(apart)

    def _break_symmetry(self, apart: Sequence[int]) -> None:
        """Arrays are alike, and so are equal rectangles."""
        for image, item in enumerate(apart):
            self.model.add(self.inside[item][image] == 1)
        for item in range(1, len(self.items)):
            if self.items[item] == self.items[item - 1] and item not in apart and item - 1 not in apart:
                self.model.add(self.x[item - 1] <= self.x[item])

    def bins(self, solver: cp_model.CpSolver) -> list[Bin]:
        """The packing found."""
        bins: dict[int, Bin] = {}
        for kind, x, y in zip(self.items, self.x, self.y, strict=True):
            image, column = divmod(solver.value(x), self.columns)
            bins.setdefault(image, Bin(1)).placed.append((kind, solver.value(y), column))
        return [bins[image] for image in sorted(bins)]

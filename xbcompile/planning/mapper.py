"""The mapping engine of `plan` and `compile`: several layouts of the same matrices are tried, the best schedule stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import READ, vectors_of
from xbcompile.options import AUTO, PACKINGS, MappingOptions
from xbcompile.planning.figures import figures_of
from xbcompile.planning.planned import PlannedNetwork
from xbcompile.tiler import Layout, MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.cuts import CUTS
from xbcompile.tiler.schedule.objective import Figures, parse_objective
from xbcompile.tiler.schedule.workload import check_reads

MANY_TILES, MANY_MATRICES = 100_000, 5_000  # assumed: with more of either only what takes linear time is done
MOST_TILES = 8_000_000  # assumed: tables of more take more than 8 GiB
_ALIKE = 0.005  # assumed: half a percent of an objective is not worth an array
_MORE_ARRAYS = 0.05  # assumed: with an array per image, fewer arrays than so many more do not outweigh the objective
_REFINED = 2  # candidates that get all the effort; where there are more, the others are scheduled without search


@dataclass(frozen=True, eq=False)
class Mapping:
    """One way to map a network, the best that was found.

    Args:
        network: what is mapped.
        spec: the array.
        options: what was asked for.
        cuts: the cuts of this layout.
        packing: its packing.
        layout: tiles and images.
        schedule: writes and reads; no column is moved.
        candidates: what was tried: `cuts`, `packing`, `images_lower_bound` and `figures`; one of several equal layouts.
        images_lower_bound: no layout that the options allow has fewer images; 0 where not all kinds were tried.
        notes: what a reader should know.
    """

    network: PlannedNetwork
    spec: ArraySpec
    options: MappingOptions
    cuts: str
    packing: str
    layout: Layout
    schedule: Schedule
    candidates: tuple[dict[str, Any], ...]
    images_lower_bound: int
    notes: tuple[str, ...]

    @cached_property
    def figures(self) -> dict[str, Any]:
        """See `figures_of`."""
        return figures_of(self.network, self.spec, self.schedule)

    def use_seconds(self) -> np.ndarray:
        """How long each use of a matrix takes its busiest array in a batch, float64 [uses]."""
        reads = self.schedule.steps[self.schedule.steps["operation"] == READ]
        pair = reads["use"].astype(np.int64) * self.schedule.arrays + reads["array"]
        pairs, which = np.unique(pair, return_inverse=True)
        busy_s = np.bincount(which, weights=reads["end_s"] - reads["start_s"])
        longest_s = np.zeros(len(self.network.uses))
        np.maximum.at(longest_s, pairs // self.schedule.arrays, busy_s)
        return longest_s


_Choice = tuple[str, str]  # cuts, packing
_Candidate = tuple[str, str, Layout]


@dataclass(frozen=True, eq=False)
class _Task:
    """What one mapping is made of; `many` says of what there is so much that only linear time is spent, if so."""

    network: PlannedNetwork
    spec: ArraySpec
    options: MappingOptions
    many: str


class Mapper:
    """Maps networks on arrays; remembers layouts, which follow from few of the options.

    Args:
        progress: called with what is being done.
        unmet: how many requirements a candidate's `figures` do not meet: candidates with fewer are preferred.
    """

    def __init__(
        self,
        progress: Callable[[str], None] = lambda what: None,
        unmet: Callable[[dict[str, Any]], int] = lambda found: 0,
    ) -> None:
        self.progress, self.unmet = progress, unmet
        self._layouts: dict[tuple[Any, ...], Layout] = {}

    def map(self, network: PlannedNetwork, spec: ArraySpec, options: MappingOptions) -> Mapping:
        """The best mapping under these options.

        Raises:
            ScheduleError: too many tiles for any table, or more reads than can be counted.
        """
        task = _task(network, spec, options)
        notes = (f"{task.many}: only what takes linear time was tried",) if task.many else ()
        layouts = [(*choice, self._layout(task, *choice)) for choice in _choices(options, task.many)]
        bound = 0 if task.many else min(layout.images_lower_bound for _, _, layout in layouts)
        (cuts, packing, layout), schedule, candidates = self._best(task, _distinct(layouts))
        return Mapping(network, spec, options, cuts, packing, layout, schedule, candidates, bound, notes)

    def layout(self, network: PlannedNetwork, spec: ArraySpec, options: MappingOptions) -> Layout:
        """The layout of the best mapping; no schedule is made where the options leave one layout."""
        task = _task(network, spec, options)
        choices = list(_choices(options, task.many))
        return self._layout(task, *choices[0]) if len(choices) == 1 else self.map(network, spec, options).layout

    def _best(
        self, task: _Task, tried: Sequence[_Candidate]
    ) -> tuple[_Candidate, Schedule, tuple[dict[str, Any], ...]]:
        """The best candidate, its schedule, and the figures of all."""
        search = task.options.effort if not task.many else 0.0
        few = len(tried) <= _REFINED
        schedules = [self._schedule(task, each, search if few else 0.0) for each in tried]
        rows = [_row(task, each, schedule) for each, schedule in zip(tried, schedules, strict=True)]
        if search and not few:
            ranked = sorted(range(len(tried)), key=lambda i: self._rank(rows, i, task.options))
            for i in ranked[:_REFINED]:
                schedules[i] = self._schedule(task, tried[i], search)
                rows[i] = _row(task, tried[i], schedules[i])
        best = min(range(len(tried)), key=lambda i: self._rank(rows, i, task.options))
        return tried[best], schedules[best], tuple(rows)

    def _rank(self, rows: Sequence[dict[str, Any]], index: int, options: MappingOptions) -> tuple[float, ...]:
        """What the best candidate has least of.

        First requirements that are not met; with an array per image then images, as that is the number of arrays, in steps of
        `_MORE_ARRAYS` above the fewest; then the objective, each figure relative to the least of all candidates, where less
        than `_ALIKE` / 2 is no difference; then images, then the objective exactly; ties by the other figures, then by tiles.
        """
        objective = parse_objective(options.objective)
        figures = [_figures(row, options.batch) for row in rows]
        least = Figures(*(min(each) for each in zip(*(astuple(each) for each in figures), strict=True)))
        row, rank = rows[index], objective.rank(figures[index], least)
        more = row["images"] / max(min(each["images"] for each in rows), 1) - 1
        first = (self.unmet(row), *(() if options.arrays else (more // _MORE_ARRAYS,)))
        # times are multiples of a tick that is each layout's own
        alike = round(rank[0] / (objective.value(least, least) or 1.0) / _ALIKE)
        return tuple(float(f"{each:.9g}") for each in (*first, alike, row["images"], *rank, row["tiles"]))

    def _layout(self, task: _Task, cuts: str, packing: str) -> Layout:
        network, spec = task.network, task.spec
        owners = sorted(set(network.matrices))
        shapes = tuple(
            MatrixShape(layer.groups, layer.inputs, layer.outputs, vectors)
            for layer, vectors in zip(
                [network.layers[owner] for owner in owners], vectors_of(owners, network.uses), strict=True
            )
        )
        rules = {
            "fixed_rows": spec.has_row_weights,
            "share_rows": spec.shares_rows,
            "share_columns": spec.shares_columns,
        }
        effort = 0.0 if task.many else task.options.effort
        key = shapes, spec.rows, spec.columns, *rules.values(), effort, cuts, packing
        if key not in self._layouts:
            self.progress(f"{cuts} cuts, packing {packing}")
            self._layouts[key] = plan_layout(
                shapes,
                spec.rows,
                spec.columns,
                pack=packing != "none",
                cuts=cuts,
                effort=effort,
                in_order=packing == "in-order",
                **rules,
            )
        return self._layouts[key].for_layers(owners)

    def _schedule(self, task: _Task, candidate: _Candidate, effort: float) -> Schedule:
        cuts, packing, layout = candidate
        self.progress(f"schedule for {cuts} cuts, packing {packing}")
        return make_schedule(
            layout,
            task.network.uses,
            task.spec,
            arrays=task.options.arrays,
            batch=task.options.batch,
            scramble=False,
            effort=effort,
            objective=task.options.objective,
        )


def _task(network: PlannedNetwork, spec: ArraySpec, options: MappingOptions) -> _Task:
    """What is to be mapped, if that can be."""
    check_reads(network.uses, options.batch)
    fewest = fewest_tiles(network, spec.rows, spec.columns)
    if fewest > MOST_TILES:
        raise ScheduleError(
            f"at least {fewest:,} tiles of {spec.rows}x{spec.columns}, and {MOST_TILES:,} are mapped at most; "
            f"take larger arrays, or part of the network"
        )
    matrices = len(set(network.matrices))
    tiles, many = f"more than {MANY_TILES:,} tiles", f"more than {MANY_MATRICES:,} matrices"
    return _Task(network, spec, options, tiles if fewest > MANY_TILES else many if matrices > MANY_MATRICES else "")


def _distinct(layouts: Sequence[_Candidate]) -> list[_Candidate]:
    """The first one of each set of equal layouts."""
    kept: list[_Candidate] = []
    for each in layouts:
        if not any(np.array_equal(each[2].tiles, other.tiles) for _, _, other in kept):
            kept.append(each)
    return kept


def fewest_tiles(network: PlannedNetwork, rows: int, columns: int) -> int:
    """Tiles that any cuts leave: of the weights (i rows, j columns) no two are in one tile, for all i, j."""
    layers = (network.layers[owner] for owner in set(network.matrices))
    return sum(layer.groups * -(-layer.inputs // rows) * -(-layer.outputs // columns) for layer in layers)


def _choices(options: MappingOptions, many: str) -> Iterator[_Choice]:
    """Cuts and packings to try, simple ones first."""
    all_cuts: Sequence[str] = CUTS[:1] if many else CUTS
    packings = PACKINGS[:2] if options.arrays else PACKINGS[:1]  # with an array per image their order does not matter
    for packing in packings if options.packing == AUTO else (options.packing,):
        for cuts in all_cuts if options.cuts == AUTO else (options.cuts,):
            if (cuts, packing) != ("free", "none"):
                yield cuts, packing


def _row(task: _Task, candidate: _Candidate, schedule: Schedule) -> dict[str, Any]:
    """One row of the table of candidates."""
    cuts, packing, layout = candidate
    head = {"cuts": cuts, "packing": packing, "images_lower_bound": layout.images_lower_bound}
    return head | figures_of(task.network, task.spec, schedule)


def _figures(row: dict[str, Any], batch: int) -> Figures:
    return Figures(row["latency_s"], row["period_s"], row["energy_j"] * batch, row["weight_updates"])

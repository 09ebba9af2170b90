"""Mapping of matrices without weights onto arrays: several layouts are tried, the best schedule stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from xbcompile.errors import ScheduleError, VerifyError
from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import READ, vectors_of
from xbcompile.planning.figures import energy_per_inference_j, reads_per_inference
from xbcompile.planning.shapes import LARGEST_SLICES, PlannedNetwork
from xbcompile.targets import Target
from xbcompile.tiler import Layout, MatrixShape, make_schedule, plan_layout
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.layout import CUTS
from xbcompile.tiler.schedule.objective import Figures, parse_objective
from xbcompile.tiler.shapes import check_array
from xbcompile.verification.schedule_checks import check_schedule

PACKINGS = ("dense", "in-order", "none")
MOST_ARRAYS = 2**31 - 1  # tables are int32
MOST_ROWS = 65_536  # as target `ideal` allows
MANY_TILES = 100_000  # assumed: with more tiles only what takes linear time is done
MOST_READS = 2**40  # assumed: counts of a million tiles stay in int64
MOST_TILES = 8_000_000  # assumed: tables of more take more than 8 GiB
_ALIKE = 0.005  # assumed: half a percent of an objective is not worth an array
_REFINED = 2  # candidates that get all the effort; the others are scheduled without search


@dataclass(frozen=True)
class MappingOptions:
    """How matrices are mapped.

    Args:
        array: rows and columns in place of the target's; None: the target's.
        arrays: physical arrays at most; 0: one per weight image.
        batch: inferences served between two weight updates.
        cuts: "greedy", "balanced" or "free"; None: the best of all.
        packing: "dense" (fewest images), "in-order" (images follow the order of execution, so that one array is loaded
            with each once) or "none" (one tile per image); None: the better one of the first two.
        objective: "latency", "throughput", "energy", "weight-updates", or a weighted sum of them.
        effort: see `plan_layout` and `make_schedule`.
        slices: reads per input vector of matrices that do not say their own; None: as the target's pipeline says.
    """

    array: tuple[int, int] | None = None
    arrays: int = 1
    batch: int = 1
    cuts: str | None = None
    packing: str | None = None
    objective: str = "latency"
    effort: float = DEFAULT_EFFORT
    slices: int | None = None


@dataclass(frozen=True, eq=False)
class Mapping:
    """One way to map a network, the best that was found.

    Args:
        network: what is mapped, with the slices that were taken.
        spec: the array.
        options: what was asked for.
        cuts: the cuts of this layout.
        packing: its packing.
        layout: tiles and images.
        schedule: writes and reads.
        candidates: what was tried: `cuts`, `packing`, `images_lower_bound` and `quantities`; one of several equal layouts.
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
    def quantities(self) -> dict[str, Any]:
        """See `quantities`."""
        return quantities(self.network, self.spec, self.schedule)

    def use_seconds(self) -> np.ndarray:
        """How long each use of a matrix takes its busiest array in a batch, float64 [uses]."""
        reads = self.schedule.steps[self.schedule.steps["operation"] == READ]
        pair = reads["use"].astype(np.int64) * self.schedule.arrays + reads["array"]
        pairs, which = np.unique(pair, return_inverse=True)
        busy_s = np.bincount(which, weights=reads["end_s"] - reads["start_s"])
        longest_s = np.zeros(len(self.network.uses))
        np.maximum.at(longest_s, pairs // self.schedule.arrays, busy_s)
        return longest_s


def resized(spec: ArraySpec, array: tuple[int, int] | None) -> tuple[ArraySpec, tuple[str, ...]]:
    """The array in another size: times and energies per row written and per read stay. Also notes.

    Row weights belong to the target's own number of rows: with another one all rows count alike.
    """
    if array is None or array == (spec.rows, spec.columns):
        return spec, ()
    rows, columns = array
    size = f"{spec.rows}x{spec.columns}"
    notes = [f"array of {rows}x{columns} in place of {size}: times and energies per row written and per read stay"]
    changed = replace(spec, rows=rows, columns=columns)
    if rows != spec.rows:
        if spec.has_row_weights:
            notes.append(f"row weights dropped: they belong to {spec.rows} rows; tiles may then sit at any row")
        changed = replace(
            changed,
            row_weight=np.ones(rows),
            idle_drive=np.full(rows, spec.idle_drive[0], np.float32),
            neutral_level=np.full(rows, spec.neutral_level[0], np.uint8),
        )
    return changed, tuple(notes)


_Layout = tuple[str, str, Layout]  # cuts, packing


class Mapper:
    """Maps one network on one target, with any options; remembers layouts, which follow from few of them.

    Args:
        network: what is mapped.
        target: whose array it is mapped on.
        progress: called with what is being done.
        unmet: how many requirements a candidate's `quantities` do not meet: candidates with fewer are preferred.
    """

    def __init__(
        self,
        network: PlannedNetwork,
        target: Target,
        progress: Callable[[str], None] = lambda what: None,
        unmet: Callable[[dict[str, Any]], int] = lambda found: 0,
    ) -> None:
        self.network, self.target, self.progress, self.unmet = network, target, progress, unmet
        self._layouts: dict[tuple[Any, ...], Layout] = {}

    def map(self, options: MappingOptions) -> Mapping:
        """The best mapping under these options.

        Raises:
            ScheduleError: impossible options, or too many tiles for any table.
            VerifyError: the tables of the result are wrong.
        """
        parse_objective(options.objective)
        if not 0 <= options.effort < math.inf or not 0 <= options.arrays <= MOST_ARRAYS:
            raise ScheduleError(
                f"effort {options.effort:g}, arrays {options.arrays}: allowed are numbers from 0, arrays up to {MOST_ARRAYS:,}"
            )
        network, spec, notes = self.problem(options)
        fewest = fewest_tiles(network, spec.rows, spec.columns)
        if fewest > MOST_TILES:
            raise ScheduleError(
                f"at least {fewest:,} tiles of {spec.rows}x{spec.columns}, and a plan takes {MOST_TILES:,} at most; "
                f"take larger arrays with --array, or plan part of the network"
            )
        many = fewest > MANY_TILES
        if many:
            notes += (f"more than {MANY_TILES:,} tiles: only what takes linear time was tried",)
        layouts = [
            (cuts, packing, self._layout(network, spec, options, cuts, packing, many))
            for cuts, packing in _choices(options, many)
        ]
        bound = 0 if many else min(layout.images_lower_bound for _, _, layout in layouts)
        best, candidates = self._best(network, spec, options, _distinct(layouts), many)
        cuts, packing, layout, schedule = best
        self.progress("checking the tables")
        findings = check_schedule(schedule, network, spec)
        if findings:
            raise VerifyError(findings)
        return Mapping(network, spec, options, cuts, packing, layout, schedule, candidates, bound, notes)

    def problem(self, options: MappingOptions) -> tuple[PlannedNetwork, ArraySpec, tuple[str, ...]]:
        """The network with the slices, and the array with the size, that the options ask for; and notes.

        Raises:
            ScheduleError: impossible sizes or slices, or more reads than can be counted.
        """
        if options.array is not None:
            check_array(*options.array)
            if options.array[0] > MOST_ROWS:
                raise ScheduleError(f"array of {options.array[0]:,} rows: at most {MOST_ROWS:,} are planned with")
        if options.slices is not None and not 1 <= options.slices <= LARGEST_SLICES:
            raise ScheduleError(f"slices {options.slices}: allowed are 1 to {LARGEST_SLICES}")
        network = self.network if options.slices is None else self.network.with_slices(options.slices, "given")
        reads = sum(use.reads for use in network.uses) * max(options.batch, 1)
        if reads > MOST_READS:
            raise ScheduleError(
                f"{reads:.3g} reads of a tile per batch; allowed are {MOST_READS:.3g}: take fewer vectors or a smaller batch"
            )
        return network, *resized(self.target.array_spec, options.array)

    def _best(
        self, network: PlannedNetwork, spec: ArraySpec, options: MappingOptions, tried: Sequence[_Layout], many: bool
    ) -> tuple[tuple[str, str, Layout, Schedule], tuple[dict[str, Any], ...]]:
        schedules = [self._schedule(network, spec, options, *each, 0.0) for each in tried]
        rows = [_candidate(network, spec, *each, s) for each, s in zip(tried, schedules, strict=True)]
        if options.effort and not many:
            ranked = sorted(range(len(tried)), key=lambda i: self._rank(rows, i, options))
            for i in ranked[:_REFINED]:
                schedules[i] = self._schedule(network, spec, options, *tried[i], options.effort)
                rows[i] = _candidate(network, spec, *tried[i], schedules[i])
        chosen = min(range(len(tried)), key=lambda i: self._rank(rows, i, options))
        return (*tried[chosen], schedules[chosen]), tuple(rows)

    def _rank(self, rows: Sequence[dict[str, Any]], index: int, options: MappingOptions) -> tuple[float, ...]:
        """What the best candidate has least of.

        First requirements that are not met; with an array per image then images, as that is the number of arrays; then the
        objective, each figure relative to the least of all candidates, where less than `_ALIKE` / 2 is no difference; then
        images, then the objective exactly; ties by the other figures, then by tiles.
        """
        figures = [_figures(row, options.batch) for row in rows]
        least = Figures(*(min(each) for each in zip(*(astuple(each) for each in figures), strict=True)))
        row, rank = rows[index], parse_objective(options.objective).rank(figures[index], least)
        first = (self.unmet(row), *(() if options.arrays else (row["images"],)))
        # times are multiples of a tick that is each layout's own
        alike = round(rank[0] / _ALIKE)
        return tuple(float(f"{each:.9g}") for each in (*first, alike, row["images"], *rank, row["tiles"]))

    def _layout(
        self, network: PlannedNetwork, spec: ArraySpec, options: MappingOptions, cuts: str, packing: str, many: bool
    ) -> Layout:
        key = spec.rows, spec.columns, options.effort, cuts, packing
        if key not in self._layouts:
            self.progress(f"{cuts} cuts, packing {packing}")
            owners = sorted(set(network.matrices))
            layers = [network.layers[owner] for owner in owners]
            layout = plan_layout(
                [
                    MatrixShape(layer.groups, layer.inputs, layer.outputs, vectors)
                    for layer, vectors in zip(layers, vectors_of(owners, network.uses), strict=True)
                ],
                spec.rows,
                spec.columns,
                pack=packing != "none",
                cuts=cuts,
                fixed_rows=spec.has_row_weights,
                effort=0.0 if many else options.effort,
                in_order=packing == "in-order",
                share_rows=spec.shares_rows,
                share_columns=spec.shares_columns,
            )
            self._layouts[key] = layout.for_layers(owners)
        return self._layouts[key]

    def _schedule(
        self,
        network: PlannedNetwork,
        spec: ArraySpec,
        options: MappingOptions,
        cuts: str,
        packing: str,
        layout: Layout,
        effort: float,
    ) -> Schedule:
        self.progress(f"schedule for {cuts} cuts, packing {packing}")
        return make_schedule(
            layout,
            network.uses,
            spec,
            arrays=options.arrays,
            batch=options.batch,
            scramble=False,
            effort=effort,
            objective=options.objective,
        )


def _distinct(layouts: Sequence[_Layout]) -> list[_Layout]:
    """The first one of each set of equal layouts."""
    kept: list[_Layout] = []
    for each in layouts:
        if not any(np.array_equal(each[2].tiles, other.tiles) for _, _, other in kept):
            kept.append(each)
    return kept


def fewest_tiles(network: PlannedNetwork, rows: int, columns: int) -> int:
    """Tiles that any cuts leave: of the weights (i rows, j columns) no two are in one tile, for all i, j."""
    layers = (network.layers[owner] for owner in set(network.matrices))
    return sum(layer.groups * -(-layer.inputs // rows) * -(-layer.outputs // columns) for layer in layers)


def _choices(options: MappingOptions, many: bool) -> Iterator[tuple[str, str]]:
    """Cuts and packings to try, simple ones first.

    Raises:
        ScheduleError: no such cuts or packing.
    """
    if options.cuts is not None and options.cuts not in CUTS:
        raise ScheduleError(f"cuts {options.cuts!r} are unknown; allowed: {', '.join(CUTS)}, or none to try all")
    if options.packing is not None and options.packing not in PACKINGS:
        raise ScheduleError(
            f"packing {options.packing!r} is unknown; allowed: {', '.join(PACKINGS)}, or none to try both"
        )
    all_cuts: Sequence[str] = CUTS[:1] if many else CUTS
    packings = PACKINGS[:2] if options.arrays else PACKINGS[:1]  # with an array per image their order does not matter
    for packing in packings if options.packing is None else (options.packing,):
        for cuts in all_cuts if options.cuts is None else (options.cuts,):
            if (cuts, packing) != ("free", "none") or options.cuts is not None:
                yield cuts, packing


def quantities(network: PlannedNetwork, spec: ArraySpec, schedule: Schedule) -> dict[str, Any]:
    """What requirements speak of.

    `weight_updates` are array writes per batch: none where weights stay. `latency_s` and `period_s` are those of one batch,
    `reads`, `t_per_inference_s` and `energy_j` of one inference.
    """
    return {
        "stationary": schedule.stationary,
        "images": schedule.images,
        "arrays": schedule.arrays,
        "tiles": len(schedule.tiles),
        "reads": reads_per_inference(network, schedule),
        "weight_updates": 0 if schedule.stationary else schedule.weight_updates,
        "latency_s": schedule.makespan_s,
        "period_s": schedule.period_s,
        "t_per_inference_s": schedule.period_s / schedule.batch,
        "energy_j": energy_per_inference_j(network, schedule, spec),
    }


def _candidate(
    network: PlannedNetwork, spec: ArraySpec, cuts: str, packing: str, layout: Layout, schedule: Schedule
) -> dict[str, Any]:
    bound = layout.images_lower_bound
    head = {"cuts": cuts, "packing": packing, "images_lower_bound": bound}
    return head | quantities(network, spec, schedule)


def _figures(row: dict[str, Any], batch: int) -> Figures:
    return Figures(row["latency_s"], row["period_s"], row["energy_j"] * batch, row["weight_updates"])

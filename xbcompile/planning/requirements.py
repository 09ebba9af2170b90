"""Why a network does not fit: requirements on a mapping, what binds, and the smallest changes of options that meet them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xbcompile.errors import ScheduleError, shown
from xbcompile.options import AUTO, MOST_ROWS, PACKINGS, PlanOptions
from xbcompile.planning.bounds import lower_bounds
from xbcompile.planning.mapper import MANY_TILES, Mapping, fewest_tiles
from xbcompile.planning.planner import Planner
from xbcompile.tiler.cuts import CUTS
from xbcompile.tiler.schedule.objective import OBJECTIVES
from xbcompile.tiler.shapes import MAX_COLUMNS
from xbcompile.units import si

_TIMES = ("latency_s", "period_s", "t_per_inference_s")
# What may help a requirement: see `_steps_of` and `_choices_of`.
_HELP = {
    "stationary": ("arrays", "columns", "rows"),
    "images": ("columns", "rows"),
    "arrays": ("columns", "rows"),
    "tiles": ("columns", "rows"),
    "reads": ("slices", "columns", "rows"),
    "weight_updates": ("arrays", "columns", "rows"),
    "latency_s": ("slices", "arrays", "columns", "rows"),
    "period_s": ("slices", "arrays", "columns", "rows"),
    "t_per_inference_s": ("batch", "slices", "arrays", "columns", "rows"),
    "energy_j": ("batch", "slices", "arrays", "columns", "rows"),
}
_MOST_ARRAYS = 64  # assumed: so many times the images; more copies help nobody
_MOST_BATCH = 1 << 20  # assumed
_MOST_PLANS = 40  # per option; assumed, for 20 doublings and 20 bisections
_MOST_LARGE_PLANS = 2  # the same with more than MANY_TILES tiles


@dataclass(frozen=True)
class Requirement:
    """`quantity <= limit`, or that weights stay in their arrays.

    Args:
        quantity: "stationary", or another key of `figures.figures_of`.
        limit: largest value allowed; None for "stationary".
    """

    quantity: str
    limit: float | None = None

    def __str__(self) -> str:
        return self.quantity if self.limit is None else f"{self.quantity}<={self.limit:.6g}"

    def met(self, values: dict[str, Any]) -> bool:
        """Whether a mapping's values are within the limit; times and energies to rounding."""
        if self.limit is None:
            return bool(values[self.quantity])
        return bool(values[self.quantity] <= self.limit * (1 + 1e-9))

    def possible(self, bounds: dict[str, float], arrays: int) -> bool:
        """Whether lower bounds leave it open."""
        if self.limit is None:
            return arrays == 0 or bounds["images"] <= arrays
        return bounds[self.quantity] <= self.limit * (1 + 1e-9)


def parse_requirements(texts: Collection[str]) -> list[Requirement]:
    """Read one requirement, or several.

    Raises:
        ScheduleError: anything else.
    """
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, list | tuple | set | frozenset) or not all(isinstance(each, str) for each in several):
        raise ScheduleError(f"require={shown(texts)}: give texts, such as 'stationary' or 'images<=25'")
    return [parse_requirement(each) for each in several]


def parse_requirement(text: str) -> Requirement:
    """Read `stationary` or `NAME<=NUMBER`.

    Raises:
        ScheduleError: anything else.
    """
    name, operator, number = (part.strip() for part in text.partition("<="))
    if not operator and name == "stationary":
        return Requirement(name)
    form = f"write stationary or NAME<=NUMBER, NAME one of {', '.join(each for each in _HELP if each != 'stationary')}"
    if not operator or name not in _HELP or name == "stationary":
        raise ScheduleError(f"requirement {shown(text)} is unknown; {form}")
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit) or limit < 0:
        raise ScheduleError(f"requirement {shown(text)}: {shown(number)} is no number of 0 or more; {form}")
    return Requirement(name, limit)


def unmet(requirements: Sequence[Requirement], found: dict[str, Any]) -> int:
    """How many requirements a mapping's figures do not meet."""
    return sum(not each.met(found) for each in requirements)


def judge(
    mapping: Mapping, options: PlanOptions, requirements: Sequence[Requirement], planner: Planner
) -> list[dict[str, Any]]:
    """What became of each requirement, and for those not met what binds and what would help.

    Args:
        mapping: what was found.
        options: what it was found with.
        requirements: what is asked for.
        planner: plans with other options.

    Returns:
        One each: `asked`, `quantity`, `limit`, `found`, `lower_bound` (of any mapping under the same options; of the
        images for "stationary"), `verdict` ("met", "impossible": the bound says so, or "not found"), `binds` and
        `relaxations`.
    """
    found = mapping.figures
    bounds = lower_bounds(mapping.network, mapping.spec, options, mapping.images_lower_bound)
    rows = []
    for requirement in requirements:
        met = requirement.met(found)
        possible = requirement.possible(bounds, options.arrays)
        key = "images" if requirement.limit is None else requirement.quantity
        rows.append(
            {
                "asked": str(requirement),
                "quantity": requirement.quantity,
                "limit": requirement.limit,
                "found": found[requirement.quantity],
                "lower_bound": bounds[key],
                "verdict": "met" if met else "not found" if possible else "impossible",
                "binds": "" if met else binding(mapping, requirement.quantity),
                "relaxations": [] if met else _relaxations(mapping, options, requirement, requirements, planner),
            }
        )
    return rows


def binding(mapping: Mapping, quantity: str) -> str:
    """What keeps a quantity from being smaller, in one sentence."""
    schedule, network, spec = mapping.schedule, mapping.network, mapping.spec
    if quantity in _TIMES:
        return _time_binding(mapping, quantity)
    if quantity == "energy_j":
        reads_j = mapping.figures["reads"] * spec.e_read_j
        total_j = mapping.figures["energy_j"]
        what, part_j = ("reads", reads_j) if 2 * reads_j >= total_j else ("writes", total_j - reads_j)
        return f"{what} take {si(part_j, 'J')} of {si(total_j, 'J')} per inference"
    if quantity in ("tiles", "reads"):
        tiles = len(schedule.tiles)
        return f"the matrices make {tiles:,} tiles of at most {spec.rows}x{spec.columns}, each read once per slice and vector"
    if quantity in ("stationary", "weight_updates"):
        return f"{schedule.images:,} images do not stay on {schedule.arrays:,} array{'s' * (schedule.arrays > 1)}"
    fill = network.weights / (spec.rows * spec.columns)
    size = f"{spec.rows}x{spec.columns}"
    return f"{network.weights:,} weights fill {fill:,.2f} arrays of {size}; {schedule.images:,} images hold them"


def _time_binding(mapping: Mapping, quantity: str) -> str:
    """Whether writes, reads or one chain of layers decide the time."""
    schedule, arrays = mapping.schedule, mapping.schedule.arrays
    writes = schedule.writes
    write_s = float((writes["end_s"] - writes["start_s"]).sum()) / arrays
    steps_s = float((schedule.steps["end_s"] - schedule.steps["start_s"]).sum()) / arrays
    total_s = schedule.makespan_s if quantity == "latency_s" else schedule.period_s
    path_s, layers = _longest_path(mapping)
    on = f"on {arrays:,} array{'s' * (arrays > 1)}"
    if quantity == "latency_s" and path_s > steps_s:
        slowest = max(layers, key=lambda each: each[1])
        return (
            f"critical path of {len(layers)} layers that wait for each other: {si(path_s, 's')} of {si(total_s, 's')}, "
            f"most of it in {slowest[0]!r} ({si(slowest[1], 's')})"
        )
    if 2 * write_s >= steps_s:
        return f"{len(writes):,} writes {on}: {si(write_s, 's')} per array of {si(total_s, 's')}"
    busiest = mapping.network.layers[mapping.network.uses[int(np.argmax(mapping.use_seconds()))].layer].name
    return (
        f"reads {on}: {si(steps_s - write_s, 's')} per array of {si(total_s, 's')}; {busiest!r} takes its array longest"
    )


def _longest_path(mapping: Mapping) -> tuple[float, list[tuple[str, float]]]:
    """The chain of uses that takes longest, each as long as its reads in the schedule do: layers with their seconds."""
    use_s = mapping.use_seconds()
    uses = mapping.network.uses
    ends = [0.0] * len(uses)
    before = [-1] * len(uses)
    for index, use in enumerate(uses):  # in an order of execution
        before[index] = max(use.waits_for, key=ends.__getitem__, default=-1)
        ends[index] = float(use_s[index]) + (ends[before[index]] if before[index] >= 0 else 0.0)
    at = max(range(len(uses)), key=ends.__getitem__)
    path_s, path = ends[at], []
    while at >= 0:
        path.append((mapping.network.layers[uses[at].layer].name, float(use_s[at])))
        at = before[at]
    return path_s, path[::-1]


@dataclass(frozen=True)
class _Knob:
    """One option that can be turned by 1 to `most` steps.

    Args:
        name: for the result.
        text: the option with a number of steps, as written on the command line.
        turned: the options with so many steps.
        most: largest number of steps.
        monotone: whether bounds never rise with the steps.
    """

    name: str
    text: Callable[[int], str]
    turned: Callable[[int], PlanOptions]
    most: int
    monotone: bool = True


def _knobs(mapping: Mapping, options: PlanOptions, quantity: str) -> Iterator[_Knob]:
    """The options that may help, one after another."""
    for name in _HELP[quantity]:
        knob = _knob(mapping, options, name, quantity)
        if knob is not None and knob.most > 0:
            yield knob


def _knob(mapping: Mapping, options: PlanOptions, name: str, quantity: str) -> _Knob | None:
    spec = mapping.spec
    rows, columns, arrays, batch = spec.rows, spec.columns, options.arrays, options.batch
    slices = mapping.network.most_slices
    if name == "batch":
        return _Knob(
            name, lambda k: f"--batch {batch + k}", lambda k: replace(options, batch=batch + k), _MOST_BATCH - batch
        )
    if name == "slices":
        return _Knob(
            name, lambda k: f"--slices {slices - k}", lambda k: replace(options, slices=slices - k), slices - 1
        )
    if name == "arrays" and arrays:
        most = _MOST_ARRAYS * mapping.schedule.images if quantity in _TIMES else len(mapping.schedule.tiles)
        return _Knob(
            name, lambda k: f"--arrays {arrays + k}", lambda k: replace(options, arrays=arrays + k), most - arrays
        )
    if name == "columns":
        return _Knob(
            name,
            lambda k: f"--array {rows}x{columns + k}",
            lambda k: replace(options, array=(rows, columns + k)),
            MAX_COLUMNS - columns,
        )
    if name == "rows":
        return _Knob(
            name,
            lambda k: f"--array {rows + k}x{columns}",
            lambda k: replace(options, array=(rows + k, columns)),
            MOST_ROWS - rows,
            monotone=False,  # a taller array takes longer to write
        )
    return None


def _choices_of(options: PlanOptions, requirement: Requirement) -> Iterator[tuple[str, str, PlanOptions]]:
    """Options that take one of few values: name, text, options."""
    for cuts in CUTS if options.cuts != AUTO else ():
        if cuts != options.cuts and (cuts, options.packing) != ("free", "none"):
            yield "cuts", f"--cuts {cuts}", replace(options, cuts=cuts)
    for packing in PACKINGS if options.packing != AUTO else ():
        if packing != options.packing and (options.cuts, packing) != ("free", "none"):
            yield "packing", f"--packing {packing}", replace(options, packing=packing)
    for objective in OBJECTIVES:
        if objective != options.objective:
            yield "objective", f"--objective {objective}", replace(options, objective=objective)
    if requirement.quantity == "arrays" and requirement.limit is not None and requirement.limit >= 1:
        arrays = int(requirement.limit)
        yield "arrays", f"--arrays {arrays}", replace(options, arrays=arrays)


def _relaxations(
    mapping: Mapping,
    options: PlanOptions,
    requirement: Requirement,
    requirements: Sequence[Requirement],
    planner: Planner,
) -> list[dict[str, Any]]:
    """Single changes of options that meet the requirement, each planned with; those that need no other hardware first."""
    search = _Search(requirement, requirements, planner)
    found = []
    for name, text, changed in _choices_of(options, requirement):
        planner.progress(f"{requirement}: {text}")
        result = search.planned(changed)
        if result is not None:
            found.append(search.row(name, text, result))
    for knob in _knobs(mapping, options, requirement.quantity):
        planner.progress(f"{requirement}: {knob.name}")
        row = search.smallest(knob)
        if row is not None:
            found.append(row)
    return found


class _Search:
    """Looks for the smallest change of one option that meets a requirement."""

    def __init__(self, requirement: Requirement, requirements: Sequence[Requirement], planner: Planner) -> None:
        self.requirement, self.requirements, self.planner = requirement, requirements, planner

    def planned(self, options: PlanOptions) -> Mapping | None:
        """The mapping under these options if it meets the requirement; None too where it is impossible."""
        if not self.possible(options):
            return None
        try:
            mapping = self.planner.map(options)
        except ScheduleError:  # more than can be mapped
            return None
        return mapping if self.requirement.met(mapping.figures) else None

    def possible(self, options: PlanOptions) -> bool:
        """Whether lower bounds leave it open that these options meet the requirement."""
        network, spec, _ = self.planner.problem(options)
        return self.requirement.possible(lower_bounds(network, spec, options), options.arrays)

    def row(self, name: str, text: str, mapping: Mapping, at_least: str = "") -> dict[str, Any]:
        """What a change gives."""
        given = mapping.figures
        return {
            "change": name,
            "option": text,
            "at_least": at_least,
            "meets_all": not unmet(self.requirements, given),
            "notes": list(mapping.notes),
            **given,
        }

    def smallest(self, knob: _Knob) -> dict[str, Any] | None:
        """The smallest change by this knob that was found: the least that bounds allow where that will do, else doubled
        and bisected with plans without search, and planned with all the effort at last.
        """
        least = _first(lambda k: self.possible(knob.turned(k)), knob.most)
        if least is None:
            return None
        at_least = knob.text(least) if knob.monotone else ""
        mapping = self.planned(knob.turned(least))
        if mapping is not None:
            return self.row(knob.name, knob.text(least), mapping, at_least)
        step = self._bisected(knob, least)
        mapping = None if step is None else self.planned(knob.turned(step))
        return None if step is None or mapping is None else self.row(knob.name, knob.text(step), mapping, at_least)

    def _bisected(self, knob: _Knob, failed: int) -> int | None:
        """The smallest number of steps above `failed` at which a plan without search meets the requirement."""
        network, spec, _ = self.planner.problem(knob.turned(failed))
        plans = _MOST_LARGE_PLANS if fewest_tiles(network, spec.rows, spec.columns) > MANY_TILES else _MOST_PLANS
        best: int | None = None
        step = min(2 * failed, knob.most)
        while plans and step > failed and step != best:
            plans -= 1
            if self.planned(replace(knob.turned(step), effort=0.0)) is not None:
                best = step
            else:
                failed = step
            step = min(2 * step, knob.most) if best is None else (failed + best) // 2
        return best


def _first(holds: Callable[[int], bool], most: int) -> int | None:
    """The least k of 1..most at which something holds that holds for all larger ones; None where it never does."""
    high = 1
    while high < most and not holds(high):
        high = min(2 * high, most)
    if most < 1 or not holds(high):
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

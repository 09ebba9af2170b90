"""Placement of arrays on the sites of a floorplan: little traffic over long ways, with a bound on how little is possible.

This is the quadratic assignment problem (Koopmans and Beckmann, Econometrica 25, 53 (1957)): sum over pairs of arrays of
values per inference times hops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.floorplan.bounds import lower_bound
from xbcompile.tiler.floorplan.search import Graph, search
from xbcompile.tiler.floorplan.solver import SOLVER_COEFFICIENTS, solve
from xbcompile.tiler.floorplan.traffic import Traffic


@dataclass(frozen=True, eq=False)
class FloorplanPlacement(ContentEqual):
    """Where each array sits.

    Args:
        site: int32 [arrays], site of each array; no two are the same.
        cost: values times hops per inference.
        lower_bound: no placement of the same traffic on the same floorplan costs less.
        status: "optimal" (cost equals lower_bound) or "feasible".
    """

    site: np.ndarray
    cost: int
    lower_bound: int
    status: str


def place_on_floorplan(
    traffic: Traffic, arrays: int, grid: SiteGrid, *, seed: int = 0, effort: float = DEFAULT_EFFORT
) -> FloorplanPlacement:
    """Choose a site for every array.

    Args:
        traffic: values that move between arrays per inference (`array_traffic`).
        arrays: number of arrays; those without traffic take sites, too.
        grid: sites and distances.
        seed: of the search.
        effort: work allowed (one unit takes some seconds; a minute for tens of thousands of arrays); 0: no search,
            but a start and a bound. More effort never gives a worse placement or a weaker bound.

    Returns:
        The placement; equal arguments give equal placements on every machine.

    Raises:
        ScheduleError: fewer sites than arrays, a negative seed, or an effort that is no number from 0 up.
    """
    if arrays > grid.sites:
        raise ScheduleError(
            f"floorplan {grid}: {grid.sites:,} sites for {arrays:,} arrays; use a larger grid or more chips, "
            f"or schedule on at most {grid.sites:,} arrays"
        )
    if not effort >= 0 or effort == float("inf"):
        raise ScheduleError(f"effort={effort}: give a number from 0 up")
    if seed < 0:
        raise ScheduleError(f"seed={seed}: the seed of the search must not be negative")
    if not arrays:
        return FloorplanPlacement(np.zeros(0, dtype=np.int32), 0, 0, "optimal")
    graph = Graph.of(traffic, arrays, grid)
    bound = lower_bound(traffic, arrays, grid)
    place = search(graph, seed=seed, effort=effort, enough=bound)
    if graph.cost(place) > bound and effort > 0 and (arrays * grid.sites) ** 2 <= SOLVER_COEFFICIENTS:
        place, bound = solve(graph, grid, place, bound=bound, effort=effort)
    cost = graph.cost(place)
    site = graph.site.reshape(-1)[place].astype(np.int32)
    return FloorplanPlacement(site, cost, bound, "optimal" if cost == bound else "feasible")

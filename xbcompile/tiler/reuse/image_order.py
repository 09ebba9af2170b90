"""Order of images that are written one after another into one array, chosen so that few cells change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.deferred import library
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.tiler.effort import DEFAULT_EFFORT, Allowance, solve
from xbcompile.tiler.reuse.changed_cells import CellsOf, PackedCells

distance = library("scipy.spatial.distance")
if TYPE_CHECKING:
    from ortools.constraint_solver import pywrapcp, routing_enums_pb2
    from ortools.sat.python import cp_model
else:
    pywrapcp = library("ortools.constraint_solver.pywrapcp")
    routing_enums_pb2 = library("ortools.constraint_solver.routing_enums_pb2")
    cp_model = library("ortools.sat.python.cp_model")

WHOLE_IMAGES = 100  # a longer chain is solved window by window; assumed
_WINDOW_IMAGES = 40  # assumed: some tenths of a second each
_PROFILED = 512  # images of a run that are walked by their profiles together; assumed
_WINDOWS = 25  # per unit of effort; assumed
_WINDOW_SHARE = 0.25  # of the time left that one window may take; assumed
_ROUTES = 100  # solutions of the routing solver's local search that start the exact one; assumed


@dataclass(frozen=True, eq=False)
class Ordering(ContentEqual):
    """An order of the images of a chain. Cells are sums over its writes, each with the best columns for it alone.

    Args:
        order: int64 [n], positions of the chain in the new order: the new chain is `chain[order]`.
        cells: fewest cells changed by the writes in this order, the write of the first image over the last included.
        cells_before: the same for the chain as it was given.
        cells_lower_bound: no permitted order has fewer; None where the chain is too long to tell.
    """

    order: np.ndarray
    cells: int
    cells_before: int
    cells_lower_bound: int | None


def order_images(
    cells_of: CellsOf, chain: np.ndarray, may_swap: np.ndarray, *, effort: float = DEFAULT_EFFORT
) -> Ordering:
    """Order the images of one array so that the writes of a batch that repeats change few cells.

    The distance of two images is the number of cells that differ under the best permutation of columns; an order is a round
    trip that visits the runs one after another. OR-Tools' routing solver finds one, CP-SAT improves it and bounds it. A
    chain of more than `WHOLE_IMAGES` is improved in windows of neighbours, each between its fixed ends; before, images
    of a long run are ordered by the profiles of their rows, where that is better. Never worse than the order given.

    Args:
        cells_of: cells [n, rows, columns] of n images (indices int64 [n]) in logical columns, uint8 or float32.
        chain: the images in order of time, int64 [n]; an image may occur several times.
        may_swap: one label per position; positions of one label are neighbours, and their images may change places.
        effort: deterministic time of the solvers (one unit takes some seconds); 0 keeps the order.

    Returns:
        The order; equal arguments give equal results.

    Raises:
        ValueError: positions of one label are not next to each other, or there is not one label per position.
    """
    run = _runs(chain, may_swap)
    images = chain.tolist()
    plain = np.arange(len(images))
    if len(images) < 2:
        return Ordering(plain, 0, 0, 0)
    packed = PackedCells(cells_of, np.unique(chain))
    before = _round_trip(packed, images, plain)
    bound = None
    if effort <= 0:
        order = plain
    elif len(images) <= WHOLE_IMAGES:
        cost = _distances(packed, images, run)
        order, found = _solve(cost, run, plain, Allowance(effort))
        bound = min(found, before)
    else:
        order = _improve_windows(packed, images, run, _ordered_by_profile(packed, images, run), effort)
    return Ordering(order, _round_trip(packed, images, order), before, bound)


def _runs(chain: np.ndarray, may_swap: np.ndarray) -> np.ndarray:
    """Labels as 0, 1, 2, ... in order of time."""
    labels = np.asarray(may_swap)
    if labels.shape != chain.shape:
        raise ValueError(f"{len(labels)} labels for a chain of {len(chain)} images")
    run = np.cumsum(np.diff(labels, prepend=labels[:1]) != 0)
    if len(np.unique(labels)) != int(run.max(initial=-1)) + 1:
        raise ValueError("images that may be exchanged must be next to each other in the chain")
    return run


def _round_trip(packed: PackedCells, images: Sequence[int], order: np.ndarray) -> int:
    return sum(packed.fewest(images[order[t - 1]], images[order[t]]) for t in range(len(order)))


def _may_follow(run: np.ndarray) -> np.ndarray:
    """Whether position j may come after position i in a round trip through the runs; bool [n, n]."""
    follows = (run[:, None] == run) | ((run[:, None] + 1) % (run.max() + 1) == run)
    np.fill_diagonal(follows, False)
    return follows


def _distances(packed: PackedCells, images: Sequence[int], run: np.ndarray) -> np.ndarray:
    """Fewest cells that differ, int64 [n, n]; 0 where images may not follow each other."""
    result = np.zeros((len(images),) * 2, np.int64)
    for i, j in np.argwhere(_may_follow(run)).tolist():
        result[i, j] = packed.fewest(images[i], images[j])
    return result


def _solve(
    cost: np.ndarray, run: np.ndarray, start: np.ndarray, allowance: Allowance, share: float = 1.0
) -> tuple[np.ndarray, int]:
    """A short round trip through all positions, run by run, that begins with the first run.

    Returns:
        Positions in order, and a lower bound on the length of every such trip.
    """
    n = len(run)
    if n < 3:
        return np.arange(n), int(cost[np.arange(n), np.arange(n) - 1].sum())
    trips = [start, _routed(cost, run)]
    best = min(trips, key=lambda trip: _length(cost, trip))
    model, arcs = _circuit_model(cost, run)
    after = dict(zip(best.tolist(), np.roll(best, -1).tolist(), strict=True))
    for (i, j), literal in arcs.items():
        model.add_hint(literal, after[i] == j)
    solver = allowance.solver(share)
    status = solve(solver, model)
    allowance.spend(solver)
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        successor = {i: j for (i, j), literal in arcs.items() if solver.boolean_value(literal)}
        trip = [0]
        while len(trip) < n:
            trip.append(successor[trip[-1]])
        best = min(best, np.array(trip), key=lambda trip: _length(cost, trip))
    bound = solver.best_objective_bound
    return _from_first_run(best, run), int(np.ceil(bound - 1e-6)) if 0 < bound < np.inf else 0


def _length(cost: np.ndarray, trip: np.ndarray) -> int:
    return int(cost[trip, np.roll(trip, -1)].sum())


def _from_first_run(trip: np.ndarray, run: np.ndarray) -> np.ndarray:
    """Turn a round trip so that the first run comes first; where all is one run, position 0."""
    entered = np.flatnonzero((run[trip] == 0) & (run[np.roll(trip, 1)] != 0))
    first = entered[0] if len(entered) else np.flatnonzero(trip == 0)[0]
    return np.roll(trip, -int(first))


def _circuit_model(
    cost: np.ndarray, run: np.ndarray
) -> tuple[cp_model.CpModel, dict[tuple[int, int], cp_model.IntVar]]:
    """A circuit through all positions that leaves each run once: an exact model of the order."""
    model = cp_model.CpModel()
    arcs = {(i, j): model.new_bool_var(f"{i}_{j}") for i, j in np.argwhere(_may_follow(run)).tolist()}
    model.add_circuit([(i, j, literal) for (i, j), literal in arcs.items()])
    for left in range(int(run.max()) + 1 if run.max() else 0):
        model.add_exactly_one(literal for (i, j), literal in arcs.items() if run[i] == left and run[j] != left)
    model.minimize(sum(int(cost[i, j]) * literal for (i, j), literal in arcs.items()))
    return model, arcs


def _routed(cost: np.ndarray, run: np.ndarray) -> np.ndarray:
    """A round trip by OR-Tools' routing solver: guided local search with a limit on solutions, not on time."""
    far = int(cost.max()) * len(run) + 1  # leaving a run twice costs more than any order can save
    costs = np.where(_may_follow(run), cost + far * (run[:, None] != run), 4 * far)
    manager = pywrapcp.RoutingIndexManager(len(run), 1, 0)
    routing = pywrapcp.RoutingModel(manager)
    routing.SetArcCostEvaluatorOfAllVehicles(routing.RegisterTransitMatrix(costs.tolist()))
    parameters = pywrapcp.DefaultRoutingSearchParameters()
    parameters.first_solution_strategy = routing_enums_pb2.FirstSolutionStrategy.PATH_CHEAPEST_ARC
    parameters.local_search_metaheuristic = routing_enums_pb2.LocalSearchMetaheuristic.GUIDED_LOCAL_SEARCH
    parameters.solution_limit = _ROUTES
    solution = routing.SolveWithParameters(parameters)
    trip, index = [], routing.Start(0)
    while not routing.IsEnd(index):
        trip.append(manager.IndexToNode(index))
        index = solution.Value(routing.NextVar(index))
    return np.array(trip)


def _ordered_by_profile(packed: PackedCells, images: Sequence[int], run: np.ndarray) -> np.ndarray:
    """Long runs walked from each image to the one whose rows look most alike, where that changes fewer cells."""
    order = np.arange(len(run))
    for number in range(int(run.max()) + 1):
        places = np.flatnonzero(run == number)
        for start in range(0, len(places), _PROFILED):
            part = places[start : start + _PROFILED]
            if len(part) > _WINDOW_IMAGES:
                walked = part[_walk(packed.row_profiles(np.array([images[place] for place in part.tolist()])))]
                after = (int(part[-1]) + 1) % len(run)
                plain, other = (order[[part[0] - 1, *places_of, after]] for places_of in (part, walked))
                if _path(packed, images, other) < _path(packed, images, plain):
                    order[part] = walked
    return order


def _path(packed: PackedCells, images: Sequence[int], places: np.ndarray) -> int:
    return sum(packed.fewest(images[one], images[two]) for one, two in pairwise(places.tolist()))


def _walk(profiles: np.ndarray) -> list[int]:
    """Nearest neighbours from the first profile on, each profile once."""
    left, walk = np.arange(1, len(profiles)), [0]
    while len(left):
        near = int(np.argmin(distance.cdist(profiles[walk[-1:]], profiles[left], "cityblock")))
        walk.append(int(left[near]))
        left = np.delete(left, near)
    return walk


def _improve_windows(
    packed: PackedCells, images: Sequence[int], run: np.ndarray, order: np.ndarray, effort: float
) -> np.ndarray:
    """Order the images of each window anew, between the image before it and the image after it."""
    allowance = Allowance(effort)
    order, n = order.copy(), len(order)
    starts = [*range(0, n, _WINDOW_IMAGES), *range(_WINDOW_IMAGES // 2, n, _WINDOW_IMAGES)]
    for start in starts[: int(effort * _WINDOWS)]:
        window = order[start : start + _WINDOW_IMAGES].copy()
        before, after = order[start - 1], order[(start + len(window)) % n]
        inner = run[window]
        turn = np.concatenate([[0], np.cumsum(np.diff(inner, prepend=inner[:1]) != 0) + 1])
        cost = np.zeros((len(turn),) * 2, np.int64)
        cost[1:, 1:] = _distances(packed, [images[place] for place in window.tolist()], inner)
        cost[0, 1:] = [packed.fewest(images[before], images[place]) for place in window]
        cost[1:, 0] = [packed.fewest(images[place], images[after]) for place in window]
        trip, _ = _solve(cost, turn, np.arange(len(turn)), allowance, _WINDOW_SHARE)
        order[start : start + len(window)] = window[trip[1:] - 1]
    return order

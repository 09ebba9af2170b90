"""Good placements of many arrays on a floorplan: in order or one after another, then swaps by simulated annealing.

All arithmetic that decides is of integers or of single float64 operations, so results do not depend on the machine.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbcompile.deferred import library, njit
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.tiler.floorplan.traffic import Traffic

sparse = library("scipy.sparse")

# Annealing (Kirkpatrick et al., Science 220, 671 (1983)) with windows that shrink as it cools, as placers of gate
# arrays do (Betz and Rose, VPR, FPL 1997). Chosen on random sparse graphs; assumed good elsewhere.
_LEVELS = 120  # temperatures of one run
_HOT = 0.3  # first temperature, in mean changes of cost by a swap at the start
_COOLING = 0.949  # of each temperature to the one before: the last is 0.002 of the first
_MOVES_PER_ARRAY, _FEWEST_MOVES, _MOST_MOVES = 5_000, 4_000_000, 60_000_000  # swaps tried at effort 1
_SHARES = (*[1 / 16] * 8, 1 / 2)  # runs up to effort 1; each one after them doubles all before it
_QUANTILES = 4096
# A swap that costs T times one of these, drawn at random, or less, is kept; rounded, so that every machine has the same.
_EXPONENTIAL = np.rint(-np.log((np.arange(_QUANTILES) + 0.5) / _QUANTILES) * 2.0**20) / 2.0**20


@dataclass(frozen=True)
class Graph:
    """Traffic as neighbours of each array, and a floorplan as one grid of all chips side by side.

    Args:
        arrays: number of arrays.
        start: int64 [arrays + 1], where the neighbours of each array start.
        other: int32, neighbours.
        values: int64, values per inference to and from each neighbour.
        down: int64 [grid rows], coordinate of each row in hops.
        across: int64 [grid columns], coordinate of each column in hops.
        site: int32 [grid rows, grid columns], the grid's number of each site.
        chip_columns: columns of the grid on one chip.
    """

    arrays: int
    start: np.ndarray
    other: np.ndarray
    values: np.ndarray
    down: np.ndarray
    across: np.ndarray
    site: np.ndarray
    chip_columns: int

    @classmethod
    def of(cls, traffic: Traffic, arrays: int, grid: SiteGrid) -> Graph:
        """The same as tables for the searches."""
        pairs = (traffic.values, (traffic.array_a, traffic.array_b))
        half = sparse.coo_array(pairs, shape=(arrays, arrays)).tocsr()
        both = (half + half.T).tocsr()
        both.sort_indices()
        chips = np.arange(grid.sites, dtype=np.int32).reshape(grid.chips, grid.site_rows, grid.site_columns)
        site = np.concatenate(list(chips), axis=1)
        down, across = grid.coordinates()
        return cls(
            arrays,
            both.indptr.astype(np.int64),
            both.indices.astype(np.int32),
            both.data.astype(np.int64),
            np.ascontiguousarray(down[site[:, 0]]),
            np.ascontiguousarray(across[site[0]]),
            np.ascontiguousarray(site),
            grid.site_columns,
        )

    def cost(self, place: np.ndarray) -> int:
        """Values times hops; `place` is the position of each array in the grid, row by row."""
        a = np.repeat(np.arange(self.arrays), np.diff(self.start))
        row, column = np.divmod(place, len(self.across))
        hops = np.abs(self.down[row[a]] - self.down[row[self.other]])
        hops += np.abs(self.across[column[a]] - self.across[column[self.other]])
        return int(self.values @ hops) // 2


def search(graph: Graph, *, seed: int, effort: float, enough: int) -> np.ndarray:
    """The best of some simple placements, then swaps.

    Args:
        graph: what to place where; at least as many sites as arrays.
        seed: of the swaps tried.
        effort: 1 tries 5,000 swaps per array (within 4 to 60 million); a greater effort goes on from there.
        enough: stop at this cost, a lower bound.

    Returns:
        Position of each array in the grid, row by row; int64 [arrays].
    """
    heights = [1 << power for power in range((len(graph.down) - 1).bit_length() + 1)]
    starts = [_one_by_one(graph), *(_in_bands(graph, height) for height in heights)]
    best = min(starts, key=graph.cost)
    cost = graph.cost(best)
    if graph.arrays < 2:
        return best
    moves = min(max(_MOVES_PER_ARRAY * graph.arrays, _FEWEST_MOVES), _MOST_MOVES)
    spent, run = 0.0, 0
    while cost > enough:
        share = _SHARES[run] if run < len(_SHARES) else spent
        if spent + share > effort:
            break
        found = best.copy()
        _anneal(
            *(graph.start, graph.other, graph.values, graph.down, graph.across, found),
            *(_EXPONENTIAL, int(moves * share) // _LEVELS + 1, _start_of(seed, run)),
        )
        if graph.cost(found) < cost:
            best, cost = found, graph.cost(found)
        spent, run = spent + share, run + 1
    return best


def _start_of(seed: int, run: int) -> int:
    """What a run's random numbers start from, below 2**63: the seed beside the run, or a hash where that is longer."""
    start = (seed << 16) + run + 1
    return start if start < 2**63 else int(np.random.SeedSequence(start).generate_state(1, np.uint64)[0] >> 1)


def _in_bands(graph: Graph, height: int) -> np.ndarray:
    """Arrays by number, chip after chip, in bands of `height` rows; to and fro in each band, and from band to band."""
    row, column = np.divmod(np.arange(graph.site.size), graph.site.shape[1])
    chip, column = np.divmod(column, graph.chip_columns)
    band = row // height
    along = np.where(band % 2, -column, column)
    down = np.where(column % 2, -row, row)
    return np.lexsort((down, along, band, chip))[: graph.arrays]


def _one_by_one(graph: Graph) -> np.ndarray:
    """Next the array with most traffic to those placed, on the cheapest free site near the middle of them."""
    degree = np.add.reduceat(np.append(graph.values, 0), graph.start[:-1]) * (np.diff(graph.start) > 0)
    attached = np.zeros(graph.arrays, dtype=np.int64)
    placed = np.zeros(graph.arrays, dtype=bool)
    order = []
    queue: list[tuple[int, int]] = []
    for first in np.argsort(-degree, kind="stable").tolist():
        if not placed[first]:
            heapq.heappush(queue, (0, first))
        while queue:
            _, array = heapq.heappop(queue)
            if placed[array]:
                continue
            placed[array] = True
            order.append(array)
            span = slice(graph.start[array], graph.start[array + 1])
            attached[graph.other[span]] += graph.values[span]
            for other in graph.other[span].tolist():
                if not placed[other]:
                    heapq.heappush(queue, (-int(attached[other]), other))
    place = np.full(graph.arrays, -1, dtype=np.int64)
    _attach(graph.start, graph.other, graph.values, graph.down, graph.across, np.array(order), place)
    return place


@njit(cache=True)
def _attach(
    start: np.ndarray,
    other: np.ndarray,
    values: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    order: np.ndarray,
    place: np.ndarray,
) -> None:
    """Fill `place` in the given order: rings around the mean of the neighbours placed, until two rings had free sites."""
    rows, columns = len(down), len(across)
    free = np.ones((rows, columns), dtype=np.bool_)
    for array in order:
        total, row_sum, column_sum = 0, 0, 0
        for i in range(start[array], start[array + 1]):
            if place[other[i]] >= 0:
                total += values[i]
                row_sum += values[i] * (place[other[i]] // columns)
                column_sum += values[i] * (place[other[i]] % columns)
        middle_row = row_sum // total if total > 0 else rows // 2
        middle_column = column_sum // total if total > 0 else columns // 2
        best, best_cost, rings = -1, 0, 0
        for ring in range(rows + columns):
            seen = False
            for row in range(max(middle_row - ring, 0), min(middle_row + ring, rows - 1) + 1):
                edge = row == middle_row - ring or row == middle_row + ring
                step = 1 if edge or ring == 0 else 2 * ring
                for column in range(middle_column - ring, middle_column + ring + 1, step):
                    if column < 0 or column >= columns or not free[row, column]:
                        continue
                    seen = True
                    cost = 0
                    for i in range(start[array], start[array + 1]):
                        position = place[other[i]]
                        if position >= 0:
                            hops = abs(down[row] - down[position // columns])
                            hops += abs(across[column] - across[position % columns])
                            cost += values[i] * hops
                    if best < 0 or cost < best_cost:
                        best, best_cost = row * columns + column, cost
            rings += seen
            if rings == 2:
                break
        place[array] = best
        free[best // columns, best % columns] = False


@njit(cache=True)
def _random(state: np.ndarray) -> Any:  # int64
    """Next 31 random bits: xorshift64* of Vigna, ACM Trans. Math. Softw. 42, 30 (2016)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return np.int64((x * np.uint64(2685821657736338717)) >> np.uint64(33))


@njit(cache=True)
def _change(
    start: np.ndarray,
    other: np.ndarray,
    values: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    place: np.ndarray,
    array: int,
    there: int,
    swapped: int,
) -> int:
    """Change of cost when an array moves `there`, its traffic with the array `swapped` left out."""
    columns = len(across)
    here = place[array]
    y0, x0, y1, x1 = down[here // columns], across[here % columns], down[there // columns], across[there % columns]
    change = 0
    for i in range(start[array], start[array + 1]):
        if other[i] != swapped:
            y, x = down[place[other[i]] // columns], across[place[other[i]] % columns]
            change += values[i] * (abs(y1 - y) + abs(x1 - x) - abs(y0 - y) - abs(x0 - x))
    return change


@njit(cache=True)
def _cooled(level: int, temperature: float, change: float) -> float:
    """The temperature after a level: at first of the mean size of a change, at last 0."""
    if level < 0:
        return _HOT * change
    return 0.0 if level == _LEVELS - 2 else temperature * _COOLING


@njit(cache=True)
def _anneal(
    start: np.ndarray,
    other: np.ndarray,
    values: np.ndarray,
    down: np.ndarray,
    across: np.ndarray,
    place: np.ndarray,
    exponential: np.ndarray,
    moves: int,
    seed: int,
) -> None:
    """Change `place` by swaps, `moves` at each temperature; the last temperature is 0."""
    arrays, rows, columns = len(place), len(down), len(across)
    state = np.array([seed], dtype=np.uint64)
    state[0] = state[0] * np.uint64(11400714819323198485) + np.uint64(88172645463325252)
    at = np.full(rows * columns, -1, dtype=np.int64)
    for array in range(arrays):
        at[place[array]] = array
    temperature, size, tried = 0.0, 0.0, 0
    window = float(max(rows, columns))
    for level in range(-1, _LEVELS):
        kept = 0
        for _ in range(moves if level >= 0 else min(moves, 10_000)):
            array = _random(state) % arrays
            centre = place[array]
            count = start[array + 1] - start[array]
            if count > 0 and _random(state) % 2 == 0:  # beside a neighbour, else anywhere in the window
                centre = place[other[start[array] + _random(state) % count]]
                reach = 1
            else:
                reach = int(window)
            row = centre // columns + _random(state) % (2 * reach + 1) - reach
            column = centre % columns + _random(state) % (2 * reach + 1) - reach
            if row < 0 or column < 0 or row >= rows or column >= columns:
                continue
            here, there = place[array], row * columns + column
            if here == there:
                continue
            swapped = at[there]
            change = _change(start, other, values, down, across, place, array, there, swapped)
            if swapped >= 0:
                change += _change(start, other, values, down, across, place, swapped, here, array)
            if level < 0:
                size += abs(change)
                tried += 1
                continue
            if change > temperature * exponential[_random(state) % len(exponential)]:
                continue
            place[array], at[there], at[here] = there, array, swapped
            if swapped >= 0:
                place[swapped] = here
            kept += 1
        temperature = _cooled(level, temperature, size / max(tried, 1))
        # the window follows the share of swaps kept, towards 0.44 of them (Lam and Delosme 1988)
        if level >= 0:
            window = min(max(window * (1.0 - 0.44 + kept / moves), 1.0), float(max(rows, columns)))

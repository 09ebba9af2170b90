"""Lower bounds on values times hops: no placement of the arrays on the floorplan costs less.

Each pair's traffic is split between its two arrays. Whatever the split, an array pays at least for its shares, the largest
over the shortest distance: there is a nearest other site, a second nearest, and so on. Without knowing where the array sits these
are the shortest distances from any site; the Gilmore-Lawler bound (Gilmore, J. SIAM 10, 305 (1962); Lawler, Management
Science 9, 586 (1963)) weighs every array on every site and solves the assignment. The split is improved by subgradient
steps: the bound is concave in it. All shares are integers, so the bounds are exact.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xbcompile.deferred import library
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.tiler.floorplan.traffic import Traffic

optimize = library("scipy.optimize")

_ASSIGNED_ARRAYS, _ASSIGNED_SITES = 400, 1_000  # larger problems do without the assignment
_STEPS, _ASSIGNED_WORK = 60, 4_000_000  # steps; with assignment no more than this many (array, site) costs in all
_SHARE = 1 << 20  # a split is a number of these parts


def lower_bound(traffic: Traffic, arrays: int, grid: SiteGrid) -> int:
    """The best bound found, in values times hops.

    Args:
        traffic: values between arrays.
        arrays: number of arrays, at most the number of sites.
        grid: where they go.
    """
    if not len(traffic.values):
        return 0
    splits = _Splits(traffic, arrays)
    nearest = nearest_distances(grid, splits.most_neighbours)
    best, split = splits.improve(lambda shares: splits.pays(shares, nearest[splits.rank(shares)]), _STEPS)
    if arrays <= _ASSIGNED_ARRAYS and grid.sites <= _ASSIGNED_SITES:
        sorted_distance = np.sort(grid.distance(), axis=1)[:, 1 : splits.most_neighbours + 1]
        steps = min(max(_ASSIGNED_WORK // (arrays * grid.sites), 1), 4 * _STEPS)
        assigned, _ = splits.improve(lambda shares: splits.assigned(shares, sorted_distance), steps, split)
        best = max(best, assigned)
    return best


def nearest_distances(grid: SiteGrid, count: int) -> np.ndarray:
    """At least so far away are the `count` sites nearest to any site, int64 [count], ascending; fewer sites: all."""
    down, across = grid.coordinates()
    rows = np.unique(down)
    columns = np.unique(across)
    middle = np.abs(rows - rows[len(rows) // 2])  # every radius holds most rows from the middle one
    found: list[int] = []
    radius = 0
    count = min(count, grid.sites - 1)
    within: list[int] = []  # columns within a distance of one column, at most
    while len(found) < count:
        reach = np.searchsorted(columns, columns + radius, side="right")
        within.append(int((reach - np.searchsorted(columns, columns - radius)).max()))
        inside = middle[middle <= radius]
        sites = int(np.array(within)[radius - inside].sum()) - 1
        found.extend([radius] * (min(sites, count) - len(found)))
        radius += 1
    return np.array(found, dtype=np.int64)


class _Splits:
    """Splits of all pairs' values between their arrays; each pair is there twice, once for each of its arrays."""

    def __init__(self, traffic: Traffic, arrays: int) -> None:
        self.values, self.arrays = traffic.values, arrays
        self.owner = np.concatenate([traffic.array_a, traffic.array_b]).astype(np.int64)
        degree = np.bincount(self.owner, minlength=arrays)
        self.first = np.cumsum(degree) - degree
        self.most_neighbours = int(degree.max())
        a, b = degree[traffic.array_a], degree[traffic.array_b]
        self.start = np.where(a == b, _SHARE // 2, np.where(a > b, _SHARE, 0))  # who has more neighbours pays

    def rank(self, shares: np.ndarray) -> np.ndarray:
        """Position of each share among its array's, largest first."""
        order = np.lexsort((-shares, self.owner))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - self.first[self.owner[order]]
        return rank

    def pays(self, shares: np.ndarray, distance: np.ndarray) -> tuple[int, np.ndarray]:
        """The bound, and the distance at which each share is paid."""
        return int(shares @ distance), distance

    def assigned(self, shares: np.ndarray, sorted_distance: np.ndarray) -> tuple[int, np.ndarray]:
        """Gilmore-Lawler: the cheapest assignment of arrays to sites, each paying for its shares alone."""
        rank = self.rank(shares)
        table = np.zeros((self.arrays, self.most_neighbours), dtype=np.int64)
        table[self.owner, rank] = shares
        array, site = optimize.linear_sum_assignment(table @ sorted_distance.T)
        chosen = np.empty(self.arrays, dtype=np.int64)
        chosen[array] = site
        return self.pays(shares, sorted_distance[chosen[self.owner], rank])

    def improve(
        self,
        bound: Callable[[np.ndarray], tuple[int, np.ndarray]],
        steps: int,
        split: np.ndarray | None = None,
    ) -> tuple[int, np.ndarray]:
        """Subgradient steps from the given split, or from the one in which the array with more neighbours pays."""
        part = self.start if split is None else split * _SHARE // self.values
        best, best_split = -1, self.values
        for step in range(steps):
            low = _portion(self.values, part)
            found, distance = bound(np.concatenate([low, self.values - low]))
            if found > best:
                best, best_split = found, low
            slope = distance[: len(low)] - distance[len(low) :]
            size = int(np.abs(slope).max())
            if size == 0:
                break
            part = np.clip(part + slope * (_SHARE // (2 + step)) // size, 0, _SHARE)
        return best, best_split


def _portion(values: np.ndarray, part: np.ndarray) -> np.ndarray:
    """values * part / _SHARE, rounded down, without overflow."""
    whole, rest = np.divmod(values, _SHARE)
    portion: np.ndarray = whole * part + rest * part // _SHARE
    return portion

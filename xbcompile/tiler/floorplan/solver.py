"""Exact placement of few arrays: branch and bound with the dual ascent of Hahn and Grant.

Source: Hahn and Grant, Oper. Res. 46, 912 (1998): the objective is kept as
`bound + sum L[i, p] x[i, p] + sum C[i, p, j, q] x[i, p] x[j, q]` with coefficients >= 0; x[i, p] = 1 where array i sits on
site p. L is spread over the rows of C, C[j, q, i, p] joins C[i, p, j, q] (the same product), what the assignment of C[i, p]
costs at least goes back into L, and what that of L costs at least into the bound: it never falls. All in integers, so
nothing is lost to rounding. Where there are more sites than arrays the dual of an unused site is lost: then the objective is
no more than the cost, and what it says is a bound all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.deferred import njit
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.tiler.floorplan.search import Graph

SOLVER_COEFFICIENTS = 4_000_000  # (arrays * sites)**2; larger problems are left to the search and the simpler bounds
_WORK = 4e9  # elementary steps at effort 1, some seconds
_NODE_WORK = 2e5  # what a node of the tree costs besides its tables, in the same steps
_ROOT_ROUNDS, _NODE_ROUNDS = 150, 6
_SMALL_GAIN = 4_000  # a round that gains less than this part of the bound is the last one
_LARGEST_BITS = 36  # coefficients are scaled up to this size, to be divisible


@dataclass(frozen=True)
class _Node:
    """What is left to place: arrays `rows` on sites `columns`."""

    bound: int
    linear: np.ndarray
    quadratic: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    placed: tuple[tuple[int, int], ...]

    def child(self, row: int, column: int) -> _Node:
        """The same with one array placed."""
        rows, columns = np.delete(np.arange(len(self.rows)), row), np.delete(np.arange(len(self.columns)), column)
        fixed = self.quadratic[row, column] + self.quadratic[:, :, row, column]
        return _Node(
            self.bound + int(self.linear[row, column]),
            (self.linear + fixed)[np.ix_(rows, columns)],
            np.ascontiguousarray(self.quadratic[np.ix_(rows, columns, rows, columns)]),
            self.rows[rows],
            self.columns[columns],
            (*self.placed, (int(self.rows[row]), int(self.columns[column]))),
        )


def solve(graph: Graph, grid: SiteGrid, place: np.ndarray, *, bound: int, effort: float) -> tuple[np.ndarray, int]:
    """Improve a placement and a bound, until they meet or the effort is spent.

    Args:
        graph: what to place where, within `SOLVER_COEFFICIENTS`.
        grid: the graph's grid.
        place: the best placement known, positions in the grid, int64 [arrays].
        bound: the best lower bound known.
        effort: work allowed; a greater effort goes on from where a smaller one stops.

    Returns:
        A placement that costs no more, and a bound that is no lower.
    """
    best, cost = place, graph.cost(place)
    root, scale = _root(graph)
    budget = effort * _WORK
    root, budget = _ascend(root, _ROOT_ROUNDS, budget, cost * scale)
    stack = [root]
    while stack and budget > 0:
        node = stack.pop()
        if -(-node.bound // scale) >= cost:
            continue
        if len(node.rows) == 1:
            best = min([best, *_completions(node)], key=graph.cost)
            budget -= _NODE_WORK * len(node.columns)
            cost = graph.cost(best)
            continue
        children, budget = _children(graph, grid, node, budget, cost * scale)
        stack.extend(sorted(children, key=lambda child: -child.bound))
    lowest = min((-(-node.bound // scale) for node in stack), default=cost)
    return best, max(bound, min(lowest, cost))


def _completions(node: _Node) -> list[np.ndarray]:
    """The placements that are left when one array is: with free sites, the tables bound their costs and no more."""
    place = np.empty(len(node.placed) + 1, dtype=np.int64)
    for array, site in node.placed:
        place[array] = site
    found = []
    for site in node.columns.tolist():
        place[node.rows[0]] = site
        found.append(place.copy())
    return found


def _children(graph: Graph, grid: SiteGrid, node: _Node, budget: float, enough: int) -> tuple[list[_Node], float]:
    """One child per site of the array whose place the bound knows best; the first array only on sites that differ."""
    if node.placed:
        row = int(np.argmax(np.minimum(node.linear, enough - node.bound).sum(axis=1)))
        columns = np.arange(len(node.columns))
    else:
        row = int(np.argmax(node.quadratic.max(axis=(1, 3)).sum(axis=1)))
        columns = _different_sites(graph, grid)
    children = []
    for column in columns.tolist():
        if node.bound + int(node.linear[row, column]) < enough:
            budget -= _NODE_WORK + node.quadratic.size
            child, budget = _ascend(node.child(row, column), _NODE_ROUNDS, budget, enough)
            children.append(child)
    return children, budget


def _different_sites(graph: Graph, grid: SiteGrid) -> np.ndarray:
    """One site of each set that reflections of the grid exchange."""
    rows, columns = graph.site.shape
    row, column = np.divmod(np.arange(rows * columns), columns)
    row, column = np.minimum(row, rows - 1 - row), np.minimum(column, columns - 1 - column)
    if grid.chips == 1 and rows == columns:
        row, column = np.minimum(row, column), np.maximum(row, column)
    return np.unique(row * columns + column, return_index=True)[1]


def _root(graph: Graph) -> tuple[_Node, int]:
    """All arrays and sites, and the number of units in which a value times a hop is counted."""
    sites, arrays = graph.site.size, graph.arrays
    row, column = np.divmod(np.arange(sites), graph.site.shape[1])
    hops = np.abs(graph.down[row][:, None] - graph.down[row])
    hops += np.abs(graph.across[column][:, None] - graph.across[column])
    values = np.zeros((arrays, arrays), dtype=np.int64)
    values[np.repeat(np.arange(arrays), np.diff(graph.start)), graph.other] = graph.values
    largest = int(values.max(initial=0)) * int(hops.max(initial=0))
    scale = 1 << max(_LARGEST_BITS - largest.bit_length(), 0)
    quadratic = np.ascontiguousarray((values[:, None, :, None] * hops[None, :, None, :]) * scale)
    linear = np.zeros((arrays, sites), dtype=np.int64)
    return _Node(0, linear, quadratic, np.arange(arrays), np.arange(sites), ()), 2 * scale


def _ascend(node: _Node, rounds: int, budget: float, enough: int) -> tuple[_Node, float]:
    """Rounds of the dual ascent, while the budget lasts and they gain; changes the node's tables."""
    arrays, sites = node.linear.shape
    work = float(arrays**3) * sites**2 + 1
    bound = node.bound
    for _ in range(rounds):
        if budget <= 0 or bound >= enough:
            break
        gain = int(_round(node.linear, node.quadratic))
        budget -= work
        bound += gain
        if gain * _SMALL_GAIN < bound:
            break
    return _Node(bound, node.linear, node.quadratic, node.rows, node.columns, node.placed), budget


@njit(cache=True)
def _round(linear: np.ndarray, quadratic: np.ndarray) -> int:
    """One round of the dual ascent in place; returns what the bound gains."""
    arrays, sites = linear.shape
    if arrays > 1:
        table = np.empty((arrays - 1, sites - 1), dtype=np.int64)
        for i in range(arrays):
            for p in range(sites):
                spread = linear[i, p] // (arrays - 1)
                linear[i, p] -= spread * (arrays - 1)
                for j in range(arrays):
                    for q in range(sites):
                        if j != i and q != p:
                            both = quadratic[i, p, j, q] + quadratic[j, q, i, p] + spread
                            table[j - (j > i), q - (q > p)] = both
                linear[i, p] += _reduce(table)
                for j in range(arrays):
                    for q in range(sites):
                        if j != i and q != p:
                            quadratic[i, p, j, q] = table[j - (j > i), q - (q > p)]
                            quadratic[j, q, i, p] = 0
    return _reduce(linear)


@njit(cache=True)
def _reduce(table: np.ndarray) -> int:
    """Cost of the cheapest assignment of rows to columns; reduced costs >= 0 replace the table.

    Shortest augmenting paths with duals: Jonker and Volgenant, Computing 38, 325 (1987), without its initialisation.
    """
    rows, columns = table.shape
    u, v = np.zeros(rows, dtype=np.int64), np.zeros(columns + 1, dtype=np.int64)
    matched = np.full(columns + 1, -1, dtype=np.int64)
    way = np.zeros(columns + 1, dtype=np.int64)
    least = np.empty(columns, dtype=np.int64)
    done = np.empty(columns + 1, dtype=np.bool_)
    for row in range(rows):
        matched[columns] = row
        least[:] = np.iinfo(np.int64).max
        done[:] = False
        column = columns
        while matched[column] >= 0:
            done[column] = True
            step, following = np.iinfo(np.int64).max, -1
            for q in range(columns):
                if not done[q]:
                    reduced = table[matched[column], q] - u[matched[column]] - v[q]
                    if reduced < least[q]:
                        least[q], way[q] = reduced, column
                    if least[q] < step:
                        step, following = least[q], q
            for q in range(columns + 1):
                if done[q]:
                    u[matched[q]] += step
                    v[q] -= step
                elif q < columns:
                    least[q] -= step
            column = following
        while column != columns:
            matched[column] = matched[way[column]]
            column = way[column]
    total = 0
    for i in range(rows):
        total += u[i]
    for q in range(columns):
        total += v[q]
    for i in range(rows):
        for q in range(columns):
            table[i, q] -= u[i] + v[q]
    return total

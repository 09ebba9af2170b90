"""Packings of moderate numbers of rectangles: fill one array after another in several orders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from xbcompile.tiler.pack.bands import Bin, Kind, images_of
from xbcompile.tiler.pack.free_space import RULES, FreeSpace
from xbcompile.tiler.pack.rules import PackingRules

_FILL_CHECKS = 400_000  # rectangle checks that one fill may cost before it is given up
_ALL_CHECKS = 1_500_000  # the same for all fills together
_LEAST_CHECKS = 20  # that a fill counts for
_RANDOM_ORDERS = 200


def pack_fills(
    kinds: Sequence[Kind],
    counts: Sequence[int],
    rules: PackingRules,
    *,
    best: list[Bin],
    enough: int,
    checks: int = _ALL_CHECKS,
) -> list[Bin]:
    """Improve on `best` by first-fit fills; stop at `enough` arrays or when `checks` rectangles have been checked."""
    for order, rule in _orders(kinds):
        bins, spent = _fill(kinds, counts, order, rule, rules, min(checks, _FILL_CHECKS))
        checks -= max(spent, _LEAST_CHECKS)
        if bins is not None and images_of(bins) < images_of(best):
            best = bins
        if images_of(best) <= enough or checks <= 0:
            break
    return best


def _orders(kinds: Sequence[Kind]) -> Iterator[tuple[list[int], str]]:
    """Orders to place the kinds in, and rules where: the classical ones first, then random mixtures."""
    row, height, width = np.array(kinds, dtype=np.int64).T
    keys = [height * width, height, width, height + width, np.maximum(height, width)]
    for key in keys:
        for rule in RULES:
            yield np.lexsort((row, -width, -height, -key)).tolist(), rule
    stream = np.random.Generator(np.random.Philox(key=1))
    for turn in range(_RANDOM_ORDERS):
        key = keys[turn % len(keys)] * (1.0 + stream.random(len(kinds)))
        yield np.lexsort((row, -width, -height, -key)).tolist(), RULES[turn % len(RULES)]


def _fill(
    kinds: Sequence[Kind], counts: Sequence[int], order: list[int], rule: str, rules: PackingRules, limit: int
) -> tuple[list[Bin] | None, int]:
    """First fit: one array after another, each kind in turn as often as it fits.

    Returns:
        The packing, or None when it takes more than `limit` rectangle checks; and the checks made.
    """
    left, bins, checks = list(counts), [], 0
    while order:
        space, placed = FreeSpace(rules.rows, rules.columns), Bin(1)
        used: dict[int, int] = {}
        for kind in order:
            row, height, width = kinds[kind]
            while used.get(kind, 0) < left[kind] and space.rectangles:
                checks += len(space.rectangles)
                position = space.find(row, height, width, rule)
                if position is None:
                    break
                space.take_tile(*position, height, width, rules)
                placed.placed.append((kind, *position))
                used[kind] = used.get(kind, 0) + 1
            if checks > limit:
                return None, checks
        placed.copies = min(left[kind] // count for kind, count in used.items())
        for kind, count in used.items():
            left[kind] -= count * placed.copies
        order = [kind for kind in order if left[kind]]
        bins.append(placed)
    return bins, checks

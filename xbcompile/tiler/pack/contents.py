"""How many images some tiles need: asked again and again for small sets of tiles, so answers are remembered."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from xbcompile.tiler.effort import Allowance
from xbcompile.tiler.pack.bands import Bin, Kind, images_of
from xbcompile.tiler.pack.bounds import conservative_scales
from xbcompile.tiler.pack.dense import pack_kinds, solve_kinds
from xbcompile.tiler.pack.rules import PackingRules

Content = tuple[tuple[int, int], ...]  # (kind, number of tiles), kinds ascending, numbers positive

_FILL_CHECKS = 600  # rectangle checks allowed to the fills of one content; what they do not pack is for the solver
_FILL_TILES = 80  # more tiles than this are packed in bands alone
_SOLVER_TILES = 30
_SOLVE = 0.05  # deterministic time allowed for one content


def join(one: Content, other: Content) -> Content:
    """Tiles of both."""
    total = dict(one)
    for kind, count in other:
        total[kind] = total.get(kind, 0) + count
    return tuple(sorted(total.items()))


class Oracle(Protocol):
    """Says how many images tiles need; adding tiles should never lower the answer."""

    def images(self, content: Content) -> int:
        """Images that the content needs."""

    def at_most(self, content: Content, images: int) -> bool:
        """Whether the content needs no more images."""


class RelaxedOracle:
    """A lower bound: the conservative scales of all kinds, which are additive.

    Args:
        kinds: int64 [kinds, 3]: row (-1 when free to move), height, width.
        rules: array and sharing.
    """

    def __init__(self, kinds: np.ndarray, rules: PackingRules) -> None:
        self._weights, self._caps = conservative_scales(kinds, rules)
        self._known: dict[Content, int] = {(): 0}

    def images(self, content: Content) -> int:
        """No packing of the content has fewer images."""
        if content not in self._known:
            total = sum(self._weights[kind] * count for kind, count in content)
            self._known[content] = int((-(-total // self._caps)).max())
        return self._known[content]

    def at_most(self, content: Content, images: int) -> bool:
        """Whether the bound is no larger."""
        return self.images(content) <= images


class PackingOracle:
    """Packings that can be carried out, the best found so far.

    `in_doubt` tells that some answer since it was last reset may be too large.

    Args:
        kinds: int64 [kinds, 3].
        rules: array and sharing.
        relaxed: the bound for the same kinds: where it is reached, the search for a packing ends.
    """

    def __init__(self, kinds: np.ndarray, rules: PackingRules, relaxed: RelaxedOracle) -> None:
        self._kinds: list[Kind] = [(r, h, w) for r, h, w in kinds.tolist()]
        self._rules, self._relaxed = rules, relaxed
        self._known: dict[Content, tuple[list[Bin], int]] = {(): ([], 0)}
        self._tried: dict[Content, float] = {}
        self.allowance = Allowance(0.0)
        self.in_doubt = False

    def images(self, content: Content) -> int:
        """Images of the best packing found."""
        bins, bound = self._search(content, self._relaxed.images(content))
        self.in_doubt |= images_of(bins) > bound
        return images_of(bins)

    def at_most(self, content: Content, images: int) -> bool:
        """Whether a packing with no more images is found."""
        if self._relaxed.images(content) > images:
            return False
        bins, bound = self._search(content, images)
        found = images_of(bins) <= images
        self.in_doubt |= not found and bound <= images
        return found

    def pack(self, content: Content) -> list[Bin]:
        """The best packing found so far; its bins count kinds as positions in `content`."""
        return self._search(content, np.iinfo(np.int64).max)[0]

    def _search(self, content: Content, enough: int) -> tuple[list[Bin], int]:
        """The best packing, sought until it has at most `enough` images, and the best bound."""
        kinds = [self._kinds[kind] for kind, _ in content]
        counts = [count for _, count in content]
        if content not in self._known:
            bound = self._relaxed.images(content)
            checks = _FILL_CHECKS if sum(counts) <= _FILL_TILES else 0
            self._known[content] = pack_kinds(kinds, counts, self._rules, bound, checks=checks), bound
        bins, bound = self._known[content]
        if images_of(bins) > max(enough, bound) and bound <= enough and sum(counts) <= _SOLVER_TILES:
            self._known[content] = self._solve(content, kinds, counts, bins, bound)
        return self._known[content]

    def _solve(
        self, content: Content, kinds: list[Kind], counts: list[int], bins: list[Bin], bound: int
    ) -> tuple[list[Bin], int]:
        """Ask the solver, unless it has had as much time for this content before."""
        left = self.allowance.left
        if left <= 0:
            self.allowance.ran_out = True
            return bins, bound
        share = min(_SOLVE, left)
        if self._tried.get(content, 0.0) >= share:
            return bins, bound
        mine = Allowance(share)
        bins, bound = solve_kinds(kinds, counts, self._rules, bins, bound, mine)
        self.allowance.left -= share - mine.left
        self._tried[content] = share if mine.ran_out else np.inf
        self.allowance.ran_out |= mine.ran_out
        return bins, bound

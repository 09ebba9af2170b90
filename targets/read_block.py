"""Which reads a block of readings holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ReadBlock:
    """Which reads a block of readings [images, vectors, slices] holds.

    Args:
        tiles: int [images], the tile that each image is read for.
        first_vector: running number of the first vector; the others follow.
        first_slice: the first slice; the others follow.
        use: which use of the matrix.
        times: gives `at_s`, on demand; None: all at time 0.
    """

    tiles: np.ndarray
    first_vector: int
    first_slice: int = 0
    use: int = 0
    times: Callable[[], np.ndarray] | None = None

    @property
    def at_s(self) -> np.ndarray:
        """When each read starts, float64 [images, vectors, slices], or zeros that broadcast to it; ageing needs it."""
        return np.zeros((1, 1, 1)) if self.times is None else self.times()

    def after(self, first: int, vectors: int) -> ReadBlock:
        """The same reads of some vectors, from a later one on.

        Args:
            first: how many vectors of the block are left out.
            vectors: how many follow.
        """
        times = self.times
        later = None if times is None else lambda: times()[:, first : first + vectors]
        return ReadBlock(self.tiles, self.first_vector + first, self.first_slice, self.use, later)

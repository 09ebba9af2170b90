"""A layer's vectors on their way through its tiles, and what all tiles read of them, added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from xbcompile.runtime.drive import CodedInput
from xbcompile.targets import ReadBlock
from xbcompile.targets.loaded_images import LoadedTiles
from xbcompile.targets.patch_values import PatchValues


class AnyReading(Protocol):
    """What takes the readings of tiles."""

    def add(self, tiles: LoadedTiles, reads: ReadBlock, some: slice) -> None:
        """Add what tiles read of some of the vectors."""


@dataclass
class Reading:
    """Gathered vectors.

    Args:
        coded: the vectors' codes.
        sums: float64 [groups, vectors, outputs].
        shape: what `lay_out` needs.
    """

    coded: CodedInput
    sums: np.ndarray
    shape: tuple[int, ...] = field(default=())

    def add(self, tiles: LoadedTiles, reads: ReadBlock, some: slice) -> None:
        """Add what tiles read of some of the vectors.

        Args:
            tiles: which.
            reads: which reads these are.
            some: the vectors.
        """
        tiles.add(self.coded.value[:, some], reads, self.sums[:, some])


@dataclass
class PatchReading:
    """Vectors that are patches, which nobody gathers but the tiles' kernels.

    Args:
        patches: the vectors' codes.
        gain: see `CodedInput`.
        shift: see `CodedInput`.
        sums: float64 [groups, outputs, vectors].
    """

    patches: PatchValues
    gain: np.ndarray
    shift: np.ndarray
    sums: np.ndarray

    def add(self, tiles: LoadedTiles, reads: ReadBlock, some: slice) -> None:
        """Add what tiles read of some of the vectors.

        Args:
            tiles: which.
            reads: which reads these are.
            some: the vectors.
        """
        patches = self.patches._replace(first=self.patches.first + some.start, count=some.stop - some.start)
        tiles.add_patches(patches, reads, self.sums, some.start)


# Takes the place of a first vector, and what all tiles read of it and those that follow.
Take = Callable[[int, Any], None]

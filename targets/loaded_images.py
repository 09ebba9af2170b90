"""Images as they sit in their arrays, ready for many reads; and tiles of them, ready to add readings up."""

from __future__ import annotations

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.targets.patch_values import PatchValues
from xbcompile.targets.read_block import ReadBlock
from xbcompile.targets.tile_routing import TileRouting

# Values in one block of drives: small enough for the cache to help, large enough for numpy to run at full speed.
BLOCK_VALUES = 1 << 20


class LoadedImages:
    """Several weight images as they sit in their arrays. Subclasses give `read`, and may give a faster `tiles`."""

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """Read all images for a block of vectors.

        Args:
            drives: float32 [images, vectors, slices, rows].
            reads: which reads these are.

        Returns:
            float32 or float64 [images, vectors, slices, columns].
        """
        raise TypeError(f"{type(self).__name__} must define read")

    def tiles(self, routing: TileRouting) -> LoadedTiles:
        """One tile of each image, ready to add readings up.

        Args:
            routing: how the tiles are driven, and where their readings go.
        """
        return LoadedTiles(self, routing)


class LoadedTiles:
    """Tiles of loaded images. A subclass that is faster gives the same sums to the bit.

    Args:
        images: one for each tile; None once they are dropped, see `without_images`.
        routing: of the tiles.
    """

    def __init__(self, images: LoadedImages, routing: TileRouting) -> None:
        self.images: LoadedImages | None = images
        self.routing = routing

    def without_images(self) -> LoadedTiles:
        """The same tiles without the images that they are of, where `add` can do without, for these take as much memory."""
        return self

    def corrected(self, routing: TileRouting) -> LoadedTiles:
        """The same tiles with other `subtract` and `factor`.

        Args:
            routing: the tiles' own but for these.
        """
        assert self.images is not None
        return LoadedTiles(self.images, routing)

    def add(self, values: np.ndarray, reads: ReadBlock, sums: np.ndarray) -> None:
        """Read the tiles for coded vectors, and add what they read to sums, tile after tile.

        Args:
            values: float32 [groups, vectors, inputs], see `TileRouting.drives`.
            reads: which reads these are.
            sums: float64 [groups, vectors, outputs], changed in place.
        """
        assert self.images is not None
        routing, vectors = self.routing, values.shape[1]
        size = max(1, BLOCK_VALUES // (max(routing.source.size, 1) * routing.slices))
        for first in range(0, vectors, size):
            some = slice(first, min(first + size, vectors))
            drives = routing.drives(values[:, some])
            readings = _checked(self.images.read(drives, reads.after(first, drives.shape[1])), drives)
            routing.add(routing.totals(readings), sums[:, some])

    def add_patches(self, patches: PatchValues, reads: ReadBlock, sums: np.ndarray, first: int) -> None:
        """`add` for vectors that are patches.

        Args:
            patches: the vectors.
            reads: which reads these are.
            sums: float64 [groups, outputs, vectors], changed in place from vector `first` on.
            first: see sums.
        """
        size = max(1, BLOCK_VALUES // max(1, patches.groups * len(patches.taps)))
        for at in range(0, patches.count, size):
            mine = patches._replace(first=patches.first + at, count=min(size, patches.count - at))
            some = sums[:, :, first + at : first + at + mine.count]
            by_vector = np.ascontiguousarray(some.transpose(0, 2, 1))
            self.add(mine.vectors(), reads.after(at, mine.count), by_vector)
            some[:] = by_vector.transpose(0, 2, 1)


def _checked(readings: np.ndarray, drives: np.ndarray) -> np.ndarray:
    """Readings of these drives, which anybody's device gave."""
    if (
        not isinstance(readings, np.ndarray)
        or readings.dtype.kind not in "fiu"
        or (readings.ndim, readings.shape[:3]) != (4, drives.shape[:3])
    ):
        found = f"{readings.dtype} {readings.shape}" if isinstance(readings, np.ndarray) else type(readings).__name__
        raise TargetError(
            f"device gave readings {found} for drives of shape {drives.shape}; wanted floats [images, vectors, slices, columns]"
        )
    return readings

"""Cells of weight images: built on demand from the layers' codes and where their tiles sit."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xbcompile.ir import ArraySpec, Network, Schedule
from xbcompile.ir.image_route import ImageRoute

_RECENT_BYTES = 2**26  # of cells of images that were asked for last; assumed


class CellImages:
    """Physical contents of the images of a schedule.

    Args:
        network: coded matrix layers.
        schedule: tiles and images.
        spec: the target's array.
        column_permutation: unsigned [images, columns], physical column of each logical one; None: the schedule's.
        routes: one per image, whose rows and signs apply too; None: rows stay.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        spec: ArraySpec,
        column_permutation: np.ndarray | None = None,
        routes: tuple[ImageRoute, ...] | None = None,
    ) -> None:
        self.schedule, self.spec, self.routes = schedule, spec, routes
        self.column_permutation = schedule.column_permutation if column_permutation is None else column_permutation
        if routes is not None:
            self.column_permutation = np.stack([route.column for route in routes])
        self._network = network
        self._recent: dict[int, np.ndarray] = {}

    def of(self, images: np.ndarray) -> np.ndarray:
        """Cells of images, given by indices [n].

        Returns:
            [n, rows, columns] level indices (uint8), or float32 values for continuous cells.
        """
        spec = self.spec
        cells = np.empty((len(images), spec.rows, spec.columns), np.float32 if spec.levels is None else np.uint8)
        for i, image in enumerate(images):
            cells[i] = self._image(int(image))
        return cells

    def _image(self, image: int) -> np.ndarray:
        """One image's cells [rows, columns]; the last few are kept, as layers that share one ask for it in turn."""
        if image not in self._recent:
            cells = self._built(image)
            while self._recent and (len(self._recent) + 1) * cells.nbytes > _RECENT_BYTES:
                self._recent.pop(next(iter(self._recent)))
            self._recent[image] = cells
        return self._recent[image]

    def _built(self, image: int) -> np.ndarray:
        spec, schedule, codes = self.spec, self.schedule, self._codes
        continuous = spec.levels is None
        cells = np.empty((spec.rows, spec.columns), np.float32 if continuous else np.uint8)
        cells[:] = 0.0 if continuous else spec.neutral_level[:, None]
        order, starts = self._tiles_by_image
        for layer, group, k0, k1, m0, m1, _, row, column in schedule.tiles[
            order[starts[image] : starts[image + 1]]
        ].tolist():
            physical = self.column_permutation[image, column : column + m1 - m0]
            cells[row : row + k1 - k0, physical] = codes[layer][group, k0:k1, m0:m1]
        return cells if self.routes is None else _routed(cells, self.routes[image], spec)

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        return [layer.weight_code.codes for layer in self._network.layers if layer.weight_code is not None]

    @cached_property
    def _tiles_by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Tile indices in order of image, and where each image's run starts (one entry more than images)."""
        image = self.schedule.tiles["image"]
        order = np.argsort(image, kind="stable")
        return order, np.searchsorted(image[order], np.arange(self.schedule.images + 1))


def _routed(cells: np.ndarray, route: ImageRoute, spec: ArraySpec) -> np.ndarray:
    """Cells [logical rows, physical columns] with the route's signs, on its physical rows."""
    column_sign = np.empty_like(route.column_sign)
    column_sign[route.column] = route.column_sign
    negative = route.row_sign[:, None] * column_sign < 0
    opposite = -cells if spec.levels is None else len(spec.levels) - 1 - cells
    result = np.empty_like(cells)
    result[route.row] = np.where(negative, opposite, cells)
    return result

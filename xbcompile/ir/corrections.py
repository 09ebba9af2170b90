"""Corrections: what is fitted on one chip, as a value. A session on that chip applies them; a program holds none of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.image_route import ImageRoute


@dataclass(frozen=True, eq=False)
class LayerCorrection(ContentEqual):
    """Digital correction of one matrix layer: outputs y become gain * y + shift.

    Args:
        gain: float64 [groups * outputs].
        shift: float64 [groups * outputs], in the layer's output units.
        tile_gain: float64 [tiles of the layer, columns], what each tile's columns count before they are added up, by the
            tile's own logical columns, in the order of `Schedule.tiles_of`; None: all 1.
    """

    gain: np.ndarray
    shift: np.ndarray
    tile_gain: np.ndarray | None = None

    @classmethod
    def none(cls, outputs: int) -> LayerCorrection:
        """Nothing is corrected."""
        return cls(np.ones(outputs), np.zeros(outputs))


@dataclass(frozen=True)
class Effort:
    """Events that commissioning took.

    Args:
        weight_updates: images written.
        rows_written: rows written.
        reads: array activations.
    """

    weight_updates: int = 0
    rows_written: int = 0
    reads: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.weight_updates + other.weight_updates,
            self.rows_written + other.rows_written,
            self.reads + other.reads,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Corrections(ContentEqual):
    """All that is fitted on one chip for one program.

    Args:
        program: digest of the program that they are for.
        chip: the chip that they are for, see `chip_name`.
        layers: one per matrix layer of the network.
        column_offset: float64 [arrays, columns], mean error of each physical column's readings, taken from them in dot-product
            units with the other sign: readings become reading + offset; None: all 0.
        column_permutation: unsigned [images, columns], physical column of each logical one, in place of the schedule's; None:
            the schedule's.
        routes: one per image, with signs and rows, in place of the schedule's columns and of `column_permutation`; None: no
            row moves.
        defects_known: whether writes use the chip's defect map.
        effort: what commissioning took.
    """

    program: str
    chip: str
    layers: tuple[LayerCorrection, ...]
    column_offset: np.ndarray | None = None
    column_permutation: np.ndarray | None = None
    routes: tuple[ImageRoute, ...] | None = None
    defects_known: bool = False
    effort: Effort = Effort()

    def __repr__(self) -> str:
        return f"<Corrections of {self.chip or 'a chip'} for program {self.program[:12] or 'unnamed'}: {len(self.layers)} layers>"

    @property
    def moves_cells(self) -> bool:
        """Whether weights sit elsewhere than the program's schedule says."""
        return self.routes is not None or self.column_permutation is not None

    def with_columns(self, columns: np.ndarray) -> Corrections:
        """The same with other physical columns, unsigned [images, columns]; rows and signs stay with their logical lines."""
        if self.routes is None:
            return replace(self, column_permutation=columns)
        routes = tuple(
            replace(route, column=column.astype(np.intp))
            for route, column in zip(self.routes, columns, strict=True)
        )  # fmt: skip
        return replace(self, routes=routes, column_permutation=columns)

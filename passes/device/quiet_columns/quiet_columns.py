"""quiet-columns: outputs that matter on the physical columns that err least, chip by chip.

    image: logical column m  ->  physical column p(m),  sum_m cost[m, p(m)] smallest

Columns of an array are alike for the program and differ on the chip. The cost of a logical column on a physical one is the
mean squared error there, measured through the device on start, times what a squared error of that column costs: the square of
its digital scale, times how far the network's outputs move with it. Tiles in one column add up. Any permutation has the same
ideal result, so the program's file, and its seeded scrambling, stay as they are.

Exactness: a linear assignment per image, solved exactly. Where the cost is a product of what a column matters and of what a
physical column errs (measure=columns), that is sorting one by the other (rearrangement inequality: Hardy, Littlewood, Polya,
Inequalities, 1934, theorem 368). Errors of the tiles of one output are taken as independent, and those of a column as the same
whatever its neighbours hold.
Sources: scrambled columns: Jung et al., Nature 601, 211 (2022); measured order in their place: our own derivation, as above;
assignment: Kuhn (1955), here of SciPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xbcompile.deferred import library
from xbcompile.errors import PassError
from xbcompile.ir.corrections import Corrections
from xbcompile.passes.contract import CalibratedPass, ChipView, Feeds, Stage
from xbcompile.passes.device.calibrate_offsets import column_offset
from xbcompile.passes.device.quiet_columns.assignment import chosen_columns
from xbcompile.passes.device.quiet_columns.measure import (
    columns_of,
    columns_of_tiles,
    errors_on_columns,
    errors_on_images,
    sensitivity,
)
from xbcompile.reference.importance import output_importance

optimize = library("scipy.optimize")

MEASURES = ("images", "columns")
WEIGHTS = ("outputs", "scale")


@dataclass(frozen=True)
class QuietColumns(CalibratedPass):
    """Permute the columns of each image for the chip that a session runs on.

    Args:
        samples: calibration inputs to use at most.
        measure: "images" (the program's own images in every turn of their columns), or "columns" (random images: one figure
            per physical column, at a fraction of the writes and reads; on held-out training images that raised the error on
            `mram64` and `m2tj4` and lowered it a little on `sot`, as errors depend on cells and drives too).
        vectors: input vectors of each layer in every turn (about so many, of whole samples), or random drives of each image.
        patterns: random images, with measure=columns.
        weigh: "outputs" (scale, and what each output moves at the network's outputs, which takes one run of the model per
            layer output), or "scale" alone.
        step: share of its standard deviation by which an output is moved for that; assumed.
    """

    name: ClassVar[str] = "quiet-columns"
    stage: ClassVar[Stage] = Stage.COLUMNS
    samples: int = 100
    measure: str = "images"
    vectors: int = 200
    patterns: int = 16
    weigh: str = "outputs"
    step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("measure", MEASURES)
        self._check_choice("weigh", WEIGHTS)
        self._check_count("vectors", 2)
        self._check_count("patterns", 1)
        if not 0 < self.step < np.inf:
            raise PassError(f"step={self.step:g} is out of range; allowed: more than 0")

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """Columns chosen from measured errors.

        A program that is routed around defects keeps its columns where errors are not measured on its own images: random ones do
        not show what its cells can hold elsewhere.

        Raises:
            PassError: errors cannot be measured, as sums on the calibration inputs are not finite.
        """
        if self.measure == "columns" and corrections.routes is not None:
            return corrections
        importance = [np.ones(layer.groups * layer.outputs) for layer in chip.network.layers]
        if self.weigh == "outputs":
            importance = output_importance(chip.network, feeds, self.step)
        used = columns_of_tiles(chip.schedule, corrections, sensitivity(chip, importance))
        if self.measure == "images":
            errors = errors_on_images(chip, feeds, self.vectors, corrections, used)
        else:
            errors = errors_on_columns(chip, self.patterns, self.vectors, used)
        self._check(errors.power)
        offsets = any(each.removes == "column means" for each in chip.later)
        offset_of = partial(column_offset, lsb=chip.lsb) if offsets else None
        column = chosen_columns(chip.schedule, columns_of(chip.schedule, corrections), errors, self.assign, offset_of)
        return corrections.with_columns(column.astype(chip.schedule.column_permutation.dtype))

    def assign(self, cost: npt.NDArray[np.float64], column: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Physical column of each logical one: the permutation of least cost; the one given where none costs less.

        Args:
            cost: float64 [logical, physical], what each logical column costs on each physical one.
            column: intp [logical], where they are now.

        Raises:
            PassError: costs are not finite.
        """
        self._check(cost)
        logical, found = optimize.linear_sum_assignment(cost)
        before = cost[logical, column].sum()
        return found.astype(np.intp) if cost[logical, found].sum() < before * (1 - 1e-12) else column

    def _check(self, found: npt.NDArray[np.float64]) -> None:
        if not np.isfinite(found).all():
            raise PassError(
                f"{self.name}: readings or exact sums are not finite on the calibration inputs, or too large for their squares; "
                f"give smaller inputs, or leave the pass out"
            )

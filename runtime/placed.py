"""A program as one chip runs it: its schedule, and where corrections put weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xbcompile.ir.corrections import Corrections, LayerCorrection
from xbcompile.ir.schedule import share_of
from xbcompile.program.cells import CellImages
from xbcompile.program.program import Program
from xbcompile.runtime.kept_tiles import KeptTiles
from xbcompile.runtime.prepared import Blocks
from xbcompile.runtime.timeline import Clock, Timeline, VectorRange
from xbcompile.runtime.unroll import step_uses, unrolled
from xbcompile.targets import WrittenImages


class PlacedProgram:
    """What executors and the player share.

    Args:
        program: what is run.
        corrections: what was fitted on the chip.
        clock: of the session.
        whole_writes: every write writes all rows, as in commissioning.
        blocks: tables of tiles that chips share; those of corrections that move cells are the chip's own.
    """

    def __init__(
        self,
        program: Program,
        corrections: Corrections,
        clock: Clock | None = None,
        whole_writes: bool = False,
        blocks: Blocks | None = None,
    ) -> None:
        schedule = self._schedule = program.schedule
        self.program, self.corrections, self.whole_writes = program, corrections, whole_writes
        self.cells = CellImages(
            program.network, schedule, program.spec, corrections.column_permutation, corrections.routes
        )
        self.uses = step_uses(program.network)
        self.timeline = Timeline(schedule, self.uses.uses, program.spec, self.cells)
        self.kept = KeptTiles()
        self.blocks: Blocks = {} if blocks is None or corrections.moves_cells else blocks
        self.clock = clock or Clock(schedule.setup_s, schedule.period_s, schedule.makespan_s)

    def take_steps(self, steps: Mapping[str, int]) -> None:
        """Follow the schedule of runs that have so many steps of each recurrence whose number the model leaves open."""
        schedule, self.uses = unrolled(self.program.network, self._schedule, self.program.spec, steps)
        before = self.timeline
        self.timeline = Timeline(schedule, self.uses.uses, self.program.spec, self.cells)
        self.timeline.base = before.base + self.clock.batches * (
            before.writes_per_batch - self.timeline.writes_per_batch
        )  # numbers of writes go on
        self.clock.period_s, self.clock.makespan_s = schedule.period_s, schedule.makespan_s

    def written(
        self, use: int | None, tiles: np.ndarray, arrays: np.ndarray, cells: np.ndarray, batch: int
    ) -> WrittenImages:  # fmt: skip
        """Images as the writes left them that one use reads in a batch.

        Args:
            use: the use; None: it does not matter which write it was.
            tiles: int [n].
            arrays: int [n], where each is read.
            cells: [n, rows, columns], of the tiles' images.
            batch: number of the batch.
        """
        timeline, images = self.timeline, self.program.schedule.tiles["image"][tiles]
        if use is None:
            return WrittenImages(arrays, images, cells, np.zeros((len(tiles), 1), np.int64), np.zeros((len(tiles), 1)))
        steps = timeline.read_steps(use, tiles, arrays)
        numbers, times = zip(
            *(timeline.written(int(step), batch, self.clock, self.whole_writes) for step in steps), strict=True
        )
        return WrittenImages(arrays, images, cells, np.stack(numbers), np.stack(times))

    def read_times(
        self,
        use: int,
        tiles: np.ndarray,
        arrays: np.ndarray,
        reads: VectorRange,
        start: int,
        vectors: int,
        slices: int,
    ) -> np.ndarray:
        """When vectors are read: float64 [n, vectors, slices], seconds from the start of the session.

        Args:
            use: the use.
            tiles: int [n].
            arrays: int [n], where each is read.
            reads: which vectors the layer's input holds.
            start: the first of these among them.
            vectors: how many.
            slices: reads per vector.
        """
        timeline = self.timeline
        at = reads.first + start + np.arange(vectors)
        batch, place = np.divmod(at, reads.per_batch) if reads.per_batch else (np.zeros_like(at), at)
        steps = timeline.read_steps(use, tiles, arrays)
        shares = [self.share(*each, reads.per_batch or int(at[-1]) + 1) for each in zip(tiles, arrays, strict=True)]
        first, end = np.array(shares).T
        spacing_s = [self.spacing_s(step, count * slices) for step, count in zip(steps, end - first, strict=True)]
        within = (place - first[:, None])[..., None] * slices + np.arange(slices)
        start_s = self.clock.start_s(reads.first_batch + batch)[None, :] + timeline.start_s(steps)[:, None]
        return np.asarray(start_s[..., None] + within * np.array(spacing_s)[:, None, None])

    def spacing_s(self, step: int, reads: int) -> float:
        """Time from one to the next of the reads that a step makes in a whole batch: one read's, or less where sizes that the
        model leaves open make more reads than the schedule knows of.
        """
        steps, t_read_s = self.timeline.schedule.steps, self.program.spec.t_read_s
        duration_s = float(steps["end_s"][step] - steps["start_s"][step])
        return duration_s / reads if reads * t_read_s > duration_s * (1 + 1e-9) else t_read_s

    def share(self, tile: int, array: int, per_batch: int) -> tuple[int, int]:
        """First and end of the vectors of a batch that the copy of a tile's image in an array serves."""
        copies = self.program.schedule.copies
        arrays = copies["array"][copies["image"] == self.program.schedule.tiles["image"][tile]]
        return share_of(int(np.searchsorted(arrays, array)), len(arrays), per_batch)


def no_corrections(program: Program) -> Corrections:
    """Corrections that correct nothing, of no certain program or chip."""
    layers = tuple(LayerCorrection.none(layer.groups * layer.outputs) for layer in program.network.layers)
    return Corrections("", "", layers)

"""What the steps of a schedule are as events: which write each read sees, how writes are numbered, and when all of it happens.

Batches follow each other for ever, each taking all steps. Writes of an array are numbered through its life: the one before the
first batch, if it has one, then those of each batch. So write w of batch b of an array is number base + b * W + w, where W is
its writes per batch and base is 1 with a set-up write, else 0; a read before the first write of its batch sees w = -1, the last
write of the batch before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from xbcompile.errors import DataError, shown
from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program.cells import CellImages
from xbcompile.whole_numbers import as_whole_number

Whole = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Batches of commissioning are numbered from here, so that what a run draws does not depend on how long commissioning took.
COMMISSION_BATCH = 1 << 32
# Numbers of vectors, which what a read draws is keyed by, lowest bits first:
#    0 to 47   place in the session's life; in a recurrence 28 bits of that and 20 of the step
#   48 to 49   0: a run; else commissioning, what measures errors of columns, what measures random errors
#   50 to 63   which layer of those that share the matrix (`layer_executor`)
#   64 to 95   vectors of a sample where inputs have another size than the schedule's, as these count by themselves
STEP_VECTORS = 1 << 28
COMMISSION_VECTOR = 1 << 48
MAP_VECTOR = 2 << 48
SPREAD_VECTOR = 3 << 48
SIZE_VECTORS = 1 << 64


def checked_first(first_sample: Any, batch: int) -> int | None:
    """The number of the first sample of a run that a caller gives; None: none is given.

    Args:
        first_sample: what is given.
        batch: the program's.

    Raises:
        DataError: it is no whole number, or inside of a batch.
    """
    if first_sample is None:
        return None
    number = as_whole_number(first_sample)
    if number is None or number < 0 or number % batch:
        raise DataError(
            f"first_sample={shown(first_sample)} is inside of a batch; give a multiple of {batch}, the program's batch"
        )
    return number


@dataclass(frozen=True)
class VectorRange:
    """Which vectors of a layer an input tensor holds.

    Args:
        first: place of the first one among all vectors of this use in the life of the session.
        per_batch: vectors of one whole batch; 0: all belong to the first batch.
        step: the step that its recurrence is at, see `Pending`.
        entry: the entry of the sequences.
        counted_from: the vector that these are counted from, for what they draw.
        first_batch: number of the batch to which vector 0 belongs.
    """

    first: int = 0
    per_batch: int = 0
    step: int = 0
    entry: int = 0
    counted_from: int = 0
    first_batch: int = 0

    def after(self, vectors: int) -> VectorRange:
        """From a later vector on."""
        return VectorRange(
            self.first + vectors, self.per_batch, self.step, self.entry, self.counted_from, self.first_batch
        )

    @property
    def drawn_from(self) -> int:
        """The counter of the first vector in what reads draw."""
        return self.counted_from + self.first + self.entry * STEP_VECTORS


@dataclass
class Clock:
    """When each batch of a session starts. Every run adds batches, the first of them when the run before has ended.

    Args:
        setup_s: when the first batch may start.
        period_s: time from one batch to the next in a run.
        makespan_s: time of one batch.
    """

    setup_s: float
    period_s: float
    makespan_s: float
    batches: int = 0
    now_s: float = 0.0
    set_up_again_s: float = 0.0  # when arrays that take turns were last written as set-up had them
    _first: int = 0  # of the last run
    _count: int = 0
    _start_s: float = 0.0
    _before_s: float = 0.0  # when the batch before it started

    def __post_init__(self) -> None:
        self.now_s = self._start_s = self.setup_s

    @property
    def next(self) -> int:
        """Number of the batch that would follow the last run."""
        return self._first + self._count

    def run(self, first: int, batches: int) -> None:
        """Add a run of batches that starts now; `first` is the number of its first batch."""
        follows = first == self.next
        self._before_s = float(self.start_s(first - 1)) if follows else self.now_s - self.period_s
        self._first, self._count, self._start_s = first, batches, self.now_s
        self.batches = max(self.batches, first + batches)
        self.now_s += (batches - 1) * self.period_s + self.makespan_s

    def start_s(self, batch: npt.ArrayLike) -> Floats:
        """When batches, int of any shape, start: those of the last run, and the one before it, whose images it may find in the
        arrays; where a run skips batches, that one is as if it had run a period before. Those of commissioning start right after
        set-up.
        """
        number = np.asarray(batch, np.int64)
        after = number - self._first
        start_s = np.where(after >= 0, self._start_s, self._before_s + self.period_s) + after * self.period_s
        return np.where(number < COMMISSION_BATCH, start_s, self.setup_s + (number - COMMISSION_BATCH) * self.period_s)


class Timeline:
    """The events of a schedule's batches.

    Args:
        schedule: its steps; those of every batch.
        uses: what the reads are for.
        spec: the array.
        cells: of the images, to tell which rows a write changes that does not write all.
    """

    def __init__(self, schedule: Schedule, uses: Sequence[Use], spec: ArraySpec, cells: CellImages) -> None:
        self.schedule, self.uses, self.spec, self.cells = schedule, uses, spec, cells
        steps = schedule.steps
        self.base = (schedule.initial >= 0).astype(np.int64)  # number of the first write of batch 0
        written = steps["operation"] == WRITE
        self.writes_per_batch = np.bincount(steps["array"][written], minlength=schedule.arrays).astype(np.int64)
        order = np.argsort(steps["array"], kind="stable")
        counted = np.cumsum(written[order])
        array = steps["array"][order]
        before = np.concatenate([[0], np.cumsum(self.writes_per_batch)])[array]
        # Of a write its own place among the array's writes of a batch, of a read that of the write it sees.
        self.place = np.empty(len(steps), np.int64)
        self.place[order] = counted - before - 1
        reads = np.flatnonzero(steps["operation"] == READ)
        key = np.lexsort((steps["array"][reads], steps["tile"][reads], steps["use"][reads]))
        self._reads = reads[key]
        self._keys = self._key(*(steps[name][self._reads].astype(np.int64) for name in ("use", "tile", "array")))

    def _key(self, use: int | np.ndarray, tile: np.ndarray, array: np.ndarray) -> Whole:
        tiles, arrays = max(len(self.schedule.tiles), 1), max(self.schedule.arrays, 1)
        return np.asarray((np.asarray(use, np.int64) * tiles + tile) * arrays + array)

    def read_steps(self, use: int, tiles: np.ndarray, arrays: np.ndarray) -> Whole:
        """The steps, int64 [n], that read tiles [n] in arrays [n] for one use."""
        wanted = self._key(use, tiles, arrays)
        at = np.searchsorted(self._keys, wanted)
        if np.any(at >= len(self._keys)) or not np.array_equal(self._keys[at], wanted):
            raise ValueError(f"use {use} reads a tile that the schedule does not read for it")
        return self._reads[at]

    def rewritten(self, arrays: np.ndarray) -> bool:
        """Whether any of these arrays is written in every batch."""
        return bool(np.any(self.writes_per_batch[arrays]))

    def number(self, array: int, place: int, batch: int) -> int:
        """Number of a write of an array."""
        return int(max(self.base[array] + batch * self.writes_per_batch[array] + place, 0))

    def written(self, step: int, batch: int, clock: Clock, whole: bool = False) -> tuple[Whole, Floats]:
        """Numbers, int64 [rows] or [1], and times, float64 of the same shape, of the writes that a read step sees.

        Args:
            step: the read.
            batch: its batch.
            clock: of the session.
            whole: every write writes all rows, as commissioning does.
        """
        array, place = int(self.schedule.steps["array"][step]), int(self.place[step])
        places = np.array([place]) if whole or not self.writes_in_part else self._row_places(array, place)
        numbers = self.base[array] + batch * self.writes_per_batch[array] + places
        return np.maximum(numbers, 0), self._written_s(array, places, batch, clock)

    def _written_s(self, array: int, places: Whole, batch: int, clock: Clock) -> Floats:
        per_batch = int(self.writes_per_batch[array])
        if not per_batch:
            return np.full(len(places), self.initial_s[array])
        batches, within = batch + places // per_batch, places % per_batch
        times = clock.start_s(batches) + self._write_start_s(array)[within]
        # Commissioning starts from what set-up left, too.
        earliest = COMMISSION_BATCH if batch >= COMMISSION_BATCH else 0
        set_up = int(self.schedule.initial[array] >= 0)  # writes before those of the batches
        first = (batches < earliest) | (self.base[array] + batch * per_batch + places < set_up)
        return np.where(first, max(self.initial_s[array], clock.set_up_again_s), times)

    def carried(self) -> npt.NDArray[np.intp]:
        """The write steps of arrays that carry an image from batch to batch, in order: after them an array holds, row by row,
        what the next batch starts with.
        """
        steps = self.schedule.steps
        return np.flatnonzero((steps["operation"] == WRITE) & (self.schedule.initial[steps["array"]] >= 0))

    def _write_start_s(self, array: int) -> Floats:
        if array not in self._starts_of_arrays:
            steps = self.schedule.steps
            mine = (steps["operation"] == WRITE) & (steps["array"] == array)
            self._starts_of_arrays[array] = np.asarray(steps["start_s"][mine], np.float64)
        return self._starts_of_arrays[array]

    @cached_property
    def _starts_of_arrays(self) -> dict[int, Floats]:
        return {}

    @cached_property
    def initial_s(self) -> Floats:
        """When the set-up write of each array starts, float64 [arrays]; `writes_at_a_time` are written side by side."""
        held = self.schedule.initial >= 0
        at_a_time = self.spec.writes_at_a_time or max(self.schedule.arrays, 1)
        return np.where(held, (np.cumsum(held) - 1) // at_a_time * self.spec.t_write_s, 0.0)

    @cached_property
    def writes_in_part(self) -> bool:
        """Whether any write leaves out rows."""
        return bool(np.any(self.schedule.writes["rows"] < self.spec.rows))

    def rows(self, step: int) -> npt.NDArray[np.intp]:
        """The physical rows that a write step writes: those in which a cell changes, and the first others up to its number."""
        steps, every = self.schedule.steps, np.arange(self.spec.rows)
        count = int(steps["rows"][step])
        if count == self.spec.rows:
            return every
        array = int(steps["array"][step])
        mine = np.flatnonzero((steps["operation"] == WRITE) & (steps["array"] == array))
        place = int(self.place[step])
        held = int(steps["image"][mine[place - 1]] if place else self.schedule.initial[array])
        if held < 0:
            return every
        before, after = self.cells.of(np.array([held, int(steps["image"][step])]))
        changed = np.any(before != after, axis=1)
        others = np.flatnonzero(~changed)[: max(0, count - int(changed.sum()))]
        return np.sort(np.concatenate([np.flatnonzero(changed), others]))

    def _row_places(self, array: int, place: int) -> Whole:
        """Of each row the place of its last write at a write of an array; those of batches before are negative."""
        if array not in self._places_of_arrays:
            self._places_of_arrays[array] = self._all_row_places(array)
        return self._places_of_arrays[array][place + 1]

    @cached_property
    def _places_of_arrays(self) -> dict[int, Whole]:
        return {}

    def _all_row_places(self, array: int) -> Whole:
        """`_row_places` at every place from -1 on, int64 [writes per batch + 1, rows]."""
        steps, per_batch = self.schedule.steps, int(self.writes_per_batch[array])
        mine = np.flatnonzero((steps["operation"] == WRITE) & (steps["array"] == array))
        never = np.iinfo(np.int64).min // 4  # only the set-up write wrote it: the smallest number stands for that
        last = np.full(self.spec.rows, never)
        rows = [self.rows(int(step)) for step in mine]
        for place, some in enumerate(rows):
            last[some] = place - per_batch
        places = [last.copy()]
        for place, some in enumerate(rows):
            last[some] = place
            places.append(last.copy())
        return np.stack(places)

    def start_s(self, steps: Whole) -> Floats:
        """When steps start within their batch, float64 of the same shape."""
        return np.asarray(self.schedule.steps["start_s"][steps], np.float64)

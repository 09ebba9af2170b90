"""What a run costs: counts of array events, and energy and time from the target's own numbers."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from xbcompile.ir.schedule import tile_columns
from xbcompile.program.program import Program


@dataclass
class Counters:
    """Array events of a session so far (commissioning not counted).

    Args:
        inferences: samples run.
        reads: array activations: tiles x slices x vectors.
        dot_products: each used column of a tile counted per read, as Jung et al. (2022) count.
    """

    inferences: int = 0
    reads: int = 0
    dot_products: int = 0

    def count(self, program: Program, layer: int, vectors: int) -> None:
        """Add the reads of one layer for a number of vectors."""
        schedule, node = program.schedule, program.network.layers[layer]
        tiles = schedule.tiles[schedule.tiles_of(program.network.matrices[layer])]
        # Groups see the same vectors, one matrix each: every tile is read once per vector of its own group.
        self.reads += len(tiles) * node.slices * vectors
        self.dot_products += int(tile_columns(tiles).sum()) * node.slices * vectors


@dataclass(frozen=True)
class Cost:
    """Counts, energy and time of a number of inferences on the arrays (digital parts not included).

    The costs of several chips add up.

    Args:
        inferences: samples run.
        weight_updates: images written.
        rows_written: rows written.
        reads: array activations.
        dot_products: used columns read.
        energy_j: writes and reads.
        time_s: the writes before the first batch, a period for each batch but the last, and the last batch's makespan.
    """

    inferences: int
    weight_updates: int
    rows_written: int
    reads: int
    dot_products: int
    energy_j: float
    time_s: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def cost_of(program: Program, counters: Counters) -> Cost:
    """Cost of what one session's counters hold, for a program that serves `schedule.batch` inferences per weight update."""
    schedule, spec = program.schedule, program.spec
    batches = int(np.ceil(counters.inferences / schedule.batch))
    updates = schedule.initial_writes + batches * len(schedule.writes)
    rows = schedule.initial_writes * spec.rows + batches * int(schedule.writes["rows"].sum())
    array_s = schedule.makespan_s + max(0, batches - 1) * schedule.period_s if batches else 0.0
    return Cost(
        inferences=counters.inferences,
        weight_updates=updates,
        rows_written=rows,
        reads=counters.reads,
        dot_products=counters.dot_products,
        energy_j=rows * spec.e_write_row_j + counters.reads * spec.e_read_j,
        time_s=schedule.setup_s + array_s,
    )

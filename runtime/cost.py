"""What a run costs: counts of array events, and energy and time from the target's own numbers."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass

from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import tile_columns
from xbcompile.notebook import html_table
from xbcompile.program.program import Program
from xbcompile.units import si


@dataclass
class Counters:
    """Array events of a session so far, set-up writes included, commissioning not.

    Args:
        inferences: samples run.
        batches: batches run; the last one of a run may be partial.
        weight_updates: images written.
        rows_written: rows written.
        reads: array activations: tiles x slices x vectors.
        dot_products: each used column of a tile counted per read, as Jung et al. (2022) count.
        array_s: set-up writes, a period for each batch of a run but the last, and the last batch's makespan.
    """

    inferences: int = 0
    batches: int = 0
    weight_updates: int = 0
    rows_written: int = 0
    reads: int = 0
    dot_products: int = 0
    array_s: float = 0.0

    def count_setup(self, schedule: Schedule, spec: ArraySpec) -> None:
        """Add the writes before the first batch."""
        self.weight_updates += schedule.initial_writes
        self.rows_written += schedule.initial_writes * spec.rows
        self.array_s += schedule.setup_s

    def count_writes(self, schedule: Schedule, batches: int) -> None:
        """Add the writes of a number of batches."""
        self.weight_updates += batches * len(schedule.writes)
        self.rows_written += batches * int(schedule.writes["rows"].sum())

    def count_run(self, inferences: int, batches: int, schedule: Schedule) -> None:
        """Add the samples and the time of one run of batches."""
        self.inferences += inferences
        self.batches += batches
        self.array_s += max(batches - 1, 0) * schedule.period_s + (schedule.makespan_s if batches else 0.0)

    def count_reads(self, program: Program, layer: int, vectors: int) -> None:
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
        time_s: see `Counters.array_s`.
    """

    inferences: int
    weight_updates: int
    rows_written: int
    reads: int
    dot_products: int
    energy_j: float
    time_s: float

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), value) for name, value in list(asdict(self).items())[:-2]]
        rows += [("energy", si(self.energy_j, "J")), ("array time", si(self.time_s, "s"))]
        return html_table(("cost", "of all inferences"), rows)

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def cost_of(program: Program, counters: Counters) -> Cost:
    """Cost of what one session's counters hold."""
    spec = program.spec
    return Cost(
        inferences=counters.inferences,
        weight_updates=counters.weight_updates,
        rows_written=counters.rows_written,
        reads=counters.reads,
        dot_products=counters.dot_products,
        energy_j=counters.rows_written * spec.e_write_row_j + counters.reads * spec.e_read_j,
        time_s=counters.array_s,
    )

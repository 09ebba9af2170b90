"""Planning of one network under any options: what `plan` asks once, and the search for what would help again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xbcompile.errors import VerifyError
from xbcompile.ir import ArraySpec
from xbcompile.options import PlanOptions
from xbcompile.planning.mapper import Mapper, Mapping
from xbcompile.planning.planned import PlannedNetwork
from xbcompile.verification.schedule_checks import check_schedule


def resized(spec: ArraySpec, array: tuple[int, int] | None) -> tuple[ArraySpec, tuple[str, ...]]:
    """The array in another size: times and energies per row written and per read stay. Also notes.

    Row weights belong to the target's own number of rows: with another one all rows count alike.
    """
    if array is None or array == (spec.rows, spec.columns):
        return spec, ()
    rows, columns = array
    size = f"{spec.rows}x{spec.columns}"
    notes = [f"array of {rows}x{columns} in place of {size}: times and energies per row written and per read stay"]
    of_rows: dict[str, Any] = {}
    if rows != spec.rows:
        if spec.has_row_weights:
            notes.append(f"row weights dropped: they belong to {spec.rows} rows; tiles may then sit at any row")
        of_rows = {
            "row_weight": np.ones(rows),
            "idle_drive": np.full(rows, spec.idle_drive[0], np.float32),
            "neutral_level": np.full(rows, spec.neutral_level[0], np.uint8),
        }
    return replace(spec, rows=rows, columns=columns, **of_rows), tuple(notes)


class Planner:
    """Maps one network on one array, with the slices and the size of array that options ask for.

    Args:
        network: what is mapped.
        spec: the target's array.
        progress: called with what is being done.
        unmet: see `Mapper`.
    """

    def __init__(
        self,
        network: PlannedNetwork,
        spec: ArraySpec,
        progress: Callable[[str], None] = lambda what: None,
        unmet: Callable[[dict[str, Any]], int] = lambda found: 0,
    ) -> None:
        self.network, self.spec, self.progress = network, spec, progress
        self._mapper = Mapper(progress, unmet)

    def problem(self, options: PlanOptions) -> tuple[PlannedNetwork, ArraySpec, tuple[str, ...]]:
        """The network with the slices, and the array with the size, that the options ask for; and notes."""
        network = self.network if options.slices is None else self.network.with_slices(options.slices, "given")
        return network, *resized(self.spec, options.array)

    def map(self, options: PlanOptions) -> Mapping:
        """The best mapping under these options.

        Raises:
            ScheduleError: too many tiles for any table, or more reads than can be counted.
            VerifyError: the tables of the result are wrong.
        """
        network, spec, notes = self.problem(options)
        mapping = self._mapper.map(network, spec, options)
        self.progress("checking the tables")
        findings = check_schedule(mapping.schedule, network, spec)
        if findings:
            raise VerifyError(findings)
        return replace(mapping, notes=notes + mapping.notes)

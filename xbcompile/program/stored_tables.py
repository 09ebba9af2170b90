"""Tables in a program file: those of the schedule, and calibration inputs; checked against what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import helper

from xbcompile.ir import ArraySpec, Network, Schedule, Use
from xbcompile.ir.schedule import COPY, STEP, TILE
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.onnx_graph.dimensions import is_fixed
from xbcompile.program.archive import Archive
from xbcompile.program.manifest import LayerEntry, Malformed, ScheduleEntry
from xbcompile.program.schedule_tables import check_indices, check_steps
from xbcompile.tiler.schedule.objective import parse_objective

# Element type and number of axes of each table of a schedule.
TABLES: dict[str, tuple[Any, int]] = {
    "tiles": (TILE, 1),
    "copies": (COPY, 1),
    "column_permutation": (np.dtype("<u2"), 2),
    "steps": (STEP, 1),
    "initial": (np.dtype("<i4"), 1),
    "site": (np.dtype("<i4"), 1),
}


@dataclass(frozen=True)
class _Size:
    """What tables need to know of a layer before it is read."""

    name: str
    groups: int
    inputs: int
    outputs: int


class _Sizes:
    """Layers as the manifest describes them."""

    uses: tuple[Use, ...] = ()

    def __init__(self, entries: Sequence[LayerEntry]) -> None:
        self.layers = [_Size(entry.layer, *entry.shape) for entry in entries]
        self._entries = entries

    @cached_property
    def matrices(self) -> list[int]:
        """Owner of each layer's matrix."""
        owner: dict[str, int] = {}
        return [owner.setdefault(e.matrix, i) if e.matrix else i for i, e in enumerate(self._entries)]


def read_schedule(
    archive: Archive, entry: ScheduleEntry, layers: Sequence[LayerEntry], spec: ArraySpec
) -> Schedule:  # fmt: skip
    """The schedule, every index in whose tables is of something that is there; its steps are checked by `check_follows`.

    Args:
        archive: the program file.
        entry: what the manifest says of it.
        layers: likewise, in order of execution.
        spec: the target's array.

    Raises:
        ProgramError: a table is missing or no such table.
        Malformed: an index is out of range, or what it is for does not fit the target.
    """
    tables: dict[str, Any] = {}
    for name, (dtype, axes) in TABLES.items():
        tables[name] = table = archive.table(f"schedule/{name}.npy", dtype)
        if table.ndim != axes:
            raise Malformed(f"schedule/{name}.npy has {table.ndim} axes; allowed: {axes}")
    schedule = Schedule(**tables, **msgspec.structs.asdict(entry))
    if (schedule.rows, schedule.columns) != (spec.rows, spec.columns):
        raise Malformed(
            f"manifest.json.schedule is for arrays of {schedule.rows}x{schedule.columns}; the target's are "
            f"{spec.rows}x{spec.columns}"
        )
    parse_objective(schedule.objective)
    sites = SiteGrid.parse(schedule.floorplan).sites if schedule.floorplan else 0
    site = schedule.site
    if len(site) and (len(site) != schedule.arrays or np.any(site < 0) or np.any(site >= sites)):
        raise Malformed(f"schedule/site.npy: not one of {sites:,} sites for each of {schedule.arrays:,} arrays")
    _raise_first(check_indices(schedule, _Sizes(layers)))
    return schedule


def check_follows(schedule: Schedule, network: Network) -> None:
    """Raise Malformed where a run cannot follow the steps.

    Args:
        schedule: see `read_schedule`.
        network: whose uses they are.
    """
    for recurrence in network.recurrences:
        if (recurrence.steps or 1) > max(1, len(schedule.steps)):
            raise Malformed(
                f"recurrence {recurrence.name!r} has {recurrence.steps:,} steps, and the schedule {len(schedule.steps):,}"
            )
    _raise_first(check_steps(schedule, network))


def _raise_first(findings: Sequence[str]) -> None:
    if findings:
        raise Malformed(f"schedule: {findings[0]}")


def read_calibration(archive: Archive, names: Sequence[str], network: Network) -> dict[str, np.ndarray]:
    """Calibration inputs by name; none, or all of the network's inputs.

    Args:
        archive: the program file.
        names: of the inputs, in order of the members.
        network: whose inputs they are.

    Raises:
        ProgramError: a member is missing or no table.
        Malformed: they do not fit the network's inputs.
    """
    inputs = {value.name: value for value in network.inputs}
    if names and (sorted(names) != list(names) or set(names) != inputs.keys()):
        raise Malformed(f"manifest.json.calibration: {', '.join(names)}; the inputs are {', '.join(inputs)}")
    found = {name: archive.table(f"calibration/{i}.npy") for i, name in enumerate(names)}
    for name, array in found.items():
        found[name] = _fitting(array, inputs[name], f"calibration input {name!r}", network.samples.inputs.get(name))
    if found:
        network.samples.checked_samples(found)
    return found


def _fitting(array: np.ndarray, value: onnx.ValueInfoProto, what: str, axis: int | None) -> np.ndarray:
    """An array as the input's type has it: what numpy's format does not know is stored as plain bytes."""
    tensor = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else None
    if dtype is not None and array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        array = array.view(dtype)
    if not value.type.HasField("tensor_type") or (array.dtype != dtype and dtype is not None and dtype.kind != "O"):
        raise Malformed(f"{what} has elements {array.dtype}; the model's input has {dtype}")
    if not tensor.HasField("shape"):
        return array
    wanted = [int(dim.dim_value) if is_fixed(dim) and i != axis else None for i, dim in enumerate(tensor.shape.dim)]
    shape = array.shape if len(array.shape) == len(wanted) else array.shape[1:]  # one more axis: per call
    if len(shape) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted, shape, strict=True)):
        raise Malformed(f"{what} has shape {list(array.shape)}; the model's input has {wanted}")
    return array

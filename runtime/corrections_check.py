"""Whether corrections are of a program and a chip: by their names, and table by table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xbcompile.errors import ProgramError
from xbcompile.ir.corrections import Corrections
from xbcompile.program.program import Program


def check_corrections(corrections: Corrections, program: Program, chip: str) -> None:
    """Raise ProgramError when corrections are for another program or another chip, or a table is none of the program's."""
    if corrections.program != program.digest:
        raise ProgramError(
            f"the corrections are for the program {corrections.program[:16]}, and this one is {program.digest[:16]}: commission "
            f"the chip for this program"
        )
    if corrections.chip != chip:
        raise ProgramError(
            f"the corrections are for the chip {corrections.chip!r}, and this one is {chip!r}: give that device and seed, or "
            f"commission this chip"
        )
    for wrong in _wrong(corrections, program):
        raise ProgramError(f"the corrections do not fit the program: {wrong}; commission the chip again")


def _wrong(corrections: Corrections, program: Program) -> Iterator[str]:
    layers, schedule = program.network.layers, program.schedule
    if len(corrections.layers) != len(layers):
        yield f"they are of {len(corrections.layers)} layers, and it has {len(layers)}"
        return
    tiles = np.bincount(schedule.tiles["layer"], minlength=len(layers))
    for layer, matrix, each in zip(layers, program.network.matrices, corrections.layers, strict=True):
        outputs = layer.groups * layer.outputs
        yield from _floats(f"gain of layer {layer.name!r}", each.gain, (outputs,))
        yield from _floats(f"shift of layer {layer.name!r}", each.shift, (outputs,))
        if each.tile_gain is not None:
            yield from _floats(
                f"tile gain of layer {layer.name!r}", each.tile_gain, (int(tiles[matrix]), schedule.columns)
            )
    if corrections.column_offset is not None:
        yield from _floats("column offset", corrections.column_offset, (schedule.arrays, schedule.columns))
    if corrections.column_permutation is not None:
        shape = (schedule.images, schedule.columns)
        yield from _bijections("column permutation", corrections.column_permutation, shape)
    if corrections.routes is None:
        return
    routes = corrections.routes
    if len(routes) != schedule.images:
        yield f"they have routes of {len(routes)} images, and it has {schedule.images}"
        return
    for i, route in enumerate(routes):
        for name, size in (("row", schedule.rows), ("column", schedule.columns)):
            line, sign = getattr(route, name), getattr(route, f"{name}_sign")
            yield from _bijections(f"{name}s of route {i}", line[None], (1, size))
            if sign.shape != (size,) or not np.all(np.abs(sign) == 1):
                yield f"signs of {name}s of route {i} are not {size} times -1 or +1"


def _floats(what: str, table: np.ndarray, shape: tuple[int, ...]) -> Iterator[str]:
    if table.dtype != np.float64 or table.shape != shape:
        yield f"{what} is {table.dtype} {list(table.shape)}, and it needs float64 {list(shape)}"
    elif not np.isfinite(table).all():
        yield f"{what} holds a number that is not finite"


def _bijections(what: str, table: np.ndarray, shape: tuple[int, int]) -> Iterator[str]:
    if table.dtype.kind not in "iu" or table.shape != shape:
        yield f"{what} is {table.dtype} {list(table.shape)}, and it needs whole numbers {list(shape)}"
    elif np.any(np.sort(table, axis=1) != np.arange(shape[1])):
        yield f"{what} is no bijection"

"""Where each weight of a program sits, and which weights each cell holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbcompile.errors import ProgramError, elided
from xbcompile.ir import MatrixLayer
from xbcompile.ir.geometry import Patches
from xbcompile.program.program import Program

_PLACE = re.compile(r"(?P<layer>.+)\[(?P<index>\s*\d+\s*(?:,\s*\d+\s*)*)\]")


@dataclass(frozen=True, eq=False)
class TileCells:
    """The cells that one tile takes of its image, weight by weight: inputs outside, outputs inside.

    Args:
        tile: index of the tile.
        layer: index of the layer that owns the matrix.
        group: of the matrix.
        image: the weight image.
        inputs: int [n], which input of the matrix each cell's weight has.
        outputs: int [n], which output.
        rows: int [n], physical row of each cell.
        columns: int [n], physical column.
        cells: uint8 [n] level indices, or float32 [n] values.
    """

    tile: int
    layer: int
    group: int
    image: int
    inputs: np.ndarray
    outputs: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    cells: np.ndarray


def tile_cells(program: Program, tile: int) -> TileCells:
    """The cells of one tile.

    Args:
        program: the program.
        tile: index of the tile.
    """
    layer, group, k0, k1, m0, m1, image, row, column = program.schedule.tiles[tile].tolist()
    inputs, outputs = (each.ravel() for each in np.mgrid[k0:k1, m0:m1])
    physical = program.schedule.column_permutation[image, column : column + m1 - m0].astype(np.intp)
    code = program.network.layers[layer].weight_code
    assert code is not None
    return TileCells(
        tile, layer, group, image, inputs, outputs, row + inputs - k0, physical[outputs - m0],
        code.codes[group, k0:k1, m0:m1].ravel(),
    )  # fmt: skip


def parse_place(text: str) -> tuple[str, tuple[int, ...]]:
    """Layer and index of a text such as `fc1[3,7]`.

    Args:
        text: the text.

    Raises:
        ProgramError: it is none.
    """
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        raise ProgramError(
            f"{text!r} names no weight; write LAYER[INPUT,OUTPUT], LAYER[GROUP,INPUT,OUTPUT], or of a convolution "
            "LAYER[OUTPUT,CHANNEL,Y,X] as its ONNX weights are counted"
        )
    return match["layer"], tuple(int(each) for each in match["index"].split(","))


def parse_cell(text: str) -> tuple[int, int, int]:
    """Array, row and column of a text such as `0,12,63`.

    Args:
        text: the text.

    Raises:
        ProgramError: it is none.
    """
    parts = [each.strip() for each in text.split(",")]
    if len(parts) != 3 or not all(each.isdecimal() and len(each) < 19 for each in parts):
        raise ProgramError(f"{text!r} names no cell; write ARRAY,ROW,COLUMN, as in 0,12,63")
    array, row, column = map(int, parts)
    return array, row, column


def weight_place(program: Program, layer: str, index: Sequence[int]) -> dict[str, Any]:
    """Where one weight sits and what its cell is written to; the keys of `where --json`.

    Args:
        program: the program.
        layer: name of the matrix layer.
        index: (input, output) of a matrix of one group, (group, input, output), or of a convolution (output, channel, position
            in the kernel), as ONNX counts its weights.

    Raises:
        ProgramError: no such layer or weight.
    """
    found = _layer(program, layer)
    owner = program.network.matrices[found]
    group, k, m = _matrix_index(program.network.layers[found], index)
    tiles = program.schedule.tiles
    inside = (
        (tiles["layer"] == owner)
        & (tiles["group"] == group)
        & (tiles["k0"] <= k)
        & (k < tiles["k1"])
        & (tiles["m0"] <= m)
        & (m < tiles["m1"])
    )
    (tile,) = np.flatnonzero(inside).tolist()
    cells = tile_cells(program, tile)
    (at,) = np.flatnonzero((cells.inputs == k) & (cells.outputs == m))
    return _described(program, cells, int(at))


def cell_content(program: Program, array: int, row: int, column: int) -> list[dict[str, Any]]:
    """The weights that one cell holds, one for each image that its array takes and that uses the cell.

    Args:
        program: the program.
        array: number of the physical array.
        row: physical row.
        column: physical column.

    Raises:
        ProgramError: no such array, row or column.
    """
    schedule = program.schedule
    for name, value, size in (
        ("array", array, schedule.arrays),
        ("row", row, schedule.rows),
        ("column", column, schedule.columns),
    ):
        if not 0 <= value < size:
            raise ProgramError(f"{name} {value} does not exist; allowed: 0 to {size - 1}")
    images = schedule.copies["image"][schedule.copies["array"] == array]
    found = []
    for tile in np.flatnonzero(np.isin(schedule.tiles["image"], images)).tolist():
        _, _, k0, k1, m0, m1, image, first_row, first_column = schedule.tiles[tile].tolist()
        physical = schedule.column_permutation[image, first_column : first_column + m1 - m0]
        if not first_row <= row < first_row + k1 - k0 or column not in physical:
            continue
        cells = tile_cells(program, tile)
        (at,) = np.flatnonzero((cells.rows == row) & (cells.columns == column))
        found.append(_described(program, cells, int(at)))
    return sorted(found, key=lambda each: each["image"])


def _described(program: Program, cells: TileCells, at: int) -> dict[str, Any]:
    """One weight of a tile: where it is, and what its cell is written to."""
    schedule, spec = program.schedule, program.spec
    layer = program.network.layers[cells.layer]
    code = layer.weight_code
    assert code is not None
    group, k, m = cells.group, int(cells.inputs[at]), int(cells.outputs[at])
    row, cell = int(cells.rows[at]), cells.cells[at : at + 1]
    value = float(cell[0]) if spec.levels is None else float(spec.levels[cell[0]])
    real = float(spec.row_weight[row]) * value * float(code.scale[group, m]) + float(code.offset[group, m])
    arrays = schedule.copies["array"][schedule.copies["image"] == cells.image]
    return {
        "layer": layer.name,
        "group": group,
        "input": k,
        "output": m,
        "onnx_index": list(_onnx_index(layer, group, k, m)),
        "weight": real,
        "level": None if spec.levels is None else int(cell[0]),
        "cell_value": value,
        "device": {name: values[0].item() for name, values in program.target.parameters.cell_states(cell).items()},
        "tile": cells.tile,
        "image": cells.image,
        "row": row,
        "column": int(cells.columns[at]),
        "arrays": arrays.tolist(),
        "sites": schedule.site[arrays].tolist() if len(schedule.site) else None,
        "used_by": [
            program.network.layers[i].name for i, owner in enumerate(program.network.matrices) if owner == cells.layer
        ],
    }


def layer_names(program: Program) -> Iterator[str]:
    """Names of the matrix layers, in their order."""
    return (layer.name for layer in program.network.layers)


def _layer(program: Program, name: str) -> int:
    names = list(layer_names(program))
    if name not in names:
        raise ProgramError(f"the program has no matrix layer {name!r}; it has {elided(names)}")
    return names.index(name)


def _matrix_index(layer: MatrixLayer, index: Sequence[int]) -> tuple[int, int, int]:
    """Group, input and output of an index in any of its forms."""
    groups, inputs, outputs = layer.shape
    if isinstance(layer.geometry, Patches) and len(index) == 2 + len(layer.geometry.kernel):
        sizes = (groups * outputs, inputs // int(np.prod(layer.geometry.kernel)), *layer.geometry.kernel)
        _check(layer, index, sizes)
        k = int(np.ravel_multi_index(tuple(index[1:]), sizes[1:]))
        return index[0] // outputs, k, index[0] % outputs
    if len(index) == 2 and groups == 1:
        index = (0, *index)
    if len(index) != 3:
        raise ProgramError(
            f"layer {layer.name!r}: weight {_text(index)} has {len(index)} numbers; its matrices are [{groups}, {inputs}, "
            f"{outputs}] (group, input, output)"
        )
    _check(layer, index, layer.shape)
    group, k, m = index
    return group, k, m


def _check(layer: MatrixLayer, index: Sequence[int], sizes: Sequence[int]) -> None:
    if not all(0 <= each < size for each, size in zip(index, sizes, strict=True)):
        raise ProgramError(
            f"layer {layer.name!r} has no weight {_text(index)}; allowed: below {_text(sizes)} in each place"
        )


def _text(index: Sequence[int]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _onnx_index(layer: MatrixLayer, group: int, k: int, m: int) -> tuple[int, ...]:
    """Where the weight is in a Conv's constant, [outputs, channels, *kernel]; of other layers (group, input, output)."""
    _, inputs, outputs = layer.shape
    if not isinstance(layer.geometry, Patches):
        return (group, k, m)
    kernel = layer.geometry.kernel
    taps = np.unravel_index(k, (inputs // int(np.prod(kernel)), *kernel))
    return (group * outputs + m, *(int(each) for each in taps))

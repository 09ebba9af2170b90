"""Cells and schedule of a program as tables of plain text and as numpy archives, written piece by piece."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Any

import numpy as np

from xbcompile.export.places import tile_cells
from xbcompile.program.program import Program
from xbcompile.report.summary import schedule_rows
from xbcompile.targets.parameters import ArrayParameters

_IMAGES_AT_ONCE = 64  # of which cells are held
_CELL_COLUMNS = ("image", "row", "column", "layer", "group", "input", "output", "cell", "value")
_SCHEDULE_COLUMNS = (
    "operation", "start_s", "end_s", "array", "image", "rows", "tile", "layer", "group", "inputs", "outputs", "row", "column",
    "reads",
)  # fmt: skip


def _cell_state(parameters: ArrayParameters, name: str, cells: np.ndarray) -> np.ndarray:
    return parameters.cell_states(cells)[name]


class NpzWriter:
    """Arrays as members of an .npz file, of which a part is in memory at a time.

    Args:
        file: open for writing.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def add(self, name: str, shape: Sequence[int], dtype: np.dtype, parts: Iterator[np.ndarray]) -> None:
        """Add one array.

        Args:
            name: by which `numpy.load` gives it.
            shape: of the whole array.
            dtype: its type.
            parts: what it consists of along axis 0.
        """
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
        with self._archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for part in parts:
                member.write(np.ascontiguousarray(part, dtype).tobytes())

    def close(self) -> None:
        """Finish the archive."""
        self._archive.close()


def write_cells_npz(program: Program, file: IO[bytes]) -> None:
    """Write the cells of all images, [images, rows, columns], as `cell`, and what each stands for on the device.

    Beside them what an ideal read needs: `levels`, `row_weight`, `idle_drive`, the tile table by its fields and
    `column_permutation`, `copies_image` and `copies_array`.

    Args:
        program: the program.
        file: open for writing.
    """
    schedule, spec, parameters = program.schedule, program.spec, program.target.parameters
    writer = NpzWriter(file)
    shape = (schedule.images, schedule.rows, schedule.columns)

    def parts(of: Callable[[np.ndarray], np.ndarray]) -> Iterator[np.ndarray]:
        for first in range(0, schedule.images, _IMAGES_AT_ONCE):
            yield of(program.cells(np.arange(first, min(first + _IMAGES_AT_ONCE, schedule.images))))

    dtype = np.dtype(np.float32 if spec.levels is None else np.uint8)
    writer.add("cell", shape, dtype, parts(lambda cells: cells))
    for name, sample in parameters.cell_states(np.zeros(1, dtype)).items():
        stored = np.dtype(np.float64) if sample.dtype.kind == "f" else sample.dtype
        writer.add(name, shape, stored, parts(partial(_cell_state, parameters, name)))
    small = {"row_weight": spec.row_weight, "idle_drive": spec.idle_drive}
    if spec.levels is not None:
        small["levels"] = spec.levels
    small["column_permutation"] = schedule.column_permutation
    small |= {f"tile_{name}": schedule.tiles[name] for name in schedule.tiles.dtype.names or ()}
    small |= {f"copies_{name}": schedule.copies[name] for name in schedule.copies.dtype.names or ()}
    for name, array in small.items():
        writer.add(name, array.shape, array.dtype, iter([array]))
    writer.close()


def write_layers_npz(program: Program, file: IO[bytes]) -> None:
    """Write what is digital in each matrix layer: `LAYER/scale`, `LAYER/offset` [groups, outputs] and `LAYER/bias`.

    Args:
        program: the program.
        file: open for writing.
    """
    writer = NpzWriter(file)
    for layer in program.network.layers:
        code = layer.weight_code
        assert code is not None
        for name, array in (("scale", code.scale), ("offset", code.offset), ("bias", layer.bias)):
            writer.add(f"{layer.name}/{name}", array.shape, array.dtype, iter([array]))
    writer.close()


def write_cells_csv(program: Program, file: IO[bytes]) -> int:
    """Write one line for each weight: its cell and what that is written to; returns the number of weights.

    Args:
        program: the program.
        file: open for writing.
    """
    levels, parameters, count = program.spec.levels, program.target.parameters, 0
    sample = parameters.cell_states(np.zeros(1, np.float32 if levels is None else np.uint8))
    with _text(file) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*_CELL_COLUMNS, *sample])
        for tile in range(len(program.schedule.tiles)):
            cells = tile_cells(program, tile)
            values = cells.cells if levels is None else levels[cells.cells]
            states = [each.tolist() for each in parameters.cell_states(cells.cells).values()]
            name = program.network.layers[cells.layer].name
            columns = [cells.inputs, cells.outputs, cells.cells, values]
            inputs, outputs, stored, value = (each.tolist() for each in columns)
            rows, places = cells.rows.tolist(), cells.columns.tolist()
            writer.writerows(
                (cells.image, row, column, name, cells.group, *rest)
                for row, column, *rest in zip(rows, places, inputs, outputs, stored, value, *states, strict=True)
            )
            count += len(rows)
    return count


def write_schedule_csv(program: Program, file: IO[bytes]) -> None:
    """Write the schedule's steps, one a line, those before the first batch at negative times; ranges as first:end.

    Args:
        program: the program.
        file: open for writing.
    """
    with _text(file) as text:
        writer = csv.DictWriter(text, _SCHEDULE_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in schedule_rows(program):
            ranges = {name: f"{row[name][0]}:{row[name][1]}" for name in ("inputs", "outputs") if name in row}
            writer.writerow(row | ranges)


def write_schedule_lines(program: Program, file: IO[bytes]) -> None:
    """Write the schedule's steps as JSON lines; the keys are those of `inspect --schedule --json`.

    Args:
        program: the program.
        file: open for writing.
    """
    for row in schedule_rows(program):
        file.write(json.dumps(row).encode() + b"\n")


class _text:
    """A binary file as text, which stays open when it is done with."""

    def __init__(self, file: IO[bytes]) -> None:
        self._wrapper = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)

    def __enter__(self) -> io.TextIOWrapper:
        return self._wrapper

    def __exit__(self, *_: Any) -> None:
        self._wrapper.flush()
        self._wrapper.detach()

"""Errors of logical columns of a program's images on the physical columns of a chip, as a lab measures them.

Readings are compared with the exact sums that they stand for; what counts is the mean over the slices of a vector, weighted as
their readings are. There are two ways:

images      every image is written with its columns turned by 0, 1, .. columns - 1 places and read with calibration inputs:
            each logical column is seen on each physical one, its own cells on that column's own devices.
columns     images of random cells are read with random drives: one figure per physical column of each array.

What a later pass removes does not count: with `calibrate-offsets` the mean error of each physical column, with `recalibrate`
that of each logical one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xbcompile.ir import ArraySpec, MatrixLayer, Schedule
from xbcompile.ir.corrections import Corrections
from xbcompile.ir.schedule import tile_columns
from xbcompile.passes.contract import ChipView, Feeds
from xbcompile.passes.device.quiet_columns.assignment import Floats, TileColumnErrors, TileColumns

_ROUNDING = 1e-9  # share of a mean square below which a variance is rounding


def errors_on_images(chip: ChipView, feeds: Feeds, vectors: int, corrections: Corrections, used: TileColumns) -> TileColumnErrors:
    """From the program's own images, turned; `vectors` of each layer in each turn."""
    columns, entries = chip.spec.columns, np.arange(len(used.tile))
    mean, power = (np.zeros((len(entries), columns)) for _ in range(2))
    now = columns_of(chip.schedule, corrections)
    for turn in range(columns):
        turned = (now + turn) % columns
        found = chip.tile_errors(feeds, vectors, corrections.with_columns(turned.astype(np.uint16)))
        physical = turned[used.image, used.logical]
        mean[entries, physical], power[entries, physical] = (each[used.tile, physical] for each in found)
    return _left(chip, used, entries, mean, power)


def errors_on_columns(chip: ChipView, patterns: int, vectors: int, used: TileColumns) -> TileColumnErrors:
    """From random images, `patterns` per array, each read with so many vectors: one figure per physical column of each array."""
    schedule, spec = chip.schedule, chip.spec
    mean, power = (np.zeros((schedule.arrays, spec.columns)) for _ in range(2))
    for array in np.unique(schedule.copies["array"]).tolist():
        generator = np.random.default_rng(array)
        cells = _random_cells(generator, spec, (patterns, spec.rows, spec.columns))
        drives = _random_drives(generator, spec, (patterns, vectors, 1, spec.rows))[:, :, 0]
        error = chip.random_errors(array, cells, drives)
        mean[array], power[array] = error.mean(axis=(0, 1)), np.square(error).mean(axis=(0, 1))
    arrays = schedule.arrays_of(np.arange(schedule.images))
    return _left(chip, used, used.image, mean[arrays].mean(axis=1), power[arrays].mean(axis=1))


def columns_of(schedule: Schedule, corrections: Corrections) -> npt.NDArray[np.intp]:
    """Physical columns [images, columns] with corrections."""
    if corrections.routes is not None:
        return np.stack([route.column for route in corrections.routes]).astype(np.intp)
    found = corrections.column_permutation
    return (schedule.column_permutation if found is None else found).astype(np.intp)


def columns_of_tiles(schedule: Schedule, corrections: Corrections, sensitivity: dict[int, Floats]) -> TileColumns:
    """The columns of a program's tiles; `sensitivity` as the function of that name gives it."""
    tiles, routes = schedule.tiles, corrections.routes
    width = tile_columns(tiles).astype(np.intp)
    tile = np.repeat(np.arange(len(tiles)), width)
    within = np.arange(len(tile)) - np.repeat(np.cumsum(width) - width, width)
    image, logical = tiles["image"][tile].astype(np.intp), tiles["column"][tile] + within
    weight, output, outputs = np.empty(len(tile)), np.empty(len(tile), np.intp), 0
    for matrix, table in sensitivity.items():
        mine = np.flatnonzero(tiles["layer"][tile] == matrix)
        place = tiles["group"][tile[mine]] * table.shape[1] + tiles["m0"][tile[mine]] + within[mine]
        weight[mine], output[mine] = table.ravel()[place], outputs + place
        outputs += table.size
    sign = np.ones(len(tile))
    if routes is not None:
        sign = np.stack([route.column_sign for route in routes])[image, logical].astype(np.float64)
    return TileColumns(tile, image, logical, output, weight, sign)


def sensitivity(chip: ChipView, importance: list[Floats]) -> dict[int, Floats]:
    """By matrix (its owner): what a squared error of each column's readings costs, float64 [groups, outputs]; layers that share
    the matrix add up.

    Args:
        chip: its network and array.
        importance: what a squared error of each output costs, float64 [groups * outputs] for each layer.
    """
    network = chip.network
    result: dict[int, Floats] = {}
    for layer, owner, value in zip(network.layers, network.matrices, importance, strict=True):
        assert layer.weight_code is not None
        unit = layer.weight_code.scale.astype(np.float64) * _vector_unit(layer, chip.spec)
        found = np.square(unit) * value.reshape(unit.shape)
        result[owner] = result.get(owner, 0.0) + found
    return result


def _vector_unit(layer: MatrixLayer, spec: ArraySpec) -> float:
    """Input units of one unit of drive in all slices; a range that is each vector's own, so known only when it runs, counts
    as 1.
    """
    code = layer.input_code
    slices = float(_coefficients(layer).sum())
    if code is None or code.low is None or code.high is None:
        return slices
    return slices * (code.high - code.low) / (code.steps or 1) / (2.0 if spec.drives_both_signs else 1.0)


def _coefficients(layer: MatrixLayer) -> Floats:
    return np.ones(1) if layer.input_code is None else layer.input_code.coefficients


def _left(chip: ChipView, used: TileColumns, row: npt.NDArray[np.intp], mean: Floats, power: Floats) -> TileColumnErrors:
    """What is left where a later pass removes the mean error of each output."""
    if any(each.removes == "output means" for each in chip.later):
        left = power - np.square(mean)
        mean, power = np.zeros_like(mean), np.where(left > _ROUNDING * power, left, 0.0)
    return TileColumnErrors(used, row, mean, power)


def _random_cells(generator: np.random.Generator, spec: ArraySpec, shape: tuple[int, ...]) -> np.ndarray:
    if spec.levels is None:
        limit = spec.cell_limit or 1.0
        return generator.uniform(-limit, limit, shape).astype(np.float32)
    return generator.integers(0, len(spec.levels), shape).astype(np.uint8)


def _random_drives(generator: np.random.Generator, spec: ArraySpec, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform over what rows take: two values, or all between."""
    low = -1 if spec.drives_both_signs or spec.drive == "unbounded" else 0
    if spec.drive in ("bipolar", "unipolar"):
        return np.where(generator.random(shape) < 0.5, np.float32(low), np.float32(1))
    return generator.uniform(low, 1, shape).astype(np.float32)

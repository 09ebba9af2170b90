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

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError
from xbcompile.ir import ArraySpec, MatrixLayer
from xbcompile.ir.schedule import Schedule, tile_columns
from xbcompile.passes.contract import ColumnsPass, OutputsPass, ReadingsPass
from xbcompile.program.program import Program, device_passes
from xbcompile.reference.evaluate import evaluate, model_batch
from xbcompile.runtime.gather import vectors_per_sample
from xbcompile.runtime.importance import output_importance
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.targets import BatchedDevice, LoadedImages
from xbcompile.targets.families.ideal import IdealArray

Floats = npt.NDArray[np.float64]

# Noise counters of these measurements start here: behind those of commissioning, before those of a matrix's next use.
MAP_VECTOR = 1 << 49
_MAX_ROUNDS = 5  # assumed: later ones hardly move anything
_ROUNDING = 1e-9  # share of a mean square below which a variance is rounding


def quieted(program: Program, device: BatchedDevice) -> Program:
    """The program with the columns of its images where the passes of its pipeline want them on this chip; the same object
    where there is no such pass.

    A program that is routed around defects keeps its columns where errors are not measured on its own images: random ones
    do not show what its cells can hold elsewhere.

    Raises:
        PassError: errors cannot be measured, as sums on the calibration inputs are not finite.
    """
    for each in device_passes(program.pipeline):
        if isinstance(each, ColumnsPass) and (each.measures_images or program.routes is None):
            errors = column_errors(program, device, each)
            if not np.isfinite(errors.power).all():
                raise PassError(
                    f"{each.name}: readings or exact sums are not finite on the calibration inputs; give finite inputs, or leave "
                    f"the pass out"
                )
            program = _with_columns(program, _chosen(program, errors, each, device.lsb))
    return program


@dataclass(frozen=True, eq=False)
class TileColumns:
    """Every column of every tile, one entry each.

    Args:
        tile: intp [entries].
        image: intp [entries], the tile's image.
        logical: intp [entries], the logical column.
        output: intp [entries], number of the layer output that it adds to.
        weight: float64 [entries], what a squared error of its readings costs.
        sign: float64 [entries], sign that the chip's route gives to its readings.
    """

    tile: npt.NDArray[np.intp]
    image: npt.NDArray[np.intp]
    logical: npt.NDArray[np.intp]
    output: npt.NDArray[np.intp]
    weight: Floats
    sign: Floats


@dataclass(frozen=True, eq=False)
class ColumnErrors:
    """Errors on every physical column.

    Args:
        entries: the columns of tiles.
        row: intp [entries], row of each in the tables.
        mean: float64 [rows, columns], mean error of readings that nothing later removes.
        power: float64 [rows, columns], mean squared error of the same.
    """

    entries: TileColumns
    row: npt.NDArray[np.intp]
    mean: Floats
    power: Floats


def _chosen(program: Program, errors: ColumnErrors, each: ColumnsPass, lsb: float | None) -> np.ndarray:
    """Physical columns [images, columns]: image after image, in rounds, until nothing moves.

    Offsets that `calibrate-offsets` would fit are fitted anew before every round, where it follows.
    """
    schedule, entries = program.schedule, errors.entries
    column = schedule.column_permutation.astype(np.intp)
    array = schedule.copies["array"][np.searchsorted(schedule.copies["image"], np.arange(len(column)))]
    readings = [other for other in device_passes(program.pipeline) if isinstance(other, ReadingsPass)]
    order = np.argsort(entries.image, kind="stable")
    bounds = np.searchsorted(entries.image[order], np.arange(len(column) + 1)).tolist()
    runs = [order[start:end] for start, end in pairwise(bounds)]
    offset = np.zeros((schedule.arrays, column.shape[1]))
    for _ in range(_MAX_ROUNDS if errors.mean.any() else 1):
        before = column.copy()
        for other in readings:
            offset = _offsets(errors, column, array, other, lsb, schedule.arrays)
        _sweep(errors, column, offset[array], each, runs)
        if np.array_equal(before, column):
            break
    return column.astype(schedule.column_permutation.dtype)


def _offsets(
    errors: ColumnErrors, column: np.ndarray, array: np.ndarray, readings: ReadingsPass, lsb: float | None, arrays: int
) -> Floats:
    """Offsets [arrays, columns] that a pass fits to columns where they are."""
    entries = errors.entries
    here = column[entries.image, entries.logical]
    place = (array[entries.image], here)
    total, count = np.zeros((2, arrays, column.shape[1]))
    np.add.at(total, place, errors.mean[errors.row, here])
    np.add.at(count, place, 1)
    return readings.fit(total / np.maximum(count, 1), lsb)


def _sweep(
    errors: ColumnErrors, column: np.ndarray, offset: Floats, each: ColumnsPass, runs: list[npt.NDArray[np.intp]]
) -> None:
    """Move every image's columns in turn, in place, the others where they are; the whole error never rises.

    Mean errors add up over the tiles of an output: where the others add B, one tile costs
    E[(B + e)^2] - B^2 = E[e^2] + 2 B E[e].

    Args:
        errors: of readings, before offsets.
        column: intp [images, columns], physical columns.
        offset: float64 [images, columns], added to the readings of each physical column.
        each: the pass.
        runs: entries of each image.
    """
    entries = errors.entries
    here = column[entries.image, entries.logical]
    mean = entries.sign * (errors.mean[errors.row, here] + offset[entries.image, here])
    collected = np.bincount(entries.output, mean)
    for image, mine in enumerate(runs):
        logical, (output, tile) = entries.logical[mine], np.unique(entries.output[mine], return_inverse=True)
        weight, error, shift = entries.weight[mine, None], errors.mean[errors.row[mine]], offset[image]
        mean = entries.sign[mine, None] * (error + shift)
        power = weight * (errors.power[errors.row[mine]] + 2 * shift * error + np.square(shift))
        place, now = np.arange(len(mine)), column[image][logical]
        rest = collected[output] - np.bincount(tile, mean[place, now])
        cost = np.zeros((column.shape[1], column.shape[1]))
        np.add.at(cost, logical, power + 2 * weight * rest[tile, None] * mean)
        found = each.assign(cost, column[image])
        single = power - weight * np.square(mean)
        before, after = (_whole(single, mean, at, rest, tile, weight[:, 0]) for at in (now, found[logical]))
        if after < before:
            column[image] = found
        collected[output] = rest + np.bincount(tile, mean[place, column[image][logical]])


def _whole(single: Floats, mean: Floats, at: np.ndarray, rest: np.ndarray, tile: np.ndarray, weight: Floats) -> float:
    """What one image's columns cost at physical columns `at`: tiles of one output that share an image add up too, which
    a linear assignment cannot know.

    Args:
        single: float64 [entries, columns], cost of what varies.
        mean: float64 [entries, columns], mean errors.
        at: intp [entries].
        rest: float64 [outputs], what other images add.
        tile: intp [entries], output of each.
        weight: float64 [entries], what a squared error costs.
    """
    place = np.arange(len(at))
    chosen = mean[place, at]
    total = (2 * rest + np.bincount(tile, chosen, minlength=len(rest)))[tile]
    return float((single[place, at] + weight * chosen * total).sum())


def column_errors(program: Program, device: BatchedDevice, each: ColumnsPass) -> ColumnErrors:
    """Measure a chip's errors as a pass asks for it.

    Args:
        program: routed for the chip, where it is.
        device: the chip.
        each: the pass.
    """
    batch = model_batch(program.network.inputs) or 1
    samples = max(each.samples // batch, 1) * batch
    feeds = {name: value[:samples] for name, value in program.calibration.items()}
    used = _tile_columns(program, _sensitivity(program, feeds, each))
    if each.measures_images:
        return _measured_on_images(program, device, each, feeds, used)
    return _measured_on_columns(program, device, each, used)


def _tile_columns(program: Program, sensitivity: dict[int, Floats]) -> TileColumns:
    """The columns of a program's tiles; `sensitivity` as `_sensitivity` gives it."""
    tiles, routes = program.schedule.tiles, program.routes
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


def _sensitivity(program: Program, feeds: dict[str, np.ndarray], each: ColumnsPass) -> dict[int, Floats]:
    """By matrix (its owner): what a squared error of each column's readings costs, float64 [groups, outputs]; layers that share
    the matrix add up.
    """
    network = program.network
    importance = [np.ones(layer.groups * layer.outputs) for layer in network.layers]
    if each.weighs_outputs:
        importance = output_importance(network, feeds, each.step)
    result: dict[int, Floats] = {}
    for layer, owner, value in zip(network.layers, network.matrices, importance, strict=True):
        assert layer.weight_code is not None
        unit = layer.weight_code.scale.astype(np.float64) * _vector_unit(layer, program.spec)
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


def _with_columns(program: Program, column: np.ndarray) -> Program:
    """The program with other physical columns, [images, columns]; what else routes say stays."""
    schedule = replace(program.schedule, column_permutation=column)
    routes = program.routes
    if routes is not None:
        routes = tuple(replace(r, column=c.astype(np.intp)) for r, c in zip(routes, column, strict=True))
    return replace(program, schedule=schedule, routes=routes)


class _Recorder:
    """A device whose every read is compared with the exact one: sums of errors by tile and physical column.

    An image that several arrays hold is read in each of them.
    """

    def __init__(self, device: BatchedDevice, program: Program) -> None:
        self.device, self.ideal = device, IdealArray(program.spec)
        self.lsb, self.reading_limits = device.lsb, device.reading_limits
        self.schedule = program.schedule
        self.shares = np.ones(1)  # of the slices of the layer that is run
        shape = (len(program.schedule.tiles), program.spec.columns)
        self.count = np.zeros(shape[0])
        self.total, self.square = np.zeros(shape), np.zeros(shape)

    def write(self, array: int, cells: np.ndarray) -> None:
        """See Device."""
        self.device.write(array, cells)

    def load(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> LoadedImages:
        """See BatchedDevice."""
        copies = _arrays_of(self.schedule, self.schedule.tiles["image"][tiles])
        loaded = [self.device.load(held, tiles, cells) for held in copies.T]
        return _Recorded(self, tiles, loaded, self.ideal.load(arrays, tiles, cells))

    def read(self, array: int, drive: np.ndarray, stamp: object) -> np.ndarray:
        """See Device."""
        raise TypeError("a recorder is read in blocks")


@dataclass(frozen=True, eq=False)
class _Recorded:
    recorder: _Recorder
    tiles: np.ndarray
    loaded: list[LoadedImages]
    exact: LoadedImages

    def read(self, drives: np.ndarray, first_vector: int) -> np.ndarray:
        """See LoadedImages."""
        exact = self.exact.read(drives, first_vector)
        for each in self.loaded:
            readings = each.read(drives, first_vector)
            error = np.einsum("t,ivtc->ivc", self.recorder.shares, readings - exact, dtype=np.float64)
            np.add.at(self.recorder.total, self.tiles, error.sum(axis=1))
            np.add.at(self.recorder.square, self.tiles, np.square(error).sum(axis=1))
            np.add.at(self.recorder.count, self.tiles, error.shape[1])
        return exact


def _arrays_of(schedule: Schedule, images: np.ndarray) -> npt.NDArray[np.int32]:
    """Arrays that hold images [n], [n, most copies]; an image of fewer copies repeats them in turn."""
    first = np.searchsorted(schedule.copies["image"], images)
    count = np.searchsorted(schedule.copies["image"], images, side="right") - first
    turn = np.arange(count.max(initial=1))
    arrays: npt.NDArray[np.int32] = schedule.copies["array"][first[:, None] + turn % count[:, None]]
    return arrays


def _measured_on_images(
    program: Program, device: BatchedDevice, each: ColumnsPass, feeds: dict[str, np.ndarray], used: TileColumns
) -> ColumnErrors:
    """From the program's own images, turned."""
    columns, entries = program.spec.columns, np.arange(len(used.tile))
    inputs = _inputs(program, feeds, each.vectors)
    mean, power = (np.zeros((len(entries), columns)) for _ in range(2))
    for turn in range(columns):
        permutation = program.schedule.column_permutation
        turned = _with_columns(program, ((permutation.astype(np.intp) + turn) % columns).astype(permutation.dtype))
        recorder = _recorded(turned, device, inputs)
        physical = turned.schedule.column_permutation[used.image, used.logical]
        number = np.maximum(recorder.count[used.tile], 1)
        mean[entries, physical] = recorder.total[used.tile, physical] / number
        power[entries, physical] = recorder.square[used.tile, physical] / number
    return _left(program, used, entries, mean, power)


def _left(program: Program, used: TileColumns, row: npt.NDArray[np.intp], mean: Floats, power: Floats) -> ColumnErrors:
    """What `recalibrate` leaves, where it follows: no mean error of an output."""
    if any(isinstance(each, OutputsPass) for each in device_passes(program.pipeline)):
        left = power - np.square(mean)
        mean, power = np.zeros_like(mean), np.where(left > _ROUNDING * power, left, 0.0)
    return ColumnErrors(used, row, mean, power)


def _recorded(program: Program, device: BatchedDevice, inputs: list[np.ndarray]) -> _Recorder:
    """Every tile read with its layers' inputs."""
    recorder = _Recorder(device, program)
    for index, x in enumerate(inputs):
        executor = LayerExecutor(program, index, recorder)
        recorder.shares = _coefficients(executor.layer) / _coefficients(executor.layer).sum()
        executor.vectors(x, MAP_VECTOR)
    return recorder


def _inputs(program: Program, feeds: dict[str, np.ndarray], vectors: int) -> list[np.ndarray]:
    """Ideal input tensor of each layer, cut along axis 0 to about so many vectors."""
    layers = program.network.layers
    values = evaluate(program.network, feeds, [layer.input for layer in layers])
    whole = [np.concatenate(chunks) if len(chunks) > 1 else chunks[0] for chunks in values]
    sizes = [vectors_per_sample(layer, x.shape) for layer, x in zip(layers, whole, strict=True)]
    return [x[: max(1, vectors // size)] if x.ndim > 1 else x for size, x in zip(sizes, whole, strict=True)]


def _measured_on_columns(program: Program, device: BatchedDevice, each: ColumnsPass, used: TileColumns) -> ColumnErrors:
    """From random images: one figure per physical column of each array."""
    schedule, spec = program.schedule, program.spec
    mean, power = (np.zeros((schedule.arrays, spec.columns)) for _ in range(2))
    for array in np.unique(schedule.copies["array"]).tolist():
        mean[array], power[array] = _errors_of_columns(array, spec, device, each)
    arrays = _arrays_of(schedule, np.arange(schedule.images))
    return _left(program, used, used.image, mean[arrays].mean(axis=1), power[arrays].mean(axis=1))


def _errors_of_columns(array: int, spec: ArraySpec, device: BatchedDevice, each: ColumnsPass) -> tuple[Floats, Floats]:
    """Mean and mean squared error of one read of each column of an array, float64 [columns], on random cells and drives."""
    generator = np.random.default_rng(array)
    shape = (each.patterns, spec.rows, spec.columns)
    if spec.levels is None:
        limit = spec.cell_limit or 1.0
        cells = generator.uniform(-limit, limit, shape).astype(np.float32)
    else:
        cells = generator.integers(0, len(spec.levels), shape).astype(np.uint8)
    drives = _random_drives(generator, spec, (each.patterns, each.vectors, 1, spec.rows))
    arrays, tiles = np.full(each.patterns, array), np.arange(each.patterns)
    readings = device.load(arrays, tiles, cells).read(drives, MAP_VECTOR)
    exact = IdealArray(spec).load(arrays, tiles, cells).read(drives, MAP_VECTOR)
    error = (readings - exact)[:, :, 0].astype(np.float64)
    return error.mean(axis=(0, 1)), np.square(error).mean(axis=(0, 1))


def _random_drives(generator: np.random.Generator, spec: ArraySpec, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform over what rows take: two values, or all between."""
    low = -1 if spec.drives_both_signs or spec.drive == "unbounded" else 0
    if spec.drive in ("bipolar", "unipolar"):
        return np.where(generator.random(shape) < 0.5, np.float32(low), np.float32(1))
    return generator.uniform(low, 1, shape).astype(np.float32)

"""Emulator of a resistance-sum array: exact dot products plus errors drawn from measured histograms.

Source: Jung et al., Nature 601, 211 (2022), Methods "Emulator". Errors are grouped by column N_C and by N_delta, the
    number of high cells in the column's top half minus that in its bottom half: with 64 rows and columns 64 x 65 =
    4,160 groups. An error is drawn from its group's histogram and added to the exact dot product. The histograms come
    from characterising the physics model of the same chip with 4,160,000 digital-offset-corrected dot products.

What such a histogram cannot carry: where inside a half the high cells sit. The delay's row weight falls linearly along
the whole column, so two patterns of one N_delta differ by what the weights inside the halves do; the emulator gives
both the same distribution. For a network not trained for row weights that is just more spread; for one that is, it is
lost
signal.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from xbcompile.targets.alias_tables import alias_tables
from xbcompile.targets.contract import SimulatedDevice, WrittenImages
from xbcompile.targets.counter_random import MOST_VECTORS, Key, key_of, read_counter, standard_normal, uniform
from xbcompile.targets.families.characterization import column_offsets
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters
from xbcompile.targets.histogram_sums import (
    Histograms,
    HistogramTables,
    add_histogram_tiles,
    packed,
    read_columns,
    row_places,
)
from xbcompile.targets.loaded_images import LoadedImages, LoadedTiles
from xbcompile.targets.read_block import ReadBlock
from xbcompile.targets.tile_routing import TileRouting
from xbcompile.targets.tile_sums import SCHEMES

# Reads of a column (vectors x slices) that go through the kernel together.
_BLOCK_READS = 512
_CHARACTERIZATION_VECTOR = MOST_VECTORS // 2  # its reads are no session's
# The paper's count, 4,160,000 dot products, as images x vectors x 64 columns; it does not say how inputs and weights
# were chosen: random patterns in which the share of high cells in each half has this spread around one half (assumed).
CHARACTERIZATION_IMAGES = 65
CHARACTERIZATION_VECTORS = 1000
HIGH_SHARE_SIGMA = 0.12


class ErrorHistogramArray(SimulatedDevice):
    """Draws errors from histograms by (column, N_delta); histograms of an array are built when it is first used.

    Args:
        parameters: the description's numbers.
        seed: which chip; the physics model of the same seed is characterised.
    """

    writes_differ = False
    separable = False  # a histogram holds all errors of the array that was characterised

    def __init__(self, parameters: ResistanceSumParameters, seed: int = 0) -> None:
        super().__init__()
        self.parameters = parameters
        self.seed = seed
        self.lsb = parameters.lsb_dot
        self._histograms: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._tables: dict[int, Histograms] = {}

    def histograms(self, array: int) -> tuple[np.ndarray, np.ndarray]:
        """Error histograms of one array.

        Returns:
            counts int64 [columns, rows + 1, bins], and the error of each bin in dot-product units, float64 [bins].
        """
        if array not in self._histograms:
            self._histograms[array] = _characterize(self.parameters, self.seed, array)
        return self._histograms[array]

    def load(self, written: WrittenImages) -> EmulatedImages:
        """See BatchedDevice."""
        arrays, place = np.unique(written.arrays, return_inverse=True)
        histograms = Histograms.joined([self._drawn_from(array) for array in arrays.tolist()])
        mismatching = packed(written.cells.swapaxes(1, 2) == 0)
        return EmulatedImages(self, written.arrays, place, mismatching, histograms)

    def _drawn_from(self, array: int) -> Histograms:
        """The histograms of one array, as they are drawn from."""
        if array not in self._tables:
            counts, bins = self.histograms(array)
            found = np.flatnonzero(counts.any(axis=(0, 1)))
            step = max(1, int(np.gcd.reduce(np.diff(found))))  # dot products of a column are 2 apart, and so are codes
            outcomes = _with_neighbours(counts[:, :, found[0] : found[-1] + 1 : step])
            self._tables[array] = Histograms.of(alias_tables(outcomes), int(bins[found[0]]), step)
        return self._tables[array]


@dataclass(frozen=True, eq=False)
class EmulatedImages(LoadedImages):
    """Written images as bits, and the histograms of the arrays that they sit in.

    Args:
        device: the chip.
        arrays: int [images], where each sits.
        place: int [images], which of the histograms are that array's.
        cells: uint32 [images, columns, words], bits that are 1 where a cell is low.
        histograms: of all arrays.
    """

    device: ErrorHistogramArray
    arrays: np.ndarray
    place: np.ndarray
    cells: np.ndarray
    histograms: Histograms

    def read(self, drives: np.ndarray, reads: ReadBlock) -> np.ndarray:
        """See LoadedImages."""
        images, vectors, slices, rows = drives.shape
        readings = np.empty((images, vectors, slices, self.cells.shape[1]), np.float32)
        bits = packed(drives > 0).transpose(0, 3, 2, 1)
        for i, key in enumerate(self.keys(reads.tiles)):
            counter = read_counter(key, reads.first_vector, reads.first_slice, readings.shape[1:])
            mine = np.ascontiguousarray(bits[i])
            read_columns(readings[i], mine, self.cells[i], self.histograms, self.place[i], rows, counter)
        return readings

    def keys(self, tiles: np.ndarray) -> list[Key]:
        """Keys of the random errors of tiles.

        Args:
            tiles: int [images], the tile that each image is read for.
        """
        seed = self.device.seed
        return [key_of("histogram", seed, *each) for each in zip(self.arrays.tolist(), tiles.tolist(), strict=True)]

    def tiles(self, routing: TileRouting) -> LoadedTiles:
        """See LoadedImages."""
        if routing.scheme == "analogue" or not routing.both_signs:
            raise ValueError(f"images for drives of -1 and 1 are driven with other ones: {routing.scheme}")
        return EmulatedTiles(self, routing)


class EmulatedTiles(LoadedTiles):
    """Tiles whose used rows and columns alone are computed, many reads of a column together."""

    def __init__(self, images: EmulatedImages, routing: TileRouting) -> None:
        super().__init__(images, routing)
        self.emulated, self.tables = images, _tile_tables(images, routing)

    def corrected(self, routing: TileRouting) -> LoadedTiles:
        """See LoadedTiles."""
        other = copy(self)
        other.routing = routing
        other.tables = self.tables._replace(subtract=routing.subtract, factor=routing.factor)
        return other

    def add(self, values: np.ndarray, reads: ReadBlock, sums: np.ndarray) -> None:
        """See LoadedTiles."""
        images, routing = self.emulated, self.routing
        size = values.shape[1], routing.slices, images.cells.shape[1]
        counter = read_counter((np.uint32(0), np.uint32(0)), reads.first_vector, reads.first_slice, size)
        step = max(1, _BLOCK_READS // routing.slices)
        add_histogram_tiles(
            values, self.tables, images.histograms, SCHEMES[routing.scheme], routing.coefficients, counter, sums, step
        )


def _tile_tables(images: EmulatedImages, routing: TileRouting) -> HistogramTables:
    """The kernel's tables of tiles."""
    columns, rows = images.cells.shape[1], routing.source.shape[1]
    blocks, places = (columns + 3) // 4, row_places(rows)
    turned = np.zeros(routing.idle.shape, bool) if routing.row_sign is None else routing.row_sign < 0
    fixed = packed(np.where(routing.idle, routing.idle_drive > 0, turned))
    number_of: dict[bytes, int] = {}
    first_of: list[int] = []
    pattern: list[int] = []
    sources, used_places, chosen, output_of = [], [], [], []
    for i in range(routing.tiles):
        used = ~routing.idle[i]
        key = b"".join(part.tobytes() for part in (routing.group[i], routing.source[i][used], used, fixed[i]))
        if key not in number_of:
            number_of[key] = len(first_of)
            first_of.append(i)
            sources.append(routing.source[i, used])
            used_places.append(places[used])
        pattern.append(number_of[key])
        wanted = routing.columns[i, : routing.width[i]]
        order = np.argsort(wanted % blocks, kind="stable")  # columns of one block of random words together
        chosen.append(wanted[order])
        output_of.append(order)
    column = np.concatenate([np.zeros(0, np.int64), *chosen])
    tile = np.repeat(np.arange(routing.tiles), routing.width)
    return HistogramTables(
        rows=rows,
        pattern_group=routing.group[first_of].astype(np.int64),
        pattern_start=np.cumsum([0, *map(len, sources)]),
        source=np.concatenate([np.zeros(0, np.int32), *sources]).astype(np.int32),
        place=np.concatenate([np.zeros(0, np.int32), *used_places]).astype(np.int32),
        fixed=fixed[first_of],
        group=routing.group.astype(np.int64),
        output=routing.output.astype(np.int64),
        pattern=np.array(pattern, np.int64),
        array=images.place.astype(np.int64),
        column_start=np.cumsum([0, *routing.width]),
        column=column,
        output_of=np.concatenate([np.zeros(0, np.int64), *output_of]),
        block=(column % blocks).astype(np.uint32),
        word=column // blocks,
        cells=images.cells[tile, column],
        keys=np.array(images.keys(routing.tile), np.uint32).reshape(-1, 2),
        subtract=routing.subtract,
        factor=routing.factor,
    )


def _characterize(p: ResistanceSumParameters, seed: int, array: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure the physics model: random weight patterns, inputs with varied shares of high cells in each half."""
    device = ResistanceSumArray(p, seed)
    half, count = p.rows // 2, CHARACTERIZATION_VECTORS
    errors, deltas = [], []
    for image in range(CHARACTERIZATION_IMAGES):
        pattern = uniform(key_of("patterns", seed, image), (p.rows,)) < 0.5
        flipped = uniform(key_of("flipped columns", seed, image), (p.columns,)) < 0.5
        share = np.clip(0.5 + HIGH_SHARE_SIGMA * standard_normal(key_of("high shares", seed, image), (count, 2)), 0, 1)
        drawn = uniform(key_of("high inputs", seed, image), (count, p.rows))
        high = drawn < np.repeat(share, [half, p.rows - half], axis=1)
        drives = np.where(high == pattern, 1, -1).astype(np.float32)
        cells = (pattern[:, None] ^ flipped).astype(np.uint8)
        loaded = device.load(WrittenImages.once(np.array([array]), cells[None]))
        reads = ReadBlock(np.array([image]), _CHARACTERIZATION_VECTOR)
        readings = loaded.read(drives[None, :, None, :], reads)[0, :, 0].astype(np.float64)
        weights = 2.0 * cells - 1
        top = drives[:, :half].astype(np.float64) @ weights[:half]
        bottom = drives[:, half:].astype(np.float64) @ weights[half:]
        errors.append(readings - top - bottom)
        deltas.append(_delta_index(top, bottom, half, p.rows - half))
    error, delta = np.concatenate(errors), np.concatenate(deltas).astype(np.intp)
    error += column_offsets(error / p.lsb_dot) * p.lsb_dot
    widest = int(np.ceil(np.abs(error).max()))
    counts = np.zeros((p.columns, p.rows + 1, 2 * widest + 1), np.int64)
    column = np.broadcast_to(np.arange(p.columns), error.shape)
    np.add.at(counts, (column, delta, np.rint(error).astype(np.intp) + widest), 1)
    return counts, np.arange(-widest, widest + 1, dtype=np.float64)


def _delta_index(top: np.ndarray, bottom: np.ndarray, top_rows: int, bottom_rows: int) -> np.ndarray:
    """N_delta from the halves' dot products, counted from its smallest value: highs = (rows + dot) / 2."""
    return (top_rows + top) / 2 - (bottom_rows + bottom) / 2 + bottom_rows


def _with_neighbours(counts: np.ndarray) -> np.ndarray:
    """Histograms int64 [columns, groups, outcomes] in which an empty group has its nearest neighbour's."""
    filled = counts.copy()
    groups = np.arange(counts.shape[1])
    for column in range(len(counts)):
        populated = groups[counts[column].sum(axis=1) > 0]
        nearest = populated[np.abs(groups[:, None] - populated).argmin(axis=1)]
        filled[column] = counts[column][nearest]
    return filled

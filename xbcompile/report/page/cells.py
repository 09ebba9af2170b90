"""What the panel of arrays shows: all weight images in few numbers each, and of as many as fit their cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbcompile.program.program import Program
from xbcompile.report.page.packing import bits_of, in_bits, packed

MOST_CELL_BYTES = 3 << 20  # of packed cells and their columns in a page; assumed
MOST_TILES = 200_000  # of which a page says where they are; assumed
_PIECE = 32  # images that are packed at a time
_KNOTS = 65  # of the tables of a continuous cell's quantities; odd: one is at 0, where a pair changes over
# Each number of a tile is sent as an int32; the table goes field by field.
TILE_FIELDS = ("layer", "group", "k0", "k1", "m0", "m1", "image", "row", "column")


def cell_panel(program: Program, most_bytes: int = MOST_CELL_BYTES) -> dict[str, Any]:
    """All images by layer and use, the tiles in them, and the cells of some.

    Args:
        program: the program.
        most_bytes: of packed cells. Those of the first image of each layer come first, then those of the second ones.

    Returns:
        `images` in all; `first_image` of each layer, or as many as there are images where it has none; `image_layer` (int32) and
        `image_used` (float32, 0 to 1) of each; `shown`: the images whose cells are in `pieces`, 32 images each, in this order,
        packed in `bits` each, or as float32 where `bits` is 32; `permutation` of their columns; `tiles` and `copies` of the first
        `described` images; `levels`, `states` and `quantities` of the cells.
    """
    schedule, spec, parameters = program.schedule, program.spec, program.target.parameters
    layer, used = _facts(program)
    bits = 32 if spec.levels is None else bits_of(len(spec.levels))
    first_image = _first_images(program)
    first = [image for image in first_image if image < schedule.images]
    order = np.array(list(dict.fromkeys([*first, *_by_layer(layer).tolist()])), np.int64)
    shown, pieces = _pieces(program, order, bits, most_bytes)
    tiles = schedule.tiles[np.argsort(schedule.tiles["image"], kind="stable")]
    described = schedule.images
    if len(tiles) > MOST_TILES:
        described = int(tiles["image"][MOST_TILES])
        tiles = tiles[tiles["image"] < described]
    copies = schedule.copies[schedule.copies["image"] < described]
    return {
        "images": schedule.images,
        "first_image": first_image,
        "image_layer": packed(layer.astype(np.int32)),
        "image_used": packed(used.astype(np.float32)),
        "rows": schedule.rows,
        "columns": schedule.columns,
        "shown": packed(shown.astype(np.int32)),
        "piece": _PIECE,
        "pieces": pieces,
        "bits": bits,
        "permutation": packed(schedule.column_permutation[shown].astype(np.int32)),
        "described": described,
        "tiles": packed(np.stack([tiles[name] for name in TILE_FIELDS]).astype(np.int32)),
        "copies": packed(np.stack([copies["image"], copies["array"]]).astype(np.int32)),
        "levels": None if spec.levels is None else spec.levels.tolist(),
        "states": parameters.state_names(),
        "quantities": _quantities(program),
        "utilisation": _histogram(used),
    }


def _facts(program: Program) -> tuple[np.ndarray, np.ndarray]:
    """Of each image the layer that has the most of it, and the share of its cells that is used."""
    schedule, layers = program.schedule, max(len(program.network.layers), 1)
    tiles = schedule.tiles
    area = (tiles["k1"] - tiles["k0"]).astype(np.int64) * (tiles["m1"] - tiles["m0"])
    pairs, which = np.unique(tiles["image"].astype(np.int64) * layers + tiles["layer"], return_inverse=True)
    share = np.bincount(which, weights=area, minlength=len(pairs))
    order = np.argsort(share, kind="stable")
    layer = np.zeros(schedule.images, np.int64)
    layer[pairs[order] // layers] = pairs[order] % layers  # the largest is set last
    used = np.bincount(tiles["image"], weights=area, minlength=schedule.images)
    return layer, used / (schedule.rows * schedule.columns)


def _first_images(program: Program) -> list[int]:
    """Of each layer the first image that has a tile of its matrix."""
    tiles = program.schedule.tiles
    first = np.full(len(program.network.layers), program.schedule.images, np.int64)
    np.minimum.at(first, tiles["layer"], tiles["image"])
    return first[list(program.network.matrices)].tolist() if len(first) else []


def _by_layer(layer: np.ndarray) -> np.ndarray:
    """All images, first the first one of each layer, then the second ones, and so on."""
    order = np.argsort(layer, kind="stable")
    starts = np.flatnonzero(np.diff(layer[order], prepend=-1))
    rank = np.arange(len(layer)) - np.repeat(starts, np.diff([*starts, len(layer)]))
    return order[np.lexsort((order, rank))]


def _pieces(program: Program, order: np.ndarray, bits: int, most_bytes: int) -> tuple[np.ndarray, list[str]]:
    """The images whose cells fit, and the cells."""
    pieces: list[str] = []
    for first in range(0, len(order), _PIECE):
        some = order[first : first + _PIECE]
        cells = program.cells(some)
        piece = packed(cells.astype(np.float32) if bits == 32 else in_bits(cells, bits))
        most_bytes -= len(piece) + len(packed(program.schedule.column_permutation[some].astype(np.int32)))
        if most_bytes < 0 and pieces:
            break
        pieces.append(piece)
    return order[: len(pieces) * _PIECE], pieces


def _quantities(program: Program) -> dict[str, Any]:
    """What cells are on the device, by name: of each level; of continuous cells at `at`, between which it is linear."""
    levels, parameters = program.spec.levels, program.target.parameters
    if levels is not None:
        states = parameters.cell_states(np.arange(len(levels), dtype=np.uint8))
        return {"at": None, "values": {name: values.tolist() for name, values in states.items()}}
    limit = program.spec.cell_limit or 0.0  # without a limit, a cell is what no device holds
    knots = np.linspace(-limit, limit, _KNOTS, dtype=np.float32)
    states = parameters.cell_states(knots)
    return {"at": knots.tolist(), "values": {name: values.tolist() for name, values in states.items()}}


def _histogram(shares: np.ndarray) -> dict[str, Any]:
    """How many images are used to which share, in steps of 5 %."""
    counts, edges = np.histogram(shares, 20, (0, 1))
    return {"from": edges[:-1].tolist(), "images": counts.tolist()}

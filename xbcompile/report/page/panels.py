"""What the pictures of a page show, as plain data: small whatever the program's size."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from xbcompile.ir.schedule import READ
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.program.program import Program

MOST_CELL_BYTES = 3 << 20  # of packed cells in a page; assumed
MOST_STEPS = 3000  # that are drawn one by one; assumed
BINS = 600  # of time where steps are more; assumed
MOST_ROWS = 200  # of arrays there; assumed
_PIECE = 32  # images that are packed at a time
# Each number of a tile is sent as an int32.
TILE_FIELDS = ("layer", "group", "k0", "k1", "m0", "m1", "image", "row", "column")


def packed(array: np.ndarray) -> str:
    """An array's bytes, little-endian, compressed as zlib does, in base64."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()


def cell_panel(program: Program, most_bytes: int = MOST_CELL_BYTES) -> dict[str, Any]:
    """Cells of the first images, as many as fit, and where tiles are in them.

    Args:
        program: the program.
        most_bytes: of packed cells.

    Returns:
        `images` in all, `shown`, `pieces` (packed cells of 32 images each), `dtype`, `tiles` and `permutation` of the images
        shown, `utilisation` and `arrays` of all; `states` and `levels`, and `quantities` of the levels on the device.
    """
    schedule, spec, parameters = program.schedule, program.spec, program.target.parameters
    pieces: list[str] = []
    room = most_bytes
    while len(pieces) * _PIECE < schedule.images:
        first = len(pieces) * _PIECE
        piece = packed(program.cells(np.arange(first, min(first + _PIECE, schedule.images))))
        if len(piece) > room and pieces:
            break
        room -= len(piece)
        pieces.append(piece)
    shown = min(len(pieces) * _PIECE, schedule.images)
    tiles = schedule.tiles[schedule.tiles["image"] < shown]
    area = (schedule.tiles["k1"] - schedule.tiles["k0"]) * (schedule.tiles["m1"] - schedule.tiles["m0"])
    used = np.bincount(schedule.tiles["image"], weights=area, minlength=schedule.images)
    levels = spec.levels
    quantities = {} if levels is None else parameters.cell_states(np.arange(len(levels), dtype=np.uint8))
    copies = schedule.copies[schedule.copies["image"] < shown]
    return {
        "images": schedule.images,
        "shown": shown,
        "rows": schedule.rows,
        "columns": schedule.columns,
        "piece": _PIECE,
        "pieces": pieces,
        "dtype": "float32" if levels is None else "uint8",
        "tiles": packed(np.stack([tiles[name] for name in TILE_FIELDS], axis=1).astype(np.int32)),
        "tile_count": len(tiles),
        "permutation": packed(schedule.column_permutation[:shown].astype(np.int32)),
        "copies": packed(np.stack([copies["image"], copies["array"]], axis=1).astype(np.int32)),
        "copy_count": len(copies),
        "levels": None if levels is None else [float(level) for level in levels],
        "states": parameters.state_names(),
        "quantities": {name: values.tolist() for name, values in quantities.items()},
        "utilisation": _histogram(used / (schedule.rows * schedule.columns)),
    }


def _histogram(shares: np.ndarray) -> dict[str, Any]:
    """How many images are used to which share, in steps of 5 %."""
    counts, edges = np.histogram(shares, 20, (0, 1))
    return {"from": edges[:-1].tolist(), "images": counts.tolist()}


def timeline_panel(program: Program) -> dict[str, Any]:
    """The steps of a batch, or where they are many, the share of time that arrays read and write.

    Args:
        program: the program.

    Returns:
        `steps`: array, kind (-1: write, else layer), start and length of each, or null; `bins` otherwise: `read` and `write`
        shares [arrays or groups of them, bins], packed float32. Times are seconds.
    """
    schedule = program.schedule
    steps = schedule.steps
    facts: dict[str, Any] = {
        "arrays": schedule.arrays,
        "makespan_s": schedule.makespan_s,
        "period_s": schedule.period_s,
        "setup_s": schedule.setup_s,
        "stationary": schedule.stationary,
        "count": len(steps),
        "steps": None,
        "bins": None,
    }
    uses = np.array([use.layer for use in program.network.uses], np.int64)
    if len(steps) <= MOST_STEPS:
        reads = steps["operation"] == READ
        kind = np.where(reads, uses[steps["use"]] if len(uses) else -1, -1)
        facts["steps"] = {
            "array": steps["array"].tolist(),
            "kind": kind.tolist(),
            "image": steps["image"].tolist(),
            "start_s": steps["start_s"].tolist(),
            "length_s": (steps["end_s"] - steps["start_s"]).tolist(),
        }
        return facts
    each = -(-schedule.arrays // MOST_ROWS)
    rows = -(-schedule.arrays // each)
    sizes = np.bincount(np.arange(schedule.arrays) // each, minlength=rows)
    shares = {
        name: _shares(steps[(steps["operation"] == READ) == is_read], schedule.makespan_s, each, rows) / sizes[:, None]
        for name, is_read in (("read", True), ("write", False))
    }
    facts["bins"] = {
        "rows": rows,
        "arrays_of_each": each,
        "bins": BINS,
        **{name: packed(share.astype(np.float32)) for name, share in shares.items()},
    }
    return facts


def _shares(steps: np.ndarray, makespan_s: float, each: int, rows: int) -> np.ndarray:
    """Time that steps take in each bin over the bin's width, [rows, BINS]."""
    total = np.zeros((rows, BINS + 1))
    if makespan_s <= 0:
        return total[:, :BINS]
    width = makespan_s / BINS
    row = steps["array"] // each
    # The integral of what is busy, taken at the edges of bins, is a sum of ramps: one up at a start, one down at an end.
    for times, sign in ((steps["start_s"], 1.0), (steps["end_s"], -1.0)):
        place = np.clip(times / width, 0, BINS)
        first = np.floor(place).astype(np.int64)
        inside = first < BINS
        first, part, at = first[inside], (first + 1 - place)[inside], row[inside]
        np.add.at(total, (at, first), sign * part)
        np.add.at(total, (at, np.minimum(first + 1, BINS)), sign * (1 - part))
    return np.asarray(np.cumsum(total, axis=1)[:, :BINS])


def floorplan_panel(program: Program) -> dict[str, Any] | None:
    """Which array sits on which site; None without a floorplan."""
    schedule = program.schedule
    if not schedule.floorplan:
        return None
    grid = SiteGrid.parse(schedule.floorplan)
    return {
        "site_rows": grid.site_rows,
        "site_columns": grid.site_columns,
        "chips": grid.chips,
        "site": schedule.site.tolist(),
        "hop_values": schedule.hop_values,
        "hop_values_lower_bound": schedule.hop_values_lower_bound,
    }

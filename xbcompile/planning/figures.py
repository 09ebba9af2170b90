"""The facts of a plan as plain data, with the keys that `inspect --json` has for a program; see docs/json.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.planning.shapes import PlannedNetwork


def reads_per_inference(network: PlannedNetwork, schedule: Schedule) -> int:
    """Reads of all tiles for all slices and vectors of one inference."""
    counts = np.bincount(schedule.tiles["layer"], minlength=len(network.layers))
    return sum(int(counts[use.matrix]) * use.reads for use in network.uses)


def energy_per_inference_j(network: PlannedNetwork, schedule: Schedule, spec: ArraySpec) -> float:
    """Energy of all reads of one inference, and of its share of the writes of a batch where weights are rewritten."""
    reads = reads_per_inference(network, schedule)
    writes_j = 0.0 if schedule.stationary else schedule.rows_written * spec.e_write_row_j / schedule.batch
    return reads * spec.e_read_j + writes_j


def layer_rows(network: PlannedNetwork, schedule: Schedule, spec: ArraySpec) -> list[dict[str, Any]]:
    """What each layer takes of the arrays.

    `share_of_array_time` is the layer's part of the time that arrays are read and written in a batch; of the time of
    writing an image each matrix has the part that it has of the image's weights.
    """
    tiles, images = schedule.tiles, schedule.images
    cells = spec.rows * spec.columns
    written = schedule.initial[schedule.initial >= 0] if schedule.stationary else schedule.writes["image"]
    writes = np.bincount(written, minlength=images)
    write_s = np.zeros(images)
    if not schedule.stationary:
        steps = schedule.writes
        np.add.at(write_s, steps["image"], steps["end_s"] - steps["start_s"])
    area = tile_rows(tiles).astype(np.int64) * tile_columns(tiles)
    image_area = np.bincount(tiles["image"], weights=area, minlength=images)
    tile_write_s = area / image_area[tiles["image"]] * write_s[tiles["image"]]
    edges = np.searchsorted(tiles["layer"], np.arange(len(network.layers) + 1))  # tiles are ordered by layer
    reads_of = np.zeros(len(network.layers), dtype=object)  # whole numbers of any size
    for use in network.uses:
        reads_of[use.layer] += use.reads
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(network.layers):
        owner = network.matrices[index]
        mine = tiles[edges[owner] : edges[owner + 1]]
        held = np.unique(mine["image"])
        reads = len(mine) * int(reads_of[index])
        own_write_s = float(tile_write_s[edges[owner] : edges[owner + 1]].sum()) if owner == index else 0.0
        rows.append(
            {
                "layer": layer.name,
                "matrix_of": network.layers[owner].name,
                "groups": layer.groups,
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "slices": layer.slices,
                "vectors_per_inference": layer.vectors,
                "tiles": len(mine),
                "images": len(held),
                "images_lower_bound": -(-layer.weights // cells),
                "weight_updates": int(writes[held].sum()),
                "reads_per_inference": reads,
                "dot_products_per_inference": int(tile_columns(mine).sum()) * int(reads_of[index]),
                "weights": layer.weights,
                "utilisation": layer.weights / (len(held) * cells),
                "e_read_per_inference_j": reads * spec.e_read_j,
                "t_read_per_inference_s": reads * spec.t_read_s,
                "share_of_array_time": reads * spec.t_read_s * schedule.batch + own_write_s,
            }
        )
    busy_s = sum(row["share_of_array_time"] for row in rows)
    for row in rows:
        row["share_of_array_time"] = row["share_of_array_time"] / busy_s if busy_s else 0.0
    return rows

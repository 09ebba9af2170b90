"""The figures of a mapping as plain data, of programs and of plans alike; every key is documented in docs/json.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xbcompile.ir import ArraySpec, Schedule
from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.planning.planned import PlannedNetwork


def reads_per_inference(network: PlannedNetwork, schedule: Schedule) -> int:
    """Reads of all tiles for all slices and vectors of one inference."""
    counts = np.bincount(schedule.tiles["layer"], minlength=len(network.layers))
    return sum(int(counts[use.matrix]) * use.reads for use in network.uses)


def write_energy_per_inference_j(schedule: Schedule, spec: ArraySpec) -> float:
    """An inference's share of the writes of a batch; 0 where weights stay."""
    return 0.0 if schedule.stationary else schedule.rows_written * spec.e_write_row_j / schedule.batch


def figures_of(network: PlannedNetwork, spec: ArraySpec, schedule: Schedule) -> dict[str, Any]:
    """What requirements speak of.

    `weight_updates` are array writes per batch: none where weights stay. `latency_s` and `period_s` are those of one batch,
    `reads`, `t_per_inference_s` and `energy_j` of one inference.
    """
    reads = reads_per_inference(network, schedule)
    return {
        "stationary": schedule.stationary,
        "images": schedule.images,
        "arrays": schedule.arrays,
        "tiles": len(schedule.tiles),
        "reads": reads,
        "weight_updates": 0 if schedule.stationary else schedule.weight_updates,
        "latency_s": schedule.makespan_s,
        "period_s": schedule.period_s,
        "t_per_inference_s": schedule.period_s / schedule.batch,
        "energy_j": reads * spec.e_read_j + write_energy_per_inference_j(schedule, spec),
    }


def layer_rows(network: PlannedNetwork, schedule: Schedule, spec: ArraySpec) -> list[dict[str, Any]]:
    """What each layer takes of the arrays.

    `share_of_array_time` is the layer's part of the time that arrays are read and written in a batch; of the time of
    writing an image each matrix has the part that it has of the image's weights.
    """
    cells = spec.rows * spec.columns
    taken = _taken_by_matrices(schedule, len(network.layers))
    reads_of = [0] * len(network.layers)  # whole numbers of any size
    for use in network.uses:
        reads_of[use.layer] += use.reads
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(network.layers):
        owner = network.matrices[index]
        tiles, images = taken["tiles"][owner], taken["images"][owner]
        reads = tiles * reads_of[index]
        own_write_s = taken["write_s"][owner] if owner == index else 0.0
        rows.append(
            {
                "layer": layer.name,
                "matrix_of": network.layers[owner].name,
                "groups": layer.groups,
                "inputs": layer.inputs,
                "outputs": layer.outputs,
                "slices": layer.slices,
                "vectors_per_inference": layer.vectors_per_inference,
                "tiles": tiles,
                "images": images,
                "images_lower_bound": -(-layer.weights // cells),
                "weight_updates": taken["writes"][owner],
                "reads_per_inference": reads,
                "dot_products_per_inference": taken["columns"][owner] * reads_of[index],
                "weights": layer.weights,
                "utilisation": layer.weights / (images * cells),
                "e_read_per_inference_j": reads * spec.e_read_j,
                "t_read_per_inference_s": reads * spec.t_read_s,
                "share_of_array_time": reads * spec.t_read_s * schedule.batch + own_write_s,
            }
        )
    busy_s = sum(row["share_of_array_time"] for row in rows)
    for row in rows:
        row["share_of_array_time"] = row["share_of_array_time"] / busy_s if busy_s else 0.0
    return rows


def _taken_by_matrices(schedule: Schedule, layers: int) -> dict[str, list[Any]]:
    """What each matrix takes, by its owner: tiles, their columns, images, writes of those, and its part of their time."""
    tiles, images = schedule.tiles, max(schedule.images, 1)
    owner = tiles["layer"].astype(np.int64)
    written = schedule.initial[schedule.initial >= 0] if schedule.stationary else schedule.writes["image"]
    pairs = np.unique(owner * images + tiles["image"])
    writes = np.bincount(written, minlength=images)[pairs % images]
    found = {
        "tiles": np.bincount(owner, minlength=layers),
        "columns": _sums(owner, tile_columns(tiles), layers),
        "images": np.bincount(pairs // images, minlength=layers),
        "writes": _sums(pairs // images, writes, layers),
        "write_s": np.bincount(owner, weights=_tile_write_s(schedule), minlength=layers),
    }
    return {name: values.tolist() for name, values in found.items()}


def _sums(index: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of whole numbers by index, exact."""
    sums = np.zeros(count, dtype=np.int64)
    np.add.at(sums, index, values)
    return sums


def _tile_write_s(schedule: Schedule) -> np.ndarray:
    """Time that writing each tile takes in a batch, float64 [tiles]: its part of the weights of its image."""
    tiles, images = schedule.tiles, schedule.images
    write_s = np.zeros(images)
    if not schedule.stationary:
        steps = schedule.writes
        np.add.at(write_s, steps["image"], steps["end_s"] - steps["start_s"])
    area = tile_rows(tiles).astype(np.int64) * tile_columns(tiles)
    image_area = np.bincount(tiles["image"], weights=area, minlength=images)
    return np.asarray(area / image_area[tiles["image"]] * write_s[tiles["image"]])


def schedule_totals(
    schedule: Schedule, spec: ArraySpec, layers: Sequence[Mapping[str, Any]], weights: int
) -> dict[str, Any]:
    """Sums over the layers, what the schedule costs, and the bounds; every key is documented in docs/json.md.

    Args:
        schedule: of all layers.
        spec: the array.
        layers: one row per layer, with `reads_per_inference` and `dot_products_per_inference`.
        weights: of all matrices, each counted once.
    """
    reads = sum(layer["reads_per_inference"] for layer in layers)
    e_write_per_inference_j = write_energy_per_inference_j(schedule, spec)
    return {
        "layers": len(layers),
        "weights": weights,
        "tiles": len(schedule.tiles),
        "images": schedule.images,
        "images_lower_bound": schedule.images_lower_bound,
        "images_gap": schedule.images / max(schedule.images_lower_bound, 1) - 1 if schedule.images else 0.0,
        "utilisation": weights / max(schedule.images * spec.rows * spec.columns, 1),
        "weight_updates": schedule.weight_updates,
        "weight_updates_lower_bound": schedule.weight_updates_lower_bound,
        "initial_writes": schedule.initial_writes,
        "copies": len(schedule.copies),
        "rows_written": schedule.rows_written,
        "cells_written": schedule.cells_written,
        "reads_per_inference": reads,
        "dot_products_per_inference": sum(layer["dot_products_per_inference"] for layer in layers),
        "makespan_s": schedule.makespan_s,
        "makespan_lower_bound_s": schedule.makespan_lower_bound_s,
        "setup_s": schedule.setup_s,
        "period_s": schedule.period_s,
        "period_lower_bound_s": schedule.period_lower_bound_s,
        "t_per_inference_s": schedule.period_s / schedule.batch,
        "inferences_per_s": schedule.batch / schedule.period_s if schedule.period_s else None,
        "e_read_per_inference_j": reads * spec.e_read_j,
        "e_write_j": schedule.rows_written * spec.e_write_row_j,
        "e_write_per_inference_j": e_write_per_inference_j,
        "e_per_inference_j": reads * spec.e_read_j + e_write_per_inference_j,
        "hop_values": schedule.hop_values if schedule.floorplan else None,
        "hop_values_lower_bound": schedule.hop_values_lower_bound if schedule.floorplan else None,
    }

"""The totals of a schedule as plain data, of programs and of plans alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.schedule import Schedule


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
    e_write_j = schedule.rows_written * spec.e_write_row_j
    e_write_per_inference_j = 0.0 if schedule.stationary else e_write_j / schedule.batch
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
        "e_write_j": e_write_j,
        "e_write_per_inference_j": e_write_per_inference_j,
        "e_per_inference_j": reads * spec.e_read_j + e_write_per_inference_j,
        "hop_values": schedule.hop_values if schedule.floorplan else None,
        "hop_values_lower_bound": schedule.hop_values_lower_bound if schedule.floorplan else None,
    }

"""The facts of a program as plain data: the keys of `inspect --json`. Every key is documented in docs/json.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbcompile.ir import MatrixLayer
from xbcompile.ir.schedule import READ, tile_columns, tile_rows
from xbcompile.onnx_graph.dimensions import advice, open_dimensions
from xbcompile.planning.figures import layer_rows, schedule_totals
from xbcompile.planning.planned import planned_network
from xbcompile.program.program import FORMAT_VERSION, Program

_NAMED_LAYERS = 6


def summarize(program: Program) -> dict[str, Any]:
    """Describe a program: itself, its layers, totals, and what became of each MVM-like node."""
    planned, schedule, spec = planned_network(program.network, program.spec), program.schedule, program.spec
    rows = layer_rows(planned, schedule, spec)
    return {
        "program": _program(program),
        "layers": [row | _codes(program, layer) for row, layer in zip(rows, program.network.layers, strict=True)],
        "totals": schedule_totals(schedule, spec, rows, planned.weights),
        "options": program.options.to_table(),
        "nodes": [
            {"node": r.node, "operator": r.operator, "lowered": r.lowered, "reason": r.reason}
            for r in program.network.records
        ],
        "notes": list(program.notes),
    }


def _program(program: Program) -> dict[str, Any]:
    schedule = program.schedule
    return {
        "format_version": FORMAT_VERSION,
        "digest": program.digest,
        "model": program.network.name,
        "samples": program.network.samples.words(),
        "open_dimensions": list(open_dimensions(program.network.inputs)),
        "open_sizes": _open_sizes(program),
        "target": program.target.name,
        "pipeline": program.pipeline,
        "array_rows": schedule.rows,
        "array_columns": schedule.columns,
        "arrays": schedule.arrays,
        "objective": schedule.objective,
        "floorplan": schedule.floorplan or None,
        "batch": schedule.batch,
        "stationary": schedule.stationary,
        "packing_status": schedule.packing_status,
        "cuts": program.cuts,
        "packing": program.packing,
    }


def _open_sizes(program: Program) -> str:
    """Which layers' vectors per inference no shape tells, and what to do about it; empty where all are known."""
    layers = [layer.name for layer in program.network.layers if layer.vectors_per_inference is None]
    if not layers:
        return ""
    names = ", ".join(layers[:_NAMED_LAYERS]) + f" and {len(layers) - _NAMED_LAYERS} more" * (
        len(layers) > _NAMED_LAYERS
    )
    hint = advice(program.network.inputs, program.network.samples)
    return (
        f"vectors per inference of {names} depend on the size of the input; counted as 1 in reads, energy and time"
        f"{'; ' * bool(hint)}{hint}"
    )


def _codes(program: Program, layer: MatrixLayer) -> dict[str, Any]:
    """What a layer of a program has besides its sizes: codes, and the digital work that a pass put before it."""
    code, input_code = layer.weight_code, layer.input_code
    return {
        "levels": None if code is None or code.levels is None else len(code.levels),
        "input_code": "none" if input_code is None else input_code.scheme,
        "input_low": None if input_code is None else input_code.low,
        "input_high": None if input_code is None else input_code.high,
        "noise_power": None if input_code is None else input_code.noise_power,
        **_digital_projection(program, layer, layer.vectors_per_inference or 1),
    }


def _digital_projection(program: Program, layer: MatrixLayer, vectors: int) -> dict[str, Any]:
    """Multiplications with a constant matrix in the segment that a pass put before a layer, and how many the layer would
    have without it; None where there is no such segment.
    """
    shapes = []
    for node in program.network.segments:
        if layer.input in node.output_names and node.name.startswith(f"{layer.name}/"):
            graph = node.model.graph
            products = {name for each in graph.node if each.op_type == "MatMul" for name in each.input}
            shapes += [tuple(each.dims) for each in graph.initializer if each.name in products and len(each.dims) == 2]
    if not shapes:
        return {"digital_macs_per_inference": None, "digital_macs_share": None}
    macs = sum(rows * columns for rows, columns in shapes)
    return {
        "digital_macs_per_inference": macs * vectors,
        "digital_macs_share": macs / (shapes[0][0] * layer.outputs),
    }


def schedule_rows(program: Program) -> list[dict[str, Any]]:
    """The schedule's steps as plain rows."""
    schedule, layers = program.schedule, program.network.layers
    rows: list[dict[str, Any]] = [
        {"start_s": -schedule.setup_s, "end_s": 0.0, "operation": "write", "array": array, "image": image}
        for array, image in enumerate(schedule.initial.tolist())
        if image >= 0
    ]
    for step in schedule.steps:
        row: dict[str, Any] = {
            "start_s": float(step["start_s"]),
            "end_s": float(step["end_s"]),
            "operation": "read" if step["operation"] == READ else "write",
            "array": int(step["array"]),
            "image": int(step["image"]),
        }
        if step["operation"] == READ:
            tile, use = schedule.tiles[step["tile"]], program.network.uses[step["use"]]
            layer = layers[use.layer]
            row |= {
                "tile": int(step["tile"]),
                **_tile_place(layer.name, tile),
                "reads": schedule.reads_of(step, use),
            }
        else:
            row["rows"] = int(step["rows"])
        rows.append(row)
    return rows


def _tile_place(layer: str, tile: np.void) -> dict[str, Any]:
    """Which piece of which matrix, and where it sits in its image."""
    return {
        "layer": layer,
        "group": int(tile["group"]),
        "inputs": [int(tile["k0"]), int(tile["k1"])],
        "outputs": [int(tile["m0"]), int(tile["m1"])],
        "row": int(tile["row"]),
        "column": int(tile["column"]),
    }


def image_contents(program: Program, image: int) -> dict[str, Any]:
    """One weight image: physical cells, the tiles in it, and what its level indices mean on the device."""
    schedule, layers = program.schedule, program.network.layers
    tiles = schedule.tiles[schedule.tiles["image"] == image]
    cells = program.cells(np.array([image]))[0]
    levels = program.spec.levels
    described = []
    for tile in tiles:
        layer = layers[tile["layer"]]
        entry = {
            **_tile_place(layer.name, tile),
            "rows": int(tile_rows(tile)),
            "columns": int(tile_columns(tile)),
        }
        code = layer.weight_code
        if code is not None and levels is not None and not program.spec.has_row_weights:
            entry["real_levels"] = _real_levels(code.scale, code.offset, levels, tile)
        described.append(entry)
    return {
        "image": image,
        "arrays": schedule.copies["array"][schedule.copies["image"] == image].tolist(),
        "tiles": described,
        "column_permutation": schedule.column_permutation[image].tolist(),
        "levels": None if levels is None else levels.tolist(),
        "states": program.target.parameters.state_names(),
        "cells": cells.tolist(),
    }


def _real_levels(scale: np.ndarray, offset: np.ndarray, levels: np.ndarray, tile: np.void) -> list[list[float]]:
    """Real weight of each level index, one list per distinct column code of the tile."""
    columns = slice(int(tile["m0"]), int(tile["m1"]))
    pairs = np.stack([scale[tile["group"], columns], offset[tile["group"], columns]], axis=1).astype(np.float64)
    return [(s * levels.astype(np.float64) + o).tolist() for s, o in np.unique(pairs, axis=0)]

"""Routing a program's images for one chip: the program's routing passes against the chip's defect map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xbcompile.ir import ArraySpec
from xbcompile.ir.image_route import ImageRoute, RoutingProblem
from xbcompile.ir.schedule import tile_columns, tile_rows
from xbcompile.passes.contract import RoutingPass
from xbcompile.program.program import Program, device_passes
from xbcompile.targets import Device


def routed(program: Program, device: Device) -> Program:
    """The program as this chip should run it; the same object where no pass or no defect asks for a change.

    Routing passes need a device with `cell_limits`, see `xbcompile.targets.contract.SimulatedDevice`; any other device is
    taken to be whole.
    """
    passes = [each for each in device_passes(program.pipeline) if isinstance(each, RoutingPass)]
    limits_of = getattr(device, "cell_limits", None)
    if not passes or limits_of is None:
        return program
    device.defects_known = True  # type: ignore[attr-defined]  # what has a defect map has this
    schedule = program.schedule
    routes = [_plain_route(program, image) for image in range(schedule.images)]
    changed = False
    for image in range(schedule.images):
        limits = _limits(limits_of, schedule.copies["array"][schedule.copies["image"] == image])
        if limits is None:
            continue
        problem = _problem(program, image, limits)
        for each in passes:
            found = each.route(problem, routes[image])
            changed |= found is not routes[image]
            routes[image] = found
    if not changed:
        return program
    columns = np.stack([route.column for route in routes]).astype(schedule.column_permutation.dtype)
    return replace(program, schedule=replace(schedule, column_permutation=columns), routes=tuple(routes))


def _limits(limits_of: Callable[[int], np.ndarray | None], arrays: np.ndarray) -> np.ndarray | None:
    """The values that each cell of an image can take in all of its arrays, see `cell_limits`; None: any."""
    found = [limits for limits in map(limits_of, arrays.tolist()) if limits is not None]
    if not found:
        return None
    low = np.max([limits[0] for limits in found], axis=0)
    return np.stack([low, np.maximum(np.min([limits[1] for limits in found], axis=0), low)])


def _plain_route(program: Program, image: int) -> ImageRoute:
    """The program's own route: rows where they are, columns as the schedule permutes them, no signs."""
    spec = program.spec
    return ImageRoute(
        row=np.arange(spec.rows),
        column=program.schedule.column_permutation[image].astype(np.intp),
        row_sign=np.ones(spec.rows, np.float32),
        column_sign=np.ones(spec.columns, np.float32),
    )


def _problem(program: Program, image: int, limits: np.ndarray) -> RoutingProblem:
    """Cells count as the square of their column's scale; unused ones not at all."""
    spec, tiles = program.spec, program.schedule.tiles
    physical = program.cells(np.array([image]))[0]
    cells = physical[:, program.schedule.column_permutation[image]]
    values = (cells if spec.levels is None else spec.levels[cells]).astype(np.float64)
    weight = np.zeros_like(values)
    mine = tiles[tiles["image"] == image]
    for tile, height, width in zip(mine, tile_rows(mine), tile_columns(mine), strict=True):
        code = program.network.layers[tile["layer"]].weight_code
        assert code is not None
        scale = code.scale[tile["group"], tile["m0"] : tile["m1"]].astype(np.float64)
        row, column = tile["row"], tile["column"]
        weight[row : row + height, column : column + width] = np.square(scale)
    return RoutingProblem(
        cells=values,
        weight=weight,
        limits=limits,
        rows_are_free=not spec.has_row_weights,
        rows_have_signs=spec.drives_both_signs and _is_symmetric(spec),
        columns_have_signs=_is_symmetric(spec),
    )


def _is_symmetric(spec: ArraySpec) -> bool:
    """Whether the negative of each cell value is a cell value."""
    return spec.levels is None or bool(np.allclose(spec.levels, -spec.levels[::-1], atol=1e-6))

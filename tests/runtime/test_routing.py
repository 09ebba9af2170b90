"""Routed programs: the ideal result stays, and a chip's stuck cells do less harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import convolution_program, dense_model, images
from xbcompile.ir.image_route import ImageRoute
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.routing import routed
from xbcompile.targets.families.ideal import IdealArray


class StuckArray(IdealArray):
    """Exact, but for cells that can only take the limits of their array."""

    def __init__(self, spec, limits: dict[int, np.ndarray]) -> None:
        super().__init__(spec)
        self.limits = limits
        self.defects_known = False

    def cell_limits(self, array: int) -> np.ndarray | None:
        return self.limits.get(array)

    def load(self, arrays, tiles, cells):
        values = cells if self.spec.levels is None else self.spec.levels[cells]
        values = values.astype(np.float64)
        for i, array in enumerate(arrays.tolist()):
            if array in self.limits:
                values[i] = np.clip(values[i], *self.limits[array])
        loaded = super().load(arrays, tiles, cells)
        return replace(loaded, weighted=values * self.spec.row_weight[:, None])


def random_routes(program: Program, rows: bool) -> tuple[ImageRoute, ...]:
    rng = np.random.default_rng(5)
    size, columns = program.spec.rows, program.spec.columns

    def signs(count: int) -> np.ndarray:
        return rng.choice(np.float32([-1, 1]), count)

    return tuple(
        ImageRoute(
            rng.permutation(size) if rows else np.arange(size),
            program.schedule.column_permutation[image].astype(np.intp),
            signs(size) if rows and program.spec.drives_both_signs else np.ones(size, np.float32),
            signs(columns),
        )
        for image in range(program.schedule.images)
    )


@pytest.mark.parametrize("target", ["m2tj4", "mram64", "sot"])
def test_any_route_gives_the_same_on_the_exact_device(target):
    coding = None if target == "mram64" else "quantize{scheme=levels},analogue{low=0 high=1}"
    program = convolution_program(target, coding or "quantize{scheme=binary},thermometer{bits=3 low=0 high=1}")
    moved = replace(program, routes=random_routes(program, rows=target != "mram64"))
    assert not np.array_equal(moved.cells(np.array([0])), program.cells(np.array([0])))
    x = {"x": images(6, 2, 4, 4)}
    expected = Session(program, "ideal").run(x)["y"]
    np.testing.assert_allclose(Session(moved, "ideal").run(x)["y"], expected, rtol=1e-6, atol=1e-6)


def stuck_program() -> Program:
    return xbcompile.compile(
        dense_model(6, 8, 3), "m2tj4", passes="quantize,analogue{low=0 high=1},avoid-defects", arrays=0
    )


def test_stuck_cells_do_less_harm():
    program = stuck_program()
    rng = np.random.default_rng(2)
    limits = {}
    for array in range(program.schedule.arrays):
        low, high = np.full((4, 4), -1.0), np.full((4, 4), 1.0)
        where = rng.random((4, 4)) < 0.15
        low[where] = high[where] = rng.choice([-1.0, 1.0], where.sum())
        limits[array] = np.stack([low, high])
    x = {"x": images(50, 6)}
    exact = Session(program, "ideal").run(x)["y"]
    oblivious = Session(replace(program, pipeline="quantize"), StuckArray(program.spec, limits)).run(x)["y"]
    device = StuckArray(program.spec, limits)
    aware = Session(program, device).run(x)["y"]
    assert device.defects_known
    assert np.square(aware - exact).mean() < 0.3 * np.square(oblivious - exact).mean()


def test_whole_chips_and_benches_run_the_program_as_it_is():
    program = stuck_program()
    assert routed(program, StuckArray(program.spec, {})) is program
    assert routed(program, IdealArray(program.spec)) is program


def test_routed_program_is_not_saved(tmp_path):
    program = stuck_program()
    with pytest.raises(ValueError, match="one chip"):
        replace(program, routes=random_routes(program, rows=True)).save(tmp_path / "p.xbar")

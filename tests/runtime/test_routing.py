"""Routed programs: the ideal result stays, and a chip's stuck cells do less harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.device_kit import Bench
from tests.support.small_programs import convolution_program, dense_model, images
from xbcompile.ir.image_route import ImageRoute
from xbcompile.program.program import Program
from xbcompile.runtime import Session, commission
from xbcompile.targets.families.ideal import IdealArray


class StuckArray(IdealArray):
    """Exact, but for cells that can only take the limits of their array."""

    def __init__(self, spec, limits: dict[int, np.ndarray]) -> None:
        super().__init__(spec)
        self.limits = limits

    def cell_limits(self, array: int) -> np.ndarray | None:
        return self.limits.get(array)

    def load(self, written):
        cells = written.cells
        values = cells if self.spec.levels is None else self.spec.levels[cells]
        values = values.astype(np.float64)
        for i, array in enumerate(written.arrays.tolist()):
            if array in self.limits:
                values[i] = np.clip(values[i], *self.limits[array])
        loaded = super().load(written)
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
    plain = Session(program, "ideal")
    moved = replace(plain.corrections, routes=random_routes(program, rows=target != "mram64"))
    session = Session(program, "ideal", corrections=moved)
    assert not np.array_equal(session.placed.cells.of(np.array([0])), program.cells(np.array([0])))
    x = {"x": images(6, 2, 4, 4)}
    np.testing.assert_allclose(session.run(x)["y"], plain.run(x)["y"], rtol=1e-6, atol=1e-6)


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
    session = Session(program, device)
    aware = session.run(x)["y"]
    assert session.corrections.defects_known
    assert not device.defects_known  # the caller's device stays as it is
    assert np.square(aware - exact).mean() < 0.3 * np.square(oblivious - exact).mean()


def test_whole_chips_and_benches_run_the_program_as_it_is():
    program = stuck_program()
    whole, ideal = (commission(program, each) for each in (StuckArray(program.spec, {}), IdealArray(program.spec)))
    bench = commission(program, Bench(IdealArray(program.spec)))
    assert whole.routes is ideal.routes is bench.routes is None
    assert (ideal.defects_known, bench.defects_known) == (True, False)  # a bench has no defect map

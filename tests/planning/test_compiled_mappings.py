"""Options of the mapping through `compile`: packing, rewrites, floorplans, and what verification says of wrong ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import xbcompile
from tests.support.small_programs import CODED, dense_model, images
from xbcompile.errors import ScheduleError
from xbcompile.program.program import Program, load_program
from xbcompile.runtime import Session
from xbcompile.targets import load_target
from xbcompile.verification.verify import verify


def compiled(*sizes: int, **options) -> Program:
    return xbcompile.compile(dense_model(*sizes), "m2tj4", passes=CODED, **options)


def corrupted(program: Program, **fields) -> list[str]:
    return verify(replace(program, schedule=replace(program.schedule, **fields)))


def test_packing_follows_execution_where_an_array_would_else_be_loaded_twice():
    """1x1, 1x2, 2x3, 3x2 on 4x4 arrays: two images either way, but packed densely the first serves layers far apart."""
    sizes = (1, 1, 2, 3, 2)
    dense, in_order = (compiled(*sizes, cuts="greedy", packing=packing, effort=0) for packing in ("dense", "in-order"))
    auto = compiled(*sizes, cuts="greedy", effort=0)
    assert [each.packing for each in (dense, in_order, auto)] == ["dense", "in-order", "in-order"]
    assert dense.schedule.images == in_order.schedule.images == 2
    assert dense.schedule.weight_updates > 2
    assert auto.schedule == in_order.schedule
    assert in_order.schedule.writes["image"].tolist() == [0, 1]
    assert compiled(*sizes, cuts="greedy", arrays=0).packing == "dense"


def test_packing_stays_dense_where_order_saves_no_write():
    """1x1, 1x4, 4x3, 3x6 on 4x4: three images written four times, or four images written once."""
    program = compiled(1, 1, 4, 3, 6, cuts="greedy", effort=0)
    assert program.packing == "dense"
    assert (program.schedule.images, program.schedule.weight_updates) == (3, 4)


@pytest.mark.parametrize("shared", ["shares_rows", "shares_columns"])
def test_a_target_may_forbid_shared_rows_or_columns(shared: str) -> None:
    target = load_target("m2tj4")
    used = {"shares_rows": ("row", "k0", "k1"), "shares_columns": ("column", "m0", "m1")}[shared]
    most = {}
    for allowed in (0, 1):
        chosen = target.with_quantities("test", **{shared: allowed})
        tiles = xbcompile.compile(dense_model(6, 5, 2, 3), chosen, passes=CODED, effort=0).schedule.tiles
        places: dict[tuple[int, int], int] = {}
        for tile in tiles:
            for at in range(tile[used[0]], tile[used[0]] + tile[used[2]] - tile[used[1]]):
                places[tile["image"], at] = places.get((tile["image"], at), 0) + 1
        most[allowed] = max(places.values())
    assert most[0] == 1 < most[1]


@pytest.mark.parametrize("rewrite", ["changed", "matched"])
def test_reused_writes_change_nothing_but_writes(rewrite: str, tmp_path) -> None:
    plain, reused = compiled(9, 11, 5), compiled(9, 11, 5, rewrite=rewrite)
    x = images(6, 9)
    expected = Session(plain, "ideal").run_samples({"x": x})["y"]
    np.testing.assert_allclose(Session(reused, "ideal").run_samples({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)
    assert reused.schedule.rows_written <= plain.schedule.rows_written
    assert reused.schedule.cells_written is not None
    assert plain.schedule.cells_written is None
    reused.save(tmp_path / "p.xbar")
    loaded = load_program(tmp_path / "p.xbar")
    assert loaded.schedule == reused.schedule
    assert verify(loaded) == []


def test_matched_columns_change_fewer_cells() -> None:
    changed, matched = compiled(13, 14, 6, rewrite="changed"), compiled(13, 14, 6, rewrite="matched")
    assert matched.schedule.cells_written < 0.9 * changed.schedule.cells_written


def test_wrong_counts_of_rows_and_cells_are_found() -> None:
    program = compiled(9, 11, 5, rewrite="matched")
    schedule = program.schedule
    steps = schedule.steps.copy()
    write = int(np.flatnonzero((steps["operation"] == 0) & (steps["rows"] > 0))[0])
    steps["rows"][write] -= 1
    assert any("last as long" in each or "differ from what" in each for each in corrupted(program, steps=steps))
    assert any(
        "cells change per batch" in each for each in corrupted(program, cells_written=schedule.cells_written + 1)
    )
    free = xbcompile.compile(dense_model(9, 11, 5), "m2tj4", passes=CODED, rewrite="matched")
    target = free.target.with_quantities("test", t_write_row_s=0.0, t_read_s=1e-6)
    timeless = steps.copy()
    for step in np.flatnonzero(timeless["operation"] == 0):
        timeless["end_s"][step] = timeless["start_s"][step]
    found = verify(replace(free, target=target, schedule=replace(schedule, steps=timeless, setup_s=0.0)))
    assert any("differ from what the array holds" in each for each in found), found


def test_a_floorplan_gives_each_array_a_site() -> None:
    program = compiled(9, 11, 5, arrays=0, floorplan="4x4")
    schedule = program.schedule
    assert verify(program) == []
    assert len(set(schedule.site.tolist())) == schedule.arrays <= 16
    assert 0 < schedule.hop_values_lower_bound <= schedule.hop_values
    for fields, finding in (
        ({"site": np.zeros_like(schedule.site)}, "two arrays sit on one site"),
        ({"site": schedule.site + 16}, "not one of 16 sites"),
        ({"site": schedule.site[:-1]}, "not one of 16 sites"),
        ({"hop_values": schedule.hop_values + 1}, "traffic is"),
        ({"hop_values_lower_bound": schedule.hop_values + 1}, "traffic is"),
        ({"floorplan": "many"}, "floorplan 'many'"),
    ):
        assert any(finding in each for each in corrupted(program, **fields)), finding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing": "loose"}, "packing='loose' is unknown: use one of auto, dense, in-order, none"),
        ({"rewrite": "some"}, "rewrite='some' is unknown"),
        ({"floorplan": "2x"}, "floorplan '2x': give site rows x site columns"),
        ({"floorplan": "1x1", "arrays": 0}, "1 sites for 6 arrays"),
        ({"objective": "beauty"}, "beauty"),
    ],
)
def test_unknown_options_are_explained(options: dict, message: str) -> None:
    with pytest.raises(ScheduleError) as error:
        compiled(9, 8, 3, **options)
    assert message in str(error.value)

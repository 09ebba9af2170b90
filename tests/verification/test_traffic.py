"""Verification's own count of traffic against the tiler's, and against counts by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.small_programs import convolution_program
from tests.support.tiler_kit import shape_lists, shared_uses
from xbcompile.ir import Use
from xbcompile.ir.schedule import COPY
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.tiler import MatrixShape, plan_layout
from xbcompile.tiler.floorplan.traffic import array_traffic
from xbcompile.verification.traffic import hop_values, moves
from xbcompile.verification.verify import verify


def copies_table(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """COPY table of (image, array) pairs, each once, in order."""
    return np.array(sorted(set(pairs)), dtype=COPY)


def work_of(shapes: Sequence[MatrixShape], uses: Sequence[Use]) -> SimpleNamespace:
    return SimpleNamespace(layers=shapes, matrices=range(len(shapes)), uses=uses)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[MatrixShape], np.ndarray, np.ndarray, list[Use]]:
    shapes = draw(shape_lists)
    sizes = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    layout = plan_layout(shapes, *sizes, cuts=draw(st.sampled_from(["greedy", "free"])), effort=0)
    arrays = draw(st.integers(1, 12))
    pairs = [(image, draw(st.integers(0, arrays - 1))) for image in range(layout.images)]
    pairs += draw(st.lists(st.tuples(st.integers(0, layout.images - 1), st.integers(0, arrays - 1)), max_size=6))
    uses = draw(shared_uses(len(shapes)))
    vectors = draw(st.lists(st.integers(1, 30), min_size=len(uses), max_size=len(uses)))
    uses = [replace(use, vectors=count) for use, count in zip(uses, vectors, strict=True)]
    return shapes, layout.tiles, copies_table(pairs), uses


@settings(deadline=None, derandomize=True, max_examples=80)
@given(problems())
def test_agrees_with_the_tiler(problem: tuple[list[MatrixShape], np.ndarray, np.ndarray, list[Use]]) -> None:
    """Two counts that share no code but `share_of`: dense and row by row here, by runs of rows there."""
    shapes, tiles, copies, uses = problem
    theirs = array_traffic(tiles, copies["image"], copies["array"], uses)
    pairs: Counter[tuple[int, int]] = Counter()
    for source, to, values in moves(tiles, copies, work_of(shapes, uses)):
        for a, b, count in zip(source.tolist(), to.tolist(), values.tolist(), strict=True):
            pairs[min(a, b), max(a, b)] += count if a != b else 0
    found = zip(theirs.array_a.tolist(), theirs.array_b.tolist(), theirs.values.tolist(), strict=True)
    assert sorted((a, b, count) for (a, b), count in pairs.items() if count) == list(found)


def test_values_times_hops_by_hand() -> None:
    """5 vectors through 2 -> 3 -> 4 channels, the second matrix on two arrays that share them as 3 and 2.

    Sums of 3 outputs go from array 0 to arrays 1 and 2: 3 * 3 and 3 * 2 values. Array 1 is the adder of the 4 outputs, to which
    array 2 sends 4 * 2. On the sites 0, 1 and 3 of a grid of 2 x 2: 1 hop from 0 to 1, 2 from 0 to 3, 1 from 1 to 3.
    """
    shapes = [MatrixShape(1, 2, 3), MatrixShape(1, 3, 4)]
    uses = [Use(0, 0, 5, vectors=5), Use(1, 1, 5, (0,), 5)]
    tiles = plan_layout(shapes, 4, 4, pack=False).tiles
    copies = copies_table([(0, 0), (1, 1), (1, 2)])
    found = hop_values(tiles, copies, work_of(shapes, uses), np.array([0, 1, 3]), SiteGrid(2, 2))
    assert found == 9 * 1 + 6 * 2 + 8 * 1


def test_values_that_feed_several_rows() -> None:
    """One output feeds 12 rows, 8 of them on array 1 in two pieces, 4 on array 2: 5 vectors need 40 and 20 of 100 values."""
    shapes = [MatrixShape(1, 2, 1), MatrixShape(1, 12, 1)]
    uses = [Use(0, 0, 100, vectors=100), Use(1, 1, 5, (0,), 5)]
    tiles = plan_layout(shapes, 4, 4, pack=False).tiles
    copies = copies_table([(0, 0), (1, 1), (2, 2), (3, 1)])
    found = hop_values(tiles, copies, work_of(shapes, uses), np.arange(3), SiteGrid(1, 3))
    assert found == 40 * 1 + 20 * 2 + 5 * 1


def test_wrong_traffic_of_a_program_is_found() -> None:
    program = convolution_program(arrays=0)
    schedule = program.schedule
    site = np.arange(schedule.arrays, dtype=np.int32)
    grid = SiteGrid(1, schedule.arrays)
    right = hop_values(schedule.tiles, schedule.copies, program.network, site, grid)
    assert right > 0
    placed = replace(schedule, site=site, floorplan=str(grid), hop_values=right)
    assert verify(replace(program, schedule=placed), equivalence=False) == []
    for wrong in (
        {"hop_values": right - 1},
        {"hop_values": right + 1},
        {"hop_values_lower_bound": right + 1},
        {"site": site[::-1] * 0},
        {"site": site + 1},
        {"site": site[:-1]},
        {"floorplan": "1x1"},
        {"floorplan": "here"},
        {"floorplan": "", "site": site[:0]},
    ):
        findings = verify(replace(program, schedule=replace(placed, **wrong)), equivalence=False)
        assert len(findings) == 1, wrong
        assert "sites" in findings[0] or "floorplan" in findings[0]

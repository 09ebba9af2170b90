"""Writes of changed rows alone: against a literal simulation of cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import array_spec, shape_lists
from xbcompile.errors import ScheduleError
from xbcompile.ir import Schedule, Use
from xbcompile.ir.schedule import WRITE
from xbcompile.tiler import make_schedule, plan_layout
from xbcompile.tiler.reuse import REWRITE_MODES
from xbcompile.tiler.reuse.reuse_cells import reuse_cells
from xbcompile.verification.schedule_checks import check_schedule


class Chain:
    """Layers that follow each other, as the checks want them."""

    def __init__(self, shapes, reads):
        self.layers = [
            type("Layer", (), {"name": f"l{i}", "groups": s.groups, "inputs": s.inputs, "outputs": s.outputs})()
            for i, s in enumerate(shapes)
        ]
        self.matrices = list(range(len(shapes)))
        self.uses = [Use(i, i, reads, (i - 1,) if i else ()) for i in range(len(shapes))]


def rows_that_change(schedule: Schedule, cells: np.ndarray) -> list[int]:
    """Rows that each write of a batch must write, by writing cell after cell."""
    held = {
        array: cells[image][:, np.argsort(schedule.column_permutation[image])]
        for array, image in enumerate(schedule.initial.tolist())
        if image >= 0
    }
    result = []
    for write in schedule.writes:
        wanted = cells[write["image"]][:, np.argsort(schedule.column_permutation[write["image"]])]
        before = held.get(int(write["array"]))
        changed = [before is None or any(before[row, m] != wanted[row, m] for m in range(wanted.shape[1]))
                   for row in range(len(wanted))]  # fmt: skip
        result.append(sum(changed))
        held[int(write["array"])] = wanted
    for array, image in enumerate(schedule.initial.tolist()):
        if image >= 0 and array in held:
            np.testing.assert_array_equal(held[array], cells[image][:, np.argsort(schedule.column_permutation[image])])
    return result


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    shape_lists,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(1, 4),
    st.sampled_from(REWRITE_MODES),
    st.booleans(),
    st.integers(0, 2),
    st.integers(0, 99),
)
def test_rows_are_those_that_change(shapes, size, arrays, rewrite, beside, together, seed):
    spec = replace(array_spec(*size), writes_while_reading=beside, writes_at_a_time=together)
    layout = plan_layout(shapes, *size, effort=0)
    work = Chain(shapes, 3)
    schedule = make_schedule(layout, work.uses, spec, arrays=arrays, effort=0)
    cells = np.random.default_rng(seed).integers(0, 2, (layout.images, *size)).astype(np.uint8)
    reused = reuse_cells(schedule, lambda images: cells[images], work.uses, spec, rewrite=rewrite, effort=0.02)
    assert check_schedule(reused, work, spec) == []
    if rewrite == "all" or schedule.stationary:
        assert reused == schedule
        return
    assert reused.writes["rows"].tolist() == rows_that_change(reused, cells)
    assert reused.makespan_lower_bound_s <= reused.makespan_s <= schedule.makespan_s * (1 + 1e-9)
    assert reused.weight_updates == schedule.weight_updates
    if rewrite == "changed":
        np.testing.assert_array_equal(reused.column_permutation, schedule.column_permutation)


def test_equal_images_are_written_once():
    shapes = plan_shapes(4)
    layout = plan_layout(shapes, 4, 4)
    work = Chain(shapes, 1)
    spec = array_spec(4, 4)
    schedule = make_schedule(layout, work.uses, spec, arrays=1)
    cells = np.ones((layout.images, 4, 4), np.uint8)
    cells[0, 2, 1] = 0  # one row differs: written when image 0 comes and when it goes
    reused = reuse_cells(schedule, lambda images: cells[images], work.uses, spec, rewrite="changed")
    assert reused.writes["rows"].tolist() == [1, 1, 0, 0]
    assert reused.makespan_s == pytest.approx(2 * spec.t_write_row_s + 4 * spec.t_read_s)
    assert reused.makespan_lower_bound_s <= reused.makespan_s


def test_images_read_alike_are_ordered():
    """Full and empty images in turn, of one layer: in pairs, two writes of four change all 16 cells, in turn all four do."""
    from xbcompile.tiler import MatrixShape

    shapes = [MatrixShape(1, 8, 8)]
    work, spec = Chain(shapes, 1), array_spec(4, 4)
    schedule = make_schedule(plan_layout(shapes, 4, 4), work.uses, spec, arrays=1)
    cells = np.zeros((4, 4, 4), np.uint8)
    cells[schedule.writes["image"][::2]] = 1
    changed, matched = (
        reuse_cells(schedule, lambda images: cells[images], work.uses, spec, rewrite=rewrite)
        for rewrite in ("changed", "matched")
    )
    assert (changed.cells_written, matched.cells_written) == (64, 32)
    assert sorted(matched.writes["rows"].tolist()) == [0, 0, 4, 4]
    assert check_schedule(matched, work, spec) == []


def plan_shapes(layers):
    """Matrices that fill a 4x4 array each."""
    from xbcompile.tiler import MatrixShape

    return [MatrixShape(1, 4, 4)] * layers


def test_an_unknown_choice_is_refused():
    shapes = plan_shapes(2)
    work, spec = Chain(shapes, 1), array_spec(4, 4)
    schedule = make_schedule(plan_layout(shapes, 4, 4), work.uses, spec, arrays=1)
    with pytest.raises(ScheduleError, match="rewrite='some' is unknown: use one of all, changed, matched"):
        reuse_cells(schedule, lambda images: np.zeros((len(images), 4, 4)), work.uses, spec, rewrite="some")
    assert (schedule.steps["operation"] == WRITE).sum() == 2

"""Copies of an image on several arrays share the vectors of a batch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xbcompile
from tests.support.recurrence_kit import sequence_model
from tests.support.small_programs import CODED, convolution_model, convolution_program, images
from xbcompile.ir.schedule import COPY, STEP, share_of
from xbcompile.passes.contract import ChipView
from xbcompile.passes.device.avoid_defects import _limits
from xbcompile.program.program import Program
from xbcompile.report.summary import schedule_rows
from xbcompile.runtime import Session
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.runtime.timeline import STEP_VECTORS, VectorRange
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.verification.schedule_checks import check_tables

ANALOGUE = "quantize,analogue"


def with_copies(program: Program, copies: int, layer: int) -> Program:
    """A stationary program in which the images of one layer have `copies` copies each; its tables are right, its times not."""
    schedule = program.schedule
    assert schedule.stationary
    mine = np.unique(schedule.tiles["image"][schedule.tiles["layer"] == layer]).tolist()
    rows = [(image, image) for image in range(schedule.images)]
    rows += [
        (image, schedule.images + turn * len(mine) + number)
        for turn in range(copies - 1)
        for number, image in enumerate(mine)
    ]
    table = np.array(sorted(rows), dtype=COPY)
    initial = np.full(len(rows), -1, np.int32)
    initial[table["array"]] = table["image"]
    changed = replace(schedule, copies=table, initial=initial, arrays=len(rows))
    assert check_tables(changed, program.network) == []
    return replace(program, schedule=changed)


@given(st.integers(1, 9), st.integers(0, 40))
def test_shares_cut_the_vectors_in_equal_parts_the_first_the_largest(copies: int, vectors: int) -> None:
    shares = [share_of(copy, copies, vectors) for copy in range(copies)]
    assert [number for start, end in shares for number in range(start, end)] == list(range(vectors))
    sizes = [end - start for start, end in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] == max(sizes)
    assert all(number * copies // vectors == copy for copy, share in enumerate(shares) for number in range(*share))


@pytest.mark.parametrize(("copies", "batch"), [(2, 1), (3, 1), (5, 1), (3, 2)])
def test_each_vector_has_the_errors_of_its_copys_array(copies: int, batch: int) -> None:
    """The reference: programs without copies whose images sit on each copy's array in turn, and the vectors picked by hand."""
    plain = convolution_program("mram64", "quantize{scheme=binary},thermometer{bits=2}", arrays=0, batch=batch)
    program = with_copies(plain, copies, 0)
    x = images(7, 2, 4, 4)
    vectors_in_batch = 4 * batch
    reads = VectorRange(0, vectors_in_batch)
    got = Session(program, seed=3, threads=1).executors[0].vectors(x, reads)[0]
    wanted = np.empty_like(got)
    for copy in range(copies):
        array = program.schedule.copies["array"]
        first = np.searchsorted(program.schedule.copies["image"], np.arange(program.schedule.images))
        count = np.bincount(program.schedule.copies["image"])
        single = np.zeros(program.schedule.images, dtype=COPY)
        single["image"] = np.arange(program.schedule.images)
        single["array"] = array[first + np.minimum(copy, count - 1)]
        moved = replace(program, schedule=replace(program.schedule, copies=single))
        each = Session(moved, seed=3, threads=1).executors[0].vectors(x, reads)[0]
        mine = np.arange(len(got)) % vectors_in_batch * copies // vectors_in_batch == copy
        wanted[mine] = each[mine]
    np.testing.assert_array_equal(got, wanted)
    assert len({tuple(row) for row in np.round(got, 9)}) > 1


def test_copies_do_not_depend_on_chunks() -> None:
    plain = convolution_program("mram64", "quantize{scheme=binary},thermometer{bits=2}", arrays=0, batch=3)
    program = with_copies(plain, 3, 1)
    x = images(10, 2, 4, 4)
    whole = Session(program, seed=1).run_samples({"x": x})["y"]
    pieces = Session(program, seed=1).run_samples({"x": x}, chunk=4)["y"]
    np.testing.assert_array_equal(whole, pieces)
    assert not np.array_equal(whole, Session(plain, seed=1).run_samples({"x": x})["y"])


def test_copies_change_nothing_on_the_exact_device() -> None:
    plain = convolution_program(arrays=0)
    x = images(5, 2, 4, 4)
    for layer in (0, 1):
        result = Session(with_copies(plain, 2, layer), "ideal").run_samples({"x": x})["y"]
        np.testing.assert_allclose(result, Session(plain, "ideal").run_samples({"x": x})["y"], rtol=1e-6)


def test_steps_of_a_recurrence_count_their_vectors_from_zero() -> None:
    program = xbcompile.compile(sequence_model("LSTM", 4, hidden=3), "m2tj4", passes=ANALOGUE, arrays=0, batch=3)
    inside = program.network.layers.index(program.network.recurrences[0].layers[0])
    copied = with_copies(program, 2, program.network.matrices[inside])
    executor = LayerExecutor(PlacedProgram(copied, no_corrections(copied)), inside, IdealArray(copied.spec))
    for step in range(4):
        reads = VectorRange(1, 3, step, entry=step)
        assert reads.drawn_from == step * STEP_VECTORS + 1
        runs = [(run.start, run.stop, run.copies) for run in executor.runs(reads, 5)]
        assert runs == [(0, 1, (0,)), (1, 2, (1,)), (2, 4, (0,)), (4, 5, (1,))]


def test_inspect_counts_the_reads_of_each_copy() -> None:
    program = xbcompile.compile(convolution_model(), "m2tj4", passes=CODED, arrays=60)
    schedule, uses = program.schedule, program.network.uses
    assert len(schedule.copies) > schedule.images
    reads: dict[tuple[int, int], int] = {}
    for step in schedule.steps:
        key = int(step["use"]), int(step["tile"])
        reads[key] = reads.get(key, 0) + schedule.reads_of(step, uses[key[0]])
    assert all(count == uses[use].reads for (use, _), count in reads.items())
    listed = [row["reads"] for row in schedule_rows(program) if row["operation"] == "read"]
    assert sum(listed) == sum(reads.values())


def test_an_image_may_take_what_all_of_its_arrays_can() -> None:
    low, high = np.array([[-1.0, -0.5]]), np.array([[1.0, 0.5]])
    other = {
        0: np.stack([low, high]),
        1: np.stack([low + 0.25, high - 0.25]),
        2: None,
        3: np.stack([high + 1, high + 2]),
    }
    chip = cast(ChipView, SimpleNamespace(cell_limits=other.get))
    found = _limits(chip, np.array([0, 1, 2]))
    np.testing.assert_array_equal(found, np.stack([low + 0.25, high - 0.25]))
    assert _limits(chip, np.array([2])) is None
    apart = _limits(chip, np.array([0, 3]))  # no value suits both
    assert (apart[0] <= apart[1]).all()


def test_the_step_table_names_rows() -> None:
    assert STEP.names == ("operation", "array", "image", "tile", "use", "rows", "start_s", "end_s")
    steps = convolution_program().schedule.steps
    assert set(steps["rows"][steps["operation"] == 0].tolist()) == {4}

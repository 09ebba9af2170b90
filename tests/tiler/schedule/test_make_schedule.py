"""Schedules: replayed for any layout, published weight updates, bounds, user errors, equal bytes."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import (
    CHAIN,
    LENET_5,
    MLP,
    MLP_200,
    array_sizes,
    array_spec,
    check_schedule,
    layer_graphs,
    shape_lists,
    uses_of,
)
from xbcompile.errors import ScheduleError
from xbcompile.ir.schedule import READ, Use
from xbcompile.tiler import MatrixShape, make_schedule, plan_layout

OPTIONS = [{"pack": False}, {"fixed_rows": True}, {}, {"cuts": "free"}]


TIMES = [(18e-8, 9e-8), (1e-6, 1e-9), (0.0, 1e-7), (1e-7, 0.0), (0.0, 0.0)]
AIMS = ["latency", "throughput", "energy", "weight-updates"]


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    shape_lists,
    array_sizes,
    st.sampled_from(OPTIONS),
    st.integers(0, 12),
    st.integers(1, 3),
    st.tuples(st.sampled_from(TIMES), st.booleans(), st.integers(0, 2)),
    st.tuples(st.sampled_from([0.0, 0.02]), st.sampled_from([*AIMS, "latency=1,energy=2", "throughput=1,latency=1"])),
    st.data(),
)
def test_any_schedule_is_valid(shapes, size, options, arrays, batch, array, search, data):
    layout = plan_layout(shapes, *size, effort=0, **options)
    reads = data.draw(st.lists(st.integers(1, 20), min_size=len(shapes), max_size=len(shapes)))
    waits = data.draw(layer_graphs(len(shapes)))
    times, while_reading, at_a_time = array
    spec = array_spec(*size, *times, writes_while_reading=while_reading, writes_at_a_time=at_a_time)
    uses = uses_of(reads, waits, vectors=data.draw(st.integers(1, 4)))
    effort, objective = search
    options = {"arrays": arrays, "batch": batch, "effort": effort, "objective": objective}
    schedule = make_schedule(layout, uses, spec, **options)
    check_schedule(schedule, layout, uses, spec, arrays)
    assert schedule == make_schedule(layout, uses, spec, **options)


def chain_schedule(shapes, size=64, *, arrays=1, reads=8, times=(18e-8, 9e-8), batch=1, effort=1.0, **options):
    layout = plan_layout(shapes, size, size, **options)
    spec = array_spec(size, size, *times)
    uses = uses_of([reads] * len(shapes), CHAIN[: len(shapes)])
    schedule = make_schedule(layout, uses, spec, arrays=arrays, batch=batch, effort=effort)
    check_schedule(schedule, layout, uses, spec, arrays)
    return schedule


@pytest.mark.parametrize(
    ("shapes", "size", "options", "updates"),
    [
        (MLP, 64, {"pack": False}, 28),
        (MLP, 64, {"fixed_rows": True}, 26),
        (MLP, 64, {}, 26),
        (MLP, 64, {"cuts": "free"}, 25),
        (MLP, 4, {"pack": False}, 6368),
        ([MatrixShape(1, 87, 128), MatrixShape(1, 128, 10)], 4, {"pack": False}, 800),
    ],
)
def test_weight_updates_of_one_array(shapes, size, options, updates):
    schedule = chain_schedule(shapes, size, **options)
    assert schedule.weight_updates == schedule.weight_updates_lower_bound == updates
    assert schedule.makespan_s == pytest.approx(schedule.makespan_lower_bound_s, rel=1e-12)


def test_one_array_takes_all_writes_and_reads_one_after_another():
    schedule = chain_schedule(MLP, pack=False, batch=3)
    t_write_s, t_read_s = 64 * 18e-8, 9e-8
    assert schedule.makespan_s == pytest.approx(28 * (t_write_s + 3 * 8 * t_read_s), rel=1e-9)


def test_stationary_images_are_written_once_before_time_zero():
    schedule = chain_schedule(MLP, arrays=0, fixed_rows=True)
    assert not len(schedule.writes)
    assert schedule.initial.tolist() == list(range(26))
    assert schedule.initial_writes == schedule.arrays == 26
    assert schedule.setup_s == pytest.approx(64 * 18e-8)
    # layer 1: two strips share an array; layer 2: two tiles share another
    assert schedule.makespan_s == pytest.approx(2 * 2 * 8 * 9e-8, rel=1e-9)
    assert schedule == replace(chain_schedule(MLP, arrays=99, fixed_rows=True))


def test_shared_image_is_kept_between_layers():
    # two 2 x 4 matrices share one 4 x 4 image: read for the first layer, kept, read for the second
    schedule = chain_schedule([MatrixShape(1, 6, 4), MatrixShape(1, 6, 4)], 4)
    assert schedule.images == 3
    assert schedule.weight_updates == schedule.weight_updates_lower_bound == 3


def test_writes_overlap_reads_on_other_arrays():
    schedule = chain_schedule([MatrixShape(1, 4, 4)] * 4, 4, arrays=2, times=(1e-7, 4e-8), reads=10, pack=False)
    # every write hides behind the reads of the layer before, that of the first image behind the last one's
    assert schedule.makespan_s == pytest.approx(4 * 4e-7, rel=1e-9)
    assert schedule.makespan_s == schedule.makespan_lower_bound_s


def test_parallel_branches_run_at_once():
    shapes = [MatrixShape(1, 4, 4)] * 3
    layout, spec = plan_layout(shapes, 4, 4), array_spec(4, 4)
    apart = make_schedule(layout, uses_of([5] * 3, [[], [], [0, 1]]), spec, arrays=0)
    chained = make_schedule(layout, uses_of([5] * 3, [[], [0], [1]]), spec, arrays=0)
    assert apart.makespan_s == pytest.approx(2 * 5 * 9e-8)
    assert chained.makespan_s == pytest.approx(3 * 5 * 9e-8)


def test_layers_need_not_be_listed_in_order_of_execution():
    shapes = [MatrixShape(1, 9, 5)] * 3
    layout, spec = plan_layout(shapes, 4, 4), array_spec(4, 4)
    uses = uses_of([1, 2, 3], [[2], [0], []])
    check_schedule(make_schedule(layout, uses, spec, arrays=2), layout, uses, spec, 2)


def test_scrambling_is_seeded_and_can_be_left_out():
    layout, spec = plan_layout(MLP, 64, 64), array_spec(64, 64)
    one, other, none = (
        make_schedule(layout, uses_of([8, 8], [[], [0]]), spec, arrays=0, seed=s, scramble=on)
        for s, on in ((1, True), (2, True), (1, False))
    )
    assert not np.array_equal(one.column_permutation, other.column_permutation)
    assert (none.column_permutation == np.arange(64)).all()
    assert np.array_equal(one.steps, none.steps)


def test_no_layers_give_an_empty_schedule():
    schedule = make_schedule(plan_layout([], 4, 4), [], array_spec(4, 4), arrays=0)
    assert (schedule.images, schedule.arrays, len(schedule.steps), schedule.makespan_s) == (0, 0, 0, 0.0)


def test_reads_of_a_tile_scale_with_slices_vectors_and_batch():
    layout, spec = plan_layout([MatrixShape(1, 4, 4)], 4, 4), array_spec(4, 4)
    steps = make_schedule(layout, uses_of([24], [[]]), spec, arrays=1, batch=5).steps
    read = steps[steps["operation"] == READ][0]
    assert read["end_s"] - read["start_s"] == pytest.approx(24 * 5 * 9e-8)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"arrays": -1}, r"arrays=-1: give the number of physical arrays"),
        ({"arrays": 1, "batch": 0}, r"batch=0: at least 1 inference"),
        ({"arrays": 1, "seed": -1}, r"seed=-1: the seed of the column permutations must not be negative"),
        (
            {"arrays": 1, "spec": array_spec(64, 32)},
            r"layout for an array of 64 x 64, but the target's array is 64 x 32",
        ),
    ],
)
def test_impossible_requests_are_explained(options, text):
    options = {"spec": array_spec(64, 64), **options}
    spec = options.pop("spec")
    with pytest.raises(ScheduleError, match=text):
        make_schedule(plan_layout(MLP, 64, 64), uses_of([8, 8], [[], [0]]), spec, **options)


@pytest.mark.parametrize(
    ("uses", "text"),
    [
        ([Use(0, 0, 8)], "uses of matrices \\[0\\]"),
        ([Use(0, 0, 8), Use(1, 2, 8)], "uses of matrices \\[0, 2\\]"),
        ([Use(0, 0, 8, (1,)), Use(1, 1, 8, (0,))], "cyclic"),
        ([Use(0, 0, 8, (0,)), Use(1, 1, 8)], "cyclic"),
        ([Use(0, 0, 8), Use(1, 1, 8, (7,))], r"outside 0\.\.1"),
    ],
)
@pytest.mark.parametrize("arrays", [0, 1])
def test_faults_of_the_caller_are_ordinary_errors(uses, text, arrays):
    with pytest.raises(ValueError, match=text):
        make_schedule(plan_layout(MLP, 64, 64), uses, array_spec(64, 64), arrays=arrays)


def schedule_digest() -> str:
    digest = hashlib.sha256()
    for shapes in (MLP, LENET_5, MLP_200):
        for arrays in (0, 1, 3, 7):
            layout = plan_layout(shapes, 64, 64, effort=0.05)
            spec = array_spec(64, 64)
            uses = uses_of([8] * len(shapes), CHAIN[: len(shapes)])
            schedule = make_schedule(layout, uses, spec, arrays=arrays, effort=0.05)
            for table in (schedule.steps, schedule.copies, schedule.column_permutation):
                digest.update(table.tobytes())
    return digest.hexdigest()


def test_schedules_are_equal_in_processes_with_other_hash_seeds():
    code = "from tests.tiler.schedule import test_make_schedule; print(test_make_schedule.schedule_digest())"
    here = Path(__file__).parents[3]
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONHASHSEED": "99", "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == schedule_digest()

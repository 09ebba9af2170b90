"""Layouts: invariants for any shapes, published counts, user errors, equal bytes on every run."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import LENET_5, MLP, MLP_200, array_sizes, check_layout, shape_lists
from xbcompile.errors import ScheduleError
from xbcompile.tiler import MatrixShape, plan_layout

OPTIONS = [{"pack": False}, {"fixed_rows": True}, {}, {"cuts": "free"}, {"cuts": "free", "fixed_rows": True}]
ONCE = settings(deadline=None, derandomize=True, max_examples=50)


@ONCE
@given(shape_lists, array_sizes, st.sampled_from(OPTIONS))
def test_any_layout_is_valid(shapes, size, options):
    check_layout(plan_layout(shapes, *size, effort=0.01, **options), shapes)


@ONCE
@given(shape_lists, array_sizes)
def test_more_freedom_never_needs_more_images(shapes, size):
    unpacked, fixed, packed, free = (plan_layout(shapes, *size, effort=0.01, **o) for o in OPTIONS[:4])
    assert unpacked.images >= fixed.images
    assert unpacked.images >= packed.images >= free.images
    assert unpacked.area_lower_bound == free.area_lower_bound
    assert packed.images_lower_bound >= unpacked.images_lower_bound  # the solver can only add to it
    assert free.packing_status == "optimal"  # few strips: cuts always reach the area bound


@pytest.mark.parametrize(
    ("shapes", "options", "images", "bound", "tiles"),
    [
        (MLP, {"pack": False}, 28, 25, 28),
        (MLP, {"fixed_rows": True}, 26, 26, 28),
        (MLP, {}, 26, 26, 28),
        # 24 full tiles; one array with two 64 x 10 side by side and 16 x 128 in three pieces beside them
        (MLP, {"cuts": "free"}, 25, 25, 29),
        (LENET_5, {}, 17, 17, 24),
        (LENET_5, {"cuts": "free"}, 16, 16, 26),
        (MLP_200, {"fixed_rows": True}, 50, 50, 72),
        (MLP_200, {"cuts": "free"}, 49, 49, 72),
    ],
)
def test_reference_networks_on_64x64(shapes, options, images, bound, tiles):
    layout = plan_layout(shapes, 64, 64, **options)
    check_layout(layout, shapes)
    assert (layout.images, layout.images_lower_bound) == (images, bound)
    assert len(layout.tiles) <= tiles
    status = "optimal" if options.get("pack", True) else "unpacked"
    assert layout.packing_status == status


def test_area_bound_is_reported_beside_the_bound_for_the_cuts():
    layout = plan_layout(MLP, 64, 64, fixed_rows=True)
    assert (layout.area_lower_bound, layout.images_lower_bound) == (25, 26)


def test_fixed_rows_keep_the_rows_of_the_cut():
    cut = plan_layout(MLP, 64, 64, pack=False)
    packed = plan_layout(MLP, 64, 64, fixed_rows=True)
    assert np.array_equal(cut.tiles["row"], packed.tiles["row"])
    strips = packed.tiles[packed.tiles["k0"] == 768]
    assert strips["row"].tolist() == [0, 16]
    assert len(set(strips["image"].tolist())) == 1


def test_no_layers_give_an_empty_layout():
    layout = plan_layout([], 4, 4)
    assert (layout.images, layout.images_lower_bound, len(layout.tiles)) == (0, 0, 0)


def test_layouts_compare_by_content():
    assert plan_layout(MLP, 64, 64) == plan_layout(MLP, 64, 64)
    assert plan_layout(MLP, 64, 64) != plan_layout(MLP, 64, 64, pack=False)


def layout_digest() -> str:
    """Digest of layouts that need every stage: bands, fills, the solver, free cuts."""
    rng = np.random.Generator(np.random.Philox(key=5))
    many = [MatrixShape(1, int(k), int(m)) for k, m in rng.integers(1, 70, (40, 2))]
    digest = hashlib.sha256()
    for shapes in (MLP_200, LENET_5, many):
        for options in (*OPTIONS, {"in_order": True}, {"in_order": True, "cuts": "free"}, {"cuts": "balanced"}):
            layout = plan_layout(shapes, 64, 64, effort=0.02, **options)
            digest.update(layout.tiles.tobytes())
            digest.update(repr((layout.images, layout.images_lower_bound, layout.packing_status)).encode())
    return digest.hexdigest()


def test_layouts_are_equal_in_processes_with_other_hash_seeds():
    code = "from tests.tiler import test_layout; print(test_layout.layout_digest())"
    here = Path(__file__).parents[2]
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONHASHSEED": "1234", "PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == layout_digest()


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((MLP, 0, 64), {}, r"array of 0 rows x 64 columns: both must be at least 1"),
        ((MLP, 64, -1), {}, r"array of 64 rows x -1 columns: both must be at least 1"),
        ((MLP, 64, 65_536), {}, r"array of 65536 columns: at most 65,535"),
        ((MLP, 64, 64), {"cuts": "diagonal"}, r"cuts='diagonal' is unknown: use one of greedy, balanced, free"),
        ((MLP, 64, 64), {"cuts": "free", "pack": False}, r"cuts='free' chooses cuts while packing"),
        (([MatrixShape(1, 3, 0)], 64, 64), {}, r"layer 0: 1 group\(s\) of 3 x 0 weights"),
    ],
)
def test_impossible_requests_are_explained(arguments, options, text):
    with pytest.raises(ScheduleError, match=text):
        plan_layout(*arguments, **options)


def test_widest_array_is_accepted():
    assert plan_layout([MatrixShape(1, 1, 65_535)], 1, 65_535).images == 1

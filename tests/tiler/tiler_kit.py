"""What must hold of any layout and any schedule; examples used by several tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.ir.schedule import WRITE, tile_columns, tile_rows
from xbcompile.tiler import Layout, MatrixShape

MLP = [MatrixShape(1, 784, 128), MatrixShape(1, 128, 10)]
MLP_200 = [MatrixShape(1, 784, 200), MatrixShape(1, 200, 200), MatrixShape(1, 200, 10)]
LENET_5 = [MatrixShape(1, *size) for size in ((25, 6), (150, 16), (400, 120), (120, 84), (84, 10))]
CHAIN = [[], [0], [1], [2], [3]]

matrix_shapes = st.builds(MatrixShape, st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))
shape_lists = st.lists(matrix_shapes, min_size=1, max_size=5)
array_sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def layer_graphs(draw: st.DrawFn, layers: int) -> list[list[int]]:
    """Dependencies of each layer on earlier ones."""
    return [
        draw(st.lists(st.integers(0, layer - 1), unique=True, max_size=3)) if layer else [] for layer in range(layers)
    ]


def array_spec(rows: int, columns: int, t_write_row_s: float = 18e-8, t_read_s: float = 9e-8) -> ArraySpec:
    """A binary array; the times default to two and one cycles of 11.1 MHz."""
    ones = np.ones(rows)
    return ArraySpec(
        rows=rows,
        columns=columns,
        levels=np.array([-1, 1], dtype=np.float32),
        drive="bipolar",
        row_weight=ones,
        idle_drive=ones.astype(np.float32),
        neutral_level=np.zeros(rows, dtype=np.uint8),
        t_write_row_s=t_write_row_s,
        t_read_s=t_read_s,
        e_write_row_j=1e-9,
        e_read_j=1e-10,
    )


def check_layout(layout: Layout, shapes: Sequence[MatrixShape]) -> None:
    """Every weight in exactly one tile, tiles inside the array and apart, honest bounds."""
    tiles = layout.tiles
    weights = [np.zeros((s.groups, s.inputs, s.outputs), dtype=int) for s in shapes]
    cells = np.zeros((layout.images, layout.rows, layout.columns), dtype=int)
    for tile in tiles:
        layer, group, k0, k1, m0, m1, image, row, column = tile.tolist()
        assert 0 <= k0 < k1 <= shapes[layer].inputs
        assert 0 <= m0 < m1 <= shapes[layer].outputs
        weights[layer][group, k0:k1, m0:m1] += 1
        assert row >= 0
        assert column >= 0
        assert row + k1 - k0 <= layout.rows
        assert column + m1 - m0 <= layout.columns
        cells[image, row : row + k1 - k0, column : column + m1 - m0] += 1
    assert all((w == 1).all() for w in weights)
    assert cells.max(initial=0) <= 1
    assert cells.any(axis=(1, 2)).all()  # no image is empty
    total = sum(s.weights for s in shapes)
    assert layout.area_lower_bound == -(-total // (layout.rows * layout.columns))
    assert layout.area_lower_bound <= layout.images_lower_bound <= layout.images <= len(tiles)
    if layout.packing_status != "unpacked":
        assert (layout.packing_status == "optimal") == (layout.images == layout.images_lower_bound)
    order = np.lexsort((tiles["k0"], tiles["m0"], tiles["group"], tiles["layer"]))
    assert (order == np.arange(len(tiles))).all()
    first_tiles = np.unique(tiles["image"], return_index=True)[1]
    assert (np.diff(first_tiles) > 0).all()  # images are numbered by their first tile


def uses_of(reads: Sequence[int], dependencies: Sequence[Sequence[int]]) -> list[Use]:
    """One use per layer, each of a matrix of its own."""
    return [Use(i, i, n, tuple(waits)) for i, (n, waits) in enumerate(zip(reads, dependencies, strict=True))]


@st.composite
def shared_uses(draw: st.DrawFn, matrices: int, most: int = 7) -> list[Use]:
    """Any number of uses of every matrix, each waiting for some of the earlier ones."""
    extra = draw(st.lists(st.integers(0, matrices - 1), max_size=most - matrices))
    order = draw(st.permutations([*range(matrices), *extra]))
    waits = draw(layer_graphs(len(order)))
    reads = draw(st.lists(st.integers(1, 20), min_size=len(order), max_size=len(order)))
    return [Use(i, matrix, reads[i], tuple(waits[i])) for i, matrix in enumerate(order)]


def check_schedule(schedule: Schedule, layout: Layout, uses: Sequence[Use], spec: ArraySpec, arrays: int) -> None:
    """Replay the steps: all that the Schedule promises."""
    steps, tiles = schedule.steps, schedule.tiles
    assert np.array_equal(tiles, layout.tiles)
    assert schedule.images == layout.images
    assert schedule.arrays == (layout.images if arrays == 0 else min(arrays, layout.images))
    assert schedule.stationary == (arrays == 0 or arrays >= layout.images)
    held: dict[int, int] = {}
    busy = np.full(schedule.arrays, -np.inf)
    use_start: dict[int, float] = {}
    use_end: dict[int, float] = {}
    done = []
    for operation, array, image, tile, use, start, end in steps.tolist():
        assert schedule.image_array[image] == array
        assert start >= busy[array]
        busy[array] = end
        if operation == WRITE:
            assert tile == use == -1
            assert np.isclose(end - start, spec.t_write_s, rtol=1e-9, atol=0)
            assert (end == 0.0) if schedule.stationary else (start >= 0.0)
            held[array] = image
            continue
        assert held[array] == image == tiles["image"][tile]
        assert np.isclose(end - start, schedule.batch * uses[use].reads * spec.t_read_s, rtol=1e-9, atol=0)
        use_start[use] = min(use_start.get(use, np.inf), start)
        use_end[use] = max(use_end.get(use, 0.0), end)
        done.append((use, tile))
    # in the order of the table, too, a use starts after those it waits for
    for i, use in enumerate(uses):
        for before in use.waits_for:
            assert use_end[before] <= use_start[i]
            assert np.flatnonzero(steps["use"] == before).max() < np.flatnonzero(steps["use"] == i).min()
    wanted = [(i, tile) for i, use in enumerate(uses) for tile in np.flatnonzero(tiles["layer"] == use.matrix).tolist()]
    assert sorted(done) == wanted
    assert (np.diff(steps["start_s"]) >= 0).all()
    assert schedule.weight_updates >= schedule.weight_updates_lower_bound >= schedule.images
    if schedule.stationary:
        assert schedule.weight_updates == schedule.images
    assert schedule.makespan_s >= schedule.makespan_lower_bound_s
    assert schedule.images_lower_bound == layout.area_lower_bound
    assert schedule.packing_status == layout.packing_status
    permutation = schedule.column_permutation
    assert permutation.dtype == np.uint16
    assert permutation.shape == (schedule.images, schedule.columns)
    assert (np.sort(permutation, axis=1) == np.arange(schedule.columns)).all()


def residual_sizes(layout: Layout) -> list[tuple[int, int]]:
    """Height and width of the tiles that do not fill an array."""
    sizes = zip(tile_rows(layout.tiles).tolist(), tile_columns(layout.tiles).tolist(), strict=True)
    return [size for size in sizes if size != (layout.rows, layout.columns)]

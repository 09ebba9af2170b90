"""What must hold of any layout and any schedule; examples used by several tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.ir.schedule import READ, WRITE, tile_columns, tile_rows
from xbcompile.tiler import Layout, MatrixShape
from xbcompile.verification import schedule_checks

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


def array_spec(
    rows: int,
    columns: int,
    t_write_row_s: float = 18e-8,
    t_read_s: float = 9e-8,
    *,
    writes_while_reading: bool = True,
    writes_at_a_time: int = 0,
) -> ArraySpec:
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
        writes_while_reading=writes_while_reading,
        writes_at_a_time=writes_at_a_time,
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


def uses_of(reads: Sequence[int], dependencies: Sequence[Sequence[int]], vectors: int = 1) -> list[Use]:
    """One use per layer, each of a matrix of its own; every layer reads so many vectors, `reads` for each."""
    return [
        Use(i, i, n * vectors, tuple(waits), vectors)
        for i, (n, waits) in enumerate(zip(reads, dependencies, strict=True))
    ]


@st.composite
def shared_uses(draw: st.DrawFn, matrices: int, most: int = 7) -> list[Use]:
    """Any number of uses of every matrix, each waiting for some of the earlier ones."""
    extra = draw(st.lists(st.integers(0, matrices - 1), max_size=most - matrices))
    order = draw(st.permutations([*range(matrices), *extra]))
    waits = draw(layer_graphs(len(order)))
    sizes = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=len(order), max_size=len(order)))
    return [
        Use(i, matrix, slices * vectors, tuple(waits[i]), vectors)
        for i, (matrix, (vectors, slices)) in enumerate(zip(order, sizes, strict=True))
    ]


def check_schedule(schedule: Schedule, layout: Layout, uses: Sequence[Use], spec: ArraySpec, arrays: int) -> None:
    """Replay the steps: all that the Schedule promises."""
    assert schedule_checks.check_schedule(schedule, _work_of(layout, uses), spec) == []
    steps, tiles = schedule.steps, schedule.tiles
    assert np.array_equal(tiles, layout.tiles)
    assert schedule.images == layout.images
    assert schedule.arrays <= (arrays or layout.images)
    assert schedule.stationary == (arrays == 0 or arrays >= layout.images)
    held = dict(enumerate(schedule.initial.tolist()))
    for _ in range(2):  # the second batch finds what the first one left
        for step in steps:
            if step["operation"] == WRITE:
                held[int(step["array"])] = int(step["image"])
            assert held[int(step["array"])] == step["image"]
    # in the order of the table, too, a use starts after those it waits for
    for i, use in enumerate(uses):
        for before in use.waits_for:
            assert np.flatnonzero(steps["use"] == before).max() < np.flatnonzero(steps["use"] == i).min()
    _check_shares(schedule, uses)
    _check_period(schedule)
    assert schedule.weight_updates_lower_bound >= schedule.images - max(0, schedule.arrays - 1) * (
        not schedule.stationary
    )
    assert schedule.images_lower_bound == layout.area_lower_bound
    assert schedule.packing_status == layout.packing_status
    assert schedule.column_permutation.dtype == np.uint16


def _work_of(layout: Layout, uses: Sequence[Use]) -> SimpleNamespace:
    """Matrices as large as their tiles, for the checks of the package."""
    tiles = layout.tiles
    sizes = np.zeros((max((use.layer + 1 for use in uses), default=0), 3), int)
    for size, name in zip(sizes.T, ("group", "k1", "m1"), strict=True):
        np.maximum.at(size, tiles["layer"], tiles[name])
    layers = [SimpleNamespace(name=str(i), groups=g + 1, inputs=k, outputs=m) for i, (g, k, m) in enumerate(sizes)]
    owner = {use.layer: use.matrix for use in uses}
    return SimpleNamespace(layers=layers, matrices=[owner.get(i, i) for i in range(len(layers))], uses=uses)


def _check_shares(schedule: Schedule, uses: Sequence[Use]) -> None:
    """The copies of an image read all vectors of a batch together, as equally as can be."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    for i, use in enumerate(uses):
        for tile in np.flatnonzero(schedule.tiles["layer"] == use.matrix).tolist():
            steps = reads[(reads["use"] == i) & (reads["tile"] == tile)]
            shares = [schedule.reads_of(step, use) for step in steps[np.argsort(steps["array"])]]
            assert sum(shares) == schedule.batch * use.reads
            assert shares[0] == max(shares) <= min(shares) + use.reads // use.vectors


def _check_period(schedule: Schedule) -> None:
    """Batches one period apart never use an array at the same time: all pairs of steps of some batches."""
    steps, period = schedule.steps, schedule.period_s
    assert period > 0 or schedule.makespan_s == 0
    steps = steps[steps["end_s"] > steps["start_s"]]
    if not len(steps) or period >= schedule.makespan_s:
        return
    same = steps["array"][:, None] == steps["array"][None, :]
    for batch in range(1, min(int(schedule.makespan_s / period), 50) + 1):
        start, end = steps["start_s"] + batch * period, steps["end_s"] + batch * period
        overlap = np.minimum(end[:, None], steps["end_s"]) - np.maximum(start[:, None], steps["start_s"])
        assert not np.any(same & (overlap > 1e-9 * schedule.makespan_s))


def residual_sizes(layout: Layout) -> list[tuple[int, int]]:
    """Height and width of the tiles that do not fill an array."""
    sizes = zip(tile_rows(layout.tiles).tolist(), tile_columns(layout.tiles).tolist(), strict=True)
    return [size for size in sizes if size != (layout.rows, layout.columns)]

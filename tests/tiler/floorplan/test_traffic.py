"""Traffic between arrays against a loop over single weights, and against counts by hand."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiler_kit import LENET_5, shape_lists, shared_uses
from xbcompile.ir.schedule import Use, share_of
from xbcompile.tiler import MatrixShape, plan_layout
from xbcompile.tiler.floorplan.traffic import array_traffic

MANY = settings(deadline=None, derandomize=True, max_examples=60)


def by_weights(tiles, copies, uses):
    """The rules of the module, one weight at a time: pairs -> values."""
    holders = defaultdict(list)
    for image, array in sorted(set(copies)):
        holders[image].append(array)
    weights = defaultdict(dict)  # matrix -> (input, output) through all groups -> image
    for layer, group, k0, k1, m0, m1, image, _, _ in tiles.tolist():
        mine = tiles[tiles["layer"] == layer]
        inputs, outputs = int(mine["k1"].max()), int(mine["m1"].max())
        for k in range(k0, k1):
            for m in range(m0, m1):
                weights[layer][group * inputs + k, group * outputs + m, k == 0] = image
    sizes = {w: (1 + max(k for k, _, _ in cells), 1 + max(m for _, m, _ in cells)) for w, cells in weights.items()}
    adder = {w: {m: holders[i][0] for (_, m, first), i in cells.items() if first} for w, cells in weights.items()}

    def share(image, array, all_vectors):
        first, end = share_of(holders[image].index(array), len(holders[image]), all_vectors)
        return end - first

    pairs = defaultdict(int)

    def send(a, b, values):
        if a != b:
            pairs[min(a, b), max(a, b)] += values

    for use in uses:
        most = defaultdict(int)  # (output, array) -> partial sums
        shares = defaultdict(int)
        for (_, m, _), image in weights[use.matrix].items():
            for array in holders[image]:
                most[m, array] = max(most[m, array], share(image, array, use.vectors))
                shares[array] = max(shares[array], share(image, array, use.vectors))
        for (m, array), values in most.items():
            send(array, adder[use.matrix][m], values)
        for before in use.waits_for:
            producer = uses[before].matrix
            rows = defaultdict(set)  # (output, array) -> rows fed by it there
            for (k, _, _), image in weights[use.matrix].items():
                for array in holders[image]:
                    rows[k * sizes[producer][1] // sizes[use.matrix][0], array].add(k)
            if sizes[use.matrix][0] <= sizes[producer][1]:
                assert all(len(held) == 1 for held in rows.values())
            for (output, array), held in rows.items():
                values = min(uses[before].vectors, shares[array] * len(held))
                send(adder[producer][output], array, values)
    return pairs


@st.composite
def problems(draw):
    layout = plan_layout(
        draw(shape_lists),
        *draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        cuts=draw(st.sampled_from(["greedy", "free"])),
        effort=0,
    )
    matrices = int(layout.tiles["layer"].max()) + 1
    uses = draw(shared_uses(matrices))
    arrays = draw(st.integers(1, 12))
    copies = [(image, draw(st.integers(0, arrays - 1))) for image in range(layout.images)]
    copies += draw(st.lists(st.tuples(st.integers(0, layout.images - 1), st.integers(0, arrays - 1)), max_size=6))
    vectors = draw(st.lists(st.integers(1, 30), min_size=len(uses), max_size=len(uses)))
    return layout.tiles, copies, [replace(use, vectors=v) for use, v in zip(uses, vectors, strict=True)]


@MANY
@given(problems())
def test_agrees_with_a_loop_over_weights(problem):
    tiles, copies, uses = problem
    images, arrays = np.array(copies, dtype=np.int32).T
    traffic = array_traffic(tiles, images, arrays, uses)
    pairs = by_weights(tiles, copies, uses)
    found = zip(traffic.array_a.tolist(), traffic.array_b.tolist(), traffic.values.tolist(), strict=True)
    assert [(a, b, v) for a, b, v in found] == sorted((a, b, v) for (a, b), v in pairs.items() if v)


def test_each_step_of_a_recurrence_moves_its_own_vectors():
    """A 2 x 2 matrix, a column on each of two arrays, read in 3 steps: twice, either output's 4 values go to the other array."""
    tiles = plan_layout([MatrixShape(1, 2, 2)], 2, 1).tiles
    uses = [Use(0, 0, 8, vectors=4), Use(0, 0, 8, (0,), 4), Use(0, 0, 8, (1,), 4)]
    traffic = array_traffic(tiles, np.array([0, 1]), np.array([0, 1]), uses)
    assert (traffic.array_a.tolist(), traffic.array_b.tolist(), traffic.values.tolist()) == ([0], [1], [2 * 2 * 4])


def test_convolution_and_flattened_image():
    """LeNet-5, each tile on its own 64 x 64 array; counted by hand from the module's rules.

    Arrays: 0 | 1-3 (150 x 16) | 4-10, 11-17 (400 x 120) | 18-19, 20-21 (120 x 84) | 22-23 (84 x 10).
    """
    layout = plan_layout(LENET_5, 64, 64, pack=False)
    uses = [Use(i, i, v, (i - 1,) if i else (), v) for i, v in enumerate((784, 100, 1, 1, 1))]
    image = np.arange(layout.images)
    traffic = array_traffic(layout.tiles, image, image, uses)
    assert layout.images == 24
    values = dict(
        zip(zip(traffic.array_a.tolist(), traffic.array_b.tolist(), strict=True), traffic.values, strict=True)
    )
    # 25 rows per channel: array 1 holds rows of channels 0 to 2, array 2 of 2 to 5 (of 5 only 3 rows, each read 100 times)
    assert [values[0, a] for a in (1, 2, 3)] == [3 * 784, 3 * 784 + 3 * 100, 784]
    assert (values[1, 2], values[1, 3]) == (16 * 100, 16 * 100)  # partial sums
    # rows 0-63 of the flattened image: channels 0, 1 and 14 pixels of channel 2
    assert (values[1, 4], values[1, 11]) == (25 + 25 + 14, 64)
    assert values[1, 10] == 400 - 6 * 64
    assert values[4, 5] == 64
    assert values[11, 12] == 56


def test_arrays_that_hold_one_image_share_its_vectors():
    """5 vectors: 3 and 2; the second array sends its sums to the first, and needs the producer's values for its own."""
    tiles = plan_layout([MatrixShape(1, 2, 3), MatrixShape(1, 3, 4)], 4, 4, pack=False).tiles
    uses = [Use(0, 0, 5, vectors=5), Use(1, 1, 5, (0,), 5)]
    traffic = array_traffic(tiles, np.array([0, 1, 1]), np.array([0, 1, 2]), uses)
    assert traffic.array_a.tolist() == [0, 0, 1]
    assert traffic.array_b.tolist() == [1, 2, 2]
    assert traffic.values.tolist() == [3 * 3, 3 * 2, 4 * 2]


def test_an_image_that_nobody_holds():
    tiles = plan_layout([MatrixShape(1, 2, 3)], 4, 4).tiles
    with pytest.raises(ValueError, match="no array holds image 0"):
        array_traffic(tiles, np.array([1]), np.array([0]), [Use(0, 0, 1)])


def test_runs_of_rows_within_one_output():
    """One output feeds 12 rows, of which array 1 holds 0-3 and 8-11, array 2 4-7: 5 vectors need 40 and 20 of 100 values."""
    tiles = plan_layout([MatrixShape(1, 2, 1), MatrixShape(1, 12, 1)], 4, 4, pack=False).tiles
    uses = [Use(0, 0, 100, vectors=100), Use(1, 1, 5, (0,), 5)]
    traffic = array_traffic(tiles, np.arange(4), np.array([0, 1, 2, 1]), uses)
    assert traffic.array_a.tolist() == [0, 0, 1]
    assert traffic.values.tolist() == [40, 20, 5]

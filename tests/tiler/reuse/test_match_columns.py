"""Order and reuse of writes: brute force on tiny arrays, a literal simulation of writes, bounds, steps."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from xbcompile.ir.schedule import READ, STEP, WRITE
from xbcompile.tiler.reuse import changed_cells, image_order
from xbcompile.tiler.reuse.changed_cells import PackedCells
from xbcompile.tiler.reuse.image_order import order_images
from xbcompile.tiler.reuse.match_columns import match_columns
from xbcompile.tiler.reuse.steps import exchangeable_runs, reordered_steps, written_images
from xbcompile.tiler.scramble import scramble_columns


def of(cells):
    return lambda images: cells[images]


def distance(one, two):
    """Fewest differing cells, over all permutations of the columns."""
    columns = range(one.shape[1])
    return min(int((one[:, list(order)] != two).sum()) for order in permutations(columns))


def physical(cells, permutation):
    result = np.empty_like(cells)
    for image, columns in enumerate(permutation):
        result[image][:, columns] = cells[image]
    return result


def simulated(cells, permutation, chains):
    """Rows (cells, rows) changed by each write of the second of two batches, cell by cell."""
    contents, result = physical(cells, permutation), []
    for chain in chains:
        array = None
        for batch in range(2):
            for image in chain:
                changed = np.zeros(contents.shape[1:], bool)
                for row, column in np.ndindex(*changed.shape):
                    value = contents[image, row, column]
                    if array is not None and array[row, column] != value:
                        changed[row, column] = True
                if batch == 1:
                    result.append((changed.sum(), changed.any(axis=1).sum()))
                array = contents[image].copy()
    return np.array(result).reshape(-1, 2)


@st.composite
def batches(draw, most_rows=5):
    """Cells of a few images, chains in which images may come back, and permutations to start from."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    images, rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, most_rows)), draw(st.integers(1, 6))
    levels = draw(st.sampled_from([2, 3, 21, 256]))
    cells = rng.integers(0, levels, (images, rows, columns)).astype(np.uint8)
    if draw(st.booleans()):
        cells = (cells.astype(np.float32) - levels // 2) / np.float32(3)
        cells[cells == 0] *= rng.choice(np.float32([-1, 1]), int((cells == 0).sum()))  # both zeros are one level
    chains = draw(st.lists(st.lists(st.integers(0, images - 1), max_size=8).map(np.array), min_size=1, max_size=3))
    return cells, [chain.astype(np.int64) for chain in chains], scramble_columns(images, columns, seed=1)


@settings(max_examples=150, deadline=None)
@given(batches())
def test_changes_equal_a_literal_simulation_and_are_never_more_than_before(batch):
    cells, chains, start = batch
    found = match_columns(of(cells), chains, start)
    after, before = (simulated(cells, p, chains) for p in (found.permutation, start))
    changes = found.changes
    assert np.array_equal(np.stack([changes["cells"], changes["rows"]], axis=1), after)
    assert changes["image"].tolist() == [image for chain in chains for image in chain.tolist()]
    assert changes["chain"].tolist() == [number for number, chain in enumerate(chains) for _ in chain]
    assert found.cells_lower_bound <= found.cells <= before[:, 0].sum()
    assert (np.sort(found.permutation, axis=1) == np.arange(cells.shape[2])).all()
    assert found.permutation.dtype == np.uint16
    unwritten = np.setdiff1d(np.arange(len(cells)), np.concatenate(chains))
    assert np.array_equal(found.permutation[unwritten], start[unwritten])


@settings(max_examples=60, deadline=None)
@given(batches(most_rows=70))
def test_the_bound_is_a_sum_over_single_writes(batch):
    """Brute force over permutations of columns."""
    cells, chains, start = batch
    cells = cells[:, :, :5]
    found = match_columns(of(cells), chains, np.argsort(np.argsort(start[:, : cells.shape[2]])).astype(np.uint16))
    pairs = [(cells[chain[t - 1]], cells[chain[t]]) for chain in chains for t in range(len(chain))]
    assert found.cells_lower_bound == sum(distance(*pair) for pair in pairs)


def test_columns_of_equal_images_are_told_apart():
    """Every image is the same, so what differs is only the columns: count them as defined."""
    cells = np.repeat(np.random.default_rng(3).integers(0, 4, (1, 70, 6)).astype(np.uint8), 2, axis=0)
    packed = PackedCells(of(cells), np.arange(2))
    expected = (cells[0][:, :, None] != cells[1][:, None, :]).sum(axis=0)
    assert np.array_equal(packed.differing(0, 1), expected)
    assert packed.fewest(0, 1) == packed.fewest(1, 1) == 0


@pytest.mark.parametrize("chain", [[0, 1], [0, 1, 2], [0, 1, 0, 1, 0, 1, 0, 1, 2]])
def test_brute_force_over_all_permutations(chain):
    """Two images: always optimal. Three: the closing write depends on the others; nearly always optimal. An image that is
    written often counts as often.
    """
    rng, best, ours = np.random.default_rng(len(chain)), [], []
    orders = [list(order) for order in permutations(range(4))]
    images = max(chain) + 1
    pairs = [(chain[t - 1], chain[t]) for t in range(len(chain))]
    for _ in range(25):
        cells = rng.integers(0, 2, (images, 5, 4)).astype(np.uint8)
        moved = [np.stack([image[:, order] for order in orders]) for image in cells]
        far = {(a, b): (moved[a][:, None] != moved[b][None]).sum(axis=(2, 3)) for a, b in pairs}
        choices = ((0, *choice) for choice in product(range(len(orders)), repeat=images - 1))
        best.append(min(sum(far[a, b][choice[a], choice[b]] for a, b in pairs) for choice in choices))
        ours.append(match_columns(of(cells), [np.array(chain)], scramble_columns(images, 4)).cells)
    assert min(np.subtract(ours, best)) >= 0
    assert np.count_nonzero(np.subtract(ours, best)) <= (0 if images == 2 else 2)


def test_a_path_is_optimal_and_the_closing_write_is_shared_by_moves():
    """All images equal but for columns: the first assignments reach 0. Else moves lower what the walk leaves."""
    rng = np.random.default_rng(5)
    image = rng.integers(0, 2, (16, 16)).astype(np.uint8)
    same = np.stack([image[:, rng.permutation(16)] for _ in range(5)])
    found = match_columns(of(same), [np.arange(5)], scramble_columns(5, 16), effort=0)
    assert found.cells == 0
    other = rng.integers(0, 2, (9, 32, 32)).astype(np.uint8)
    walked, moved = (match_columns(of(other), [np.arange(9)], scramble_columns(9, 32), effort=e) for e in (0, 1))
    walked_excess, moved_excess = (found.cells - found.cells_lower_bound for found in (walked, moved))
    assert 0 < moved_excess < 0.85 * walked_excess
    stood = match_columns(of(other), [np.arange(9)], scramble_columns(9, 32), move=False)
    assert 1 - moved.cells / stood.cells > 0.2


@pytest.mark.parametrize("seed", range(6))
def test_no_image_and_no_run_of_images_can_be_moved_to_advantage(seed):
    cells = np.random.default_rng(seed).integers(0, 2, (8, 16, 16)).astype(np.uint8)
    moved = match_columns(of(cells), [np.arange(8)], scramble_columns(8, 16))
    contents = physical(cells, moved.permutation)
    for first, length in product(range(8), range(1, 8)):
        last, before, after = (first + length - 1) % 8, first - 1, (first + length) % 8
        cost = (contents[first][:, :, None] != contents[before][:, None, :]).sum(axis=0)
        cost = cost + (contents[last][:, :, None] != contents[after][:, None, :]).sum(axis=0)
        assert cost[linear_sum_assignment(cost)].sum() == cost.trace()


@pytest.mark.parametrize("seed", range(6))
def test_an_image_counts_as_often_as_it_is_written(seed):
    """No image can be moved to advantage, where each of its writes and of the writes over it counts."""
    chain = [0, 1, 2, 1, 2, 1, 2, 3]
    cells = np.random.default_rng(seed).integers(0, 2, (4, 16, 16)).astype(np.uint8)
    moved = match_columns(of(cells), [np.array(chain)], scramble_columns(4, 16))
    contents = physical(cells, moved.permutation)
    for image in range(4):
        cost = np.zeros((16, 16), int)
        for t in range(len(chain)):
            for one, two in ((chain[t - 1], chain[t]), (chain[t], chain[t - 1])):
                if one == image:
                    cost += (contents[one][:, :, None] != contents[two][:, None, :]).sum(axis=0)
        assert cost[linear_sum_assignment(cost)].sum() == cost.trace()


def test_the_first_image_keeps_its_columns_and_an_optimal_start_stays():
    rng = np.random.default_rng(8)
    cells = rng.integers(0, 3, (4, 8, 8)).astype(np.uint8)
    start = scramble_columns(4, 8, seed=2)
    found = match_columns(of(cells), [np.array([2, 0, 3])], start, effort=0)
    assert np.array_equal(found.permutation[2], start[2])
    again = match_columns(of(cells), [np.array([2, 0, 3])], found.permutation, effort=0)
    assert again.cells <= found.cells


def test_a_start_better_than_the_walk_is_kept():
    """Seeds whose improved permutations no walk reaches: with no moves allowed, the start must stand."""
    kept = 0
    for seed in range(6):
        cells = np.random.default_rng(seed).integers(0, 2, (5, 9, 9)).astype(np.uint8)
        best = match_columns(of(cells), [np.arange(5)], scramble_columns(5, 9))
        again = match_columns(of(cells), [np.arange(5)], best.permutation, effort=0)
        assert again.cells <= best.cells
        kept += np.array_equal(again.permutation, best.permutation)
        start = best.permutation[:, ::-1].copy()
        walked, stood = (match_columns(of(cells), [np.arange(5)], start, move=m, effort=0) for m in (True, False))
        assert walked.cells <= stood.cells
    assert kept


def test_equal_arguments_give_equal_results_for_any_block(monkeypatch):
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(12, 6, 7)).round(0).astype(np.float32)
    chains = [np.array([0, 3, 4, 3, 11]), np.array([5, 6, 7, 0])]
    labels = np.array([0, 0, 1, 1, 1])
    one = match_columns(of(cells), chains, scramble_columns(12, 7)), order_images(of(cells), chains[0], labels)
    monkeypatch.setattr(changed_cells, "_BLOCK_CELLS", 50)
    two = match_columns(of(cells), chains, scramble_columns(12, 7)), order_images(of(cells), chains[0], labels)
    assert one == two


def test_empty_chains_change_nothing():
    start = scramble_columns(3, 4)
    found = match_columns(of(np.zeros((3, 2, 4), np.uint8)), [np.zeros(0, np.int64)], start)
    assert (found.cells, found.cells_lower_bound, len(found.changes)) == (0, 0, 0)
    assert np.array_equal(found.permutation, start)
    none = order_images(of(np.zeros((3, 2, 4), np.uint8)), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(none.order) == 0


def trips(run):
    """All orders that permute positions within their runs."""
    parts = [np.flatnonzero(run == number) for number in range(run.max() + 1)]
    for parts_permuted in product(*(permutations(part.tolist()) for part in parts)):
        yield np.array([place for part in parts_permuted for place in part])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda sizes: sum(sizes) <= 7), st.integers(0, 2**32))
def test_order_is_optimal_and_keeps_runs(sizes, seed):
    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(len(sizes)), sizes)
    cells = rng.integers(0, 3, (6, 3, 3)).astype(np.uint8)
    chain = rng.integers(0, 6, len(run))
    found = order_images(of(cells), chain, run * 7 + 3)
    far = np.array([[distance(one, two) for one in cells] for two in cells])
    lengths = [far[chain[trip], np.roll(chain[trip], 1)].sum() for trip in trips(run)]
    assert found.cells == min(lengths) == found.cells_lower_bound
    assert found.cells_before == far[chain, np.roll(chain, 1)].sum()
    assert np.array_equal(run[found.order], run)
    assert np.array_equal(np.sort(found.order), np.arange(len(run)))
    assert far[chain[found.order], np.roll(chain[found.order], 1)].sum() == found.cells


def test_a_run_is_never_left_twice():
    """Three kinds in each of two runs: going to and fro between the runs would change 3 kinds, not 4."""
    kinds = np.zeros((3, 3, 3), np.uint8)
    kinds[[0, 1, 2], [0, 1, 2]] = 1
    run = np.repeat([0, 1], 3)
    found = order_images(of(kinds), np.array([0, 1, 2, 0, 1, 2]), run)
    assert np.array_equal(run[found.order], run)
    assert found.cells == found.cells_lower_bound == 4 * 6


def test_without_effort_the_order_stays():
    cells = np.random.default_rng(0).integers(0, 2, (6, 4, 4)).astype(np.uint8)
    found = order_images(of(cells), np.arange(6), np.zeros(6, int), effort=0)
    assert found.order.tolist() == list(range(6))
    assert found.cells == found.cells_before


def two_kinds(images):
    """Images that are mostly 0 in the upper rows or in the lower rows, in turn."""
    rng = np.random.default_rng(1)
    share = np.full((images, 12, 8), 0.1)
    share[::2, :6] = share[1::2, 6:] = 0.9
    return (rng.random(share.shape) < share).astype(np.uint8)


@pytest.mark.parametrize("profiled", [8, 64])
def test_long_chains_are_ordered_by_profile_and_in_windows(monkeypatch, profiled):
    monkeypatch.setattr(image_order, "WHOLE_IMAGES", 10)
    monkeypatch.setattr(image_order, "_WINDOW_IMAGES", 6)
    monkeypatch.setattr(image_order, "_PROFILED", profiled)
    cells, run = two_kinds(30), np.repeat([0, 1, 2], [20, 4, 6])
    found = order_images(of(cells), np.arange(30), run)
    assert np.array_equal(run[found.order], run)
    assert np.array_equal(np.sort(found.order), np.arange(30))
    assert found.cells_lower_bound is None
    packed = PackedCells(of(cells), np.arange(30))
    assert found.cells == sum(packed.fewest(found.order[t - 1], found.order[t]) for t in range(30))
    # Kinds differ in four of five cells, images of a kind in one of five: runs of one kind change far fewer cells.
    assert found.cells < 0.6 * found.cells_before
    windows_alone = image_order._improve_windows(packed, list(range(30)), run, np.arange(30), 1.0)
    assert image_order._round_trip(packed, list(range(30)), windows_alone) < found.cells_before
    again = image_order._improve_windows(packed, list(range(30)), run, found.order, 1.0)
    assert image_order._round_trip(packed, list(range(30)), again) <= found.cells


def test_walks_by_profile_are_taken_only_where_they_help(monkeypatch):
    monkeypatch.setattr(image_order, "_WINDOW_IMAGES", 3)
    cells, images = two_kinds(20), list(range(20))
    packed = PackedCells(of(cells), np.arange(20))
    walked = image_order._ordered_by_profile(packed, images, np.zeros(20, int))
    length = image_order._round_trip
    assert length(packed, images, walked) < 0.6 * length(packed, images, np.arange(20))
    taken = 0
    for seed in range(20):
        run = np.repeat([0, 1], [7, 5])
        packed = PackedCells(of(np.random.default_rng(seed).integers(0, 2, (12, 4, 4)).astype(np.uint8)), np.arange(12))
        walked = image_order._ordered_by_profile(packed, images[:12], run)
        assert np.array_equal(run[walked], run)
        gained = length(packed, images[:12], np.arange(12)) - length(packed, images[:12], walked)
        assert gained >= 0
        taken += gained > 0
    assert taken


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("run", [[0] * 10, [0] * 2 + [1] * 8, [0, 0, 0, 1, 1, 2, 2, 2, 2, 2]])
def test_a_window_is_optimal_between_its_ends(monkeypatch, run, seed):
    """Brute force over all orders of the five images of the first window that keep runs; one window is allowed."""
    monkeypatch.setattr(image_order, "_WINDOW_IMAGES", 5)
    monkeypatch.setattr(image_order, "_WINDOWS", 1)
    run = np.array(run)
    cells = np.random.default_rng(seed).integers(0, 2, (10, 5, 5)).astype(np.uint8)
    packed = PackedCells(of(cells), np.arange(10))
    found = image_order._improve_windows(packed, list(range(10)), run, np.arange(10), 1.0)
    orders = [np.concatenate([trip, np.arange(5, 10)]) for trip in trips(run[:5])]
    best = min(image_order._round_trip(packed, list(range(10)), order) for order in orders)
    assert image_order._round_trip(packed, list(range(10)), found) == best
    assert np.array_equal(found[5:], np.arange(5, 10))
    assert np.array_equal(run[found], run)


def test_each_solver_alone_gives_an_honest_order(monkeypatch):
    cells = np.random.default_rng(6).integers(0, 2, (9, 8, 8)).astype(np.uint8)
    run = np.repeat([0, 1], [2, 7])
    best = order_images(of(cells), np.arange(9), run)
    assert best.cells == best.cells_lower_bound < best.cells_before
    without_time = order_images(of(cells), np.arange(9), run, effort=1e-12)
    assert without_time.cells_lower_bound <= best.cells <= without_time.cells < without_time.cells_before
    packed = PackedCells(of(cells), np.arange(9))
    worst = max(trips(run), key=lambda trip: image_order._round_trip(packed, list(range(9)), trip))
    monkeypatch.setattr(image_order, "_routed", lambda cost, run: worst)
    exact = order_images(of(cells), np.arange(9), run)
    assert exact.cells == exact.cells_lower_bound == best.cells
    neither = order_images(of(cells), np.arange(9), run, effort=1e-12)
    assert neither.cells <= neither.cells_before


def test_routing_alone_gives_permitted_orders():
    run = np.repeat([0, 1, 2], [5, 6, 3])
    cost = np.random.default_rng(2).integers(1, 100, (14, 14))
    trip = image_order._routed(cost + cost.T, run)
    follows = image_order._may_follow(run)
    assert np.array_equal(np.sort(trip), np.arange(14))
    assert follows[trip, np.roll(trip, -1)].all()
    assert np.count_nonzero(run[trip] != run[np.roll(trip, -1)]) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 0, 0], "next to each other"), ([0, 0, 1], "3 labels for a chain of 4 images")],
)
def test_labels_must_be_runs(labels, message):
    with pytest.raises(ValueError, match=message):
        order_images(of(np.zeros((4, 2, 2), np.uint8)), np.arange(4), np.array(labels))


def steps_table(rows):
    """STEP table of (operation, array, image, tile, use, duration in s), one after another."""
    table, time = np.zeros(len(rows), STEP), 0.0
    for step, (operation, array, image, tile, use, seconds) in zip(table, rows, strict=True):
        step["operation"], step["array"], step["image"], step["tile"], step["use"] = operation, array, image, tile, use
        step["start_s"], step["end_s"] = time, (time := time + seconds)
    return table


STEPS = [
    (WRITE, 0, 3, -1, -1, 8.0),
    (READ, 0, 3, 30, 0, 1.0),
    (WRITE, 1, 9, -1, -1, 8.0),
    (WRITE, 0, 4, -1, -1, 6.0),
    (READ, 0, 4, 40, 0, 1.0),
    (READ, 1, 9, 90, 0, 1.0),
    (WRITE, 0, 5, -1, -1, 8.0),
    (READ, 0, 5, 50, 0, 1.0),
    (READ, 0, 5, 51, 1, 2.0),
    (WRITE, 0, 6, -1, -1, 8.0),
    (READ, 0, 6, 60, 0, 1.0),
    (READ, 0, 6, 61, 1, 2.0),
    (WRITE, 0, 7, -1, -1, 8.0),
    (READ, 0, 7, 70, 0, 1.0),
    (READ, 0, 7, 71, 1, 2.5),
    (WRITE, 0, 8, -1, -1, 8.0),
    (READ, 0, 8, 80, 0, 1.0),
    (READ, 0, 8, 81, 1, 2.5),
]


def test_images_that_are_read_alike_may_change_places():
    steps = steps_table(STEPS)
    assert written_images(steps, 0).tolist() == [3, 4, 5, 6, 7, 8]
    assert exchangeable_runs(steps, 0).tolist() == [0, 0, 1, 1, 2, 2]
    assert exchangeable_runs(steps, 1).tolist() == [0]
    assert exchangeable_runs(steps, 2).tolist() == []
    other_use = steps_table([*STEPS[:4], (READ, 0, 4, 40, 2, 1.0)])
    assert exchangeable_runs(other_use, 0).tolist() == [0, 1]
    held = steps_table([(READ, 0, 8, 82, 0, 1.0), *STEPS])  # image 8 is read across batches
    assert exchangeable_runs(held, 0).tolist() == [0, 0, 1, 1, 2, 3]


def test_reordered_steps_read_what_is_written():
    steps = steps_table(STEPS)
    moved = reordered_steps(steps, 0, np.array([1, 0, 3, 2, 4, 5]))
    assert written_images(moved, 0).tolist() == [4, 3, 6, 5, 7, 8]
    held = {}
    for step in moved:
        if step["operation"] == WRITE:
            held[int(step["array"])] = int(step["image"])
        assert held[int(step["array"])] == step["image"]
        assert step["operation"] == WRITE or step["tile"] // 10 == step["image"]  # tiles are numbered so
    for names in (["image", "tile", "use"], ["operation", "array", "image"]):
        assert sorted(moved[names].tolist()) == sorted(steps[names].tolist())
    unmoved = [name for name in STEP.names if name not in ("image", "tile")]
    assert np.array_equal(moved[unmoved], steps[unmoved])
    assert np.array_equal(moved[steps["array"] == 1], steps[steps["array"] == 1])

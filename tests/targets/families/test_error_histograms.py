"""The emulator: groups, their histograms, and that drawn errors follow them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.support.device_kit import read_image, read_images, write_image
from xbcompile.targets import load_target
from xbcompile.targets.alias_tables import alias_tables, draw
from xbcompile.targets.counter_random import fill_read_words, key_of, read_counter
from xbcompile.targets.families import error_histograms
from xbcompile.targets.families.error_histograms import ErrorHistogramArray
from xbcompile.targets.families.resistance_sum import ResistanceSumArray


@cache
def chip(seed: int = 0) -> ErrorHistogramArray:
    return ErrorHistogramArray(load_target("mram64").parameters, seed)


def group_means(counts: np.ndarray, bins: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1)
    return np.where(total > 0, counts @ bins / np.maximum(total, 1), np.nan)


def test_the_groups_and_the_counts_are_the_published_ones() -> None:
    """64 columns x 65 values of N_delta = 4,160 groups; 4,160,000 errors; N_delta = 0 is the most populated."""
    counts, bins = chip().histograms(0)
    assert counts.shape[:2] == (64, 65)
    assert counts.sum() == 4_160_000
    assert np.all(counts.sum(axis=(1, 2)) == 65_000)
    assert abs(int(counts.sum(axis=(0, 2)).argmax()) - 32) <= 1
    assert np.array_equal(bins, np.arange(bins[0], -bins[0] + 1))


def test_errors_of_opposite_groups_are_biased_opposite_ways() -> None:
    """Extended Data Fig. 7 shows N_delta = -16 and +16 of one column. The halves' mean row weights are 1 + s and 1 - s with
    s = 0.332, their dot products differ by 2 N_delta: the weighted sum exceeds the dot product by 2 N_delta s = +-10.6."""
    counts, bins = chip().histograms(0)
    means = group_means(counts, bins)
    top, bottom = means[:, 32 + 16], means[:, 32 - 16]
    assert np.all(top > 0)
    assert np.all(bottom < 0)
    weight = load_target("mram64").parameters.row_weight
    half_difference = (weight[:32].mean() - weight[32:].mean()) / 2
    assert np.nanmean(top) == pytest.approx(2 * 16 * half_difference, rel=0.15)
    assert np.nanmean(bottom) == pytest.approx(-2 * 16 * half_difference, rel=0.15)
    assert np.nanmean(means[:, 32]) == pytest.approx(0, abs=1.0)


def test_a_million_drawn_errors_follow_their_groups_histograms() -> None:
    """Each column and N_delta has the histogram's probabilities: chi-square over all outcomes that are expected 5 times."""
    device, vectors = chip(), 1 << 14
    counts, bins = device.histograms(0)
    rng = np.random.default_rng(2)
    cells = rng.integers(0, 2, (64, 64), np.uint8)
    drives = rng.choice(np.array([-1, 1], np.float32), (vectors, 64))
    weights = 2.0 * cells - 1
    top, bottom = drives[:, :32] @ weights[:32], drives[:, 32:] @ weights[32:]
    error = read_images(device, 0, 0, cells, drives[None, :, None])[0, :, 0] - top - bottom
    group = (top - bottom) / 2 + 32  # highs = (32 + dot) / 2 in each half
    outcome = error - bins[0]
    assert np.array_equal(outcome, np.rint(outcome))
    drawn = np.zeros(counts.shape)
    column = np.broadcast_to(np.arange(64), error.shape)
    np.add.at(drawn, (column, group.astype(int), outcome.astype(int)), 1)
    share = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
    expected = share * drawn.sum(axis=2, keepdims=True)
    measured = counts.sum(axis=2) > 0
    assert not drawn[measured][counts[measured] == 0].any()
    often = expected >= 5
    statistic = ((drawn - expected)[often] ** 2 / expected[often]).sum()
    degrees = often.sum() - often.any(axis=2).sum()
    assert degrees > 5000
    assert abs(statistic - degrees) < 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (64, 64), (131, 6)])
def test_readings_are_dot_products_and_draws_to_the_bit(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against numpy, word by word; halves of less, just, and more than 32 rows, columns that fill no block of words."""
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_IMAGES", 3)
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_VECTORS", 50)
    parameters = load_target("mram64").with_quantities("test", rows=rows, columns=columns, f_clock_hertz=1e6).parameters
    device = ErrorHistogramArray(parameters, 4)
    rng = np.random.default_rng(rows)
    cells = rng.integers(0, 2, (rows, columns), np.uint8)
    drives = rng.choice(np.array([-1, 1], np.float32), (1, 7, 2, rows))
    found = read_images(device, 3, 0, cells, drives)[0]
    counts, bins = device.histograms(3)
    used = np.flatnonzero(counts.any(axis=(0, 1)))
    outcomes = bins[used[0] : used[-1] + 1 : np.gcd.reduce(np.diff(used))]
    weights, half, blocks = 2.0 * cells - 1, rows // 2, (columns + 3) // 4
    for vector, which in np.ndindex(7, 2):
        top = drives[0, vector, which, :half] @ weights[:half]
        bottom = drives[0, vector, which, half:] @ weights[half:]
        words = np.empty(4 * blocks, np.uint32)
        key = key_of("histogram", 4, 3, 0)
        fill_read_words(words, read_counter(key, 0, 0, (7, 2, columns)), vector, which, 0)
        for column in range(columns):
            group = int((half + top[column]) / 2 - (rows - half + bottom[column]) / 2) + rows - half
            populated = np.flatnonzero(counts[column].sum(axis=1))
            nearest = populated[np.abs(populated - group).argmin()]
            table = alias_tables(counts[column, nearest][np.isin(bins, outcomes)])
            error = outcomes[draw(table, words[column : column + 1])[0]]
            assert found[vector, which, column] == top[column] + bottom[column] + error


def test_an_empty_group_takes_its_nearest_neighbours_histogram() -> None:
    """All cells high: N_delta = 0 at dot +64; a column with its top half high alone is N_delta = +32, never measured."""
    device = chip()
    counts, bins = device.histograms(0)
    populated = np.flatnonzero(counts[5].sum(axis=1))
    assert populated[-1] < 64
    cells = np.zeros((64, 64), np.uint8)
    cells[:32] = 1
    write_image(device, 0, cells)
    errors = [read_image(device, 0, np.ones(64, np.float32), vector=v)[5] for v in range(20)]
    possible = bins[counts[5, populated[-1]] > 0]
    assert set(errors) <= set(possible)


def test_each_array_and_each_chip_has_its_own_histograms() -> None:
    first = group_means(*chip().histograms(0))[:, 32]
    for other in (chip().histograms(1), chip(1).histograms(0)):
        assert np.abs(group_means(*other)[:, 32] - first).max() > 0.5
    again = ErrorHistogramArray(load_target("mram64").parameters, 0)
    assert np.array_equal(again.histograms(0)[0], chip().histograms(0)[0])


def test_errors_are_those_behind_the_digital_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a chip whose columns err by several codes: each column keeps at most half a code of mean error, and half of a bin."""
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_IMAGES", 4)
    monkeypatch.setattr(error_histograms, "CHARACTERIZATION_VECTORS", 100)
    target = load_target("mram64").with_quantities("test", r_high_sigma_ohm=1e4, r_low_sigma_ohm=1e4)
    counts, bins = ErrorHistogramArray(target.parameters, 1).histograms(0)
    of_columns = counts.sum(axis=1)
    means = of_columns @ bins / of_columns.sum(axis=1)
    lsb = target.parameters.lsb_dot
    assert np.abs(means).max() <= lsb / 2 + 0.5
    device = ResistanceSumArray(target.parameters, 1)  # without offsets columns err by more than that
    drives = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (1, 400, 1, 64))
    raw = read_images(device, 0, 0, np.ones((64, 64), np.uint8), drives)[0, :, 0] - drives[0, :, 0].sum(axis=1)[:, None]
    assert np.abs(raw.mean(axis=0)).max() > lsb

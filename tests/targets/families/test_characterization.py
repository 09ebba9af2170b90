"""The characterisation gives the published figures (Jung et al. 2022), within the tolerance stated with each."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.support.device_kit import read_images
from xbcompile.targets import load_target
from xbcompile.targets.families.characterization import (
    Characterization,
    calibrate_jitter,
    characterize,
    column_offsets,
    vectors_of_dot,
)
from xbcompile.targets.families.resistance_sum import ResistanceSumArray


@cache
def measured(target: str) -> Characterization:
    return characterize(load_target(target).parameters)


def test_the_published_number_of_dot_products_is_measured() -> None:
    """65 dot products x 1,000 vectors x 64 columns."""
    assert measured("mram64").dot_products == 4_160_000


def test_the_mean_absolute_error_is_the_published_one() -> None:
    """0.47 LSB over -46..48 at a converter supply of 1.0 V, 0.83 LSB at 0.8 V; chips of other seeds likewise."""
    found = measured("mram64")
    assert found.covered == (-46, 48)
    assert found.mean_absolute_error_lsb == pytest.approx(0.47, abs=0.03)
    assert measured("mram64-0v8").mean_absolute_error_lsb == pytest.approx(0.83, abs=0.03)
    parameters = load_target("mram64").parameters
    for seed in (1, 2):
        assert characterize(parameters, seed, 100).mean_absolute_error_lsb == pytest.approx(0.47, abs=0.05)


def test_the_efficiency_is_the_published_one() -> None:
    """2 x 64 x 64 operations per cycle of 11.1 MHz at 347 uW: 262; at 225 uW: 404.1, published as 405."""
    assert measured("mram64").tera_operations_per_s_per_w == pytest.approx(262, abs=0.5)
    assert 404 <= measured("mram64-0v8").tera_operations_per_s_per_w <= 405


def test_the_delays_are_the_published_ones() -> None:
    """13 to 29 ns, within 10 %."""
    assert measured("mram64").delay_shortest_s == pytest.approx(13e-9, rel=0.1)
    assert measured("mram64").delay_longest_s == pytest.approx(29e-9, rel=0.1)


def test_the_write_energy_is_below_the_published_bound() -> None:
    """Below 110 nJ: 8,192 paths, one cycle of 1.5 V and well below 100 uA each."""
    assert 0.8 * 110e-9 < measured("mram64").e_write_array_j < 110e-9
    assert measured("mram64").e_write_array_j == pytest.approx(8192 * 1.5 * 90e-6 / 11.1e6)


def test_errors_are_listed_for_each_dot_product_and_centred() -> None:
    """Digital offsets are whole codes: each column keeps at most half a code of mean error."""
    found = measured("mram64")
    assert len(found.error_by_dot_lsb) == len(found.absolute_error_by_dot_lsb) == 65
    assert abs(np.mean(found.error_by_dot_lsb[9:57])) < 0.1
    assert np.mean(found.absolute_error_by_dot_lsb[9:57]) == pytest.approx(found.mean_absolute_error_lsb)
    assert np.mean(found.absolute_error_by_dot_lsb) == pytest.approx(found.mean_absolute_error_all_lsb)


def test_vectors_have_their_dot_product() -> None:
    for highs in (0, 1, 31, 64):
        drives = vectors_of_dot(64, highs, 50, seed=0)
        assert set(np.unique(drives)) <= {-1.0, 1.0}
        assert np.all(drives.sum(axis=1) == 2 * highs - 64)
    places = vectors_of_dot(64, 32, 4000, seed=0).mean(axis=0)
    assert np.abs(places).max() < 4 / np.sqrt(4000)  # every row as often high as low


def test_offsets_are_minus_the_mean_error_in_whole_codes() -> None:
    error = np.array([[1.4, -0.4, 0.6], [1.8, -0.4, 0.6]])
    assert np.array_equal(column_offsets(error), [-2, 0, -1])


def test_offsets_are_fitted_over_all_dot_products() -> None:
    """Measured once more, step by step, on a chip of wide spread whose four codes cover 8 of 33 dot products."""
    changes = {"rows": 32, "columns": 20, "tdc_codes": 4, "tdc_lowest_dot": -8, "tdc_dots_per_code": 2}
    target = load_target("mram64").with_quantities("test", **changes, r_high_sigma_ohm=1e4, r_low_sigma_ohm=1e4)
    p, vectors = target.parameters, 40
    found = characterize(p, seed=2, vectors=vectors)
    drives = np.concatenate([vectors_of_dot(32, highs, vectors, seed=2) for highs in range(33)])
    readings = read_images(ResistanceSumArray(p, 2), 0, 0, np.ones((32, 20), np.uint8), drives[None, :, None])[0, :, 0]
    dots = drives.sum(axis=1)
    code = (readings - (-7)) / 4  # code 0 holds -8 and -6
    right = np.clip(np.floor((dots + 9) / 4), 0, 3)
    covered = (dots >= -8) & (dots <= 6)
    error = code - right[:, None]
    offsets = -np.rint(error.mean(axis=0))
    assert not np.array_equal(offsets, -np.rint(error[covered].mean(axis=0)))
    assert found.covered == (-8, 6)
    assert found.columns_with_offset == np.count_nonzero(offsets)
    assert found.mean_absolute_error_lsb == pytest.approx(np.abs(error + offsets)[covered].mean(), rel=1e-6)
    assert found.mean_absolute_error_all_lsb == pytest.approx(np.abs(error + offsets).mean(), rel=1e-6)


def test_jitter_calibration_finds_what_the_target_holds() -> None:
    """The bisection on smaller runs comes back to the number in the description."""
    parameters = load_target("mram64").parameters
    assert calibrate_jitter(parameters, 0.47, seeds=1) == pytest.approx(parameters.tdc_jitter_dot, abs=0.6)

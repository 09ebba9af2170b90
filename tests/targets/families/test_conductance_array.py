"""The shared base of current-adding arrays: exact sums without errors, nonlinear terms, noise, range and codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from xbcompile.targets import load_target
from xbcompile.targets.error_sources import DEVICE_SOURCES
from xbcompile.targets.families.conductance_array import ConductanceArray, ConductanceArrayParameters, ConductanceImages

P = ConductanceArrayParameters(
    rows=12,
    columns=9,
    v_read_volt=1.0,
    full_scale_dot=6.0,
    read_noise=0.0,
    converter_codes=0,
    t_read_s=1e-6,
    cells_deviate=False,
)
FAMILIES = ("multicell", "memristor20", "sot", "sot-single")


def loaded(p: ConductanceArrayParameters, cells: np.ndarray, seed: int = 0) -> ConductanceImages:
    return ConductanceArray(p, None, seed).load(np.array([3]), np.array([5]), cells[None])


def case(vectors: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    drives = rng.uniform(-1, 1, (1, vectors, 2, P.rows)).astype(np.float32)
    return rng.uniform(-1, 1, (P.rows, P.columns)), drives


def test_sums_are_those_of_numpy_and_independent_of_the_order_of_rows() -> None:
    """Steps of 2**-24 of drives and, for sums below 16, of cells: a product is off by 2**-24 at most, and no sum rounds."""
    cells, drives = case()
    found = loaded(P, cells).read(drives, 0)
    expected = np.einsum("ivtr,rc->ivtc", drives.astype(np.float64), cells)
    np.testing.assert_allclose(found, expected, rtol=0, atol=P.rows * 2.0**-24)
    order = np.random.default_rng(1).permutation(P.rows)
    assert np.array_equal(loaded(P, cells[order]).read(np.ascontiguousarray(drives[..., order]), 0), found)


def test_terms_are_odd_powers_of_the_drive() -> None:
    _, drives = case()
    rng = np.random.default_rng(2)
    terms = rng.uniform(-1, 1, (3, P.rows, P.columns))

    class Nonlinear(ConductanceArray):
        def matrices(self, arrays: np.ndarray, tiles: np.ndarray, cells: np.ndarray) -> np.ndarray:
            return terms[None].copy()

    device = Nonlinear(P, None)
    found = device.load(np.array([0]), np.array([0]), np.zeros((1, P.rows, P.columns))).read(drives, 0)
    u = drives.astype(np.float64)
    expected = u @ terms[0] + (u * np.abs(u)) @ terms[1] + u**3 @ terms[2]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)
    zeros = np.zeros((1, P.rows, P.columns))
    assert np.array_equal(device.load(np.array([0]), np.array([0]), zeros).read(-drives, 0), -found)
    order = rng.permutation(P.rows)  # powers of drives are rounded too, so no sum rounds
    terms = terms[:, order]
    turned = np.ascontiguousarray(drives[..., order])
    assert np.array_equal(device.load(np.array([0]), np.array([0]), zeros).read(turned, 0), found)


def test_an_image_of_zeros_reads_zero() -> None:
    _, drives = case()
    assert not loaded(P, np.zeros((P.rows, P.columns))).read(drives, 0).any()


def test_read_noise_is_normal_relative_to_full_scale_and_new_for_each_read() -> None:
    cells, drives = case(2000)
    noisy = replace(P, read_noise=0.02)
    error = loaded(noisy, cells).read(drives, 0) - loaded(P, cells).read(drives, 0)
    assert stats.kstest(error.ravel() / (0.02 * 6.0), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(error[0].reshape(-1, P.columns).T) - np.eye(P.columns)).max() < 0.1
    assert abs(np.corrcoef(error[0, :, 0].ravel(), error[0, :, 1].ravel())[0, 1]) < 0.05
    other = loaded(noisy, cells, seed=1).read(drives, 0)
    assert not np.array_equal(other, loaded(noisy, cells).read(drives, 0))


@pytest.mark.parametrize("codes", [2, 15, 16, 255])
def test_the_converter_gives_the_nearest_of_its_codes(codes: int) -> None:
    cells, drives = case()
    device = ConductanceArray(replace(P, converter_codes=codes, full_scale_dot=1.5), None)
    reading = device.load(np.array([0]), np.array([0]), cells[None]).read(drives, 0)
    exact = loaded(P, cells).read(drives, 0)
    table = np.linspace(-1.5, 1.5, codes)
    nearest = table[np.abs(exact[..., None] - table).argmin(axis=-1)]
    np.testing.assert_allclose(reading, nearest, rtol=0, atol=1e-12)
    assert device.lsb == pytest.approx(table[1] - table[0])
    assert device.reading_limits == (-1.5, 1.5)
    assert (0 in np.round(table, 12)) == bool(codes % 2)  # an odd number of codes has one for 0


@pytest.mark.parametrize("name", FAMILIES)
def test_without_its_sources_a_device_reads_exact_sums(name: str) -> None:
    """And with one source off, the others act as before: noise is the same noise, chips are the same chips."""
    target = load_target(name)
    p = replace(target.parameters, rows=10, columns=6, read_noise=0.01, converter_codes=255)
    device_class = type(target.device())
    rng = np.random.default_rng(3)
    levels = p.array_spec().levels
    cells = rng.uniform(-1, 1, (1, 10, 6)).astype(np.float32) if levels is None else None
    if levels is not None:
        cells = rng.integers(0, len(levels), (1, 10, 6), np.uint8)
    drives = rng.uniform(-1, 1, (1, 20, 2, 10)).astype(np.float32)

    def read(*off: str) -> np.ndarray:
        parameters = p
        for source in off:
            parameters = parameters.without(source)
        return device_class(parameters, 4).load(np.array([1]), np.array([2]), cells).read(drives, 7)

    values = cells if levels is None else levels[cells]
    exact = drives.astype(np.float64) @ values[:, None].astype(np.float64)
    np.testing.assert_allclose(read(*DEVICE_SOURCES), exact, rtol=0, atol=1e-5)
    noise = read("systematic", "saturation", "rounding") - read(*DEVICE_SOURCES)
    assert noise.std() == pytest.approx(0.01 * p.full_scale_dot, rel=0.2)
    same_noise = read("saturation", "rounding") - read("saturation", "rounding", "random")
    np.testing.assert_allclose(same_noise, noise, rtol=0, atol=1e-9)
    no_noise = p.without("random")
    assert no_noise.without("random") == no_noise
    assert no_noise.without("rounding").lsb_dot is None


def test_a_converter_without_saturation_or_rounding() -> None:
    cells, drives = case()
    p = replace(P, converter_codes=15, full_scale_dot=1.5)
    exact = loaded(P, cells).read(drives, 0)
    assert np.array_equal(loaded(p.without("rounding"), cells).read(drives, 0), np.clip(exact, -1.5, 1.5))
    wide = loaded(p.without("saturation"), cells).read(drives, 0)
    assert np.abs(wide - exact).max() <= 1.5 / 14 + 1e-9
    assert np.abs(wide).max() > 1.5
    assert p.without("saturation").without("saturation") == p.without("saturation")


def test_a_write_draws_anew_for_each_array_and_tile() -> None:
    device = ConductanceArray(P, None, 5)
    seeds = [device.write_seed(array, tile) for array in range(20) for tile in range(20)]
    assert len(set(seeds)) == 400
    assert device.write_seed(3, 4) == ConductanceArray(P, None, 5).write_seed(3, 4)
    assert device.write_seed(3, 4) != ConductanceArray(P, None, 6).write_seed(3, 4)

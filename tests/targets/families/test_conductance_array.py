"""The shared base of current-adding arrays: exact sums without errors, nonlinear terms, noise, range and codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.support.device_kit import read_images, reads_of, written
from xbcompile.targets import WrittenImages, load_target
from xbcompile.targets.counter_random import standard_normal
from xbcompile.targets.error_sources import DEVICE_SOURCES
from xbcompile.targets.families.conductance_array import ConductanceArray, ConductanceArrayParameters
from xbcompile.targets.linear_images import LinearImages

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
READS = reads_of(5)
FAMILIES = ("multicell", "memristor20", "sot", "sot-single")


def loaded(p: ConductanceArrayParameters, cells: np.ndarray, seed: int = 0) -> LinearImages:
    return ConductanceArray(p, None, seed).load(written(3, cells))


def case(vectors: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    drives = rng.uniform(-1, 1, (1, vectors, 2, P.rows)).astype(np.float32)
    return rng.uniform(-1, 1, (P.rows, P.columns)), drives


def test_sums_are_those_of_numpy_and_independent_of_the_order_of_rows() -> None:
    """Steps of 2**-24 of drives and, for sums below 16, of cells: a product is off by 2**-24 at most, and no sum rounds."""
    cells, drives = case()
    found = loaded(P, cells).read(drives, READS)
    expected = np.einsum("ivtr,rc->ivtc", drives.astype(np.float64), cells)
    np.testing.assert_allclose(found, expected, rtol=0, atol=P.rows * 2.0**-24)
    order = np.random.default_rng(1).permutation(P.rows)
    assert np.array_equal(loaded(P, cells[order]).read(np.ascontiguousarray(drives[..., order]), READS), found)


def test_terms_are_odd_powers_of_the_drive() -> None:
    _, drives = case()
    rng = np.random.default_rng(2)
    terms = rng.uniform(-1, 1, (3, P.rows, P.columns))

    class Nonlinear(ConductanceArray):
        def matrices(self, written: WrittenImages) -> np.ndarray:
            return terms[None].copy()

    device, zeros = Nonlinear(P, None), np.zeros((P.rows, P.columns))
    found = read_images(device, 0, 0, zeros, drives)
    u = drives.astype(np.float64)
    expected = u @ terms[0] + (u * np.abs(u)) @ terms[1] + u**3 @ terms[2]
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-6)
    assert np.array_equal(read_images(device, 0, 0, zeros, -drives), -found)
    order = rng.permutation(P.rows)  # powers of drives are rounded too, so no sum rounds
    terms = terms[:, order]
    turned = np.ascontiguousarray(drives[..., order])
    assert np.array_equal(read_images(device, 0, 0, zeros, turned), found)


def test_an_image_of_zeros_reads_zero() -> None:
    _, drives = case()
    assert not loaded(P, np.zeros((P.rows, P.columns))).read(drives, READS).any()


def test_read_noise_is_normal_relative_to_full_scale_and_new_for_each_read() -> None:
    cells, drives = case(2000)
    noisy = replace(P, read_noise=0.02)
    error = loaded(noisy, cells).read(drives, READS) - loaded(P, cells).read(drives, READS)
    assert stats.kstest(error.ravel() / (0.02 * 6.0), "norm").pvalue > 1e-4
    assert abs(np.corrcoef(error[0].reshape(-1, P.columns).T) - np.eye(P.columns)).max() < 0.1
    assert abs(np.corrcoef(error[0, :, 0].ravel(), error[0, :, 1].ravel())[0, 1]) < 0.05
    other = loaded(noisy, cells, seed=1).read(drives, READS)
    assert not np.array_equal(other, loaded(noisy, cells).read(drives, READS))


@pytest.mark.parametrize("codes", [2, 15, 16, 255])
def test_the_converter_gives_the_nearest_of_its_codes(codes: int) -> None:
    cells, drives = case()
    device = ConductanceArray(replace(P, converter_codes=codes, full_scale_dot=1.5), None)
    reading = read_images(device, 0, 5, cells, drives)
    exact = loaded(P, cells).read(drives, READS)
    table = np.linspace(-1.5, 1.5, codes)
    nearest = table[np.abs(exact[..., None] - table).argmin(axis=-1)]
    np.testing.assert_allclose(reading, nearest, rtol=0, atol=1.5 * 2.0**-23)  # readings of a converter are float32
    assert device.lsb == pytest.approx(table[1] - table[0])
    assert device.reading_limits == (-1.5, 1.5)
    assert (0 in np.round(table, 12)) == bool(codes % 2)  # an odd number of codes has one for 0


@pytest.mark.parametrize("name", FAMILIES)
def test_without_its_sources_a_device_reads_exact_sums(name: str) -> None:
    """And with one source off, the others act as before: noise is the same noise, chips are the same chips."""
    target = load_target(name)
    p = replace(target.parameters, rows=10, columns=6, read_noise=0.01, converter_codes=255)
    device_class: Any = type(target.device())
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
        return read_images(device_class(parameters, 4), 1, 2, cells, drives, first_vector=7)

    values = cells if levels is None else levels[cells]
    exact = drives.astype(np.float64) @ values[:, None].astype(np.float64)
    np.testing.assert_allclose(read(*DEVICE_SOURCES), exact, rtol=0, atol=1e-5)
    noise = read("systematic", "saturation", "rounding") - read(*DEVICE_SOURCES)
    assert noise.std() == pytest.approx(0.01 * p.full_scale_dot, rel=0.2)
    same_noise = read("saturation", "rounding") - read("saturation", "rounding", "random")
    # Sums of ten products of at most 1 in single precision, then noise: eleven roundings of at most 10 2**-24 in each of four.
    np.testing.assert_allclose(same_noise, noise, rtol=0, atol=4 * 11 * 10 * 2.0**-24)
    no_noise = p.without("random")
    assert no_noise.without("random") == no_noise
    assert no_noise.without("rounding").lsb_dot is None


def test_a_converter_without_saturation_or_rounding() -> None:
    cells, drives = case()
    p = replace(P, converter_codes=15, full_scale_dot=1.5)
    exact = loaded(P, cells).read(drives, READS)
    assert np.array_equal(loaded(p.without("rounding"), cells).read(drives, READS), np.clip(exact, -1.5, 1.5))
    wide = loaded(p.without("saturation"), cells).read(drives, READS)
    assert np.abs(wide - exact).max() <= 1.5 / 14 + 1e-9
    assert np.abs(wide).max() > 1.5
    assert p.without("saturation").without("saturation") == p.without("saturation")


def test_a_write_draws_anew_for_each_array_and_number() -> None:
    """What a write draws follows from the chip, the array and the number of the write; rows keep what their last write drew."""

    def drawn(array: int, *numbers: int, seed: int = 5) -> np.ndarray:
        device = ConductanceArray(P, None, seed)
        return device.drawn(array, np.array(numbers), lambda key: standard_normal(key, (2, P.rows, P.columns)))

    every = {drawn(array, number).tobytes() for array in range(20) for number in range(20)}
    assert len(every) == 400
    assert np.array_equal(drawn(3, 4), drawn(3, 4))
    assert not np.array_equal(drawn(3, 4), drawn(3, 4, seed=6))
    assert not np.array_equal(drawn(3, 4), drawn(3, 4 + 2**32))
    mixed = drawn(3, *(4 if row % 3 else 9 for row in range(P.rows)))
    for row in range(P.rows):
        assert np.array_equal(mixed[:, row], drawn(3, 4 if row % 3 else 9)[:, row])

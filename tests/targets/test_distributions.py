"""Errors of a million readings of each family and kernel: normal up to their tails, independent of their neighbours, the same
on any processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom, chi2, kstest

from tests.support.kernel_digests import digests
from tests.support.tiles_kit import added, load_tiles, plain_routing
from xbcompile.targets import Target, load_target

READINGS, TILES, USED_ROWS = 1 << 20, 2, 3
# Columns of a tile: what goes row by row, and column by column.
BY_ROWS, BY_COLUMNS = 8, 2


def with_read_errors(name: str) -> Target:
    target = load_target(name)
    return target if name == "mram64" else target.with_quantities("test", read_noise=0.02)


def unit_errors(target: Target, width: int, coefficients: tuple[float, ...], vectors: int) -> np.ndarray:
    """Errors of readings in standard deviations: [vectors, tiles, width], of random inputs."""
    spec, off = target.array_spec, ["saturation", "rounding"]
    routing = plain_routing(spec, TILES, width, USED_ROWS, coefficients)
    values = np.random.default_rng(0).random((1, vectors, USED_ROWS), np.float32)
    if routing.scheme != "analogue":
        values = np.rint(values * len(coefficients))
    noisy = target.device(None, 3, without=off)
    exact = target.device(None, 3, without=[*off, "random"])
    found, expected = (added(load_tiles(device, spec, routing), values) for device in (noisy, exact))
    sigma = float(target.parameters.readout.noise_dot)
    return ((found - expected) / sigma).reshape(vectors, TILES, width)


@pytest.mark.parametrize("width", [BY_ROWS, BY_COLUMNS])
@pytest.mark.parametrize("name", ["mram64", "sot", "multicell", "memristor20"])
def test_errors_of_readings_are_normal_and_independent(name: str, width: int) -> None:
    """Kolmogorov-Smirnov; counts beyond 4 sigma; neighbouring columns, vectors, tiles, and slices where there are some."""
    target = with_read_errors(name)
    slices = 1 if target.array_spec.drive not in ("bipolar", "unipolar") else 2
    vectors = READINGS // (TILES * width)
    z = unit_errors(target, width, (1.0, 0.0)[:slices], vectors)
    assert kstest(z.ravel(), "norm").pvalue > 1e-4
    for side in (1, -1):
        beyond = int(np.count_nonzero(side * z > 4))
        assert 1e-5 < binom.cdf(beyond, z.size, ndtr(-4.0)) < 1 - 1e-5
    pairs = [(z[:-1], z[1:]), (z[:, 0], z[:, 1]), (z[..., :-1], z[..., 1:])]
    if slices == 2:
        pairs.append((z, unit_errors(target, width, (0.0, 1.0), vectors)))
    for one, other in pairs:
        assert abs(np.mean(one * other)) < 5 / np.sqrt(one.size)
        assert abs(np.mean((one**2 - 1) * (other**2 - 1))) < 5 * 2 / np.sqrt(one.size)


@pytest.mark.parametrize("width", [BY_ROWS, BY_COLUMNS])
def test_codes_have_the_probabilities_that_their_edges_say(width: int) -> None:
    """One input read again and again: each code as often as a normal error carries the exact sum between its edges."""
    target, vectors = load_target("mram64"), 1 << 15
    routing = plain_routing(target.array_spec, TILES, width, USED_ROWS, (1.0,))
    values = np.ones((1, vectors, USED_ROWS), np.float32)
    readings = added(load_tiles(target.device(None, 3), target.array_spec, routing), values)
    off = target.device(None, 3, without=["saturation", "rounding", "random"])
    exact = added(load_tiles(off, target.array_spec, routing), values[:, :1])[0]
    p = target.parameters
    edges = p.dot_of_lowest_code + p.lsb_dot * (np.arange(p.tdc_codes + 1) - 0.5)
    edges[[0, -1]] = -np.inf, np.inf
    probability = np.diff(ndtr((edges[:, None] - exact) / p.tdc_jitter_dot), axis=0)
    codes = np.rint((readings - p.dot_of_lowest_code) / p.lsb_dot)
    found = np.stack([np.count_nonzero(codes == code, axis=0) for code in range(p.tdc_codes)])
    often = probability * vectors >= 5
    statistic = ((found - probability * vectors)[often] ** 2 / (probability * vectors)[often]).sum()
    assert found.sum() == readings.size
    assert chi2.sf(statistic, often.sum() - (often.sum(axis=0) > 0).sum()) > 1e-4


def test_sums_are_the_same_on_any_processor() -> None:
    """Kernels compiled for the oldest processor, and another one's matrix products: no vector registers to speak of, no FMA."""
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "OPENBLAS_CORETYPE": "Prescott"}
    command = [sys.executable, "-m", "tests.support.kernel_digests"]
    found = subprocess.run(command, env=os.environ | other, capture_output=True, text=True, check=True).stdout
    assert json.loads(found) == digests()

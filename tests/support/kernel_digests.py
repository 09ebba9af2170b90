"""Digests of what the kernels give, also as a process of its own: `python -m tests.support.kernel_digests`."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from tests.support.tiles_kit import added, load_tiles, plain_routing
from xbcompile.ir import ArraySpec
from xbcompile.targets import BatchedDevice, load_target
from xbcompile.targets.families.error_histograms import ErrorHistogramArray


class Emulated(ErrorHistogramArray):
    """With histograms of its own, which take no measurement."""

    def histograms(self, array: int) -> tuple[np.ndarray, np.ndarray]:
        counts = np.random.default_rng(array).integers(0, 1000, (64, 65, 21))
        return counts, np.arange(-10.0, 11.0)


def digest(device: BatchedDevice, spec: ArraySpec, scheme: str, width: int) -> str:
    """Of the sums of three tiles over 300 vectors."""
    coefficients = (1.0,) if scheme == "analogue" else (0.5, 1.0, 2.0)
    routing = plain_routing(spec, 3, width, 10, coefficients, scheme)
    values = np.random.default_rng(2).random((1, 300, spec.rows), np.float32)
    if scheme != "analogue":
        values = np.floor(values * 8)
    sums = added(load_tiles(device, spec, routing), values, 2**40 - 100)
    return hashlib.sha256(sums.astype("<f8").tobytes()).hexdigest()


def digests() -> list[str]:
    """One family for each kernel, as all are compiled anew for another processor: by rows, of bits, and by columns."""
    mram, sot = load_target("mram64"), load_target("sot").with_quantities("test", read_noise=0.02)
    return [
        digest(mram.device(None, 3), mram.array_spec, "bitserial", 10),
        digest(Emulated(mram.parameters, 3), mram.array_spec, "thermometer", 10),
        digest(sot.device(None, 3), sot.array_spec, "analogue", 2),
    ]


if __name__ == "__main__":
    print(json.dumps(digests()))

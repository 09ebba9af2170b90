"""The machine: what it is, and the speed of the three things that a simulator of arrays cannot do without.

python -m benchmarks.machine
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from xbcompile.targets.counter_random import key_of, quantile_pieces, read_counter
from xbcompile.targets.read_noise import blocks_of, draw_noise, half_of, middle_quantiles

PACKAGES = (
    "xbcompile",
    "numpy",
    "numba",
    "scipy",
    "onnxruntime",
    "torch",
    "aihwkit-lightning",
    "badcrossbar",
    "cross-sim",
)
VECTORS, ROWS = 2_048, 64
COPIED_BYTES = 1 << 28
READS = 256  # of one draw of errors: what is drawn stays in the cache


def best_seconds(function: Callable[[], object], least_seconds: float = 0.3) -> float:
    """The shortest of as many calls as take so long."""
    function()
    best, end = float("inf"), time.perf_counter() + least_seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def product_flops(dtype: type) -> float:
    """Floating-point operations per second of products with one tile of 64x64, a thread."""
    generator = np.random.default_rng(0)
    vectors, tile = generator.random((VECTORS, ROWS)).astype(dtype), generator.random((ROWS, ROWS)).astype(dtype)
    result = np.empty_like(vectors)
    return 2 * VECTORS * ROWS * ROWS / best_seconds(lambda: np.matmul(vectors, tile, out=result))


def normals_per_second() -> float:
    """Errors of readings, as the kernels draw them."""
    noise, blocks = np.empty((READS, ROWS), np.float32), blocks_of(ROWS)
    words, halves = np.empty((READS, 4 * blocks), np.uint32), half_of(np.arange(ROWS), ROWS)
    counter = read_counter(key_of("benchmark", 0), 0, 0, (READS, 1, ROWS))
    keys, tables = (counter.key_low, counter.key_high), (middle_quantiles(), quantile_pieces())
    return noise.size / best_seconds(lambda: draw_noise(noise, words, counter, *keys, 0, 1, 0, blocks, halves, *tables))


def limits() -> dict[str, float]:
    """Per second and thread: operations of products, normal errors of readings, bytes copied."""
    source = np.ones(COPIED_BYTES // 8)
    copy = np.empty_like(source)
    with threadpool_limits(1, "blas"):
        return {
            "sgemm_flops": product_flops(np.float32),
            "dgemm_flops": product_flops(np.float64),
            "normals": normals_per_second(),
            "copied_bytes": COPIED_BYTES / best_seconds(lambda: np.copyto(copy, source)),
        }


def versions() -> dict[str, str]:
    """Of Python and of what is installed of the packages that are compared."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """As the system calls it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe() -> dict[str, Any]:
    """Processor, processors that may be used, system, versions, limits."""
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "versions": versions(),
        "limits": limits(),
    }


if __name__ == "__main__":
    print(json.dumps(describe()))

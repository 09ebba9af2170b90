"""What a layer gives on the exact device: through its tiles, or where vectors are many, most of them by one product."""

from __future__ import annotations

import numpy as np

from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.layer_input import LayerInput

FEW_VECTORS = 64  # so many all go through the tiles
_TILED = 16  # vectors of each run that goes through the tiles otherwise
_CHUNK_VALUES = 1 << 22  # gathered values at a time, 32 MiB


def exact_vectors(executor: LayerExecutor, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Output vectors, float64 [V, groups * outputs], and the shape that `lay_out` needs.

    What tiles do to a vector does not depend on its place: of many vectors the first, the last and some between go through the
    tiles, and all others are multiplied with the layer's code as a whole. How vectors are gathered, coded and put together
    again, which depends on their place, is the executor's own for all.

    Args:
        executor: of the layer, on the exact device.
        x: its input tensor.
    """
    source = executor.input(x)
    if source.count <= FEW_VECTORS:
        return executor.some(source, 0, source.count), source.shape
    y = _by_product(executor, source)
    for start in (0, (source.count - _TILED) // 2, source.count - _TILED):
        y[start : start + _TILED] = executor.some(source, start, start + _TILED)
    return y, source.shape


def _by_product(executor: LayerExecutor, source: LayerInput) -> np.ndarray:
    layer, cells = executor.layer, executor.code.weighted_cells().astype(np.float64)
    y = np.empty((source.count, layer.groups * layer.outputs))
    step = max(1, _CHUNK_VALUES // (layer.groups * layer.inputs))
    for start in range(0, source.count, step):
        stop = min(start + step, source.count)
        reading = executor.reading(source, start, stop)
        drive = reading.coded.value.astype(np.float64)  # summed over slices, each with its coefficient
        if executor.tiles.both_signs:
            drive = 2 * drive - executor.tiles.coefficients.sum()
        np.matmul(drive, cells, out=reading.sums)
        y[start:stop] = executor.recombined(reading)
    return y

"""Input tensors -> vectors: how a layer's geometry reads its input, in numpy."""

from __future__ import annotations

import math

import numpy as np

from xbcompile.errors import DataError
from xbcompile.ir.geometry import Contraction, Patches
from xbcompile.ir.layer import MatrixLayer


def gather(layer: MatrixLayer, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Collect the input vectors of a layer.

    Args:
        layer: the matrix layer.
        x: its input tensor.

    Returns:
        vectors [groups, V, K], a view where possible, and the shape that `lay_out` needs to undo the flattening.
        Vectors count up along axis 0 of x first, so the vectors of one sample are neighbours.

    Raises:
        DataError: a size that the model leaves open is none that the weights fit.
    """
    geometry = layer.geometry
    _check_size(layer, x)
    if isinstance(geometry, Contraction):
        moved = np.moveaxis(x, geometry.input_axis, -1)
        return moved.reshape(1, -1, layer.inputs), moved.shape[:-1]
    return _patches(layer, geometry, x)


def _check_size(layer: MatrixLayer, x: np.ndarray) -> None:
    geometry, wanted, axis = layer.geometry, layer.inputs, 1
    if isinstance(geometry, Contraction):
        axis = geometry.input_axis
    else:
        wanted = layer.groups * layer.inputs // math.prod(geometry.kernel)
    if x.ndim <= axis or x.ndim < -axis or x.shape[axis] != wanted:
        raise DataError(
            f"layer {layer.name!r}: its input {layer.input!r} has shape {'x'.join(map(str, x.shape))}; its weights want "
            f"{wanted} along axis {axis % max(x.ndim, 1)}"
        )


def _patches(layer: MatrixLayer, geometry: Patches, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    rank = len(geometry.kernel)
    spatial = x.shape[2:]
    pads = geometry.resolved_pads(spatial)
    widths = [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    padded = np.pad(x, widths) if any(pads) else x
    extent = tuple((k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True))
    axes = tuple(range(2, 2 + rank))
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=axes)  # [N, C, *out, *extent]
    strided = tuple(slice(None, None, s) for s in geometry.strides)
    dilated = tuple(slice(None, None, d) for d in geometry.dilations)
    windows = windows[(slice(None), slice(None), *strided, *dilated)]
    batch, output = x.shape[0], windows.shape[2 : 2 + rank]
    split = windows.reshape(batch, layer.groups, -1, *windows.shape[2:])  # [N, G, C/G, *out, *kernel]
    out_axes = tuple(range(3, 3 + rank))
    kernel_axes = tuple(range(3 + rank, 3 + 2 * rank))
    ordered = split.transpose(1, 0, *out_axes, 2, *kernel_axes)  # [G, N, *out, C/G, *kernel]
    return ordered.reshape(layer.groups, -1, layer.inputs), (batch, *output)

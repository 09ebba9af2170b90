"""Input tensors -> vectors, and vectors -> output tensors: the geometry of a layer, in numpy."""

from __future__ import annotations

import numpy as np

from xbcompile.ir import Contraction, MatrixLayer, Patches


def gather(layer: MatrixLayer, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Collect the input vectors of a layer.

    Args:
        layer: the matrix layer.
        x: its input tensor.

    Returns:
        vectors [groups, V, K], a view where possible, and the shape that `lay_out` needs to undo the flattening.
        Vectors count up along axis 0 of x first, so the vectors of one sample are neighbours.
    """
    geometry = layer.geometry
    if isinstance(geometry, Contraction):
        moved = np.moveaxis(x, geometry.input_axis, -1)
        return moved.reshape(1, -1, layer.inputs), moved.shape[:-1]
    return _patches(layer, geometry, x)


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


def lay_out(layer: MatrixLayer, y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Put output vectors [V, groups * M] in the layer's output tensor."""
    geometry = layer.geometry
    tensor = y.reshape(*shape, layer.groups * layer.outputs)
    if isinstance(geometry, Patches):
        return np.moveaxis(tensor, -1, 1)
    if geometry.squeeze:
        return tensor[..., 0]
    return np.moveaxis(tensor, -1, geometry.output_axis)


def collect(layer: MatrixLayer, tensor: np.ndarray) -> np.ndarray:
    """Inverse of `lay_out`: output vectors [V, groups * M] of a layer's output tensor."""
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        tensor = np.moveaxis(tensor, 1, -1)
    elif geometry.squeeze:
        tensor = tensor[..., None]
    else:
        tensor = np.moveaxis(tensor, geometry.output_axis, -1)
    return tensor.reshape(-1, layer.groups * layer.outputs)


def vectors_per_sample(layer: MatrixLayer, shape: tuple[int, ...]) -> int:
    """Vectors that one entry of axis 0 contributes, for an input tensor of this shape; 1 where axis 0 is not separable."""
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        return int(np.prod(geometry.output_size(shape[2:])))
    kept = list(shape)
    del kept[geometry.input_axis]
    return int(np.prod(kept[1:])) if len(kept) > 1 else 1


def count_vectors(layer: MatrixLayer, shape: tuple[int, ...]) -> int:
    """Vectors of an input tensor of this shape: what `gather` gives."""
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        return shape[0] * vectors_per_sample(layer, shape)
    kept = list(shape)
    del kept[geometry.input_axis]
    return int(np.prod(kept))

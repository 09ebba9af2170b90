"""Vectors -> output tensors and back, and counting vectors; `xbcompile.ir.gather` is the way in."""

from __future__ import annotations

import numpy as np

from xbcompile.ir import MatrixLayer, Patches


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

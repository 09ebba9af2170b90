"""Vectors -> output tensors and back, and counting vectors; `xbcompile.ir.gather` is the way in."""

from __future__ import annotations

from typing import Any

import numpy as np

from xbcompile.errors import DataError
from xbcompile.ir import MatrixLayer, Patches


def of_type(y: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Outputs, float64, in a layer's element type; whole numbers are rounded to, and wrap around as integer sums do."""
    if dtype.kind == "i":
        return np.rint(y).astype(np.int64).astype(dtype)
    with np.errstate(over="ignore"):  # infinite then, as in every runtime
        return y.astype(dtype)


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
    """Vectors of an input tensor of this shape: what `gather` gives.

    Raises:
        DataError: a tensor of this shape does not hold the layer's vectors, as inputs of another size than the model's do.
    """
    _check_shape(layer, shape)
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        return shape[0] * vectors_per_sample(layer, shape)
    kept = list(shape)
    del kept[geometry.input_axis]
    return int(np.prod(kept))


def _check_shape(layer: MatrixLayer, shape: tuple[int, ...]) -> None:
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        channels = layer.groups * layer.inputs // int(np.prod(geometry.kernel))
        wanted = (
            f"{channels} channels on axis 1 of {2 + len(geometry.kernel)}, and room for a {_by(geometry.kernel)} kernel"
        )
        fits = len(shape) == 2 + len(geometry.kernel) and shape[1] == channels
        fits = fits and all(size > 0 for size in geometry.output_size(shape[2:]))
    else:
        wanted = f"{layer.inputs} values along axis {geometry.input_axis}"
        fits = len(shape) >= -geometry.input_axis and shape[geometry.input_axis] == layer.inputs
    if not fits:
        raise DataError(
            f"layer {layer.name!r} wants {wanted}; its input has shape {_by(shape) or 'scalar'}: give inputs of the size that "
            f"the model was made for"
        )


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))

"""Tensors and vectors: how a layer's geometry reads its input and lays out its output, in numpy, and how vectors count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xbcompile.errors import DataError
from xbcompile.ir.geometry import Contraction, Patches
from xbcompile.ir.layer import MatrixLayer


def gather(layer: MatrixLayer, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Collect the input vectors of a layer.

    Args:
        layer: the matrix layer.
        x: its input tensor, or several stacked along a new axis 0, as the steps of a recurrence are.

    Returns:
        vectors [groups, V, K], a view where possible, and the shape that `lay_out` needs to undo the flattening.
        Vectors count up along the layer's axis of samples first, so the vectors of one sample are neighbours.

    Raises:
        DataError: a size that the model leaves open is none that the weights fit.
    """
    geometry = layer.geometry
    _check_size(layer, x)
    if isinstance(geometry, Contraction):
        moved = np.moveaxis(np.moveaxis(x, geometry.input_axis, -1), _kept_axis(layer, x.ndim), 0)
        return moved.reshape(1, -1, layer.inputs), moved.shape[:-1]
    return _patches(layer, geometry, x)


def _kept_axis(layer: MatrixLayer, rank: int) -> int:
    """The axis of samples among those of the input, of so many axes, that are left without the inputs' own."""
    geometry = layer.geometry
    assert isinstance(geometry, Contraction)
    return layer.sample_axis - (layer.sample_axis > rank + geometry.input_axis)


def _check_size(layer: MatrixLayer, x: np.ndarray) -> None:
    geometry, wanted = layer.geometry, layer.inputs
    if isinstance(geometry, Contraction):
        axis, fewest = geometry.input_axis, -geometry.input_axis
    else:
        axis, fewest = geometry.channel_axis, 1 - geometry.channel_axis
        wanted = layer.groups * layer.inputs // math.prod(geometry.kernel)
    if x.ndim < fewest or x.shape[axis] != wanted:
        raise DataError(
            f"layer {layer.name!r}: its input {layer.input!r} has shape {'x'.join(map(str, x.shape))}; its weights want "
            f"{wanted} along axis {axis % max(x.ndim, 1)}"
        )


def _patches(layer: MatrixLayer, geometry: Patches, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    rank, samples = len(geometry.kernel), x.shape[: geometry.channel_axis]
    x = x.reshape(math.prod(samples), *x.shape[geometry.channel_axis :])
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
    split = windows.reshape(
        batch, layer.groups, x.shape[1] // layer.groups, *windows.shape[2:]
    )  # [N, G, C/G, *out, *kernel]
    out_axes = tuple(range(3, 3 + rank))
    kernel_axes = tuple(range(3 + rank, 3 + 2 * rank))
    ordered = split.transpose(1, 0, *out_axes, 2, *kernel_axes)  # [G, N, *out, C/G, *kernel]
    return ordered.reshape(layer.groups, batch * math.prod(output), layer.inputs), (*samples, *output)


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
        return np.moveaxis(tensor, -1, geometry.channel_axis)
    tensor = np.moveaxis(tensor, 0, _kept_axis(layer, tensor.ndim))
    if geometry.squeeze:
        return tensor[..., 0]
    return np.moveaxis(tensor, -1, geometry.output_axis)


def collect(layer: MatrixLayer, tensor: np.ndarray) -> np.ndarray:
    """Inverse of `lay_out`: output vectors [V, groups * M] of a layer's output tensor.

    Raises:
        DataError: the tensor has not the axes that the layer's outputs have.
    """
    geometry = layer.geometry
    axes = tensor.ndim + (not isinstance(geometry, Patches) and geometry.squeeze)
    if isinstance(geometry, Patches):
        fits = axes >= -geometry.channel_axis
    else:
        fits = axes >= -geometry.output_axis and 0 <= _kept_axis(layer, axes) < max(axes - 1, 1)
    if not fits:
        raise DataError(
            f"layer {layer.name!r}: its output {layer.output!r} has {tensor.ndim} axes, which its vectors do not fit; compile "
            f"the model again"
        )
    if isinstance(geometry, Patches):
        tensor = np.moveaxis(tensor, geometry.channel_axis, -1)
    else:
        tensor = tensor[..., None] if geometry.squeeze else np.moveaxis(tensor, geometry.output_axis, -1)
        tensor = np.moveaxis(tensor, _kept_axis(layer, tensor.ndim), 0)
    return tensor.reshape(-1, layer.groups * layer.outputs)


def vectors_per_sample(layer: MatrixLayer, shape: tuple[int, ...]) -> int:
    """Vectors that one entry of the axis of samples contributes, for an input tensor of this shape; 1 of a single vector.

    Raises:
        DataError: a tensor of this shape does not hold the layer's vectors.
    """
    _check_shape(layer, shape)
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        axis = geometry.channel_axis
        return math.prod((*shape[1:axis], *geometry.output_size(shape[axis + 1 :])))
    kept = list(shape)
    del kept[geometry.input_axis]
    if len(kept) > 1:
        del kept[_kept_axis(layer, len(shape))]
        return int(np.prod(kept))
    return 1


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
        axis = geometry.channel_axis
        fits = len(shape) in (1 - axis, 2 - axis) and shape[axis] == channels
        fits = fits and all(size > 0 for size in geometry.output_size(shape[axis + 1 :]))
    else:
        wanted = f"{layer.inputs} values along axis {geometry.input_axis}"
        fits = len(shape) >= -geometry.input_axis and shape[geometry.input_axis] == layer.inputs
        if fits and not 0 <= _kept_axis(layer, len(shape)) < max(len(shape) - 1, 1):
            wanted, fits = f"{wanted} and samples along axis {layer.sample_axis}", False
    if not fits:
        raise DataError(
            f"layer {layer.name!r} wants {wanted}; its input has shape {_by(shape) or 'scalar'}: give inputs of the size that "
            f"the model was made for"
        )


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))

"""A layer's input tensor, of which vectors are gathered and coded some at a time, so that they never take much memory."""

from __future__ import annotations

import math

import numpy as np

from xbcompile.deferred import njit
from xbcompile.ir import MatrixLayer, Patches
from xbcompile.ir.vectors import count_vectors, gather
from xbcompile.runtime.drive import CodedInput, InputCoder


class LayerInput:
    """An input tensor as vectors, counted along the layer's axis of samples first.

    Args:
        layer: the matrix layer.
        x: its input tensor, or several stacked along a new axis 0, as the steps of a recurrence are.
        both_signs: rows take both signs, see `InputCoder`.

    Attributes:
        count: number of vectors.
        shape: what `lay_out` needs.

    Raises:
        DataError: a size that the model leaves open is none that the weights fit.
    """

    def __init__(self, layer: MatrixLayer, x: np.ndarray, both_signs: bool) -> None:
        self.layer, self.count = layer, count_vectors(layer, x.shape)
        self._patches: _PatchGatherer | None = None
        self._vectors = np.empty((1, 0, 0))
        if isinstance(layer.geometry, Patches):
            self._patches = _PatchGatherer(layer, layer.geometry, x)
            self.shape = self._patches.shape
        else:
            self._vectors, self.shape = gather(layer, x)
        self.coder = InputCoder(layer, x, self.count, both_signs)

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """Some vectors, float32 [groups, stop - start, K]; a view where possible.

        Args:
            start: the first.
            stop: end.
        """
        if self._patches is not None:
            return self._patches.vectors(start, stop)
        return self._vectors[:, start:stop].astype(np.float32, copy=False)

    def coded(self, start: int, stop: int) -> CodedInput:
        """The codes of some vectors.

        Args:
            start: the first.
            stop: end.
        """
        return self.coder.code(self.vectors(start, stop), start)


class _PatchGatherer:
    """Patches of a tensor with one to three spatial axes, as those of one with three."""

    def __init__(self, layer: MatrixLayer, geometry: Patches, x: np.ndarray) -> None:
        rank, axis = len(geometry.kernel), geometry.channel_axis
        samples, spatial = x.shape[:axis], x.shape[axis + 1 :]
        output, pads = geometry.output_size(spatial), geometry.resolved_pads(spatial)
        self.shape = (*samples, *output)
        self.each = math.prod(output)  # vectors of a sample
        ahead = (1,) * (3 - rank)
        self.x = x.reshape(math.prod(samples), x.shape[axis], *ahead, *spatial)
        self.groups, self.inputs = layer.groups, layer.inputs
        axes = (*ahead, *output), (*ahead, *geometry.kernel), (*ahead, *geometry.strides), (*ahead, *geometry.dilations)
        self.numbers = np.array([*axes, (*(0 for _ in ahead), *pads[:rank])], np.int64)

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """See LayerInput."""
        out = np.empty((self.groups, stop - start, self.inputs), np.float32)
        first, last = start // max(self.each, 1), -(-stop // max(self.each, 1))
        touched = self.x[first:last].astype(np.float32, order="C", copy=False)
        _gather_patches(out, touched, start - first * self.each, self.numbers)
        return out


@njit(cache=True, nogil=True)
def _gather_patches(out, x, start, numbers):  # type: ignore[no-untyped-def]  # numba infers
    """Fill out [groups, vectors, inputs] with patches of x [samples, channels, A, B, C], from one vector on.

    Rows of numbers: sizes of the output, kernel, strides, dilations, padding before; for each of the three axes.
    """
    groups, vectors, _ = out.shape
    _, channels, size_a, size_b, size_c = x.shape
    out_a, out_b, out_c = numbers[0]
    taps_a, taps_b, taps_c = numbers[1]
    per_group = channels // groups
    last_c = (taps_c - 1) * numbers[3, 2]
    for g in range(groups):
        for v in range(vectors):
            sample, place = divmod(start + v, out_a * out_b * out_c)
            into, at = out[g, v], 0
            first_a = place // (out_b * out_c) * numbers[2, 0] - numbers[4, 0]
            first_b = place // out_c % out_b * numbers[2, 1] - numbers[4, 1]
            first_c = place % out_c * numbers[2, 2] - numbers[4, 2]
            inside = first_c >= 0 and first_c + last_c < size_c
            for channel in range(g * per_group, (g + 1) * per_group):
                for i in range(taps_a):
                    a = first_a + i * numbers[3, 0]
                    for j in range(taps_b):
                        b = first_b + j * numbers[3, 1]
                        if not (0 <= a < size_a and 0 <= b < size_b):
                            for k in range(taps_c):
                                into[at + k] = 0
                        elif inside:
                            row = x[sample, channel, a, b]
                            for k in range(taps_c):
                                into[at + k] = row[first_c + k * numbers[3, 2]]
                        else:
                            row = x[sample, channel, a, b]
                            for k in range(taps_c):
                                c = first_c + k * numbers[3, 2]
                                into[at + k] = row[c] if 0 <= c < size_c else np.float32(0)
                        at += taps_c

"""A layer's input tensor, of which vectors are gathered and coded some at a time, so that they never take much memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from xbcompile.ir import MatrixLayer, Patches
from xbcompile.ir.vectors import count_vectors, gather
from xbcompile.runtime.drive import CodedInput, InputCoder
from xbcompile.targets.patch_values import PatchValues


class LayerInput:
    """An input tensor as vectors, counted along the layer's axis of samples first.

    Args:
        layer: the matrix layer.
        x: its input tensor, or several stacked along a new axis 0, as the steps of a recurrence are.
        both_signs: rows take both signs, see `InputCoder`.

    Attributes:
        count: number of vectors.
        shape: what `lay_out` needs.
        coder: codes them.

    Raises:
        DataError: a size that the model leaves open is none that the weights fit.
    """

    def __init__(self, layer: MatrixLayer, x: np.ndarray, both_signs: bool) -> None:
        self.count = count_vectors(layer, x.shape)
        self.coder = InputCoder(layer, x, self.count, both_signs)
        self._patches: _Patches | None = None
        self._vectors = np.empty((1, 0, 0))
        if isinstance(layer.geometry, Patches):
            self._patches = _Patches(layer, layer.geometry, x)
            self.shape = self._patches.shape
        else:
            self._vectors, self.shape = gather(layer, x)

    def vectors(self, start: int, stop: int) -> np.ndarray:
        """Some vectors, float32 [groups, stop - start, K]; a view where possible.

        Args:
            start: the first.
            stop: end.
        """
        if self._patches is None:
            return self._vectors[:, start:stop].astype(np.float32, copy=False)
        return self._patches.between(start, stop, _as_they_are).vectors()

    def coded(self, start: int, stop: int) -> CodedInput:
        """The codes of some vectors.

        Args:
            start: the first.
            stop: end.
        """
        if self._patches is None or not self.coder.all_driven:
            return self.coder.code(self.vectors(start, stop), start)
        # A value is in many patches: it is coded once, and padding with it.
        values = self._patches.between(start, stop, self.coder.values)
        return self.coder.scaled(values.vectors(), start)

    @property
    def in_patches(self) -> bool:
        """Whether vectors are patches of values that rows take: `patches` has them."""
        return self._patches is not None and self.coder.all_driven

    @property
    def patch_bytes(self) -> int:
        """Bytes that the values of a patch take, padded, coded and as drives, where all patches of a sample share them."""
        assert self._patches is not None
        return -(-(4 + 4 + 8) * self._patches.sample_size // max(1, len(self._patches.starts)))

    def patches(self, start: int, stop: int) -> tuple[PatchValues, np.ndarray, np.ndarray]:
        """The codes of some vectors where they lie, and `gain` and `shift` as of `CodedInput`.

        Args:
            start: the first.
            stop: end.
        """
        assert self._patches is not None
        return self._patches.between(start, stop, self.coder.values), *self.coder.scale(start, stop)


def _as_they_are(samples: np.ndarray, first: int) -> np.ndarray:
    return samples


class _Patches:
    """Patches of a tensor with one to three spatial axes, as those of one with three."""

    def __init__(self, layer: MatrixLayer, geometry: Patches, x: np.ndarray) -> None:
        rank, axis = len(geometry.kernel), geometry.channel_axis
        samples, spatial = x.shape[:axis], x.shape[axis + 1 :]
        output, pads = geometry.output_size(spatial), geometry.resolved_pads(spatial)
        ahead, none = (1,) * (3 - rank), (0,) * (3 - rank)
        self.shape = (*samples, *output)
        self.x = x.reshape(math.prod(samples), x.shape[axis], *ahead, *spatial)
        self.groups = layer.groups
        self.before, after = (*none, *pads[:rank]), (*none, *pads[rank:])
        self.size = tuple(sum(each) for each in zip(self.before, self.x.shape[2:], after, strict=True))  # padded
        self.sample_size = self.x.shape[1] * math.prod(self.size)
        channels = x.shape[axis] // layer.groups
        kernel, dilations = (*ahead, *geometry.kernel), (*ahead, *geometry.dilations)
        # Where the values of a patch lie behind its first one, in a padded sample; and where the patches of a sample start.
        self.taps = self._places((channels, *kernel), (1, *dilations)).astype(np.uint32)
        self.starts = self._places((1, *ahead, *output), (1, *ahead, *geometry.strides)).astype(np.uint32)
        self._held: tuple[tuple[int, int, object], np.ndarray] | None = None

    def _places(self, sizes: tuple[int, ...], steps: tuple[int, ...]) -> np.ndarray:
        """Flat places in a padded sample of a grid of channels and three spatial axes."""
        grid = np.indices(sizes).reshape(4, -1) * np.array(steps)[:, None]
        return np.ravel_multi_index(tuple(grid), (self.x.shape[1] + sizes[0], *self.size))

    def between(self, start: int, stop: int, prepare: Callable[[np.ndarray, int], np.ndarray]) -> PatchValues:
        """Some patches.

        Args:
            start: the first.
            stop: end.
            prepare: what is done to samples before, float32 [samples, channels, A, B, C], the first of which has this number.
        """
        each = max(1, len(self.starts))
        first, last = start // each, -(-stop // each)
        padded, size = self._padded(first, last, prepare), self.sample_size
        return PatchValues(
            padded.reshape(-1), size, size // self.groups, self.groups, self.starts, self.taps, start - first * each, stop - start
        )  # fmt: skip

    def _padded(self, first: int, last: int, prepare: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """Samples with their padding, prepared; the last ones stay, as patches of a large sample are gathered in turn."""
        held, key = self._held, (first, last, prepare)
        if held is not None and held[0] == key:
            return held[1]
        some = self.x[first:last]
        padded = np.zeros((*some.shape[:2], *self.size), np.float32)
        inside = tuple(slice(a, a + n) for a, n in zip(self.before, some.shape[2:], strict=True))
        padded[(slice(None), slice(None), *inside)] = some
        padded = prepare(padded, first)
        self._held = key, padded
        return padded

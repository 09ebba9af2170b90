"""Coding input vectors: the arithmetic of `InputCode`, float32 as the host graph does it.

No row takes a NaN. An infinite input is clipped as any value outside of a calibrated range; without such a range no row takes it
either, nor one so large that the range might leave float32. What rows cannot take is 0 on the array, and the outputs of its
vector follow from float arithmetic alone: `NotDriven`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit
from xbcompile.ir import Contraction, InputCode, MatrixLayer


class NotDriven(NamedTuple):
    """Vectors that hold values which no row takes. All their outputs are NaN or infinite, whatever else they hold.

    Attributes:
        group: int [n], group of each.
        vector: int [n], its place among the vectors.
        values: float32 [n, K]: NaN or infinite where rows cannot take it, 0 elsewhere.
    """

    group: np.ndarray
    vector: np.ndarray
    values: np.ndarray


_FLOAT32 = np.finfo(np.float32)


@dataclass(frozen=True)
class CodedInput:
    """Coded vectors of one layer.

    Args:
        value: float32 [groups, V, K]: the level index (a whole number), the analogue v in 0..1, or x itself.
        gain: float64 [V or 1]: x ~= gain * (sum_t c_t * u_t) + shift for drives u in the target's alphabet.
        shift: float64 [V or 1].
        not_driven: vectors whose outputs do not come from the array; None: there are none.
    """

    value: np.ndarray
    gain: np.ndarray
    shift: np.ndarray
    not_driven: NotDriven | None = None


class InputCoder:
    """Codes the vectors of one input tensor, some at a time.

    Args:
        layer: the layer, with its input code.
        x: the input tensor that vectors are gathered from.
        count: how many vectors that gives.
        both_signs: rows take 2 v - 1 instead of v.
    """

    def __init__(self, layer: MatrixLayer, x: np.ndarray, count: int, both_signs: bool) -> None:
        self.layer, self.both_signs = layer, both_signs
        self.limit = _largest_driven(layer.input_code)
        self.all_driven = _all_driven(x, self.limit)
        self.ranges = _ranges(layer, x if self.all_driven else np.where(np.abs(x) <= self.limit, x, 0))
        self.each = count // max(1, len(self.ranges[0])) if self.ranges else 0  # vectors of one range

    def code(self, vectors: np.ndarray, first: int = 0) -> CodedInput:
        """Code gathered vectors, all or some that follow each other.

        Args:
            vectors: float32 [groups, V, K].
            first: the first one's place among all.
        """
        if self.all_driven:
            return self._coded(vectors, first)
        strange = ~(np.abs(vectors) <= self.limit)
        coded = self._coded(np.where(strange, np.float32(0), vectors), first)
        group, vector = np.nonzero(strange.any(axis=2))
        lost = vectors[group, vector]
        values = np.where(strange[group, vector], np.copysign(np.inf, lost) + np.where(np.isnan(lost), lost, 0), 0)
        return replace(coded, not_driven=NotDriven(group, vector, values.astype(np.float32)))

    def _coded(self, vectors: np.ndarray, first: int) -> CodedInput:
        """`code` of values that rows take."""
        code = self.layer.input_code
        if code is None:
            return CodedInput(vectors, np.ones(1), np.zeros(1))
        low, high = self._ranges_of(first, vectors, self.each)
        return _scaled(code, _levels(code, vectors, low, high), low, high, self.both_signs)

    def _ranges_of(self, first: int, vectors: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray]:
        """Ranges, [1] or [V], of vectors that follow each other, so many of each sample."""
        assert self.layer.input_code is not None
        if self.ranges is None:
            return _widened(self.layer.input_code, vectors[0].min(axis=1), vectors[0].max(axis=1), padded=False)
        if len(self.ranges[0]) == 1:
            return self.ranges
        which = (first + np.arange(vectors.shape[1])) // each
        return self.ranges[0][which], self.ranges[1][which]

    def values(self, samples: np.ndarray, first: int) -> np.ndarray:
        """The codes of samples, all of whose values rows take; float32, of the same shape.

        Args:
            samples: float32 [samples, ...], of a layer whose vectors are patches.
            first: number of the first.
        """
        code = self.layer.input_code
        if code is None:
            return samples
        flat = samples.reshape(1, len(samples), math.prod(samples.shape[1:]))
        low, high = self._ranges_of(first, flat, 1)
        return _levels(code, flat, low, high).reshape(samples.shape)

    def scaled(self, values: np.ndarray, first: int) -> CodedInput:
        """Gathered codes, float32 [groups, V, K], with what they stand for.

        Args:
            values: of `values`.
            first: the first vector's place among all.
        """
        code = self.layer.input_code
        if code is None:
            return CodedInput(values, np.ones(1), np.zeros(1))
        return _scaled(code, values, *self._ranges_of(first, values, self.each), self.both_signs)

    def scale(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """`gain` and `shift` of some vectors of a layer whose vectors are patches, as of `CodedInput`.

        Args:
            first: the first.
            stop: end.
        """
        coded = self.scaled(np.empty((0, stop - first, 0), np.float32), first)
        return coded.gain, coded.shift


def code_vectors(layer: MatrixLayer, x: np.ndarray, vectors: np.ndarray, both_signs: bool) -> CodedInput:
    """Code all vectors of a tensor.

    Args:
        layer: the layer, with its input code.
        x: the input tensor that the vectors were gathered from.
        vectors: float32 [groups, V, K].
        both_signs: rows take 2 v - 1 instead of v.
    """
    return InputCoder(layer, x, vectors.shape[1], both_signs).code(vectors)


def join_coded(calls: Sequence[CodedInput], vectors: Sequence[int]) -> CodedInput:
    """Vectors of several input tensors of a layer as if they were of one.

    Args:
        calls: each tensor's.
        vectors: how many each has.
    """
    gain, shift = (
        np.concatenate([np.broadcast_to(each, n) for each, n in zip(values, vectors, strict=True)])
        for values in ([call.gain for call in calls], [call.shift for call in calls])
    )
    firsts = accumulate(vectors, initial=0)
    parts = [
        (lost.group, lost.vector + first, lost.values)
        for call, first in zip(calls, firsts, strict=False)
        if (lost := call.not_driven) is not None
    ]
    not_driven = NotDriven(*map(np.concatenate, zip(*parts, strict=True))) if parts else None
    return CodedInput(np.concatenate([call.value for call in calls], axis=1), gain, shift, not_driven)


def _largest_driven(code: InputCode | None) -> np.float32:
    """The largest size of a value that rows take, after clipping; no NaN is within it.

    A number of Python would be compared in the type of what it is compared with, and be infinite as a float16.
    """
    if code is None:
        return _FLOAT32.max
    return _FLOAT32.max / np.float32(2) if code.is_dynamic else np.float32(np.inf)


def _all_driven(x: np.ndarray, limit: np.float32) -> bool:
    """Whether rows take all values of a tensor; two passes over it, and no memory."""
    return not x.size or bool(-limit <= x.min() and x.max() <= limit)  # false for NaN


def _levels(code: InputCode, values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Values [groups, vectors, inputs] as codes of ranges [1] or [vectors]; float32."""
    coded = np.empty(values.shape, np.float32)
    _code(coded, np.ascontiguousarray(values, np.float32), low, high, np.float32(code.steps))
    return coded


@njit(cache=True, nogil=True, error_model="numpy")
def _code(coded, values, low, high, steps):  # type: ignore[no-untyped-def]  # numba infers float32
    """`_levels`; NaN stays."""
    zero, one = np.float32(0), np.float32(1)
    for g in range(coded.shape[0]):
        for v in range(coded.shape[1]):
            lowest, highest = low[v % len(low)], high[v % len(low)]
            given, out = values[g, v], coded[g, v]
            if steps == zero:
                span = highest - lowest
                span = span if span > zero else one
                for k in range(len(out)):
                    value = given[k]
                    value = lowest if value < lowest else value
                    value = highest if value > highest else value
                    out[k] = (value - lowest) / span
            else:
                # A constant vector has a step of 0 and level 0: its value is the shift, and its readings do not count.
                step = (highest - lowest) / steps
                step = step if step > zero else one
                for k in range(len(out)):
                    level = np.rint((given[k] - lowest) / step)
                    level = zero if level < zero else level
                    out[k] = steps if level > steps else level


def _scaled(code: InputCode, value: np.ndarray, low: np.ndarray, high: np.ndarray, both_signs: bool) -> CodedInput:
    """Codes with what they stand for, for ranges, float32 [1] or [V]."""
    shift = low.astype(np.float64)
    if code.steps == 0:
        gain, middle = (high - low).astype(np.float64), 0.5
    else:
        gain = ((high - low) / np.float32(code.steps)).astype(np.float64)
        middle = code.coefficients.sum() / 2  # sum c u = 2 L - sum c
    return CodedInput(value, gain / 2, shift + gain * middle) if both_signs else CodedInput(value, gain, shift)


def _ranges(layer: MatrixLayer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Low and high, float32: one for all vectors, or of each sample; None: each vector has its own, or needs none."""
    code, geometry = layer.input_code, layer.geometry
    if code is None:
        return None
    if not code.is_dynamic:
        return np.array([code.low], np.float32), np.array([code.high], np.float32)
    if isinstance(geometry, Contraction):
        return None
    axes = tuple(range(geometry.channel_axis, 0))
    return _widened(code, x.min(axis=axes).ravel(), x.max(axis=axes).ravel(), padded=True)


def _widened(code: InputCode, low: np.ndarray, high: np.ndarray, padded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ranges found at run time, float32, with what they must hold besides: padding is 0."""
    low, high = low.astype(np.float32, copy=False), high.astype(np.float32, copy=False)
    if padded or code.span is not None:
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    if code.span is not None:
        low, high = _stretched(low, high, np.float32(code.span), np.float32(code.steps))
    return low, high


def _stretched(low: np.ndarray, high: np.ndarray, span: np.float32, steps: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Ranges that 0 is in, stretched about it to a span: about where the zero point is that gave them their window."""
    step, width = span / steps, high - low
    low = np.rint(low * (span / np.where(width > 0, width, np.float32(1))) / step) * step
    return low, low + span

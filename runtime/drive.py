"""Coding input vectors: the arithmetic of `InputCode`, float32 as the host graph does it.

No row takes a NaN. An infinite input is clipped as any value outside of a calibrated range; without such a range no row takes it
either, nor one so large that the range might leave float32. What rows cannot take is 0 on the array, and the outputs of its
vector follow from float arithmetic alone: `NotDriven`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from xbcompile.ir import Contraction, InputCode, MatrixLayer, Patches


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


def code_vectors(layer: MatrixLayer, x: np.ndarray, vectors: np.ndarray, bipolar: bool) -> CodedInput:
    """Code gathered vectors.

    Args:
        layer: the layer, with its input code.
        x: the input tensor that the vectors were gathered from (for ranges found at run time).
        vectors: float32 [groups, V, K].
        bipolar: rows take 2 v - 1 instead of v.
    """
    limit = _largest_driven(layer.input_code)
    if _all_driven(x, limit):
        return _coded(layer, x, vectors, bipolar)
    strange = ~(np.abs(vectors) <= limit)
    x = np.where(np.abs(x) <= limit, x, np.float32(0))  # what counts for ranges found at run time
    coded = _coded(layer, x, np.where(strange, np.float32(0), vectors), bipolar)
    group, vector = np.nonzero(strange.any(axis=2))
    lost = vectors[group, vector]
    values = np.where(strange[group, vector], np.copysign(np.inf, lost) + np.where(np.isnan(lost), lost, 0), 0)
    return replace(coded, not_driven=NotDriven(group, vector, values.astype(np.float32)))


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


def _largest_driven(code: InputCode | None) -> float:
    """The largest size of a value that rows take, after clipping; no NaN is within it."""
    if code is None:
        return float(_FLOAT32.max)
    return float(_FLOAT32.max) / 2 if code.is_dynamic else np.inf


def _all_driven(x: np.ndarray, limit: float) -> bool:
    """Whether rows take all values of a tensor; two passes over it, and no memory."""
    return not x.size or bool(-limit <= x.min() and x.max() <= limit)  # false for NaN


def _coded(layer: MatrixLayer, x: np.ndarray, vectors: np.ndarray, bipolar: bool) -> CodedInput:
    """`code_vectors` of values that rows take."""
    code = layer.input_code
    if code is None:
        return CodedInput(vectors, np.ones(1), np.zeros(1))
    low, high = _range(layer, code, x, vectors)
    if code.steps == 0:
        span = (high - low).astype(np.float32)
        value = np.minimum(np.maximum(vectors, low[:, None]), high[:, None])
        value = (value - low[:, None]) / np.where(span > 0, span, np.float32(1))[:, None]
        gain, shift = span.astype(np.float64), low.astype(np.float64)
        return CodedInput(value, gain / 2, shift + gain / 2) if bipolar else CodedInput(value, gain, shift)
    step = (high - low) / np.float32(code.steps)
    # A constant vector has a step of 0 and level 0: its value is the shift, and its readings do not count.
    with np.errstate(over="ignore"):  # infinite, and clipped
        value = np.rint((vectors - low[:, None]) / np.where(step > 0, step, np.float32(1))[:, None])
    np.clip(value, 0, code.steps, out=value)
    gain, shift = step.astype(np.float64), low.astype(np.float64)
    if bipolar:  # sum c u = 2 L - sum c
        return CodedInput(value, gain / 2, shift + gain * code.coefficients.sum() / 2)
    return CodedInput(value, gain, shift)


def _range(layer: MatrixLayer, code: InputCode, x: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high, float32 [1] or [V]."""
    if not code.is_dynamic:
        return np.array([code.low], np.float32), np.array([code.high], np.float32)
    zero = np.float32(0)
    if isinstance(layer.geometry, Contraction):
        low, high = vectors[0].min(axis=1), vectors[0].max(axis=1)
    else:
        axes = tuple(range(1, x.ndim))
        low, high = x.min(axis=axes), x.max(axis=axes)
    if isinstance(layer.geometry, Patches) or code.span is not None:  # padding must be representable
        low, high = np.minimum(low, zero), np.maximum(high, zero)
    if code.span is not None:
        low, high = _stretched(low, high, np.float32(code.span), np.float32(code.steps))
    each = vectors.shape[1] // max(1, len(low))
    return np.repeat(low, each), np.repeat(high, each)


def _stretched(low: np.ndarray, high: np.ndarray, span: np.float32, steps: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Ranges that 0 is in, stretched about it to a span: about where the zero point is that gave them their window."""
    step, width = span / steps, high - low
    low = np.rint(low * (span / np.where(width > 0, width, np.float32(1))) / step) * step
    return low, low + span

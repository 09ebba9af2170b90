"""Coding input vectors: the arithmetic of `InputCode`, float32 as the host graph does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.ir import Contraction, InputCode, MatrixLayer, Patches


@dataclass(frozen=True)
class CodedInput:
    """Coded vectors of one layer.

    Args:
        value: float32 [groups, V, K]: the level index (a whole number), the analogue v in 0..1, or x itself.
        gain: float64 [V or 1]: x ~= gain * (sum_t c_t * u_t) + shift for drives u in the target's alphabet.
        shift: float64 [V or 1].
    """

    value: np.ndarray
    gain: np.ndarray
    shift: np.ndarray


def code_vectors(layer: MatrixLayer, x: np.ndarray, vectors: np.ndarray, bipolar: bool) -> CodedInput:
    """Code gathered vectors.

    Args:
        layer: the layer, with its input code.
        x: the input tensor that the vectors were gathered from (for ranges found at run time).
        vectors: float32 [groups, V, K].
        bipolar: rows take 2 v - 1 instead of v.
    """
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

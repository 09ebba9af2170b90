"""What sums over tiles say about a layer's outputs: both codes undone, bias and the chip's own correction."""

from __future__ import annotations

from xbcompile.deferred import njit


@njit(cache=True, nogil=True, error_model="numpy")
def recombine(  # type: ignore[no-untyped-def]  # numba infers
    out, sums, gain, shift, scale, level_sum, offset, drive_sum, inputs, bias, own_gain, own_shift, corrected
):
    """Fill outputs [V, groups * M]; in float64, whatever type they are.

    Args:
        out: float32 or float64 [V, groups * M].
        sums: float64 [groups, V, M], of cell values times drives.
        gain: float64 [V or 1], see `CodedInput`.
        shift: float64 [V or 1].
        scale: float64 [groups, M], what a cell value stands for.
        level_sum: float64 [groups, M], sums of cell values.
        offset: float64 [groups, M], what a cell of value 0 stands for, or [groups, 0] where that is 0.
        drive_sum: float64 [groups, V], sums of drives, or [groups, 0].
        inputs: inputs of each matrix.
        bias: float64 [groups * M].
        own_gain: float64 [groups * M], the chip's own correction.
        own_shift: float64 [groups * M].
        corrected: whether that is applied.
    """
    groups, vectors, outputs = sums.shape
    for g in range(groups):
        factor, levels, first = scale[g], level_sum[g], g * outputs
        added, own, further = bias[first:], own_gain[first:], own_shift[first:]
        for v in range(vectors):
            gain_v, shift_v = gain[v % len(gain)], shift[v % len(shift)]
            shifted = gain_v * drive_sum[g, v] + shift_v * inputs if drive_sum.shape[1] else 0.0
            for m in range(outputs):
                y = factor[m] * (gain_v * sums[g, v, m] + shift_v * levels[m])
                if offset.shape[1]:
                    y += offset[g, m] * shifted
                y += added[m]
                out[v, first + m] = y * own[m] + further[m] if corrected else y

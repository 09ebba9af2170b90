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


@njit(cache=True, nogil=True, error_model="numpy")
def recombine_patches(  # type: ignore[no-untyped-def]  # numba infers
    out, first, sums, gain, shift, scale, level_sum, offset, drive_sum, inputs, bias, own_gain, own_shift
):
    """`recombine` of vectors that are patches, with the chip's own correction, to the same bits.

    Args:
        out: float32 or float64 [samples, groups * M, patches of a sample].
        first: the first vector's place among the patches of all samples.
        sums: float64 [groups, M, V].
        gain: as of `recombine`, like all that follows.
        shift: see gain.
        scale: see gain.
        level_sum: see gain.
        offset: see gain.
        drive_sum: see gain.
        inputs: see gain.
        bias: see gain.
        own_gain: see gain.
        own_shift: see gain.
    """
    groups, outputs, vectors = sums.shape
    each, same = out.shape[2], len(gain) == 1
    for c in range(groups * outputs):
        g, m = c // outputs, c % outputs
        factor, levels, added, own, further = scale[g, m], level_sum[g, m], bias[c], own_gain[c], own_shift[c]
        start = 0
        while start < vectors:
            sample, patch = (first + start) // each, (first + start) % each
            stop = min(vectors, start + each - patch)
            row, given = out[sample, c, patch : patch + stop - start], sums[g, m, start:stop]
            if same and not offset.shape[1]:
                gain_0, shifted = gain[0], shift[0] * levels
                for v in range(len(row)):
                    row[v] = (factor * (gain_0 * given[v] + shifted) + added) * own + further
            else:
                for v in range(len(row)):
                    gain_v, shift_v = gain[(start + v) % len(gain)], shift[(start + v) % len(shift)]
                    y = factor * (gain_v * given[v] + shift_v * levels)
                    if offset.shape[1]:
                        driven = gain_v * drive_sum[g, start + v] + shift_v * inputs
                        y += offset[g, m] * driven
                    row[v] = (y + added) * own + further
            start = stop

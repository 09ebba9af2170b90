"""Coded values of which vectors are patches, as they lie in memory: kernels gather what they need when they need it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xbcompile.deferred import njit

# Where tiles use more columns, vectors that are gathered before are read as fast or faster.
MOST_COLUMNS = 32


class PatchValues(NamedTuple):
    """Vectors that are patches of padded samples, which lie one after another in memory.

    Value k of vector v of group g is `flat[sample * sample_size + g * group_size + starts[patch] + taps[k]]`, where `first + v`
    counts the patches of all samples.

    Attributes:
        flat: float32, coded values.
        sample_size: values of a sample.
        group_size: values of a group's channels in a sample.
        groups: number of groups.
        starts: uint32 [patches of a sample], where each begins.
        taps: uint32 [inputs], where the values of a patch lie behind its first one.
        first: the first vector's patch.
        length: number of vectors.
    """

    flat: np.ndarray
    sample_size: int
    group_size: int
    groups: int
    starts: np.ndarray
    taps: np.ndarray
    first: int
    length: int

    def vectors(self) -> np.ndarray:
        """All vectors, float32 [groups, vectors, inputs]."""
        out = np.empty((self.groups, self.length, len(self.taps)), np.float32)
        _gather(out, self)
        return out


_njit = njit(cache=True, nogil=True, error_model="numpy")


@_njit
def _gather(out, patches):  # type: ignore[no-untyped-def]  # numba infers
    """Fill out [groups, vectors, inputs]."""
    each, taps = len(patches.starts), patches.taps
    for g in range(out.shape[0]):
        for v in range(out.shape[1]):
            sample = (patches.first + v) // each
            start = patches.starts[patches.first + v - sample * each]
            patch, into = patches.flat[sample * patches.sample_size + g * patches.group_size + start :], out[g, v]
            for k in range(out.shape[2]):
                into[k] = patch[taps[k]]


class Runs(NamedTuple):
    """Vectors whose patches begin side by side, run by run.

    Attributes:
        found: int64 [1], number of runs.
        end: int64 [vectors], where each run ends.
        place: int64 [vectors], where in `flat` the first patch of each run begins.
        places: int64 [vectors], where each patch begins, if runs are short.
        to_end: int64 [patches of a sample], how many patches are left of each one's run, itself with them.
    """

    found: np.ndarray
    end: np.ndarray
    place: np.ndarray
    places: np.ndarray
    to_end: np.ndarray


_SHORT = 4  # vectors: from shorter runs values are gathered one by one


@_njit
def room_for_runs(patches, vectors):  # type: ignore[no-untyped-def]  # numba infers
    """Room for the runs of so many vectors."""
    starts = patches.starts
    to_end = np.ones(len(starts), np.int64)
    for patch in range(len(starts) - 2, -1, -1):
        if starts[patch + 1] == starts[patch] + 1:
            to_end[patch] = to_end[patch + 1] + 1
    empty = np.zeros(1, np.int64)
    return Runs(empty, np.empty(vectors, np.int64), np.empty(vectors, np.int64), np.empty(vectors, np.int64), to_end)


@_njit
def find_runs(runs, patches, start, count):  # type: ignore[no-untyped-def]  # numba infers
    """Find the runs of `count` vectors from vector `start` on."""
    each, begin, found = len(patches.starts), 0, 0
    while begin < count:
        at = patches.first + start + begin
        sample = at // each
        patch = at - sample * each
        begin = min(count, begin + runs.to_end[patch])
        runs.place[found] = sample * patches.sample_size + np.int64(patches.starts[patch])
        runs.end[found] = begin
        found += 1
    runs.found[0] = found
    if _SHORT * found <= count:
        return
    begin = 0
    for i in range(found):
        for v in range(begin, runs.end[i]):
            runs.places[v] = runs.place[i] + v - begin
        begin = runs.end[i]


@_njit
def gather_row(out, flat, runs, offset, sign):  # type: ignore[no-untyped-def]  # numba infers
    """Fill out [vectors] with the values, times a sign, that lie so far behind the places where patches begin."""
    vectors = len(out)
    if _SHORT * runs.found[0] > vectors:
        for v in range(vectors):
            out[v] = flat[runs.places[v] + offset] * sign
        return
    begin = 0
    for i in range(runs.found[0]):
        end = runs.end[i]
        at = runs.place[i] + offset
        given, some = flat[at : at + end - begin], out[begin:end]
        for v in range(len(some)):
            some[v] = given[v] * sign
        begin = end

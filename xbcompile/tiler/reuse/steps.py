"""Which images one array is written with, which of them may change places, and the steps when they have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from xbcompile.ir.schedule import READ, WRITE


def written_images(steps: np.ndarray, array: int) -> np.ndarray:
    """Images that one array is written with in one batch, in order of time; int32 [writes].

    Args:
        steps: STEP table in order of time.
        array: the array.
    """
    written: np.ndarray = steps["image"][(steps["array"] == array) & (steps["operation"] == WRITE)]
    return written


def exchangeable_runs(steps: np.ndarray, array: int) -> np.ndarray:
    """Runs of writes whose images may change places without a change of any read's time, for `order_images`.

    The images of a run are read alike: for the same uses in the same order, for equally long. Every other step then
    stays where it is. Where an array starts a batch with the image that it is written with last, that image is read across
    batches, and stays last.

    Args:
        steps: STEP table in order of time.
        array: the array.

    Returns:
        One label per write of the array, int64 [writes]: 0, 1, 2, ... in order of time.
    """
    writes, reads = _segments(steps, array)
    if not len(writes):
        return np.zeros(0, np.int64)
    alike = [
        tuple((int(steps["use"][i]), float(steps["end_s"][i] - steps["start_s"][i])) for i in of) for of in reads[1:]
    ]
    changes = [False] + [one != two for one, two in pairwise(alike)]
    if reads[0] and len(writes) > 1:
        changes[-1] = True
    return np.cumsum(changes)


def reordered_steps(steps: np.ndarray, array: int, order: np.ndarray) -> np.ndarray:
    """The steps when the images of one array are written in another order.

    Times and rows of writes stay those of the steps' places: set them anew where writes take different times.

    Args:
        steps: STEP table in order of time.
        array: the array whose images change places.
        order: int64 [writes], as `Ordering.order`: positions of the writes, permuted within `exchangeable_runs`.

    Returns:
        A STEP table in which the write at place t, and its reads, are of the image (and its tiles) that was at `order[t]`.
    """
    writes, reads = _segments(steps, array)
    result = steps.copy()
    for place, source in enumerate(order.tolist()):
        result["image"][writes[place]] = steps["image"][writes[source]]
        for name in ("image", "tile", "use"):
            result[name][reads[place + 1]] = steps[name][reads[source + 1]]
    return result


def _segments(steps: np.ndarray, array: int) -> tuple[np.ndarray, list[list[int]]]:
    """Positions in the table: of the array's writes, and of the reads before the first write and after each one."""
    mine = np.flatnonzero(steps["array"] == array)
    operation = steps["operation"][mine]
    writes = mine[operation == WRITE]
    number = np.cumsum(operation == WRITE)
    reads: list[list[int]] = [[] for _ in range(len(writes) + 1)]
    for segment, step in zip(number[operation == READ].tolist(), mine[operation == READ].tolist(), strict=True):
        reads[segment].append(step)
    return writes, reads

"""Outputs of calls of a model, put in the place that they have among those of all calls as soon as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xbcompile.ir.sample_axes import SampleAxes


def joined(axes: SampleAxes, parts: Iterable[Mapping[str, Any]], samples: int, stack: bool = False) -> dict[str, Any]:
    """`SampleAxes.join`, with no more memory than the outputs of all samples and those of one call.

    Args:
        axes: which axes count samples.
        parts: outputs by name of each call, in order.
        samples: of all calls.
        stack: see `SampleAxes.join`.
    """
    whole: dict[str, np.ndarray] = {}
    ends: Counter[str] = Counter()

    def placed(name: str, value: Any) -> Any:
        """The value, in its place in `whole` where it fits there; where it does not, `join` copies all parts once more."""
        axis = axes.outputs.get(name)
        if axis is None or not isinstance(value, np.ndarray) or value.shape[axis] >= samples:
            return value
        if name not in whole:
            whole[name] = np.empty((*value.shape[:axis], samples, *value.shape[axis + 1 :]), value.dtype)
        place = whole[name][(slice(None),) * axis + (slice(ends[name], ends[name] + value.shape[axis]),)]
        if place.shape != value.shape or place.dtype != value.dtype:
            return value
        ends[name] += value.shape[axis]
        place[...] = value
        return place

    held = [{name: placed(name, value) for name, value in part.items()} for part in parts]
    complete = {name: array for name, array in whole.items() if ends[name] == samples}
    return {
        name: complete[name] if name in complete else axes.join([{name: part[name]} for part in held], stack)[name]
        for name in held[0]
    }

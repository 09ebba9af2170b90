"""Outputs of a model beside those of another execution of it: equal but for what rounding may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# Share of the largest value by which a float may differ, by the size of its type: a few units in the last place of the narrow
# types, and what sums of some thousand products may lose in float32 (float64 weights are stored as float32).
TOLERANCES = {"float16": 5e-3, "bfloat16": 4e-2}
TOLERANCE = 5e-5
SPREADS = 4.0  # assumed: how much farther than a few moved runs of the same model a right one may lie

Runs = Sequence[Mapping[str, Any]]


def difference(found: Mapping[str, Any], runs: Runs, overflows: bool = False) -> str | None:
    """Where outputs differ from those of the first run by more than rounding; None where they do not.

    Args:
        found: outputs by name: arrays, lists of them, maps, None.
        runs: the same outputs of correct executions. What they themselves do not agree on (they ran on inputs moved by a
            rounding, say) need not be met more closely.
        overflows: sums may overflow on the way in one execution and not in the other: then where the first run is NaN or
            infinite nothing is compared.
    """
    first = runs[0]
    if found.keys() != first.keys():
        return f"outputs {list(found)}, not {list(first)}"
    for name in first:
        left = dict(_leaves(found[name], f"output {name!r}"))
        others = [dict(_leaves(run[name], f"output {name!r}")) for run in runs]
        if left.keys() != others[0].keys():
            return f"output {name!r} is of other parts: {_parts(left)}, not {_parts(others[0])}"
        for place in left:
            text = _leaf_difference(left[place], [each[place] for each in others if place in each], overflows)
            if text:
                return f"{place} {text}"
    return None


def relative_error(found: Mapping[str, Any], right: Mapping[str, Any]) -> float | None:
    """Root mean square of the differences over that of the right values, all finite float elements; None without any."""
    squares, total, count = 0.0, 0.0, 0
    for name, value in right.items():
        left = dict(_leaves(found[name], name))
        for place, each in _leaves(value, name):
            if _is_float(each) and place in left and left[place].shape == each.shape:
                wide, other = each.astype("f8"), left[place].astype("f8")
                finite = np.isfinite(wide) & np.isfinite(other)
                squares += float(np.square(wide - other, where=finite, out=np.zeros_like(wide)).sum())
                total += float(np.square(wide, where=finite, out=np.zeros_like(wide)).sum())
                count += int(finite.sum())
    return (squares / total) ** 0.5 if count and total else None


def shape_difference(found: Mapping[str, Any], right: Mapping[str, Any]) -> str | None:
    """Where outputs are of another shape or type, or NaN where all right ones are finite; None where nowhere.

    Sequences and maps are not looked into: how many parts they have may depend on values. Infinities are let through: an
    exponential of an output with large errors may overflow.
    """
    if found.keys() != right.keys():
        return f"outputs {list(found)}, not {list(right)}"
    for name, value in right.items():
        if not isinstance(value, np.ndarray):
            continue
        text = _type_difference(np.asarray(found[name]), value, found[name].shape == value.shape)
        if text:
            return f"output {name!r} {text}"
        if _is_float(value) and np.isfinite(value.astype("f8")).all() and np.isnan(found[name].astype("f8")).any():
            return f"output {name!r} is NaN"
    return None


def _leaves(value: Any, place: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a value, each with its place: entries of lists and maps are places of their own."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}[{index}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{place}[{key!r}]")
    elif value is not None:
        yield place, np.asarray(value)


def _parts(leaves: Mapping[str, np.ndarray]) -> str:
    return ", ".join(list(leaves)[:4]) or "none"


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _type_difference(left: np.ndarray, right: np.ndarray, same_shape: bool) -> str | None:
    if left.dtype != right.dtype or not same_shape:
        return f"is {left.dtype} {left.shape}, not {right.dtype} {right.shape}"
    return None


def _leaf_difference(left: np.ndarray, runs: list[np.ndarray], overflows: bool) -> str | None:
    right = runs[0]
    if any(run.shape != right.shape for run in runs):  # sizes follow from values that rounding decides
        return _type_difference(left, right, left.ndim == right.ndim)
    text = _type_difference(left, right, left.shape == right.shape)
    if text or not right.size:
        return text
    if not _is_float(right):
        decided = np.all([run == right for run in runs], axis=0)
        wrong = (left != right) & decided
        return f"differs in {int(wrong.sum())} of {wrong.size} elements" if wrong.any() else None
    wide = [run.astype("f8") for run in runs]
    finite = np.all([np.isfinite(each) for each in wide], axis=0)
    moved = left.astype("f8")
    if not overflows:
        agreed = np.all([_same_special(each, wide[0]) for each in wide], axis=0)
        if not (_same_special(moved, wide[0]) | ~agreed).all():
            return "is NaN or infinite elsewhere"
    if not finite.any():
        return None
    scale = max(1.0, float(np.abs(wide[0][finite]).max()))
    spread = np.max([np.abs(each[finite] - wide[0][finite]) for each in wide], axis=0)
    allowed = TOLERANCES.get(right.dtype.name, TOLERANCE) * scale + SPREADS * spread
    with np.errstate(invalid="ignore"):
        gaps = np.abs(moved[finite] - wide[0][finite])
    if (gaps <= allowed).all():
        return None
    return f"differs by {float(gaps[~(gaps <= allowed)].max()):.3g} of {scale:.3g}, in {int((~(gaps <= allowed)).sum())} elements"


def _same_special(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether elements are both finite, both NaN, or the same infinity."""
    with np.errstate(invalid="ignore"):
        return (np.isfinite(left) & np.isfinite(right)) | (np.isnan(left) & np.isnan(right)) | (left == right)

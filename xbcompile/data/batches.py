"""Data that come in pieces: loaders that give batches, data sets that give samples, of this or another library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xbcompile.data.arrays import as_array
from xbcompile.data.columns import choice_of
from xbcompile.errors import DataError, quoted

_MOST_BYTES = 1 << 33  # that all pieces may come to: a loader may have no end; assumed
_Piece = tuple[dict[str, np.ndarray], np.ndarray | None]


def is_pair(given: object) -> bool:
    """Whether something is inputs with samples along axis 0, and as many whole numbers, their labels.

    Args:
        given: anything.
    """
    if not isinstance(given, tuple) or len(given) != 2 or not all(hasattr(each, "shape") for each in given):
        return False
    x, y = (tuple(each.shape) for each in given)
    whole = any(text in str(getattr(given[1], "dtype", "")) for text in ("int", "bool"))
    return whole and len(x) >= 2 and y == x[:1]


def is_pieces(given: object) -> bool:
    """Whether something gives batches or samples one after another; lists of numbers, and arrays, are none.

    Args:
        given: anything.
    """
    if isinstance(given, list | tuple):
        first = given[0] if given else None
        return isinstance(first, Mapping) or (
            isinstance(first, list | tuple) and len(first) > 1 and len(getattr(first[0], "shape", ())) > 0
        )
    if isinstance(given, str | bytes | Mapping | set | frozenset | type):
        return False
    if any(hasattr(given, name) for name in ("__array__", "__dlpack__", "dtype")):
        return False
    return hasattr(given, "__iter__") or (hasattr(given, "__len__") and hasattr(given, "__getitem__"))


def joined_pieces(
    given: Any, inputs: Sequence[str], labels: str | None, where: str
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """All pieces of a loader or a data set as arrays, samples along axis 0.

    A piece is the inputs in the model's order, and maybe labels behind them: (x, y); or the same by name. It is a batch, or a
    single sample where its label is a single number, or where it comes of a data set that is read by numbers (`__getitem__`
    without `__iter__`).

    Args:
        given: what gives them; it is gone through once.
        inputs: the model's, those that are needed.
        labels: name of the labels in pieces by name; None: found.
        where: what gives them, for messages.

    Returns:
        arrays by input name, and labels [samples] or None.

    Raises:
        DataError: there are none, they differ in their parts or shapes, or take too much memory.
    """
    samples = not hasattr(given, "__iter__")
    pieces: Iterable[Any] = (given[i] for i in range(len(given))) if samples else given
    found: list[_Piece] = []
    size = 0
    for number, piece in enumerate(pieces):
        place = f"{where}, piece {number}"
        each = _taken(piece, inputs, labels, place, samples)
        if found and (each[0].keys() != found[0][0].keys() or (each[1] is None) != (found[0][1] is None)):
            raise DataError(f"{place} has other parts than the first one: inputs, or labels, are missing")
        found.append(each)
        size += sum(x.nbytes for x in each[0].values())
        if size > _MOST_BYTES:
            raise DataError(
                f"{where}: {number + 1:,} pieces take {size:,} bytes; at most {_MOST_BYTES:,} are read at once: give fewer, or "
                "an .npy file, which is read as it is run"
            )
    if not found:
        raise DataError(f"{where} gives no samples")
    arrays = {name: _joined([x[name] for x, _ in found], f"{where}, input {quoted(name)}") for name in found[0][0]}
    y = [each for _, each in found if each is not None]
    return arrays, _joined(y, f"{where}, labels") if y else None


def _joined(parts: list[np.ndarray], where: str) -> np.ndarray:
    try:
        return np.concatenate(parts)
    except (ValueError, TypeError):
        shapes = sorted({str(x.shape[1:]) for x in parts})
        raise DataError(f"{where}: samples differ in shape: {', '.join(shapes[:4])}; give all in one shape") from None


def _taken(piece: Any, inputs: Sequence[str], labels: str | None, where: str, is_sample: bool) -> _Piece:
    """Arrays by input name with samples along axis 0, and labels, of one piece."""
    named, y = _parts(piece, inputs, labels, where)
    arrays = {name: as_array(value, f"{where}, input {quoted(name)}") for name, value in named.items()}
    target = None if y is None else as_array(y, f"{where}, labels")
    if is_sample or (target is not None and target.ndim == 0):
        return {name: np.asarray(x)[None] for name, x in arrays.items()}, None if target is None else target[None]
    flat = [name for name, x in arrays.items() if x.ndim == 0]
    if flat:
        raise DataError(f"{where}, input {quoted(flat[0])}: a single number is no batch of samples")
    return {name: np.asarray(x) for name, x in arrays.items()}, target


def _parts(piece: Any, inputs: Sequence[str], labels: str | None, where: str) -> tuple[dict[str, Any], Any]:
    """Values by input name, and labels or None."""
    if isinstance(piece, list | tuple) and len(piece) == 2 and isinstance(piece[0], Mapping):
        return dict(piece[0]), piece[1]
    if isinstance(piece, Mapping):
        choice = choice_of(list(piece), inputs, (), labels, where)
        return {name: piece[key] for name, key in choice.inputs.items()}, choice.labels and piece[choice.labels]
    if not isinstance(piece, list | tuple):
        piece = (piece,)
    count = len(inputs)
    if len(piece) not in (count, count + 1):
        raise DataError(
            f"{where} has {len(piece)} parts; the model has {count} input{'s' * (count != 1)}: give {count} values, or "
            f"{count + 1} with the labels last"
        )
    return dict(zip(inputs, piece, strict=False)), piece[count] if len(piece) > count else None

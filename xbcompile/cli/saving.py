"""Outputs of a run as an .npz file, each under its own name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.errors import DataError
from xbcompile.files import write_atomically


def save_outputs(path: Path, outputs: dict[str, Any]) -> None:
    """Write outputs as .npz, atomically; `numpy.load` gives each under its name, without pickles.

    Texts become fixed-width ones. A sequence NAME is saved value by value, NAME/0, NAME/1 and so on; a map NAME as the arrays
    NAME/keys and NAME/values, and a sequence of maps with the same keys likewise, with one row of values for each.

    Args:
        path: the file.
        outputs: arrays, sequences and maps by name.

    Raises:
        DataError: two of these names are the same.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in outputs.items():
        for place, array in _arrays(name, value):
            if place in arrays:
                raise DataError(f"output {name!r} cannot be saved: its part {place!r} is the name of another output")
            arrays[place] = array
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for place, array in arrays.items():
            # numpy takes "a" for the entry "a.npy", unless there is an entry "a": outputs "a" and "a.npy" need that.
            entry = place if f"{place}.npy" in arrays else f"{place}.npy"
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def _arrays(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays that hold a value, with their names."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and _are_maps(value):
        value = value.tolist()
    if isinstance(value, dict):
        yield f"{name}/keys", _plain(np.array(list(value)))
        yield f"{name}/values", _plain(np.array(list(value.values())))
    elif isinstance(value, list) and value and _are_maps(value) and all(list(each) == list(value[0]) for each in value):
        yield f"{name}/keys", _plain(np.array(list(value[0])))
        yield f"{name}/values", _plain(np.array([list(each.values()) for each in value]))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _arrays(f"{name}/{place}", each)
    elif value is not None:  # an optional without a value
        yield name, _plain(np.asarray(value))


def _are_maps(values: Any) -> bool:
    return all(isinstance(each, dict) for each in values)


def _plain(array: np.ndarray) -> np.ndarray:
    """An array that is saved without pickles."""
    return array.astype(str) if array.dtype.kind == "O" else array

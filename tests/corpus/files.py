"""The models of a folder, and the inputs that lie beside them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def model_files(place: Path, scratch: Path) -> dict[str, Path]:
    """Every .onnx file at or below a place, by its path from there; archives are unpacked into the scratch folder."""
    if place.is_file() and place.suffix == ".onnx":
        return {place.name: place}
    found = {str(path.relative_to(place)): path for path in place.rglob("*.onnx")} if place.is_dir() else {}
    for archive in _archives(place):
        name = str(archive.relative_to(place)) if place.is_dir() else archive.name
        folder = scratch / name
        folder.mkdir(parents=True)
        if archive.suffix == ".zip":
            shutil.unpack_archive(archive, folder)
        else:
            shutil.unpack_archive(archive, folder, filter="data")
        found |= {f"{name}/{path.relative_to(folder)}": path for path in folder.rglob("*.onnx")}
    return dict(sorted(found.items()))


def _archives(place: Path) -> Iterator[Path]:
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file() and path.name.endswith(ARCHIVES):
            yield path


def stored_inputs(path: Path, names: list[str]) -> dict[str, np.ndarray] | None:
    """The inputs that lie beside a model: in an .npz of its name, or in ONNX's `test_data_set_0`; None where none fit.

    Args:
        path: the model's file.
        names: the model's inputs.
    """
    table = path.with_suffix(".npz")
    if table.exists():
        with np.load(table) as stored:
            return {name: stored[name] for name in names} if set(names) <= set(stored.files) else None
    tensors = [path.parent / "test_data_set_0" / f"input_{index}.pb" for index in range(len(names))]
    if not names or len(list(path.parent.glob("*.onnx"))) > 1 or not all(file.exists() for file in tensors):
        return None
    return {
        name: numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
        for name, file in zip(names, tensors, strict=True)
    }

"""External data of a model: read from ordinary files in the model's own folder, and from nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

from onnx import ModelProto, TensorProto

from xbcompile.errors import ModelError
from xbcompile.onnx_graph.tensors import model_tensors, stored_bytes

MOST_READ_AGAIN = 2**30  # assumed: bytes of files that several tensors may be read from, beyond once each


def load_external_data(model: ModelProto, where: str, folder: Path | None) -> None:
    """Read the external data of all tensors into the model, which is changed.

    Args:
        model: the model.
        where: what messages call it.
        folder: of the model's file; None: it has none.

    Raises:
        ModelError: there is external data and no folder; a file is missing, no ordinary one, outside of the folder or too
            short; or tensors of a small file would be read from it over and over again.
    """
    read: dict[Path, int] = {}
    for tensor in model_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        if folder is None:
            raise ModelError(
                f'{where}: tensor "{tensor.name}" is external data, whose folder a model in memory does not tell; '
                f"pass the path of the file, or load it with onnx.load"
            )
        if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
            continue  # refused with all other faults of content
        tensor.raw_data = _content(tensor, where, folder, read)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _content(tensor: TensorProto, where: str, folder: Path, read: dict[Path, int]) -> bytes:
    """The bytes of a tensor; `read` counts those that were read of each file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f'{where}: external data "{entries.get("location", "")}" of tensor "{tensor.name}"'
    target, size = _found(entries.get("location", ""), folder, what)
    offset, length = _place(entries, tensor, size, what)
    read[target] = read.get(target, 0) + length
    if read[target] > size + MOST_READ_AGAIN:
        raise ModelError(
            f"{what}: the tensors in this file, of {size:,} bytes, overlap and take {read[target]:,} bytes so far (allowed: "
            f"{MOST_READ_AGAIN:,} more than the file has); export the model again"
        )
    try:
        with target.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ModelError(f"{what} cannot be read: {error.strerror}") from error


def _found(location: str, folder: Path, what: str) -> tuple[Path, int]:
    """The file, all links followed, and its size."""
    try:
        target = (folder / location).resolve()
        if not target.is_relative_to(folder.resolve()) or os.path.isabs(location):
            raise ModelError(f"{what} lies outside the model's folder; put the file beside the model")
        if not target.is_file():
            found = "is no ordinary file" if target.exists() and location else "is missing"
            raise ModelError(f"{what} {found}; put the file beside the model, under the name it was exported with")
        return target, target.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a ring of links, a zero byte
        raise ModelError(f"{what} has no name that a file can have ({error}); export the model again") from error


def _place(entries: dict[str, str], tensor: TensorProto, size: int, what: str) -> tuple[int, int]:
    """Where the tensor's bytes begin in a file of this size, and how many there are."""
    needed = max(0, stored_bytes(tensor))
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or max(0, min(needed, size - offset))  # 0: not given
    except ValueError as error:
        raise ModelError(f"{what} has a malformed offset or length; export the model again") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ModelError(
            f"{what}: bytes {offset} to {offset + length} are asked for, but the file has {size}; it is truncated or "
            f"belongs to another model"
        )
    if length > needed:
        raise ModelError(
            f"{what} holds {length} bytes, but its shape {list(tensor.dims)} and element type "
            f"{TensorProto.DataType.Name(tensor.data_type)} need {needed}; export the model again"
        )
    return offset, length

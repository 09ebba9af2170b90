"""Whether output files and folders can be written, asked before the work and not after it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from xbcompile.errors import ProgramError
from xbcompile.files import check_file


def check_output(path: Path, *inputs: str | Path | None) -> None:
    """Raise ProgramError when `path` cannot be written, or is one of the command's own inputs, a model's tensors included."""
    check_file(path)
    for each in inputs:
        if each is not None and (_same_file(path, each) or any(_same_file(path, file) for file in _beside(each, path))):
            raise ProgramError(f"output {str(path)!r} would overwrite the input {str(each)!r}; give another name")


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Raise ProgramError when a file's name says no kind that is written."""
    if path.suffix not in endings:
        raise ProgramError(f"output {str(path)!r} is of no kind that is written; allowed endings: {', '.join(endings)}")


def _beside(model: str | Path, path: Path) -> Iterator[Path]:
    """The files of a model's external data, where `path` might be one of them."""
    if Path(model).suffix != ".onnx" or not path.is_file() or _is_archive(path):
        return
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types

    from xbcompile.onnx_graph.tensors import model_tensors

    with suppress(OSError, DecodeError):  # what is wrong with the model is told where it is read
        for tensor in model_tensors(onnx.load(model, load_external_data=False)):
            for entry in tensor.external_data:
                if entry.key == "location":
                    yield Path(model).parent / entry.value


def _is_archive(path: Path) -> bool:
    """Whether a file is one that a command has written before: those are zip archives, and no tensors."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _same_file(path: Path, other: str | Path) -> bool:
    """Whether both are one regular file; inputs need not be files."""
    try:
        found = os.stat(path)
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(other))
    except (OSError, ValueError):
        return False


def make_folder(folder: Path) -> None:
    """Make a folder for output, with those above it; raise ProgramError when it cannot be made or written."""
    try:
        os.makedirs(os.path.realpath(folder), exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ProgramError(f"output {str(folder)!r} is a file; give the name of a folder") from None
    except OSError as error:
        raise ProgramError(f"cannot make folder {str(folder)!r}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ProgramError(f"cannot write into folder {str(folder)!r}: permission denied")

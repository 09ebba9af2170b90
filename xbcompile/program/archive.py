"""The container of a program file: a zip archive that is sealed by a digest and keeps each tensor once.

The archive is not compressed, so that its bytes depend on nothing but content. Its members have fixed times; the last 81
bytes, the archive's comment, are the SHA-256 of everything before them. Tensors are members named by the SHA-256 of their
bytes (little-endian, as ONNX stores raw data): equal ones are one member.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from xbcompile.errors import ProgramError

TENSORS = "tensors/"  # folder of the tensors
_COMMENT = b"xbcompile sha256:"
COMMENT_BYTES = len(_COMMENT) + 64
_PIECE_BYTES = 2**24  # read and written at a time; assumed
_HEADER_BYTES, _HEADER_LENGTHS = 30, (26, 28)  # of a local file header; in it, of name and extra field: APPNOTE 4.3.7
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can name


class TensorPool:
    """The tensors that an archive is to hold, each once."""

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        self._keys: dict[
            int, tuple[np.ndarray, str]
        ] = {}  # by identity; the array is held so that its id stays its own

    def add(self, array: np.ndarray) -> str:
        """The name of the member that holds the array's bytes."""
        if id(array) not in self._keys:
            name = TENSORS + hashlib.sha256(_bytes_of(array)).hexdigest()
            self._arrays.setdefault(name, array)
            self._keys[id(array)] = (array, name)
        return self._keys[id(array)][1]

    def members(self) -> Iterator[tuple[str, memoryview]]:
        """Names and contents in the order in which they were first added."""
        for name, array in self._arrays.items():
            yield name, _bytes_of(array)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


class _Sealed:
    """A stream that hashes what is written through it, and ends in the digest of everything before."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._tail = b""

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        if len(view) >= COMMENT_BYTES:
            self._emit(self._tail)
            self._emit(view[:-COMMENT_BYTES])
            self._tail = bytes(view[-COMMENT_BYTES:])
        else:
            joined = self._tail + bytes(view)
            self._emit(joined[:-COMMENT_BYTES])
            self._tail = joined[-COMMENT_BYTES:]
        return len(view)

    def flush(self) -> None:
        """As zipfile asks for."""

    def _emit(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        if self._file is not None:
            self._file.write(data)

    def seal(self) -> str:
        """Write the digest in place of the last bytes, and return it."""
        digest = self._hash.hexdigest()
        if self._file is not None:
            self._file.write(_COMMENT + digest.encode())
        return digest


def write_archive(file: IO[bytes] | None, members: Iterator[tuple[str, bytes | memoryview]]) -> str:
    """Write the members, in their order, as a sealed archive; return its digest (file None: do nothing else)."""
    stream = _Sealed(file)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # write and flush suffice
        archive.comment = b" " * COMMENT_BYTES
        for name, data in members:
            info = zipfile.ZipInfo(name, _TIME)
            info.file_size = len(data)  # from which zipfile knows whether it needs 64-bit sizes
            with archive.open(info, "w") as member:
                for first in range(0, len(data), _PIECE_BYTES):
                    member.write(data[first : first + _PIECE_BYTES])
    return stream.seal()


def sealed(data: bytes) -> bytes:
    """The bytes of an archive, its last 81 replaced by the digest of the others."""
    kept = data[:-COMMENT_BYTES]
    return kept + _COMMENT + hashlib.sha256(kept).hexdigest().encode()


# What an archive is, and how one is made.
PROGRAM = ("program file", "xbcompile compile MODEL.onnx -o P.xbar")


class Archive:
    """A program file that is open for reading, its digest checked.

    Args:
        file: the open file.
        name: what error messages call it.
        what: the kind of file, and how one is made, for messages.

    Attributes:
        digest: the SHA-256 that it ends in, in hexadecimal.

    Raises:
        ProgramError: it is no program, or it is damaged.
    """

    def __init__(self, file: IO[bytes], name: str, what: tuple[str, str] = PROGRAM) -> None:
        self.name, (self._what, self._made) = name, what
        if file.read(4) != b"PK\x03\x04":
            raise ProgramError(f"{name!r} is no {self._what} of xbcompile; make one with: {self._made}")
        digest = _seal_of(file)
        if digest is None:
            raise ProgramError(
                f"{self._what} {name!r} is damaged: its digest does not match; make it again with: {self._made}"
            )
        self.digest = digest
        self._file, self._zip = file, zipfile.ZipFile(file)
        self._names = frozenset(self._zip.namelist())
        self._tensors: dict[str, np.ndarray] = {}

    def __contains__(self, member: str) -> bool:
        return member in self._names

    def read(self, member: str) -> bytes:
        """A member's bytes; KeyError where it is not there."""
        return self._zip.read(member)

    def table(self, member: str) -> np.ndarray:
        """An array in numpy's own format; pickles are refused (ValueError)."""
        array: np.ndarray = np.lib.format.read_array(io.BytesIO(self.read(member)), allow_pickle=False)
        return array

    def tensor(self, member: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor, read-only; tensors of one member share memory.

        Raises:
            ProgramError: the content is not what its name says, or of another size.
        """
        if member not in self._tensors:
            self._tensors[member] = self._read_tensor(member)
        content = self._tensors[member]
        if content.nbytes != int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize:
            raise ProgramError(f"program file {self.name!r} holds {content.nbytes} bytes in {member}, not {shape}")
        return content.view(dtype).reshape(shape)

    def _read_tensor(self, member: str) -> np.ndarray:
        info = self._zip.getinfo(member)
        content = np.empty(info.file_size, np.uint8)
        with self._zip.open(member):  # checks the header that stands before the content
            pass
        self._file.seek(info.header_offset)
        header = self._file.read(_HEADER_BYTES)
        self._file.seek(sum(int.from_bytes(header[at : at + 2], "little") for at in _HEADER_LENGTHS), os.SEEK_CUR)
        read = self._file.readinto(content.data)  # type: ignore[attr-defined]  # of binary files, which IO[bytes] is not sure of
        if read != content.size or member != TENSORS + hashlib.sha256(content.data).hexdigest():
            raise ProgramError(
                f"{self._what} {self.name!r} is damaged: {member} holds other bytes; make it again with: {self._made}"
            )
        content.flags.writeable = False
        return content


def _seal_of(file: IO[bytes]) -> str | None:
    """The digest that a file ends in, where it is the right one."""
    size = file.seek(0, os.SEEK_END)
    if size < COMMENT_BYTES:
        return None
    file.seek(0)
    hasher, left = hashlib.sha256(), size - COMMENT_BYTES
    while left and (piece := file.read(min(left, _PIECE_BYTES))):
        hasher.update(piece)
        left -= len(piece)
    digest = hasher.hexdigest()
    return digest if file.read() == _COMMENT + digest.encode() else None


def npy(array: np.ndarray) -> bytes:
    """The array in numpy's own format."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()

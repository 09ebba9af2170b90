"""The container of a program file: a zip archive that is sealed by a digest and keeps each tensor once.

The archive is not compressed, so that its bytes depend on nothing but content. Its members have fixed times; the last 81
bytes, the archive's comment, are the SHA-256 of everything before them. Tensors are members named by the SHA-256 of their
bytes (little-endian, as ONNX stores raw data): equal ones are one member.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from xbcompile.errors import ProgramError
from xbcompile.program.members import Members, Missing, Unreadable, table_of

TENSORS = "tensors/"  # folder of the tensors
_COMMENT = b"xbcompile sha256:"
COMMENT_BYTES = len(_COMMENT) + 64
_PIECE_BYTES = 2**24  # read and written at a time; assumed
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


MOST_AXES = 32  # of a tensor; onnxruntime and numpy take so many at least


@dataclass(frozen=True)
class ArchiveKind:
    """What an archive holds.

    Args:
        name: what messages call it.
        made: how one is made.
        members: pattern of the names that its members may have.
    """

    name: str
    made: str
    members: re.Pattern[str]


PROGRAM = ArchiveKind(
    "program file",
    "xbcompile compile MODEL.onnx -o P.xbar",
    re.compile(
        r"manifest\.json|target\.json|(host|source|taken_apart)\.onnx|(schedule/[a-z_]+|calibration/[0-9]+)\.npy"
        r"|tensors/[0-9a-f]{64}"
    ),
)


class Archive:
    """A program file that is open for reading, its digest and the places of its members checked.

    Args:
        file: the open file.
        name: what error messages call it.
        kind: what it holds.

    Attributes:
        digest: the SHA-256 that it ends in, in hexadecimal.

    Raises:
        ProgramError: it is no program, or it is damaged.
    """

    def __init__(self, file: IO[bytes], name: str, kind: ArchiveKind = PROGRAM) -> None:
        self.name, self.kind = name, kind
        if file.read(4) != b"PK\x03\x04":
            raise ProgramError(f"{name!r} is no {kind.name} of xbcompile; make one with: {kind.made}")
        digest = _seal_of(file)
        if digest is None:
            raise self.damaged("its digest does not match")
        self.digest = digest
        try:
            self._members = Members(file)
        except Unreadable as error:
            raise self.damaged(str(error)) from None
        self._tensors: dict[str, np.ndarray] = {}

    def damaged(self, why: str) -> ProgramError:
        """The error of a file that is not as it was written.

        Args:
            why: what is wrong.
        """
        return ProgramError(f"{self.kind.name} {self.name!r} is damaged: {why}; make it again with: {self.kind.made}")

    def malformed(self, error: Exception) -> ProgramError:
        """The error of a file that is whole, and holds what no such file does.

        Args:
            error: says which part, what was found and what is allowed.
        """
        if isinstance(error, Missing):
            return ProgramError(f"{self.kind.name} {self.name!r} lacks a part that it must have: {error}")
        return ProgramError(
            f"{self.kind.name} {self.name!r} is malformed: {error}; make it again with: {self.kind.made}"
        )

    def check_names(self) -> None:
        """Raise ProgramError for a member that no such archive has."""
        for member in self._members.names:
            if not self.kind.members.fullmatch(member):
                raise self.damaged(f"it holds {member!r}, which no {self.kind.name} does")

    def __contains__(self, member: str) -> bool:
        return member in self._members

    def read(self, member: str) -> bytes:
        """A member's bytes.

        Raises:
            ProgramError: it is not there, or damaged.
        """
        try:
            return self._members.read(member)
        except Unreadable as error:
            raise self.malformed(error) from None

    def table(self, member: str, *dtypes: Any) -> np.ndarray:
        """An array in numpy's own format, see `table_of`.

        Raises:
            ProgramError: it is not there, or no such array.
        """
        try:
            return table_of(self._members.read(member), member, *dtypes)
        except Unreadable as error:
            raise self.malformed(error) from None

    def tensor(self, member: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor, read-only; tensors of one member share memory.

        Raises:
            ProgramError: it is not there, its content is not what its name says, or of another size.
        """
        if member not in self._tensors:
            self._tensors[member] = self._read_tensor(member)
        content, size = self._tensors[member], math.prod(shape) * np.dtype(dtype).itemsize
        if (
            min(shape, default=0) < 0
            or content.nbytes != size
            or len(shape) > MOST_AXES
            or max(shape, default=0) > 2**40
        ):
            raise ProgramError(f"program file {self.name!r} holds {content.nbytes} bytes in {member}, not {shape}")
        return content.view(dtype).reshape(shape)

    def _read_tensor(self, member: str) -> np.ndarray:
        try:
            content = self._members.read_into(member)
        except Unreadable as error:
            raise self.malformed(error) from None
        if member != TENSORS + hashlib.sha256(content.data).hexdigest():
            raise self.damaged(f"{member} holds other bytes")
        content.flags.writeable = False
        return content


@contextmanager
def opened(path: str | os.PathLike[str], kind: ArchiveKind = PROGRAM) -> Iterator[Archive]:
    """An archive that is open while it is read.

    Args:
        path: of the file.
        kind: what it is to hold.

    Raises:
        ProgramError: the file is missing, cannot be read, or is no such archive.
    """
    name = os.fsdecode(path)
    try:
        if b"\0" in os.fsencode(name):
            raise ProgramError(f"{kind.name} {name!r}: no file has a zero byte in its path")
        with open(name, "rb", opener=_open_at_once) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise ProgramError(f"{name!r} is no file but a pipe, so it is no {kind.name}; give the path of a file")
            yield Archive(file, name, kind)
    except FileNotFoundError:
        raise ProgramError(f"{kind.name} {name!r} does not exist") from None
    except OSError as error:
        raise ProgramError(f"{kind.name} {name!r} cannot be read: {error.strerror}") from None
    except UnicodeEncodeError:
        raise ProgramError(f"{kind.name} {name!r}: no file has such a path; it is no text") from None


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for someone who writes into a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


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

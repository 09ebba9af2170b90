"""Files of data as they are opened: none that blocks, never ends or claims more than it holds."""

from __future__ import annotations

import ast
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from xbcompile.errors import DataError, quoted

# Bytes that all compressed arrays of a file may come to: a few kilobytes can claim gigabytes.
MOST_UNPACKED_BYTES = 1 << 30
_MOST_HEADER_CHARACTERS = 10_000  # as numpy has it: parsing a longer text takes long, or ends the process
_MOST_AXES = 64  # of an array of numpy, as is
_MOST_BYTES = 1 << 63
_MOST_EMPTY_BYTES = (
    1 << 31
)  # assumed: what an array without values may seem to have: else its samples are counted for ever
_MAGIC = b"\x93NUMPY"
_KINDS = "biufcSUmM"  # of types that are neither Python objects nor records
_PORTION_BYTES = 1 << 20
_FIELDS = {"descr", "fortran_order", "shape"}

# What zipfile raises on damaged archives, beside DataError of what lies in them.
_ZIP_FAULTS = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)

Fault = Callable[[str], DataError]


def check_file(path: str, where: str) -> int:
    """The size of an ordinary file, in bytes; a pipe would block, and a device may never end.

    Args:
        path: of the file.
        where: what it is, for messages.

    Raises:
        DataError: there is no such file, or it is none.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{where} does not exist") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL, or half of a surrogate pair
        raise DataError(f"{where} cannot exist: no file name holds such characters") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or socket"
        raise DataError(f"{where} is {kind}; give a file")
    return found.st_size


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of an .npy file says.

    Args:
        dtype: of numbers, texts or times.
        fortran_order: whether the first axis lies closest together.
        shape: sizes.
    """

    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all values, exactly."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO, fault: Fault) -> ArrayHeader:
    """The header of an .npy file, of any version of the format; the file stands at its values then.

    Args:
        file: at its start.
        fault: makes the error of a file that is no .npy file, or holds pickles.

    Raises:
        DataError: by `fault`.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8:
        raise fault("it does not begin as an .npy file does")
    if start[6] not in (1, 2, 3) or start[7]:
        raise fault(f"version {start[6]}.{start[7]} of the format is unknown; known: 1.0 to 3.0")
    size = 2 if start[6] == 1 else 4
    count = file.read(size)
    length = int.from_bytes(count, "little")
    if len(count) < size or length > _MOST_HEADER_CHARACTERS:
        raise fault(f"its header has {length:,} characters; allowed: {_MOST_HEADER_CHARACTERS:,}")
    raw = file.read(length)
    if len(raw) < length:
        raise fault("it ends within its header")
    if start[6] == 3:
        return _parsed(raw.decode("utf-8", "replace"), fault)
    # Python 2, which knew no version 3, wrote its long integers with an L.
    return _parsed(re.sub(r"(?<=\d)L\b", "", raw.decode("latin-1")), fault)


def _parsed(text: str, fault: Fault) -> ArrayHeader:
    try:
        fields = ast.literal_eval(text.rstrip(" \n"))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise fault("its header is no literal of Python") from None
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise fault(f"its header has other fields than {', '.join(sorted(_FIELDS))}")
    shape, order = fields["shape"], fields["fortran_order"]
    if not isinstance(shape, tuple) or len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise fault(f"its shape is {quoted(shape)}; it must be a tuple of at most {_MOST_AXES} whole numbers from 0")
    if not isinstance(order, bool):
        raise fault(f"its fortran_order is {quoted(order)}; it must be True or False")
    dtype = _type(fields["descr"], fault)
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize >= (_MOST_EMPTY_BYTES if 0 in shape else _MOST_BYTES):
        raise fault(f"shape {quoted(shape)} of {dtype} is larger than any array")
    return ArrayHeader(dtype, order, shape)


def _type(given: object, fault: Fault) -> np.dtype[Any]:
    try:
        dtype = np.dtype(given) if isinstance(given, str) else None
    except (TypeError, ValueError, SyntaxError, OverflowError, MemoryError, RecursionError):
        dtype = None
    if dtype is None or dtype.kind not in _KINDS or not dtype.itemsize:
        raise fault(f"its values are of type {quoted(given)}; they must be numbers")
    return dtype


def mapped_array(path: str) -> np.ndarray:
    """The array of an .npy file, which is read where it is asked for.

    Args:
        path: of the file.

    Raises:
        DataError: there is no such file, it is damaged, or holds pickles.
    """
    size = check_file(path, f"data file {quoted(path)}")

    def fault(text: str) -> DataError:
        return DataError(f"data file {quoted(path)} is no valid .npy file without pickles: {text}")

    try:
        with open(path, "rb") as file:
            header = read_header(file, fault)
            start = file.tell()
            if header.nbytes > size - start:
                raise fault(_too_short(header, size - start))
            order = "F" if header.fortran_order else "C"
            return np.memmap(file, header.dtype, "r", start, header.shape, order)  # type: ignore[call-overload]
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(f"data file {quoted(path)} cannot be read: {error.strerror or error}")


def _too_short(header: ArrayHeader, found: int) -> str:
    return f"shape {quoted(header.shape)} of {header.dtype} takes {header.nbytes:,} bytes, and there are {found:,}"


def read_at_most(file: Any, count: int) -> bytearray:
    """So many bytes, or all where there are fewer; memory is taken for those that are there.

    Args:
        file: is read.
        count: bytes.
    """
    found = bytearray()
    while portion := file.read(min(_PORTION_BYTES, count - len(found))):
        found += portion
    return found


class ArrayArchive:
    """The arrays of an .npz file, read where they are asked for.

    Args:
        path: of the file.

    Raises:
        DataError: there is no such file, it is damaged, or has two arrays of one name.
    """

    def __init__(self, path: str) -> None:
        self.path, size = path, check_file(path, f"data file {quoted(path)}")
        try:
            with open(path, "rb") as file:
                start = file.read(4)
            if start not in (b"PK\3\4", b"PK\5\6"):  # something else before an archive makes it another kind of file
                raise self._fault("it does not begin as a zip archive does")
            self._file = zipfile.ZipFile(path)
        except PermissionError as error:
            raise _unreadable(path, error) from None
        except _ZIP_FAULTS as error:
            raise self._fault(str(error)) from None
        self._members: dict[str, zipfile.ZipInfo] = {}
        for each in self._file.infolist():
            name = each.filename.removesuffix(".npy")
            if name in self._members:
                raise self._fault(f"it has two arrays {quoted(name)}")
            self._members[name] = each
        self._check_sizes(size)

    def __enter__(self) -> ArrayArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def names(self) -> list[str]:
        """Of the arrays."""
        return list(self._members)

    def _check_sizes(self, size: int) -> None:
        members = self._members.values()
        packed = sum(each.compress_size for each in members)
        if packed > size:
            raise self._fault(f"its parts are said to take {packed:,} bytes, and the file has {size:,}")
        for each in members:
            if each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or each.flag_bits & 1:
                raise self._fault(
                    f"array {quoted(each.filename)} is encrypted, or compressed otherwise than numpy does it"
                )
        unpacked = sum(each.file_size for each in members if each.compress_type != zipfile.ZIP_STORED)
        if unpacked > MOST_UNPACKED_BYTES:
            raise DataError(
                f"data file {quoted(self.path)}: its compressed arrays come to {unpacked:,} bytes; allowed: "
                f"{MOST_UNPACKED_BYTES:,}; save them without compression, with numpy.savez, or one with numpy.save"
            )

    def read(self, name: str) -> np.ndarray:
        """One of the arrays.

        Args:
            name: one of `names`.

        Raises:
            DataError: it is damaged, or holds pickles.
        """

        def fault(text: str) -> DataError:
            return self._fault(f"array {quoted(name)}: {text}")

        member = self._members[name]
        try:
            with self._file.open(member) as file:
                header = read_header(file, fault)  # type: ignore[arg-type]  # read is all that is used
                left = member.file_size - file.tell()
                if header.nbytes > left:
                    raise fault(_too_short(header, left))
                return _filled(file, header, fault)
        except _ZIP_FAULTS as error:
            raise fault(str(error)) from None

    def _fault(self, text: str) -> DataError:
        return DataError(f"data file {quoted(self.path)} is no valid .npz file without pickles: {text}")


def _filled(file: Any, header: ArrayHeader, fault: Fault) -> np.ndarray:
    """The values behind a header, and the rest of the file, whose checksum counts."""
    raw = read_at_most(file, header.nbytes)
    if len(raw) < header.nbytes:
        raise fault(_too_short(header, len(raw)))
    if file.read(1):
        raise fault("it goes on behind its last value")
    values = np.frombuffer(raw, header.dtype)
    return values.reshape(header.shape[::-1]).T if header.fortran_order else values.reshape(header.shape)

"""Members of an archive from anywhere: where each one's bytes are, checked before any of them is read.

Bytes in a file are all that a member takes: none is compressed, none overlaps another, and none has a second entry. So an archive
of a size never needs more memory than that.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np

# APPNOTE 4.3.7: a local file header, in it the lengths of name and extra field.
_HEADER = struct.Struct("<4s22xHH")
_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1  # bit 0 of the flags, APPNOTE 4.4.4

# What `zipfile` raises of a directory that it cannot read; NotImplementedError for versions that it does not know.
_UNREADABLE = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, OverflowError, struct.error)

_TABLE_MAGIC = b"\x93NUMPY\x01\x00"
_TABLE_HEADER = re.compile(
    r"\{'descr': (?P<descr>'[<|][a-zA-Z][0-9]{1,6}'|\[[^\[\]]*\]), 'fortran_order': False, "
    r"'shape': \((?P<shape>(?:[0-9]{1,18}(?:, |,)?)*)\), \} *\n"
)
_PLAIN_TYPE = re.compile(r"'([<|][biufcUSV][0-9]{1,6})'")
_LARGEST_SIZE = 2**40  # elements by the sizes of a table, empty ones left out


class Unreadable(ValueError):
    """A member, or the archive, is not as it must be; the message says what is wrong."""


class Missing(Unreadable):
    """There is no such member."""


class Members:
    """The members of a zip archive.

    Args:
        file: the archive, open for reading.

    Raises:
        Unreadable: a member is compressed, encrypted, a folder, there twice, or does not lie where the directory says.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        try:
            archive = zipfile.ZipFile(file)
        except _UNREADABLE as error:
            raise Unreadable(f"its directory cannot be read: {error}") from None
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        self._entries: dict[str, tuple[int, zipfile.ZipInfo]] = {}
        starts = []
        for entry in entries:
            self._entries[_name(entry, self._entries)] = self._start(entry), entry
            starts.append(self._entries[entry.filename][0])
        limits = [*(entry.header_offset for entry in entries[1:]), archive.start_dir]
        for start, entry, limit in zip(starts, entries, limits, strict=False):
            if start + entry.file_size > limit:
                raise Unreadable(f"its member {entry.filename!r} reaches into what follows it")

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the file."""
        return tuple(self._entries)

    def size(self, name: str) -> int:
        """Bytes of a member.

        Raises:
            Unreadable: there is none of that name.
        """
        return self._entry(name)[1].file_size

    def read(self, name: str) -> bytes:
        """A member's bytes.

        Raises:
            Unreadable: there is none of that name, or its checksum is another.
        """
        content = bytes(self.read_into(name))
        if zlib.crc32(content) != self._entry(name)[1].CRC:
            raise Unreadable(f"its member {name!r} has another checksum than the directory says")
        return content

    def read_into(self, name: str) -> np.ndarray:
        """A member's bytes, uint8, whatever its checksum.

        Raises:
            Unreadable: there is none of that name, or the file ends before it.
        """
        start, entry = self._entry(name)
        content = np.empty(entry.file_size, np.uint8)
        self._file.seek(start)
        if self._file.readinto(content.data) != content.size:  # type: ignore[attr-defined]  # of binary files
            raise Unreadable(f"the file ends within its member {name!r}")
        return content

    def _entry(self, name: str) -> tuple[int, zipfile.ZipInfo]:
        if name not in self._entries:
            raise Missing(f"there is no {name}")
        return self._entries[name]

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where a member's bytes start, by its own header."""
        what = f"its member {entry.filename!r}"
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Unreadable(f"{what} is compressed, which no member may be")
        if entry.flag_bits & _ENCRYPTED:
            raise Unreadable(f"{what} is encrypted")
        if entry.header_offset < 0:
            raise Unreadable(f"{what} does not lie in the file")
        self._file.seek(entry.header_offset)
        header = self._file.read(_HEADER.size)
        magic, name, extra = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0)
        if magic != _MAGIC or self._file.read(name) != entry.orig_filename.encode():
            raise Unreadable(f"{what} does not lie where the directory says")
        return entry.header_offset + _HEADER.size + name + extra


def _name(entry: zipfile.ZipInfo, before: dict[str, tuple[int, zipfile.ZipInfo]]) -> str:
    if not entry.filename or entry.is_dir() or entry.filename != entry.orig_filename:
        raise Unreadable(f"its member {entry.orig_filename!r} is no file")
    if entry.filename in before:
        raise Unreadable(f"its member {entry.filename!r} is there twice")
    return entry.filename


def table_of(content: bytes, name: str, *dtypes: Any) -> np.ndarray:
    """An array in numpy's own format, as `npy` writes it.

    Args:
        content: the member's bytes.
        name: of the member, for messages.
        dtypes: what its elements may be; none: numbers and texts of any kind.

    Raises:
        Unreadable: another format, other elements, objects of Python, or another number of bytes than its shape needs.
    """
    length = int.from_bytes(content[8:10], "little")
    found = _TABLE_HEADER.fullmatch(content[10 : 10 + length].decode("latin-1"))
    if found is None or not content.startswith(_TABLE_MAGIC):
        objects = "; objects are never read (allow_pickle=False)" if b"'|O'" in content[:200] else ""
        raise Unreadable(f"its member {name!r} is no array in numpy's format 1.0 of plain numbers, in C order{objects}")
    dtype = _element_type(found["descr"], name, dtypes)
    shape = tuple(int(size) for size in found["shape"].replace(",", " ").split())
    count, room = 1, 1
    for size in shape:
        count, room = count * size, room * max(size, 1)
    body = content[10 + length :]
    if len(shape) > 32 or room > _LARGEST_SIZE or count * dtype.itemsize != len(body):
        raise Unreadable(f"its member {name!r} holds {len(body)} bytes, and says that its shape is {shape} of {dtype}")
    return np.frombuffer(body, dtype).reshape(shape).copy()


def _element_type(text: str, name: str, allowed: tuple[Any, ...]) -> np.dtype[Any]:
    for dtype in map(np.dtype, allowed):
        if text == repr(np.lib.format.dtype_to_descr(dtype)):
            return dtype
    plain = None if allowed else _PLAIN_TYPE.fullmatch(text)
    try:
        found = None if plain is None else np.dtype(plain[1])
    except TypeError:  # as of floats of three bytes
        found = None
    if found is None or not found.itemsize:
        words = ", ".join(str(np.dtype(each)) for each in allowed) or "numbers or texts"
        raise Unreadable(f"its member {name!r} has elements {text}; allowed: {words}")
    return found

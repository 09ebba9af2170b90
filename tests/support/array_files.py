"""Bytes of data files, right and wrong on purpose: .npy, .npz, IDX."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Sequence

import numpy as np


def npy(header: str | bytes, body: bytes, version: int = 1, length: int | None = None) -> bytes:
    """An .npy file of a header as text, padded as numpy does it, and values; its length may be said wrong."""
    text = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    size = 2 if version == 1 else 4
    text += b" " * (-(8 + size + len(text) + 1) % 64) + b"\n"
    stated = (len(text) if length is None else length) % (1 << 8 * size)
    return b"\x93NUMPY" + bytes([version % 256, 0]) + stated.to_bytes(size, "little") + text + body


def npy_header(descr: object, shape: object, fortran_order: object = False) -> str:
    """The text of a header."""
    return repr({"descr": descr, "fortran_order": fortran_order, "shape": shape})


def npy_of(array: np.ndarray) -> bytes:
    """An .npy file of an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members, whose checksums are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    """An IDX file's bytes: two zeros, type 8 (unsigned byte), rank, sizes big-endian, values."""
    return idx_of(array.shape, array.astype(np.uint8).tobytes())


def idx_of(sizes: Sequence[int], body: bytes, kind: int = 8, rank: int | None = None) -> bytes:
    """An IDX file of any sizes and values."""
    rank = len(sizes) if rank is None else rank
    return bytes([0, 0, kind, rank]) + struct.pack(f">{len(sizes)}I", *sizes) + body

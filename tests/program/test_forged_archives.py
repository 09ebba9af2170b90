"""Archives that someone made: whatever is wrong with their structure is one line of error, and nothing is unpacked."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import xbcompile
from tests.fuzz.boundaries.program import members
from tests.support.forged_programs import refused, written
from xbcompile.errors import ProgramError
from xbcompile.program.archive import sealed

DIGIT = "tensors/" + "0" * 64


@cache
def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.comment = b" " * 81
        for name, data in members("dense").items():
            file.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def entry(data: bytes, number: int = 0) -> int:
    """Where the directory describes a member."""
    at = -1
    for _ in range(number + 1):
        at = data.index(b"PK\x01\x02", at + 1)
    return at


def patched(offset: int, form: str, value: int, number: int = 0) -> bytes:
    """Another number in the directory's entry of a member (APPNOTE 4.3.12)."""
    data = bytearray(archive())
    struct.pack_into(form, data, entry(archive(), number) + offset, value)
    return bytes(data)


def rewritten(change: Callable[[zipfile.ZipFile], Any], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        file.comment = b" " * 81
        for name, data in members("dense").items():
            file.writestr(zipfile.ZipInfo(name), data, kind)
        change(file)
    return buffer.getvalue()


def twice(file: zipfile.ZipFile) -> None:
    file.filelist.append(file.filelist[0])


def overlapping() -> bytes:
    """The second member's own header inside of the first one's content."""
    inner = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", 6, 0) + b"x.json" + b"{}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.comment = b" " * 81
        file.writestr("manifest.json", inner)
        second = zipfile.ZipInfo("x.json")
        second.header_offset, second.file_size, second.compress_size, second.CRC = 30 + 13, 2, 2, 0
        file.filelist.append(second)
    return buffer.getvalue()


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "compressed": (lambda: rewritten(lambda file: None, zipfile.ZIP_DEFLATED), "is compressed"),
    "packed otherwise": (lambda: rewritten(lambda file: None, zipfile.ZIP_LZMA), "is compressed"),
    "bomb": (lambda: rewritten(lambda f: f.writestr(DIGIT, bytes(2**26), zipfile.ZIP_DEFLATED)), "is compressed"),
    "twice": (lambda: rewritten(twice), "is there twice"),
    "overlapping": (overlapping, "reaches into what follows it"),
    "folder": (lambda: rewritten(lambda file: file.writestr("schedule/", b"")), "is no file"),
    "empty name": (lambda: rewritten(lambda file: file.writestr(zipfile.ZipInfo(""), b"")), "is no file"),
    "unknown member": (lambda: rewritten(lambda file: file.writestr("extra.bin", b"")), "holds 'extra.bin'"),
    "path": (lambda: rewritten(lambda file: file.writestr("../x.json", b"")), "holds '../x.json'"),
    "zero byte": (lambda: archive().replace(b"target.json", b"target\0json"), "is no file"),
    "method": (lambda: patched(10, "<H", 8), "is compressed"),
    "unknown method": (lambda: patched(10, "<H", 99), "is compressed"),
    "encrypted": (lambda: patched(8, "<H", 1), "is encrypted"),
    "version": (lambda: patched(6, "<H", 999), "directory cannot be read"),
    "packed size": (lambda: patched(20, "<I", 1), "is compressed"),
    "checksum": (lambda: patched(16, "<I", 1), "another checksum"),
    "offset": (lambda: patched(42, "<I", 7, 1), "does not lie where the directory says"),
    "far offset": (lambda: patched(42, "<I", 2**31, 1), "does not lie where the directory says"),
    "farthest offset": (lambda: patched(42, "<I", 2**32 - 1, 1), "directory cannot be read|does not lie"),
    "name": (lambda: patched(46, "<I", 0x41414141), "does not lie where the directory says"),
    "not UTF-8": (lambda: patched(8, "<H", 0x800)[:-90].replace(b"manifest.json", b"\xff\xfenifest.json") + archive()[-90:], "."),
    "cut": (lambda: archive()[: entry(archive(), 3)] + archive()[-103:], "directory cannot be read"),
    "no directory": (lambda: archive()[: entry(archive())] + b" " * 81, "directory cannot be read"),
    "64-bit sizes": (lambda: patched(24, "<I", 2**32 - 1), "directory cannot be read|is compressed"),
}  # fmt: skip


def size_beyond() -> bytes:
    data = bytearray(patched(20, "<I", 2**31))
    struct.pack_into("<I", data, entry(archive()) + 24, 2**31)
    return bytes(data)


ARCHIVES["size"] = size_beyond, "reaches into what follows it"


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(case: str, tmp_path: Path) -> None:
    make, text = ARCHIVES[case]
    path = tmp_path / "p.xbar"
    path.write_bytes(sealed(make()))
    with pytest.raises(ProgramError, match=text):
        xbcompile.load_program(path)
    refused(path)


def test_every_member_is_needed(tmp_path: Path) -> None:
    whole = members("large")
    for name in whole:
        if name == "source.onnx":  # what may be left out
            continue
        rest = {other: data for other, data in whole.items() if other != name}
        assert name in refused(written(tmp_path / "p.xbar", rest)) or name == "manifest.json"
        for empty in (b"", b"\0", whole["manifest.json"][:100]):
            refused(written(tmp_path / "p.xbar", {**whole, name: empty}))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is no file but a pipe" in refused(tmp_path / "pipe")
    for path in ("a\0b", "\ud800"):
        with pytest.raises(ProgramError, match="no file has"):
            xbcompile.load_program(path)
    assert "is no program file" in refused(Path("/dev/zero"))
    assert "is no program file" in refused(Path("/dev/null"))

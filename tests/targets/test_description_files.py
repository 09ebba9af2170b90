"""Description files from strangers: one line, in bounded time and memory, whatever the file."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from xbcompile.cli.targeting import changed_target
from xbcompile.errors import TargetError
from xbcompile.targets import load_target
from xbcompile.targets.registry import MOST_BYTES, MOST_LINE_BYTES

NAMED = "extends = 'm2tj4'\nname = 'mine'\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x = " + b"[" * 10_000 + b"]" * 10_000, "is not valid TOML: a line of 20,004 bytes; allowed: 4,000"),
        (b"x = " + b"[" * 1_900 + b"]" * 1_900, "is not valid TOML: arrays or tables within each other go too deep"),
        (b"x = " + b"[\n" * 10_000, "is not valid TOML: arrays or tables within each other go too deep"),
        (b"x = " + b"{a=" * 1_200, "is not valid TOML"),
        (b"#" * MOST_LINE_BYTES + b"\n" + b"\n" * MOST_BYTES, "has more than 131,072 bytes"),
        (b'name = "a"\nname = "b"', "is not valid TOML: Cannot overwrite a value"),
        (b"\xff\xfen", "is not valid TOML: 'utf-8' codec"),
        (b"name = 'a\x00'", "is not valid TOML: "),
        (b"", "key 'model' is missing"),
        (NAMED.replace("'mine'", "[" * 90 + "]" * 90).encode(), r"name = \[+\.\.\.\]+ is not text"),
        (NAMED.encode() + b"quantities = 1979-05-27", "quantities must be a table"),
    ],
)
def test_files_that_are_no_descriptions(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(TargetError, match=message) as caught:
        load_target(tmp_path / "mine.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_keys_of_many_parts_take_bounded_time(tmp_path: Path) -> None:
    """Reading them takes the square of their length: as many as fit into a file are read in seconds."""
    line = b"a" + b".a" * (MOST_LINE_BYTES // 2 - 8) + b".%d=1"
    lines = (line % number for number in range(MOST_BYTES // MOST_LINE_BYTES - 1))
    (tmp_path / "mine.toml").write_bytes(b"\n".join(lines))
    started = time.monotonic()
    with pytest.raises(TargetError):
        load_target(tmp_path / "mine.toml")
    assert time.monotonic() - started < 10


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for name in ("pipe", "zero"):
        with pytest.raises(TargetError, match=rf"{name}.toml' is no regular file, but a device, a pipe or a socket"):
            load_target(tmp_path / f"{name}.toml")
    with pytest.raises(TargetError, match=r"loop.toml' cannot be read: Too many levels"):
        load_target(tmp_path / "loop.toml")
    with pytest.raises(TargetError, match="cannot be read: embedded null byte"):
        load_target(f"{tmp_path}/a\0.toml")
    with pytest.raises(TargetError, match="cannot be read: File name too long"):
        load_target(f"{tmp_path}/{'a' * 300}.toml")


@pytest.mark.parametrize("given", [None, 3, b"mram64", ["mram64"], 2.5])
def test_what_is_no_target(given: Any) -> None:
    with pytest.raises(TargetError, match="is no name or path of a target, nor a Target"):
        load_target(given)


def test_a_mark_of_the_byte_order_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbf" + NAMED.replace("\n", "\r\n").encode())
    assert load_target(tmp_path / "mine.toml").name == "mine"


@pytest.mark.parametrize("name", ["ideal", "m2tj4", "sot", "multicell"])
def test_an_array_has_a_limited_number_of_cells(name: str) -> None:
    target = load_target(name)
    rows, columns = (int(target.declared[each].high) for each in ("rows", "columns"))
    with pytest.raises(TargetError, match=r"cells with \d+ levels? each is too large; allowed: [\d,]+ cells"):
        target.with_quantities("test", rows=rows, columns=columns)
    with pytest.raises(TargetError, match=r"rows = .* is out of range; allowed: "):
        target.with_quantities("test", rows=10**9, columns=10**9)


def test_names_of_arguments_are_no_quantities() -> None:
    for name in ("self", "source", "values"):
        with pytest.raises(TargetError, match=f"target 'm2tj4' has no quantity '{name}'"):
            changed_target("m2tj4", [f"{name}=1"])


def test_a_number_is_set_once() -> None:
    with pytest.raises(TargetError, match="--set rows is given twice, as 8 and 9; give one value"):
        changed_target("m2tj4", ["rows=8", "rows=9"])
    assert changed_target("m2tj4", ["rows=8", "rows=8.0"]).parameters.rows == 8

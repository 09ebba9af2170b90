"""Compiled kernels between processes: found again, never taken for others, and missed by no command."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xbcompile import kernel_cache

# A kernel that calls one of another file and uses a constant of it.
PART = (
    "from xbcompile.deferred import njit\nFACTOR = {factor}\n@njit(cache=True)\ndef part(x):\n    return x + {term}\n"
)
WHOLE = """from xbcompile.deferred import njit
from part import FACTOR, part
@njit(cache=True)
def whole(x):
    return FACTOR * part(x)
def task(x):
    return whole(x)
"""
POOL = """from functools import partial
from whole import task
from xbcompile.cli.processes import done_in_processes
if __name__ == "__main__":
    print(sorted(result for _, result in done_in_processes([partial(task, x) for x in (3, 4, 5)], 2)))
"""
WARNING = "compiled kernels cannot be kept for the next command"


@pytest.fixture
def kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(kernel_cache, "_warned", False)
    monkeypatch.syspath_prepend(folder)
    (folder / "part.py").write_text(PART.format(factor=2, term=1))
    (folder / "whole.py").write_text(WHOLE)
    return folder


@pytest.fixture
def called(kernels: Path) -> Callable[[Any], tuple[Any, int]]:
    """Call the kernel as a new process would: what it gives, and how many compiled forms were found."""

    def call(x: Any) -> tuple[Any, int]:
        for name in ("part", "whole"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        kernel_cache._content.cache_clear()
        kernel = importlib.import_module("whole").whole
        return kernel(x), sum(kernel.stats.cache_hits.values())

    return call


def kept(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.suffix == ".xbk")


def test_found_again_and_made_anew_where_any_source_changes(kernels, called) -> None:
    """numba itself would go on with the old `part`: it looks at the file of `whole` alone."""
    assert called(3) == (8, 0)
    assert called(3) == (8, 1)
    assert called(3.0) == (8.0, 0)
    assert called(3.0) == (8.0, 1)
    for factor, term, wanted in [(2, 5, 16), (3, 5, 24)]:
        (kernels / "part.py").write_text(PART.format(factor=factor, term=term))
        assert called(3) == (wanted, 0)
        assert called(3) == (wanted, 1)
    assert len(kept(kernels)) == 2  # one of each function: older ones are gone


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]]
)
def test_a_damaged_file_is_made_anew(kernels, called, damage) -> None:
    called(3)
    for path in kept(kernels):
        path.write_bytes(damage(path.read_bytes()))
    assert called(3) == (8, 0)
    assert called(3) == (8, 1)


def test_no_folder_can_be_written(kernels, called, monkeypatch, caplog) -> None:
    """Root may write everywhere, so that the places are files where folders should be."""
    (kernels / "__pycache__").write_text("")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with caplog.at_level(logging.WARNING):
        assert called(3) == (8, 0)
        assert called(3.0) == (8.0, 0)
    assert caplog.text.count(WARNING) == 1


@pytest.mark.parametrize("failing", ["open", "replace", "listdir"])
def test_the_folder_is_lost_or_full_while_kernels_are_compiled(kernels, called, monkeypatch, caplog, failing) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        patch.setattr(f"xbcompile.files.os.{failing}", full)
        assert called(3) == (8, 0)
    assert caplog.text.count(WARNING) == 1
    assert called(3)[0] == 8


def test_processes_side_by_side_say_it_once(kernels) -> None:
    (kernels / "__pycache__").write_text("")
    (kernels / "pool.py").write_text(POOL)
    environment = os.environ | {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(kernels)}
    ended = subprocess.run(
        [sys.executable, "-B", "pool.py"], cwd=kernels, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout == "[8, 10, 12]\n", ended.stderr
    assert ended.stderr.count(f"xbcompile: warning: {WARNING}") == 1

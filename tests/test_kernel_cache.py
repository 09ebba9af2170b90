"""Compiled kernels between processes: found again, never taken for others, and missed by no command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A kernel that calls one of another file and uses a constant of it; prints the result and whether it was found compiled.
PARTS = {
    "part.py": "from xbcompile.deferred import njit\nFACTOR = {factor}\n@njit(cache=True)\ndef part(x):\n    return x + {term}\n",
    "whole.py": "from xbcompile.deferred import njit\nfrom part import FACTOR, part\n"
    "@njit(cache=True)\ndef whole(x):\n    return FACTOR * part(x)\n",
}
CALL = (
    "from whole import whole; import sys; x = float(sys.argv[2]) if sys.argv[1] == 'float' else int(sys.argv[2]);"
    "print(whole(x), sum(whole.stats.cache_hits.values()))"
)


@pytest.fixture
def kernels(folder, monkeypatch) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for name, text in PARTS.items():
        (folder / name).write_text(text.format(factor=2, term=1))
    return folder


def called(folder: Path, kind: str = "int", number: int = 3, **environment: str) -> tuple[list[str], str]:
    ended = subprocess.run(
        [sys.executable, "-B", "-c", CALL, kind, str(number)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.split(), ended.stderr


def kept(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.suffix == ".xbk")


def test_found_again_and_made_anew_where_any_source_changes(kernels) -> None:
    """numba itself would go on with the old `part`: it looks at the file of `whole` alone."""
    assert called(kernels) == (["8", "0"], "")
    assert called(kernels) == (["8", "1"], "")
    assert called(kernels, "float") == (["8.0", "0"], "")
    for number, (factor, term, wanted) in enumerate([(2, 5, "16"), (3, 5, "24")], 1):
        (kernels / "part.py").write_text(PARTS["part.py"].format(factor=factor, term=term))
        assert called(kernels) == ([wanted, "0"], ""), number
        assert called(kernels) == ([wanted, "1"], "")
    assert len(kept(kernels)) == 2  # one of each function: older ones are gone


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:]]
)
def test_a_damaged_file_is_made_anew(kernels, damage) -> None:
    called(kernels)
    for path in kept(kernels):
        path.write_bytes(damage(path.read_bytes()))
    assert called(kernels) == (["8", "0"], "")
    assert called(kernels) == (["8", "1"], "")


def test_no_folder_can_be_written(kernels) -> None:
    """Root may write everywhere, so that the places are files where folders should be."""
    (kernels / "__pycache__").write_text("")
    (kernels / "home").write_text("")
    home = str(kernels / "home")
    out, err = called(kernels, HOME=home, XDG_CACHE_HOME=home)
    assert out == ["8", "0"]
    assert err.count("compiled kernels cannot be kept for the next command") == 1


def test_the_folder_is_lost_or_full_while_kernels_are_compiled(kernels) -> None:
    call = "import xbcompile.files, os; os.replace = lambda *a: (_ for _ in ()).throw(OSError(28, 'No space left on device'));"
    ended = subprocess.run(
        [sys.executable, "-B", "-c", call + CALL, "int", "3"], cwd=kernels, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["8", "0"]
    assert ended.stderr.count("No space left on device") == 1
    assert kept(kernels) == []


def test_processes_side_by_side_say_it_once(kernels) -> None:
    (kernels / "__pycache__").write_text("")
    source = (
        "from functools import partial\nfrom whole import whole\nfrom xbcompile.cli.processes import done_in_processes\n"
        "if __name__ == '__main__': print(sorted(r for _, r in done_in_processes([partial(whole, x) for x in (3, 4, 5)], 2)))"
    )
    (kernels / "pool.py").write_text(source)
    home = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(kernels)}
    ended = subprocess.run(
        [sys.executable, "-B", "pool.py"],
        cwd=kernels,
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "[8, 10, 12]\n"
    assert ended.stderr.count("xbcompile: warning: compiled kernels cannot be kept") == 1

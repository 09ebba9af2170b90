"""A short part of `tests.soak.soak`, and proof that it sees what grows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.soak.soak import growth, one_cycle, soak


def test_nothing_grows() -> None:
    """12 models, the first 4 of which warm up kernels and libraries; the whole has 1,000 and a closer limit."""
    found = list(soak(12, 11, 2, one_cycle))
    looks, (_, ends) = [each for each, _ in found], found[-1]
    assert growth(looks, 4, memory_bytes=100 << 20) == []
    assert ends["done"] > 6


def test_what_grows_is_seen() -> None:
    kept: list[Any] = []

    def leaking(seed: int, number: int, folder: Path) -> str:
        kept.append(bytearray(b"1") * (8 << 20))
        kept.append((folder / "log").open("a"))
        kept.append(tempfile.mkstemp())
        return "done"

    looks = [each for each, _ in soak(20, 0, 5, leaking)]
    assert [text.partition(" by ")[0] for text in growth(looks, 5, memory_bytes=16 << 20)] == [
        "memory grew",
        "files grew",
        "temporary grew",
    ]
    assert growth(looks[:1], 0) == []
    for each in kept[1::3]:
        each.close()

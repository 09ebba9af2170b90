"""Results that processes share: computed once for the same arguments and folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from xbcompile.experiments.shared import shared, shared_folder

CALLS: list[tuple[int, int]] = []


def plain(number: int, factor: int = 2) -> np.ndarray:
    CALLS.append((number, factor))
    if number < 0:
        raise ValueError("negative")
    time.sleep(0.02)
    return np.arange(number) * factor


@pytest.fixture(autouse=True)
def forgotten() -> None:
    CALLS.clear()


def test_computed_once_and_told_apart_by_arguments(tmp_path: Path) -> None:
    """Another wrapper stands for another process: it has no memory of its own of what was computed."""
    first, other = shared(plain), shared(plain)
    with shared_folder(tmp_path):
        for function in (first, first, other):
            np.testing.assert_array_equal(function(3, factor=5), [0, 5, 10])
        assert CALLS == [(3, 5)]
        np.testing.assert_array_equal(other(3), [0, 2, 4])
    assert CALLS == [(3, 5), (3, 2)]
    other(3)  # outside of any folder
    other(3)
    assert CALLS == [(3, 5), (3, 2), (3, 2)]
    assert plain.__name__ == other.__name__


def test_who_comes_later_waits(tmp_path: Path) -> None:
    found = []
    with shared_folder(tmp_path):
        threads = [threading.Thread(target=lambda: found.append(shared(plain)(4))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(CALLS) == 1
    assert [list(each) for each in found] == [[0, 2, 4, 6]] * 4


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    function = shared(plain)
    for _ in range(2):
        with shared_folder(tmp_path), pytest.raises(ValueError, match="negative"):
            function(-1)
    assert len(CALLS) == 2

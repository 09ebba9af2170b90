from __future__ import annotations

import copy
import threading
from typing import Any

import numba
import numpy as np
import pytest

from xbcompile.deferred import library, njit


def test_kernels_are_compiled_where_they_are_called_and_call_each_other() -> None:
    @njit(inline="always")
    def square(x: Any) -> Any:
        return x * x

    @njit(error_model="numpy")
    def sum_of_squares(values: Any) -> Any:
        """Of an array."""
        total = values.dtype.type(0)
        for value in values:
            total += square(value)
        return total

    assert sum_of_squares._dispatcher is square._dispatcher is None
    assert sum_of_squares(np.arange(5)) == 30
    assert sum_of_squares(np.full(3, 0.5)) == 0.75
    assert isinstance(sum_of_squares.dispatcher(), numba.core.dispatcher.Dispatcher)
    assert len(sum_of_squares.signatures) == 2  # what the compiled one has, one for each type
    assert sum_of_squares.py_func(np.arange(3)) == 5
    assert (sum_of_squares.__name__, sum_of_squares.__doc__) == ("sum_of_squares", "Of an array.")


def test_looking_at_a_kernel_does_not_compile_it() -> None:
    kernel = njit()(lambda x: x)
    assert not hasattr(kernel, "__path__")
    assert copy.copy(kernel)._dispatcher is kernel._dispatcher is None


def test_threads_share_one_compiled_kernel() -> None:
    kernel = njit()(lambda x: x + 1)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(kernel.dispatcher())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_a_library_is_the_module_itself() -> None:
    special = library("scipy.special")
    import scipy.special

    assert special.ndtri is scipy.special.ndtri
    with pytest.raises(AttributeError, match="nothing"):
        _ = special.nothing
    with pytest.raises(AttributeError, match="is not loaded for '__path__'"):
        _ = special.__path__
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        _ = library("no_such_library").anything

"""Results that several rows or figures of `xbcompile reproduce` need: computed once, whichever of its processes is the first."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_MOST_KEPT = 64  # results of each function in one process
_folder: Path | None = None  # of this process


@contextmanager
def shared_folder(folder: Path | None) -> Iterator[None]:
    """Inside, results of `shared` functions are kept in a folder that belongs to one call of a command, and to nobody else."""
    global _folder
    before, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = before


def shared(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function whose results are remembered, as by `lru_cache`, and handed to other processes that use the same folder.

    One process computes while others that want the same result wait for it.

    Args:
        function: of the package; arguments that can be hashed and pickled, results that can be pickled and are not changed by
            those who get them; the same for the same arguments.
    """

    @lru_cache(_MOST_KEPT)
    def remembered(folder: Path | None, arguments: bytes) -> Result:
        args, kwargs = pickle.loads(arguments)
        if folder is None:
            return function(*args, **kwargs)
        key = hashlib.sha256(f"{function.__module__}.{function.__qualname__}".encode() + arguments).hexdigest()
        with _locked(folder / f"{key}.lock"):
            path = folder / key
            if path.exists():
                found: Result = pickle.loads(path.read_bytes())  # written by this package, in a folder of its own
                return found
            result = function(*args, **kwargs)
            (folder / f"{key}.new").write_bytes(pickle.dumps(result))
            os.replace(folder / f"{key}.new", path)
            return result

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return remembered(_folder, pickle.dumps((args, sorted_names(kwargs))))

    return call


def sorted_names(values: dict[str, object]) -> dict[str, object]:
    """In one order, so that equal arguments have equal bytes."""
    return {name: values[name] for name in sorted(values)}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else is inside with the same path; a process that ends leaves, however it ends."""
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

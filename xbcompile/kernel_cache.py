"""Compiled kernels kept between processes, in the folders that numba finds for them (NUMBA_CACHE_DIR names one).

No command fails for want of such a folder: kernels are compiled anew then. A file's name is a digest of all that its content
depends on, so that no process, killed or not, leaves a file that another takes for something else.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core.caching import FunctionCache
from numba.core.serialize import dumps

from xbcompile.errors import ProgramError
from xbcompile.files import write_atomically

_DIGEST_BYTES = 32
_warned = False  # in this process
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, np.generic)


class _KernelFiles:
    """What numba keeps a function's compiled forms in: `<function>.<source>.<form>.xbk`, a digest and a pickle.

    Args:
        folder: where.
        function: its name and place, as numba has them.
        stamp: digest of the sources that the compiled forms depend on.
    """

    def __init__(self, folder: str, function: str, stamp: str) -> None:
        self._folder, self._function = folder, function
        self._stamp = hashlib.sha256(f"{numba.__version__} {stamp}".encode()).hexdigest()[:16]

    def _path(self, key: Any) -> str:
        form = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
        return os.path.join(self._folder, f"{self._function}.{self._stamp}.{form}.xbk")

    def load(self, key: Any) -> Any:
        """What was saved for a form; None where nothing was, or it is damaged."""
        try:
            with open(self._path(key), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        kept = content[_DIGEST_BYTES:]
        return pickle.loads(kept) if hashlib.sha256(kept).digest() == content[:_DIGEST_BYTES] else None

    def save(self, key: Any, data: Any) -> None:
        """Keep a form, and none that was compiled from other sources."""
        content = dumps(data)
        write_atomically(self._path(key), hashlib.sha256(content).digest() + content)
        for name in os.listdir(self._folder):
            if name.startswith(f"{self._function}.") and name.endswith(".xbk") and self._stamp not in name:
                with suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))

    def flush(self) -> None:
        """As numba asks for: names tell fresh files from others."""


class _KernelCache(FunctionCache):
    def __init__(self, function: Callable[..., Any], stamp: str) -> None:
        super().__init__(function)
        files = _KernelFiles(self._cache_path, self._impl.filename_base, stamp)
        self._cache_file = files  # type: ignore[assignment]  # all that numba asks of it

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except OSError as error:
            self._give_up(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, ProgramError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.disable()
        _warn(str(error))


def keep(dispatcher: Any, parts: tuple[type, ...]) -> None:
    """Let what numba compiles of a function be kept, and found in another process.

    Args:
        dispatcher: what `numba.njit` made of the function.
        parts: types of what stands for other functions that are compiled into it, as their `_function`.
    """
    function = dispatcher.py_func
    try:
        dispatcher._cache = _KernelCache(function, _sources_digest(function, parts))
    except RuntimeError:  # numba found no folder
        _warn("neither the package's folder nor the user's cache can be written")


def _sources_digest(function: Callable[..., Any], parts: tuple[type, ...]) -> str:
    """Digest of all that is compiled into a function: its file, those of its parts, and the constants that their names stand for.

    numba itself looks at the function's own file alone, and would take code that holds an older version of another file.
    """
    digest, seen, waiting = hashlib.sha256(), {function}, [function]
    for each in waiting:
        digest.update(_content(each.__code__.co_filename))
        used = inspect.getclosurevars(each)
        for name, value in sorted({**used.globals, **used.nonlocals}.items()):
            if isinstance(value, parts):
                part = value._function  # type: ignore[attr-defined]
                waiting += [part] if part not in seen else []
                seen.add(part)
            elif isinstance(value, np.ndarray):
                digest.update(f"{name} = {value.dtype} {value.shape}".encode() + value.tobytes())
            elif isinstance(value, _CONSTANTS):
                digest.update(f"{name} = {value!r}".encode())
    return digest.hexdigest()


@cache
def _content(path: str) -> bytes:
    with suppress(OSError):  # there is none: it was defined at a prompt
        return Path(path).read_bytes()
    return b""


def _warn(reason: str) -> None:
    """Once in a process, whatever the reasons."""
    global _warned
    if not _warned:
        _warned = True
        logging.getLogger("xbcompile").warning(  # and not `warnings`, which numba swallows while it compiles
            "xbcompile: warning: compiled kernels cannot be kept for the next command, which compiles them again: %s; let "
            "NUMBA_CACHE_DIR name a folder that can be written",
            reason,
        )

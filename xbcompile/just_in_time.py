"""Kernels that numba compiles: `njit` as numba has it, but numba is loaded when a kernel is first called.

Loading numba takes a third of a second, which a command that calls no kernel does not wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from threading import Lock
from typing import Any

_making = Lock()


class Kernel:
    """A function that numba compiles; a call, or whatever numba asks for where another kernel calls it, goes to the compiled one.

    Args:
        function: what is compiled.
        options: of `numba.njit`.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self._options = options
        self._compiled: Any = None

    @property
    def compiled(self) -> Any:
        """The dispatcher that numba makes of the function."""
        if self._compiled is None:
            import numba  # see above

            with _making:  # threads that call first at a time would each compile
                if self._compiled is None:
                    self._compiled = numba.njit(**self._options)(self.__wrapped__)  # type: ignore[attr-defined]  # update_wrapper
        return self._compiled

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return (self._compiled or self.compiled)(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # questions of copy, inspect and the like are not for numba
            raise AttributeError(f"a kernel has no attribute {name!r}")
        return getattr(self.compiled, name)


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """What `numba.njit` does, when it is first needed.

    Args:
        options: those of `numba.njit`.

    Returns:
        A decorator that makes a `Kernel`.
    """
    return lambda function: Kernel(function, options)

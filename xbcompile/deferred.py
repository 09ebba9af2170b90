"""What is loaded when it is first used, so that no command waits for what it does not need: libraries and kernels.

numba, scipy and ortools take a third to half a second each, onnxruntime and onnx a tenth, as long as a listing takes in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import update_wrapper
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any

_compiling = Lock()


class _Library(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # questions of inspect and the like need no library
            raise AttributeError(f"{self.__name__} is not loaded for {name!r}")
        return getattr(import_module(self.__name__), name)


def library(name: str) -> Any:
    """What stands in the place of a module, which is imported when something of it is asked for.

    Args:
        name: of the module, with dots.
    """
    return _Library(name)


class Kernel:
    """A function that numba compiles when it is first called, or when a kernel that calls it is compiled.

    Args:
        function: what is compiled.
        options: of `numba.njit`; with `cache`, see `kernel_cache`.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        update_wrapper(self, function)
        self._function = function
        self._options = options
        self._dispatcher: Any = None

    def dispatcher(self) -> Any:
        """What numba makes of the function."""
        with _compiling:  # threads that call first at one time would each make one
            if self._dispatcher is None:
                from numba import njit as compiled

                options = {name: value for name, value in self._options.items() if name != "cache"}
                dispatcher = compiled(**options)(self._function)
                if self._options.get("cache"):
                    from xbcompile.kernel_cache import keep

                    keep(dispatcher, (Kernel, Intrinsic))
                self._dispatcher = dispatcher
        return self._dispatcher

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        return (self._dispatcher or self.dispatcher())(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"a kernel has no {name!r}")
        return getattr(self.dispatcher(), name)  # numba asks for its own attributes where another kernel calls this one


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, for which numba is loaded when a kernel is first called.

    Args:
        options: those of `numba.njit`.

    Returns:
        A decorator that makes a `Kernel`.
    """
    return lambda function: Kernel(function, options)


class Intrinsic:
    """A function that writes code, which numba is told of when a kernel that calls it is compiled.

    Args:
        function: of the typing context and the types of arguments; returns a signature and a code generator.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._made: Any = None

    def __getattr__(self, name: str) -> Any:
        if name != "_numba_type_":  # numba's own question of what it finds in a kernel's module
            raise AttributeError(f"an intrinsic has no {name!r}")
        with _compiling:
            if self._made is None:
                from numba.core.registry import cpu_target
                from numba.extending import intrinsic as made

                self._made = made(self._function)
                cpu_target.typing_context.refresh()
                self._type = cpu_target.typing_context.resolve_value_type(self._made)
        return self._type


def intrinsic(function: Callable[..., Any]) -> Intrinsic:
    """`numba.extending.intrinsic`, for which numba is loaded when a kernel that calls it is compiled.

    Args:
        function: see `Intrinsic`.
    """
    return Intrinsic(function)

"""Public names of packages, whose modules are loaded when a name is first used.

This is the first that every command loads, and loads next to nothing itself: an interruption before the command line is ready to
take it would end in a traceback.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # `typing` would take longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def public_names(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) whose public names come from its modules, which are imported for them.

    Args:
        package: its name, for messages.
        where: the module of each name.
    """

    def find(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    return find

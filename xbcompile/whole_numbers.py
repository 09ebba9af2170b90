"""Whole numbers that a Python caller gives: one rule for all options and arguments.

Integers of any kind are taken, as Python's own: numpy's too, and whatever has `__index__`. Floats are refused, 2.0 as well as
2.5, and so are texts and bools.
"""

from __future__ import annotations

import operator
from typing import Any

from xbcompile.errors import XbcompileError, shown


def as_whole_number(value: Any) -> int | None:
    """The value as Python's int; None where it is no integer of any kind.

    Args:
        value: anything.
    """
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):  # numpy's bools once counted as integers
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def whole_number(name: str, value: Any, least: int, most: int, what: str, error: type[XbcompileError]) -> int:
    """The value as Python's int, from `least` to `most`.

    Args:
        name: of the option or argument.
        value: what was given.
        least: smallest number allowed.
        most: largest number allowed.
        what: what it counts, for the message.
        error: what is raised where it is anything else.
    """
    number = as_whole_number(value)
    if number is None or not least <= number <= most:
        raise error(f"{name}={shown(value)}: give {what}, a whole number from {least} to {most:,}")
    return number

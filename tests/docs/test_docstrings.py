"""Every public name has a docstring, whose `Args:` (or `Attributes:`) names each argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any

import pytest

import xbcompile

MODULES = (
    "xbcompile.passes.contract",
    "xbcompile.targets.contract",
    "xbcompile.targets.parameters",
    "xbcompile.testing",
    "xbcompile.testing.passes",
    "xbcompile.testing.targets",
    "xbcompile.extensions",
)
# A method of a subclass or of a protocol's implementation is described where it is declared.
ELSEWHERE = re.compile(r"See \w+")


def public_objects() -> dict[str, Any]:
    """Functions and classes by dotted name, with those methods of classes that have no leading underscore."""
    found = {f"xbcompile.{name}": getattr(xbcompile, name) for name in xbcompile.__all__}
    for name in MODULES:
        module = import_module(name)
        own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        found |= {f"{name}.{key}": v for key, v in own.items() if getattr(v, "__module__", "") == name and callable(v)}
    for name, value in list(found.items()):
        if inspect.isclass(value):
            found |= {f"{name}.{key}": each for key, each in methods(value)}
    return found


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(kind).items():
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        own = isinstance(value, property) or (
            inspect.isfunction(value) and value.__name__ == name
        )  # no field's default
        if own and not name.startswith("_"):
            yield name, value


def missing(value: Any) -> list[str]:
    """What a docstring lacks: itself, or arguments that no line of `Args:` or `Attributes:` begins with."""
    text = inspect.getdoc(value) if not inspect.isclass(value) else value.__doc__
    if not text or (inspect.isclass(value) and text.startswith(f"{value.__name__}(")):  # what dataclass writes
        return ["docstring"]
    if isinstance(value, property) or ELSEWHERE.match(text):
        return []
    if inspect.isclass(value):  # fields are described where they are declared
        text = "\n".join(inspect.cleandoc(each.__doc__ or "") for each in value.__mro__)
    return [name for name in arguments(value) if not re.search(rf"^\s+\*{{0,2}}{name}: ", text, re.MULTILINE)]


def arguments(value: Any) -> list[str]:
    """Names of the arguments with which a function is called or a class made; none for what nobody makes."""
    if inspect.isclass(value) and (issubclass(value, Exception | Enum) or getattr(value, "_is_protocol", False)):
        return []
    parameters = list(inspect.signature(value).parameters)
    return [name for name in parameters if name not in ("self", "cls") and not name.startswith("_")]


@pytest.mark.parametrize(("name", "value"), public_objects().items(), ids=list(public_objects()))
def test_public_names_say_what_they_take(name: str, value: Any) -> None:
    assert missing(value) == [], f"{name} does not say"

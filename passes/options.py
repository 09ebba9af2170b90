"""Options of passes as text, by the types that their fields declare: `levels=4 per=column low=-0.5 exact=true layer="a b"`.

A field is an int, float, bool, str or Literal, or one of these `| None`. Text is written as it is where it is one plain word,
else between double quotes as in JSON; None is `none`; bools are `true` and `false`, and 1 and 0 are read as such too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from xbcompile.whole_numbers import as_whole_number

QUOTED = r'"(?:[^"\\]|\\.)*"'
_PLAIN = re.compile(r'[^\s{}",]+')
_WORD = re.compile(rf'(?:{QUOTED}|[^\s"])+', re.DOTALL)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class OptionType:
    """The declared type of an option.

    Args:
        kind: int, float, bool or str; of a Literal, the type of its choices.
        optional: whether None is allowed.
        choices: what a Literal allows; none: any value.
    """

    kind: type
    optional: bool = False
    choices: tuple[Any, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            ValueError: it stands for none; the message says what is allowed.
        """
        if self.optional and text == "none":
            return None
        value = self._convert(text)
        if self.choices and value not in self.choices:
            raise ValueError(f"is unknown; allowed: {', '.join(map(self.text, self.choices))}")
        return value

    def taken(self, value: Any) -> Any:
        """A value that a Python caller gives, as the declared type: numpy's numbers as Python's, integers as floats.

        Raises:
            ValueError: it is of another type; the message says what is allowed.
        """
        if value is None and self.optional:
            return None
        found = _as_kind(value, self.kind)
        if found is None:
            raise ValueError(f"is not {_KINDS[self.kind]}{', or None' if self.optional else ''}")
        if self.choices and found not in self.choices:
            raise ValueError(f"is unknown; allowed: {', '.join(map(self.text, self.choices))}")
        return found

    def _convert(self, text: str) -> Any:
        try:
            if self.kind is bool:
                return _FLAGS[text]
            if self.kind is str:
                return json.loads(text) if text.startswith('"') else text
            return self.kind(text)
        except (KeyError, ValueError):
            raise ValueError(f"is not {_KINDS[self.kind]}") from None

    def text(self, value: Any) -> str:
        """The text that `parse` reads back to the value."""
        if value is None:
            return "none"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            short = f"{value:g}"
            return short if float(short) == value else repr(value)
        if isinstance(value, str) and (not _PLAIN.fullmatch(value) or (self.optional and value == "none")):
            return json.dumps(value, ensure_ascii=False)
        return str(value)


def _as_kind(value: Any, kind: type) -> Any:
    """The value as Python's own of a kind, where it is one exactly; else None."""
    if kind is int:
        return as_whole_number(value)
    if kind is bool:
        return bool(value) if isinstance(value, bool | np.bool_) else None
    if kind is str:
        return str(value) if isinstance(value, str) else None
    whole = as_whole_number(value)
    if whole is None:
        return float(value) if isinstance(value, float | np.floating) else None
    try:
        return float(whole)
    except OverflowError:
        return None


_KNOWN: dict[type, Mapping[str, OptionType]] = {}  # of the passes that were asked for


def required_options(pass_class: type) -> tuple[str, ...]:
    """The options of a pass that have no default."""
    return tuple(f.name for f in fields(pass_class) if f.default is MISSING and f.default_factory is MISSING)


def option_types(pass_class: type) -> Mapping[str, OptionType]:
    """The options of a pass by name.

    Raises:
        TypeError: the pass is no dataclass, or a field has a type that an option cannot have; its author's fault.
    """
    if pass_class in _KNOWN:
        return _KNOWN[pass_class]
    if not is_dataclass(pass_class):
        raise TypeError(f"{pass_class.__name__} is not a dataclass; the fields of a pass are its options")
    hints = get_type_hints(pass_class)
    _KNOWN[pass_class] = types = {
        each.name: _option_type(hints[each.name], f"{pass_class.__name__}.{each.name}") for each in fields(pass_class)
    }
    return types


def _option_type(declared: Any, where: str) -> OptionType:
    members = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    inner = [member for member in members if member is not NoneType]
    optional = len(inner) < len(members)
    if len(inner) == 1 and inner[0] in _KINDS:
        return OptionType(inner[0], optional)
    if len(inner) == 1 and get_origin(inner[0]) is Literal:
        choices = get_args(inner[0])
        kinds = {type(choice) for choice in choices}
        if len(kinds) == 1 and kinds <= _KINDS.keys():
            return OptionType(kinds.pop(), optional, choices)
    raise TypeError(
        f"{where} is declared as {declared!r}; an option is an int, float, bool, str or a Literal of one of these, "
        "or one of these | None"
    )


def split_options(text: str) -> list[tuple[str, str, str]]:
    """Name, equals sign (empty where there is none) and value of each option in the text between a pass's braces."""
    return [word.partition("=") for word in _WORD.findall(text)]


def print_options(values: Mapping[str, Any], types: Mapping[str, OptionType]) -> str:
    """Options as they stand between a pass's braces."""
    return " ".join(f"{name}={types[name].text(value)}" for name, value in values.items())

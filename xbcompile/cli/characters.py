"""What a terminal can show: names with their control characters spelled out, and plain characters where it has no others."""

from __future__ import annotations

import codecs
from typing import TypeVar

Value = TypeVar("Value")

ERRORS = "xbcompile-plain"  # name of the handler, for `errors` of streams
_PLAIN = {"µ": "u", "μ": "u", "±": "+-", "→": "->", "²": "^2", "·": "*", "≤": "<=", "≥": ">=", "Ω": "Ohm", "σ": "sigma"}
_PLAIN |= {"×": "x", "…": "~", "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"'}


def visible(value: Value) -> Value:
    """Plain data with all that a terminal would obey or not show (control characters, bidirectional overrides, line breaks, lone
    surrogates) as Python spells it: `\\x1b`, `\\u202e`.

    Args:
        value: a text, or mappings, lists and tuples of texts and other values, which stay as they are.
    """
    shown: object = value
    if isinstance(value, str):
        shown = value if value.isprintable() else "".join(map(_visible_character, value))
    elif isinstance(value, dict):
        shown = {visible(key): visible(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        shown = type(value)(visible(each) for each in value)
    return shown  # type: ignore[return-value]  # of the same type


def _visible_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def plain(text: str, encoding: str) -> str:
    """A text with other characters for those that an encoding lacks: `+-` for `±`, `\\u4e2d` for what has no likeness."""
    if text.isascii():
        return text
    return text.encode(encoding, ERRORS).decode(encoding)


def _plain_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_PLAIN.get(each, each.encode("unicode_escape").decode()) for each in found), error.end


codecs.register_error(ERRORS, _plain_error)

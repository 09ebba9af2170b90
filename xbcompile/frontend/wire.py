"""How many messages a file holds, before it is parsed: an empty one takes two bytes of the file, and a hundred of memory.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]  # protobuf brings no types

_SMALLEST = 2  # bytes of a message in another one: its tag and its length
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_SIZES = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}

Span = tuple[Descriptor, int, int]  # a message's type, begin and end


def has_more_messages(content: bytes, kind: Descriptor, limit: int) -> bool:
    """Whether a serialised message holds more than so many others; not told of one that is damaged.

    Args:
        content: the message.
        kind: its type.
        limit: so many.
    """
    found, level = 0, [(kind, 0, len(content))]
    while level and found + sum(end - start for _, start, end in level) // _SMALLEST > limit:
        inner: list[Span] = []
        for span in level:
            inner += _messages_in(content, span)
            if found + len(inner) > limit:
                return True
        found, level = found + len(inner), inner
    return False


def _messages_in(content: bytes, span: Span) -> list[Span]:
    """The messages directly in a message, as far as it is sound."""
    kind, position, end = span
    kinds, found = _kinds(kind), []
    try:
        while position < end:
            tag, position = _varint(content, position)
            wire_type = tag & 7
            if wire_type == _VARINT:
                _, position = _varint(content, position)
            elif wire_type == _BYTES:
                length, position = _varint(content, position)
                if tag >> 3 in kinds:
                    found.append((kinds[tag >> 3], position, min(position + length, end)))
                position += length
            elif wire_type in _SIZES:
                position += _SIZES[wire_type]
            else:
                break
    except IndexError:  # it ends within a number
        pass
    return found


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    byte = content[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = 0, 0
    while byte >= 0x80:
        value |= (byte & 0x7F) << shift
        shift, position = shift + 7, position + 1
        byte = content[position]
    return value | byte << shift, position + 1


@cache
def _kinds(kind: Descriptor) -> dict[int, Descriptor]:
    """Types of the messages in a message of a type, by field number."""
    return {each.number: each.message_type for each in kind.fields if each.type == FieldDescriptor.TYPE_MESSAGE}

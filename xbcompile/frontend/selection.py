"""Which nodes a user keeps digital."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from onnx import NodeProto

MARK = ("xbcompile", "digital")  # a node's metadata that keeps it digital


def reason_to_stay(node: NodeProto, digital: Collection[str]) -> str | None:
    """Why the user wants a node digital: a mark in the model, or a pattern that its name matches; None if not at all."""
    if is_marked(node):
        return "marked digital in the model"
    return kept_by(node.name, digital)


def kept_by(name: str, digital: Collection[str]) -> str | None:
    """Why a node of this name stays digital: the pattern that its name matches; None if it matches none."""
    return next((f'kept digital by "{pattern}"' for pattern in digital if matches(name, pattern)), None)


def is_marked(node: NodeProto) -> bool:
    """Whether the model itself marks the node as digital."""
    return any((entry.key, entry.value) == MARK for entry in node.metadata_props)


def matches(name: str, pattern: str) -> bool:
    """Whether a node's name is the pattern, or matches it as a shell has patterns."""
    return name == pattern or fnmatchcase(name, pattern)

"""Pretend that packages are installed which extend this one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from unittest.mock import patch

from xbcompile import extensions
from xbcompile.frontend.operators import registered_operators


@contextmanager
def installed(group: str, *entries: tuple[str, str, str]) -> Iterator[None]:
    """Inside, the entry points of a group are these: package, name, value."""
    found = [EntryPoint(name, value, group)._for(SimpleNamespace(name=package)) for package, name, value in entries]  # type: ignore[attr-defined]
    with patch.object(extensions, "entry_points", lambda group: [e for e in found if e.group == group]):
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    extensions._installed.cache_clear()
    registered_operators.cache_clear()

"""Program files that someone made: members of right ones, changed, with the digest that fits."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

import xbcompile
from tests.fuzz.boundaries.program import members
from tests.fuzz.program_edits import Members
from xbcompile.errors import ProgramError
from xbcompile.program.archive import sealed


def written(path: Path, content: Members) -> Path:
    """A program file of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.comment = b" " * 81
        for name, data in content.items():
            file.writestr(zipfile.ZipInfo(name), data)
    path.write_bytes(sealed(buffer.getvalue()))
    return path


def refused(path: Path) -> str:
    """The one line that says why a program is not loaded."""
    with pytest.raises(ProgramError) as caught:
        xbcompile.load_program(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text.split()) > 5
    return text


def manifest_of(base: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(members(base)["manifest.json"])
    return found


def with_manifest(base: str, table: Any) -> Members:
    return {**members(base), "manifest.json": json.dumps(table).encode()}


def changed(base: str, *path: Any, value: Any) -> Members:
    """The members with another value at a place of the manifest."""
    table = manifest_of(base)
    found: Any = table
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = value
    return with_manifest(base, table)

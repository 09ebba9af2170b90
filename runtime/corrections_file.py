"""Corrections as a file: a sealed archive of its own, bound to the program's digest and the chip."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from xbcompile.errors import ProgramError
from xbcompile.files import atomic_file
from xbcompile.ir.corrections import Corrections, Effort, LayerCorrection
from xbcompile.ir.image_route import ImageRoute
from xbcompile.program.archive import Archive, ArchiveKind, npy, opened, write_archive
from xbcompile.program.manifest import Count, Entry, Malformed, checked, parsed_json
from xbcompile.program.members import Missing

FIT_VERSION = 1
_ROUTE = ("row", "column", "row_sign", "column_sign")
_UNSIGNED = tuple(map(np.dtype, ("<u2", "<u4", "<u8")))
_TABLE = r"layers/[0-9]{1,9}/(gain|shift|tile_gain)|column_offset|column_permutation|routes/(row|column|row_sign|column_sign)"
_FIT = ArchiveKind(
    "file of corrections",
    "xbcompile commission P.xbar -o CHIP.fit",
    re.compile(rf"fit\.json|({_TABLE})\.npy"),
)


class EffortEntry(Entry):
    """See `ir.corrections.Effort`."""

    weight_updates: Count
    rows_written: Count
    reads: Count


class FitManifest(Entry):
    """`fit.json`."""

    fit_version: int
    program: str
    chip: str
    defects_known: bool
    effort: EffortEntry
    layers: Count
    tables: tuple[Annotated[str, Meta(pattern=rf"^({_TABLE})\Z")], ...]


def save_corrections(corrections: Corrections, path: str | os.PathLike[str]) -> None:
    """Write a file of corrections: beside its place first, then renamed.

    Args:
        corrections: what was fitted, see `commission`.
        path: of the file; what is there is replaced.

    Raises:
        ProgramError: the folder does not exist or cannot be written.
    """
    with atomic_file(path) as file:
        write_archive(file, _members(corrections))


def _members(corrections: Corrections) -> Iterator[tuple[str, bytes | memoryview]]:
    tables = dict(_tables(corrections))
    manifest = {
        "fit_version": FIT_VERSION,
        "program": corrections.program,
        "chip": corrections.chip,
        "defects_known": corrections.defects_known,
        "effort": asdict(corrections.effort),
        "layers": len(corrections.layers),
        "tables": sorted(tables),
    }
    yield "fit.json", json.dumps(manifest, indent=1, sort_keys=True).encode()
    for name in sorted(tables):
        yield f"{name}.npy", npy(tables[name])


def _tables(corrections: Corrections) -> Iterator[tuple[str, np.ndarray]]:
    for i, layer in enumerate(corrections.layers):
        yield f"layers/{i}/gain", layer.gain
        yield f"layers/{i}/shift", layer.shift
        if layer.tile_gain is not None:
            yield f"layers/{i}/tile_gain", layer.tile_gain
    if corrections.column_offset is not None:
        yield "column_offset", corrections.column_offset
    if corrections.column_permutation is not None:
        yield "column_permutation", corrections.column_permutation
    if corrections.routes is not None:
        for name in _ROUTE:
            yield f"routes/{name}", np.stack([getattr(route, name) for route in corrections.routes])


def load_corrections(path: str | os.PathLike[str]) -> Corrections:
    """Read a file of corrections; that it fits a program is checked where it is used with one.

    Args:
        path: of the file.

    Raises:
        ProgramError: the file is missing, no such file, damaged, of another version, or it says what no such file may.
    """
    with opened(path, _FIT) as archive:
        if "fit.json" not in archive:
            raise ProgramError(
                f"{archive.name!r} holds no corrections; make some with: xbcompile commission PROGRAM -o FILE"
            )
        try:
            return _read(archive)
        except (Malformed, Missing) as error:
            raise archive.malformed(error) from None


def _read(archive: Archive) -> Corrections:
    parsed = parsed_json(archive.read("fit.json"), "fit.json")
    version = parsed.get("fit_version")
    if version != FIT_VERSION or isinstance(version, bool):
        raise ProgramError(
            f"file of corrections {archive.name!r} has version {reprlib.repr(version)}; this xbcompile reads "
            f"{FIT_VERSION}: commission the chip again"
        )
    archive.check_names()
    manifest = checked(parsed, FitManifest, "fit.json")
    tables = {name: archive.table(f"{name}.npy", *_types_of(name)) for name in manifest.tables}
    layers = tuple(_layer(tables, f"layers/{i}") for i in range(min(manifest.layers, len(tables) + 1)))
    routes = None
    if any(f"routes/{name}" in tables for name in _ROUTE):
        parts = [_taken(tables, f"routes/{name}") for name in _ROUTE]
        if any(part.ndim != 2 or len(part) != len(parts[0]) for part in parts):
            raise Malformed("its routes are not of one number of images")
        routes = tuple(ImageRoute(*each) for each in zip(*parts, strict=True))
    return Corrections(
        program=manifest.program,
        chip=manifest.chip,
        layers=layers,
        column_offset=tables.get("column_offset"),
        column_permutation=tables.get("column_permutation"),
        routes=routes,
        defects_known=manifest.defects_known,
        effort=Effort(**msgspec.structs.asdict(manifest.effort)),
    )


def _layer(tables: dict[str, np.ndarray], name: str) -> LayerCorrection:
    return LayerCorrection(
        _taken(tables, f"{name}/gain"), _taken(tables, f"{name}/shift"), tables.get(f"{name}/tile_gain")
    )


def _taken(tables: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name not in tables:
        raise Missing(f"there is no {name}")
    return tables[name]


def _types_of(name: str) -> tuple[Any, ...]:
    """Element types that a table of this name may have."""
    if name in ("routes/row", "routes/column"):
        return (np.dtype("<i8"),)
    if name.startswith("routes/"):
        return (np.dtype("<f4"),)
    return _UNSIGNED if name == "column_permutation" else (np.dtype("<f8"),)

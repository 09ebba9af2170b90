"""Corrections as a file: a sealed archive of its own, bound to the program's digest and the chip."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from xbcompile.errors import ProgramError
from xbcompile.files import atomic_file
from xbcompile.ir.corrections import Corrections, Effort, LayerCorrection
from xbcompile.ir.image_route import ImageRoute
from xbcompile.program.archive import Archive, npy, write_archive

FIT_VERSION = 1
_FIT = ("file of corrections", "xbcompile commission P.xbar -o CHIP.fit")
_ROUTE = ("row", "column", "row_sign", "column_sign")


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
    """Read a file of corrections.

    Args:
        path: of the file.

    Raises:
        ProgramError: the file is missing, no such file, damaged or of another version.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            return _read(Archive(file, name, _FIT))
    except FileNotFoundError:
        raise ProgramError(f"file of corrections {name!r} does not exist") from None
    except OSError as error:
        raise ProgramError(f"file of corrections {name!r} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ProgramError(f"file of corrections {name!r} lacks a part that it must have: {error}") from None


def _read(archive: Archive) -> Corrections:
    if "fit.json" not in archive:
        raise ProgramError(
            f"{archive.name!r} holds no corrections; make some with: xbcompile commission PROGRAM -o FILE"
        )
    manifest: dict[str, Any] = json.loads(archive.read("fit.json"))
    if manifest.get("fit_version") != FIT_VERSION:
        raise ProgramError(
            f"file of corrections {archive.name!r} has version {manifest.get('fit_version')}; this xbcompile reads "
            f"{FIT_VERSION}: commission the chip again"
        )
    tables = {name: archive.table(f"{name}.npy") for name in manifest["tables"]}
    layers = tuple(
        LayerCorrection(tables[f"layers/{i}/gain"], tables[f"layers/{i}/shift"], tables.get(f"layers/{i}/tile_gain"))
        for i in range(manifest["layers"])
    )
    routes = None
    if "routes/row" in tables:
        routes = tuple(ImageRoute(*each) for each in zip(*(tables[f"routes/{name}"] for name in _ROUTE), strict=True))
    return Corrections(
        program=manifest["program"],
        chip=manifest["chip"],
        layers=layers,
        column_offset=tables.get("column_offset"),
        column_permutation=tables.get("column_permutation"),
        routes=routes,
        defects_known=manifest["defects_known"],
        effort=Effort(**manifest["effort"]),
    )

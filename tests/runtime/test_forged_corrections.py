"""Files of corrections that someone made: one line of error, from the file or from the session that is to use it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fuzz.boundaries.program import members, program
from tests.fuzz.program_edits import Members
from tests.support.forged_programs import written
from xbcompile.errors import ProgramError
from xbcompile.ir.corrections import Corrections
from xbcompile.runtime import Session, load_corrections


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Corrections:
    return load_corrections(written(tmp_path_factory.mktemp("fit") / "right.fit", members("corrections")))


def refused(path: Path) -> str:
    with pytest.raises(ProgramError) as caught:
        load_corrections(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def manifest(**changes: Any) -> Members:
    table = {**json.loads(members("corrections")["fit.json"]), **changes}
    return {**members("corrections"), "fit.json": json.dumps(table).encode()}


MANIFESTS = {
    "layers": ({"layers": -1}, "fit.json.layers: Expected `int` >= 0"),
    "many layers": ({"layers": 2**62}, "there is no layers/2/gain"),
    "tables": ({"tables": ["../gain"]}, "fit.json.tables[0]"),
    "no tables": ({"tables": []}, "there is no layers/0/gain"),
    "text": ({"tables": "layers/0/gain"}, "Expected `array`, got `str`"),
    "effort": ({"effort": {"weight_updates": 1, "rows_written": 1, "reads": -1}}, "fit.json.effort.reads"),
    "less effort": ({"effort": {}}, "missing required field"),
    "defects": ({"defects_known": 1}, "fit.json.defects_known: Expected `bool`, got `int`"),
    "chip": ({"chip": None}, "fit.json.chip: Expected `str`, got `null`"),
    "half a pair": ({"chip": "\ud800"}, "half of a pair of surrogates"),
    "unknown": ({"other": 1}, "unknown field `other`"),
    "version": ({"fit_version": True}, "has version True"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(case: str, tmp_path: Path) -> None:
    changes, text = MANIFESTS[case]
    assert text in refused(written(tmp_path / "c.fit", manifest(**changes)))


def test_members(tmp_path: Path) -> None:
    whole = members("corrections")
    for name in whole:
        refused(written(tmp_path / "c.fit", {other: data for other, data in whole.items() if other != name}))
        refused(written(tmp_path / "c.fit", {**whole, name: b""}))
    assert "holds 'extra.npy'" in refused(written(tmp_path / "c.fit", {**whole, "extra.npy": b""}))
    assert "nested too deeply" in refused(written(tmp_path / "c.fit", {**whole, "fit.json": b'{"a":' * 100_000}))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_tables_of_other_types_and_shapes(right: Corrections, tmp_path: Path) -> None:
    """Each table in another element type is refused by the file, in another shape by the file or the session."""
    whole = members("corrections")
    assert right.routes is not None
    assert right.column_permutation is not None
    assert Session(program("fitted"), seed=1, corrections=right, threads=1).corrections == right
    tables = [name for name in whole if name.endswith(".npy")]
    assert len(tables) >= 11
    for name in tables:
        array = np.load(io.BytesIO(whole[name]))
        assert "has elements" in refused(written(tmp_path / "c.fit", {**whole, name: npy(array.astype("<f2"))}))
        wrong = [array[:-1], array[None], np.concatenate([array, array])]
        wrong += [np.where(np.arange(array.size).reshape(array.shape) == 3, value, array) for value in (7_000, 0)]
        for i, other in enumerate(wrong):
            path = written(tmp_path / "c.fit", {**whole, name: npy(other.astype(array.dtype))})
            is_number = "gain" in name or "shift" in name or "offset" in name
            if i > 2 and (is_number or np.array_equal(other, array)):
                continue  # any finite number may be right
            with pytest.raises(ProgramError):
                Session(program("fitted"), seed=1, corrections=load_corrections(path), threads=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_are_finite(right: Corrections, value: float) -> None:
    layer, offset = right.layers[0], right.column_offset
    assert offset is not None
    assert layer.tile_gain is not None
    spoiled = np.where(np.arange(offset.size).reshape(offset.shape) == 1, value, offset)
    wrong = [replace(right, column_offset=spoiled)]
    for name in ("gain", "shift", "tile_gain"):
        table = getattr(layer, name).copy()
        table.flat[1] = value
        wrong.append(replace(right, layers=(replace(layer, **{name: table}), *right.layers[1:])))
    for each in wrong:
        with pytest.raises(ProgramError, match="not finite; commission the chip again"):
            Session(program("fitted"), seed=1, corrections=each, threads=1)

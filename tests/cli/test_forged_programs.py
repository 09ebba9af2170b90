"""Every reader of program files refuses what someone made in the same line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xbcompile
from tests.fuzz.boundaries.program import members
from tests.support.forged_programs import changed, written
from xbcompile.errors import ProgramError


def test_every_command_says_so_in_one_line(refused: Any, folder: Path) -> None:
    written(folder / "bad.xbar", changed("dense", "nodes", 0, "input_code", value=None))
    np.savez(folder / "x.npz", x=np.ones((4, 6), "f"), labels=np.zeros(4, int))
    (folder / "m.onnx").write_bytes(members("dense")["source.onnx"])
    for arguments in (
        ("inspect", "bad.xbar"),
        ("inspect", "bad.xbar", "--json"),
        ("verify", "bad.xbar"),
        ("run", "bad.xbar", "--data", "x.npz"),
        ("run", "bad.xbar", "--data", "x.npz", "--device", "emulator"),
        ("diagnose", "bad.xbar", "--data", "x.npz"),
        ("commission", "bad.xbar", "-o", "c.fit"),
        ("plan", "bad.xbar"),
        ("compile", "m.onnx", "--like", "bad.xbar", "-o", "p.xbar"),
    ):
        assert "uncoded inputs, and the target's rows take bipolar drives" in refused(*arguments), arguments
    with pytest.raises(ProgramError, match="uncoded inputs"):
        xbcompile.InferenceSession(folder / "bad.xbar")

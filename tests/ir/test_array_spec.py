"""What an array's description checks of itself: a family that makes it wrong is told which field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbcompile.ir import ArraySpec
from xbcompile.ir.array_spec import DRIVES

SPEC = ArraySpec.uniform(
    rows=3,
    columns=2,
    levels=np.array([-1, 0, 1], np.float32),
    drive="signed",
    t_write_row_s=1e-6,
    t_read_s=1e-7,
    e_write_row_j=0.0,
    e_read_j=0,
)
LEVELS = "None or float32 [2 to 256], finite and strictly increasing"


def test_uniform() -> None:
    assert SPEC.neutral_level.tolist() == [1, 1, 1]
    assert (SPEC.t_write_s, SPEC.e_write_j, SPEC.has_row_weights) == (3e-6, 0.0, False)
    assert all(replace(SPEC, drive=drive) for drive in DRIVES)
    continuous = replace(SPEC, levels=None, neutral_level=np.zeros(3, np.uint8), cell_limit=1.5)
    assert continuous.cell_limit == 1.5


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("rows", 0, "a whole number, 1 or more"),
        ("rows", 3.0, "a whole number, 1 or more"),
        ("columns", True, "a whole number, 1 or more"),
        ("columns", np.int64(2), "a whole number, 1 or more"),
        ("drive", "ternary", "one of analogue, signed, bipolar, unipolar, unbounded"),
        ("t_write_row_s", -1e-9, "a finite number, 0 or more"),
        ("t_read_s", np.inf, "a finite number, 0 or more"),
        ("e_write_row_j", np.nan, "a finite number, 0 or more"),
        ("e_read_j", "0", "a finite number, 0 or more"),
        ("shares_rows", 1, "true or false"),
        ("shares_columns", None, "true or false"),
        ("writes_while_reading", 0, "true or false"),
        ("writes_at_a_time", -1, "a whole number, 0 or more"),
        ("writes_at_a_time", False, "a whole number, 0 or more"),
        ("levels", [-1, 0, 1], LEVELS),
        ("levels", np.array([-1, 0, 1]), LEVELS),
        ("levels", np.array([1], np.float32), LEVELS),
        ("levels", np.array([-1, 1, 0], np.float32), LEVELS),
        ("levels", np.array([-1, 1, 1], np.float32), LEVELS),
        ("levels", np.array([-1, 0, np.nan], np.float32), LEVELS),
        ("levels", np.array([-1, 0, np.inf], np.float32), LEVELS),
        ("levels", np.zeros((2, 2), np.float32), LEVELS),
        ("levels", np.arange(257, dtype=np.float32), LEVELS),
        ("cell_limit", 1.0, "None, or a finite number above 0 where levels is None"),
        ("row_weight", np.ones(2), r"float64 [3], finite"),
        ("row_weight", np.ones(3, np.float32), r"float64 [3], finite"),
        ("row_weight", np.array([1, np.nan, 1]), r"float64 [3], finite"),
        ("idle_drive", np.zeros(3), r"float32 [3], finite"),
        ("idle_drive", 0, r"float32 [3], finite"),
        ("neutral_level", np.zeros(4, np.uint8), r"uint8 [3], finite"),
        ("neutral_level", np.zeros(3, np.int64), r"uint8 [3], finite"),
        ("neutral_level", np.array([0, 3, 0], np.uint8), "indices of levels, 0 to 2"),
    ],
)
def test_each_fault_is_named(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError) as caught:
        replace(SPEC, **{field: value})
    assert str(caught.value) == f"ArraySpec.{field} = {value!r}; it must be {allowed}"


@pytest.mark.parametrize("limit", [0.0, -1.0, np.inf, np.nan, "1", True])
def test_limits_of_continuous_cells(limit: Any) -> None:
    continuous = replace(SPEC, levels=None, neutral_level=np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r"ArraySpec\.cell_limit"):
        replace(continuous, cell_limit=limit)
    with pytest.raises(ValueError, match=r"ArraySpec\.neutral_level.* indices of levels, 0 to 0"):
        replace(SPEC, levels=None)

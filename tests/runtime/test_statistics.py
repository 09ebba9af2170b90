"""Statistics of a layer, from readings and inputs made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xbcompile.ir import InputCode
from xbcompile.runtime.statistics import LayerStatistics, StatisticsCollector

NONE = np.zeros(0, int)


def seen(
    *tensors: np.ndarray, code: InputCode | None = None, readings: Any = (), limits: Any = None
) -> LayerStatistics:
    collector = StatisticsCollector(SimpleNamespace(lsb=0.5, reading_limits=limits), code)  # type: ignore[arg-type]
    for tensor in tensors:
        collector.note_inputs(tensor)
    for each in readings:
        collector.observe(NONE, NONE, np.array(each, float), np.zeros(len(each)))
    return collector.result("fc")


def test_readings_at_either_end_are_saturated() -> None:
    """Limits -2..2: one reading of eight below, three above, from -2 to 2 in all; without the ends, from -1 to 0.5."""
    found = seen(readings=([-2, -1, 0, 2], [2, 2, 0.5, 0]), limits=(-2.0, 2.0))
    assert (found.readings, found.saturated_low_fraction, found.saturated_high_fraction) == (8, 1 / 8, 3 / 8)
    assert (found.saturated_fraction, found.range_used_fraction) == (0.5, 1)
    assert (found.mean_error_lsb, found.mean_absolute_error_lsb) == (3.5 / 8 / 0.5, 9.5 / 8 / 0.5)
    found = seen(readings=([-1, 0.5],), limits=(-2.0, 2.0))
    assert (found.saturated_fraction, found.range_used_fraction) == (0, 1.5 / 4)
    assert seen(readings=([-3, 3],), limits=(-2.0, 2.0)).range_used_fraction == 1
    assert seen(limits=(-2.0, 2.0)).range_used_fraction == 0


def test_without_a_converter_there_is_no_range() -> None:
    found = seen(readings=([-2, 2],))
    assert (found.saturated_low_fraction, found.saturated_fraction, found.range_used_fraction) == (None, None, None)


@pytest.mark.parametrize(
    ("code", "clipped"),
    [
        (InputCode("analogue", 1, 0.0, 1.0), 4),  # -0.1, 1.1, 2 and infinity
        (InputCode("thermometer", 4, 0.0, 1.0), 2),  # 0.125 beyond the ends still rounds to a code
        (InputCode("bitserial", 3, 0.0, 1.0), 4),  # 1 / 14
        (InputCode("bitserial", 2, 0.0, 1.0), 2),  # 1 / 6
        (InputCode("thermometer", 4), None),
        (None, None),
    ],
)
def test_clipped_inputs(code: InputCode | None, clipped: int | None) -> None:
    x = np.array([-0.1, 0, 0.5, 1, 1.1, 2, np.inf, np.nan], np.float32)
    found = seen(x, np.ones((2, 4), np.float32), code=code)
    assert (found.inputs, found.not_finite) == (16, 2)
    assert found.clipped_fraction == (None if clipped is None else clipped / 16)
    assert (found.lowest_input, found.highest_input) == (np.float32(-0.1), 2)


@pytest.mark.parametrize("dtype", ["int8", "float16", "float64", "int64"])
def test_inputs_of_any_type(dtype: str) -> None:
    found = seen(np.array([[-3, 0, 4]], dtype), code=InputCode("analogue", 1, -1e5, 1.0))  # -1e5 is no float16
    assert (found.lowest_input, found.highest_input, found.clipped_fraction, found.not_finite) == (-3, 4, 1 / 3, 0)


def test_no_inputs_and_none_that_is_finite() -> None:
    empty = seen(np.zeros((0, 3)), code=InputCode("analogue", 1, 0.0, 1.0))
    assert (empty.inputs, empty.lowest_input, empty.clipped_fraction) == (0, None, 0)
    strange = seen(np.array([np.nan, -np.inf]), code=InputCode("analogue", 1, 0.0, 1.0))
    assert (strange.not_finite, strange.highest_input, strange.clipped_fraction) == (2, None, 0.5)

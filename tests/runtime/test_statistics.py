"""Statistics of a layer, from readings and inputs made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xbcompile.ir import InputCode
from xbcompile.runtime.statistics import ColumnStatistics, LayerStatistics, StatisticsCollector

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


def test_columns_are_told_apart() -> None:
    """Two tiles [vectors 3, slices 2]: tile 0 on columns 4 and 1, tile 1 on columns 1 and 0, against a loop over readings."""
    rng = np.random.default_rng(5)
    columns = np.array([[4, 1], [1, 0]])
    readings, exact = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=(2, 3, 2, 2))
    device = SimpleNamespace(lsb=0.5, reading_limits=(-1.0, 3.0))
    collector = StatisticsCollector(device, None, 6)
    collector.observe(np.zeros(2, int), columns, readings, exact)
    found = collector.result_of_columns("fc")
    for column in range(6):
        mine = [(t, w) for t in range(2) for w in range(2) if columns[t, w] == column]
        seen_there = np.array([readings[t, v, s, w] for t, w in mine for v in range(3) for s in range(2)])
        errors = np.array([(readings - exact)[t, v, s, w] / 0.5 for t, w in mine for v in range(3) for s in range(2)])
        assert found.readings[column] == len(seen_there)
        if not mine:
            assert found.mean_error_lsb[column] is found.range_used_fraction[column] is None
            continue
        assert found.mean_error_lsb[column] == pytest.approx(errors.mean())
        assert found.mean_absolute_error_lsb[column] == pytest.approx(np.abs(errors).mean())
        inside = np.clip(seen_there, -1, 3)
        assert found.range_used_fraction[column] == pytest.approx((inside.max() - inside.min()) / 4)
    whole = collector.result("fc")
    counts = np.array(found.readings)
    assert whole.readings == counts.sum()
    sums = sum(n * error for n, error in zip(counts, found.mean_error_lsb, strict=True) if n)
    assert whole.mean_error_lsb == pytest.approx(sums / counts.sum())


def test_columns_of_a_device_without_a_range() -> None:
    assert StatisticsCollector(SimpleNamespace(lsb=None, reading_limits=None), None, 3).result_of_columns("fc") == (
        ColumnStatistics("fc", [0, 0, 0], [None] * 3, [None] * 3, None)
    )

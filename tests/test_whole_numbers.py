"""One rule for whole numbers: integers of any kind, nothing else."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from xbcompile.errors import DataError, shown
from xbcompile.whole_numbers import as_whole_number, whole_number


class Indexed:
    """An integer of another library."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize("value", [7, np.int8(7), np.uint64(7), np.array(7), Indexed()])
def test_integers_of_any_kind(value: Any) -> None:
    found = as_whole_number(value)
    assert (found, type(found)) == (7, int)


@pytest.mark.parametrize(
    "value",
    [
        7.0,
        np.float32(7),
        True,
        np.True_,
        "7",
        b"7",
        None,
        Fraction(7),
        Decimal(7),
        7j,
        [7],
        np.array([7]),
        np.array(7.0),
        int,
    ],
)
def test_all_else_is_none(value: Any) -> None:
    assert as_whole_number(value) is None
    with pytest.raises(DataError, match=r"^size=.*: give what it holds, a whole number from 1 to 1,000$"):
        whole_number("size", value, 1, 1000, "what it holds", DataError)


def test_ranges() -> None:
    assert whole_number("size", np.int64(1000), 1, 1000, "it", DataError) == 1000
    for value in (0, 1001, 2**63, -(10**5000)):
        with pytest.raises(DataError, match="whole number from 1 to"):
            whole_number("size", value, 1, 1000, "it", DataError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5, "2.5"),
        ("a\nb", r"'a\nb'"),
        (2**70, "a whole number of 71 bits"),
        ([10**5000], "[a whole number of 16610 bits]"),
        (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"),
        ("x" * 10**6, "'" + "x" * 27 + "..." + "x" * 28 + "'"),
    ],
)
def test_values_are_shown_on_one_short_line(value: Any, text: str) -> None:
    assert shown(value) == text

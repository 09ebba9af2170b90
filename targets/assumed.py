"""Assumed numbers of a description: those whose source says so, and between which values each may well lie.

A source with the word "assumed" in it makes a number an assumed one. A description's table `[assumed]` gives the range to
try, `tmr = [0.8, 2.0]`; a number that is not there takes half and one and a half times its value, a flag both of its values.
`xbcompile sensitivity` sets each to both ends of its range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xbcompile.errors import TargetError, shown
from xbcompile.targets.quantity import Quantity

RELATIVE_RANGE = 0.5  # on either side of a number for which no range is given


@dataclass(frozen=True)
class AssumedRange:
    """Between which values an assumed number may well lie.

    Args:
        low: lower end.
        high: upper end; the number itself may lie outside where it stands for none at all, as 0 codes of a converter.
        given: whether the description gives it; else it is half and one and a half times the number, within what is allowed.
    """

    low: float
    high: float
    given: bool


def says_assumed(source: str) -> bool:
    """Whether a number's source has the word in it."""
    return re.search(r"\bassumed\b", source, re.IGNORECASE) is not None


def assumed_ranges(
    quantities: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, tuple[float, float]],
    declared: Mapping[str, Quantity],
) -> dict[str, AssumedRange]:
    """The range of every number whose source says that it is assumed, in their order.

    Args:
        quantities: a description's numbers, name -> {value, unit, source}.
        given: its table `[assumed]`, checked.
        declared: what each may be.
    """
    ranges = {}
    for name, entry in quantities.items():
        if not says_assumed(entry["source"]):
            continue
        if name in given:
            ranges[name] = AssumedRange(*given[name], given=True)
        else:
            ranges[name] = _relative(entry["value"], declared[name])
    return ranges


def _relative(value: float, quantity: Quantity) -> AssumedRange:
    """Half and one and a half times a number, whole where it must be, within what is allowed; both values of a flag."""
    if quantity.kind is bool:
        return AssumedRange(0, 1, given=False)
    ends = (
        float(f"{value * factor:.6g}") for factor in (1 - RELATIVE_RANGE, 1 + RELATIVE_RANGE)
    )  # as one would write them
    low, high = sorted(ends)
    if quantity.kind is not float:
        low, high = int(low), int(high)
    if value == quantity.none:
        return AssumedRange(value, value, given=False)
    return AssumedRange(max(low, quantity.low), min(high, quantity.high), given=False)


def parse_ranges(
    table: Any, quantities: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Quantity], where: str
) -> dict[str, tuple[float, float]]:
    """A description's table `[assumed]`, checked.

    Args:
        table: as TOML gives it.
        quantities: the description's numbers, checked.
        declared: what each may be.
        where: what to call the description in messages.

    Raises:
        TargetError: no table of pairs of numbers, a name that is no assumed number of this description, ends in the wrong order
            or out of the quantity's range.
    """
    if not isinstance(table, dict):
        raise TargetError(f"{where}: assumed must be a table, NAME = [low, high]")
    ranges = {}
    for name, pair in table.items():
        if name not in quantities:
            raise TargetError(f"{where}: assumed gives a range for {shown(name)}, which is none of its quantities")
        source = quantities[name]["source"]
        if not says_assumed(source):
            raise TargetError(
                f"{where}: assumed gives a range for {name}, whose source does not say that it is assumed: {shown(source)}"
            )
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TargetError(
                f"{where}: the range of {name} must be written as {name} = [low, high]; found {shown(pair)}"
            )
        entry = {"unit": quantities[name]["unit"], "source": source}
        low, high = (declared[name].parse({"value": end, **entry}, f"{where}, range of {name}") for end in pair)
        if low > high:
            raise TargetError(f"{where}: the range of {name} falls, from {low:g} to {high:g}; give the lower end first")
        ranges[name] = (low, high)
    return ranges

"""What the electronics around the arrays allow: sharing of an array by tiles, writes beside other writes and reads.

A description gives these among its quantities; what it leaves out is assumed as `ASSUMED` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xbcompile.targets.quantity import parse_quantities, quantity


@dataclass(frozen=True)
class ControlParameters:
    """Numbers of any description, whatever its model."""

    shares_rows: bool = quantity("1", 0, 1, "tiles of one array may use the same rows, on other columns")
    shares_columns: bool = quantity("1", 0, 1, "tiles of one array may use the same columns, on other rows (gated)")
    writes_while_reading: bool = quantity("1", 0, 1, "an array may be written while another one is read")
    writes_at_a_time: int = quantity("1", 0, 1_000_000, "arrays written side by side at most; 0: any number")


ASSUMED: dict[str, dict[str, Any]] = {
    name: {"value": value, "unit": "1", "source": f"assumed: {why}"}
    for name, value, why in (
        ("shares_rows", True, "columns that are not read do no harm"),
        ("shares_columns", True, "rows that are not driven add nothing, or a known constant"),
        ("writes_while_reading", True, "each array has drivers of its own"),
        ("writes_at_a_time", 0, "each array has drivers of its own"),
    )
}


def parse_control(quantities: dict[str, dict[str, Any]], where: str) -> ControlParameters:
    """The control numbers of a description's `[quantities]`, with what is assumed where it gives none.

    Raises:
        TargetError: a wrong unit, type or range, or a number without a source.
    """
    given = {name: quantities[name] for name in ASSUMED if name in quantities}
    control: ControlParameters = parse_quantities(ControlParameters, {**ASSUMED, **given}, where)
    return control


def model_quantities(quantities: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The other quantities, which the target's model must know."""
    return {name: entry for name, entry in quantities.items() if name not in ASSUMED}

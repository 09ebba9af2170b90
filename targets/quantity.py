"""Physical quantities of a target description: each with a unit, a valid range and a source."""

from __future__ import annotations

from dataclasses import MISSING, field, fields
from typing import Any

from xbcompile.errors import TargetError


def quantity(unit: str, low: float, high: float, doc: str) -> Any:
    """Declare a dataclass field that a description must give as `{ value, unit, source }`.

    Args:
        unit: SI unit ("Ohm", "F", "s", "J", "W", "Hz", "A", "V"), or "1" for a pure number.
        low: smallest allowed value.
        high: largest allowed value.
        doc: what it is, for messages and `xbcompile targets`.
    """
    return field(metadata={"unit": unit, "low": low, "high": high, "doc": doc})


def parse_quantities(parameters: type, table: dict[str, Any], where: str) -> tuple[Any, dict[str, str]]:
    """Check a description's `[quantities]` table against the declared fields of `parameters`.

    Returns:
        The parameters object and the source of each number by name.

    Raises:
        TargetError: an unknown or missing key, a wrong unit, type or range, or a number without a source.
    """
    declared = {f.name: f for f in fields(parameters) if f.default is MISSING}
    unknown = sorted(set(table) - set(declared))
    if unknown:
        raise TargetError(f"{where}: unknown quantity {unknown[0]!r}; known: {', '.join(declared)}")
    missing = [name for name in declared if name not in table]
    if missing:
        raise TargetError(f"{where}: quantity {missing[0]!r} is missing ({declared[missing[0]].metadata['doc']})")
    values, sources = {}, {}
    for name, entry in table.items():
        values[name] = _parse_one(name, entry, declared[name], where)
        sources[name] = entry["source"]
    try:
        return parameters(**values), sources
    except TargetError as error:  # numbers that do not go together
        raise TargetError(f"{where}: {error}") from None


def _parse_one(name: str, entry: Any, declared: Any, where: str) -> float | int:
    meta = declared.metadata
    form = f'{name} = {{ value = ..., unit = "{meta["unit"]}", source = "..." }}'
    if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
        raise TargetError(f"{where}: {name} must be written as {form}; found {entry!r}")
    value, unit, source = entry["value"], entry["unit"], entry["source"]
    if unit != meta["unit"]:
        raise TargetError(f"{where}: {name} has unit {unit!r}; allowed: {meta['unit']!r}")
    if not isinstance(source, str) or not source.strip():
        raise TargetError(f'{where}: {name} has no source; name the paper and place, or write "assumed"')
    whole = declared.type in ("int", int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TargetError(f"{where}: {name} = {value!r} is not {'a whole number' if whole else 'a number'}")
    if not meta["low"] <= value <= meta["high"]:  # NaN fails too
        raise TargetError(f"{where}: {name} = {value!r} is out of range; allowed: {meta['low']:g} to {meta['high']:g}")
    return int(value) if whole else float(value)

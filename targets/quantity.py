"""Physical quantities of a target description: each with a unit, a valid range and a source."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_type_hints

import numpy as np

from xbcompile.errors import TargetError, shown

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


# Of a converter, in every family: with one code it would tell nothing apart; float32 holds each of the most exactly.
FEWEST_CODES, MOST_CODES = 2, 1 << 20


def quantity(unit: str, low: float, high: float, doc: str, none: float | None = None) -> Any:
    """Declare a dataclass field of type int, float or bool that a description must give as `{ value, unit, source }`.

    Args:
        unit: SI unit ("Ohm", "F", "s", "J", "W", "Hz", "A", "V"), or "1" for a pure number.
        low: smallest allowed value.
        high: largest allowed value.
        doc: what it is, for messages and `xbcompile targets`.
        none: a value below `low` that is allowed too and stands for none of it.
    """
    return field(metadata={"unit": unit, "low": low, "high": high, "doc": doc, "none": none})


@dataclass(frozen=True)
class Quantity:
    """A declared quantity; `kind` is int, float or bool, the rest as in `quantity`."""

    name: str
    kind: type
    unit: str
    low: float
    high: float
    doc: str
    none: float | None = None

    @property
    def allowed(self) -> str:
        """The values that it may have, for messages."""
        low, high = (f"{each:d}" if self.kind is int else f"{each:g}" for each in (self.low, self.high))
        return f"{low} to {high}" if self.none is None else f"{self.none:g}, or {low} to {high}"

    def as_declared(self, value: Any) -> Any:
        """A number of any Python or numpy type as a description would write it: 8.0 as 8 where whole numbers are declared,
        flags as 0 and 1.

        What is no such number comes back as it is, for `parse` to refuse.
        """
        plain = value.item() if isinstance(value, np.generic) else value
        if self.kind is bool and isinstance(plain, (bool, int)) and plain in (0, 1):
            return int(plain)
        if self.kind is float or not isinstance(plain, float) or not plain.is_integer():
            return plain
        return int(plain)

    def parse(self, entry: Any, where: str) -> Any:
        """The value of a description's `{ value, unit, source }`, as the declared type.

        Raises:
            TargetError: another form, a wrong unit, type or range, or no source.
        """
        form = f'{self.name} = {{ value = ..., unit = "{self.unit}", source = "..." }}'
        if not isinstance(entry, dict) or set(entry) != {"value", "unit", "source"}:
            raise TargetError(f"{where}: {self.name} must be written as {form}; found {shown(entry)}")
        value, unit, source = entry["value"], entry["unit"], entry["source"]
        if unit != self.unit:
            raise TargetError(f"{where}: {self.name} has unit {shown(unit)}; allowed: {self.unit!r}")
        if not isinstance(source, str) or not source.strip():
            raise TargetError(f'{where}: {self.name} has no source; name the paper and place, or write "assumed"')
        if not self._is_of_kind(value):
            raise TargetError(f"{where}: {self.name} = {shown(value)} is not {_KINDS[self.kind]}")
        if not self.low <= value <= self.high and value != self.none:  # NaN is refused, too
            raise TargetError(f"{where}: {self.name} = {shown(value)} is out of range; allowed: {self.allowed}")
        return self.kind(value)

    def _is_of_kind(self, value: Any) -> bool:
        if self.kind is bool:
            return isinstance(value, int) and value in (0, 1)
        return isinstance(value, (int, float) if self.kind is float else int) and not isinstance(value, bool)


def declared_quantities(parameters: type) -> dict[str, Quantity]:
    """The quantities that a description must give for this parameters class, by name: its fields without a default.

    Raises:
        TypeError: such a field is not declared with `quantity`, or is not an int, a float or a bool.
    """
    types = get_type_hints(parameters)
    declared = {}
    for each in fields(parameters):
        if each.default is not MISSING or each.default_factory is not MISSING:
            continue
        if not each.metadata or types[each.name] not in _KINDS:
            raise TypeError(
                f"{parameters.__name__}.{each.name} must be declared as an int, float or bool with quantity(...), "
                "or have a default"
            )
        declared[each.name] = Quantity(each.name, types[each.name], **each.metadata)
    return declared


def parse_quantities(parameters: type, table: dict[str, Any], where: str) -> Any:
    """The parameters object of a description's `[quantities]` table.

    Raises:
        TargetError: an unknown or missing key, a wrong unit, type or range, a number without a source, or numbers that do
            not go together.
    """
    declared = declared_quantities(parameters)
    unknown = sorted(set(table) - set(declared))
    if unknown:
        raise TargetError(f"{where}: unknown quantity {shown(unknown[0])}; known: {', '.join(declared)}")
    missing = [name for name in declared if name not in table]
    if missing:
        raise TargetError(f"{where}: quantity {missing[0]!r} is missing ({declared[missing[0]].doc})")
    values = {name: declared[name].parse(entry, where) for name, entry in table.items()}
    try:
        return parameters(**values)
    except TargetError as error:  # numbers that do not go together
        raise TargetError(f"{where}: {error}") from None

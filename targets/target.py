"""A target as one value: its description, the array that follows from it, and simulated chips of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from xbcompile.errors import TargetError, shown
from xbcompile.ir import ArraySpec
from xbcompile.notebook import html_table, html_text, printable
from xbcompile.targets.assumed import AssumedRange, assumed_ranges, parse_ranges, says_assumed
from xbcompile.targets.contract import Device, HasDefectMap, SimulatedDevice
from xbcompile.targets.control import ASSUMED, ControlParameters, model_quantities, parse_control
from xbcompile.targets.error_sources import DEVICE_SOURCES, without_sources
from xbcompile.targets.families import load_device, load_family
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import Quantity, declared_quantities, parse_quantities
from xbcompile.whole_numbers import as_whole_number

EXACT_DEVICE = "ideal"  # the exact array, which every target has
_KEYS = {"name", "model", "summary", "paper", "pipeline", "quantities"}
MOST_SEED_BITS = 128  # of a chip's seed
MOST_CELL_LEVELS = 1 << 25  # of an array: cells times levels; simulating one takes some 50 bytes for each
_ARRAYS_LOOKED_AT = 8  # of one chip, for defects


@dataclass(frozen=True, repr=False)
class Target:
    """A target as one value: what a program embeds, and all that the compiler and runtime need.

    Args:
        name: its name on the command line.
        model: model family, a name in `families.FAMILIES`.
        summary: one line for listings.
        paper: where its numbers come from.
        pipeline: default pass pipeline as text.
        quantities: the description's numbers, name -> {value, unit, source}; those of `control` where they are given.
        assumed: ranges that the description gives for assumed numbers, name -> (low, high); no program embeds them, and targets
            that differ in nothing else are equal.
    """

    name: str
    model: str
    summary: str
    paper: str
    pipeline: str
    quantities: dict[str, dict[str, Any]]
    assumed: dict[str, tuple[float, float]] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        spec = self.array_spec
        return printable(f"<Target {self.name!r}, arrays of {spec.rows}x{spec.columns}: {self.summary}>")

    def _repr_html_(self) -> str:
        rows = [
            (name, each["value"], each.get("unit", ""), each.get("source", ""))
            for name, each in self.quantities.items()
        ]
        return html_text(repr(self)[1:-1]) + html_table(("quantity", "value", "unit", "source"), rows, most=len(rows))

    @cached_property
    def parameters(self) -> Any:
        """The checked parameters object of the model family, an ArrayParameters with the family's own numbers."""
        return parse_quantities(self._family, model_quantities(self.quantities), f"target {self.name!r}")

    @cached_property
    def control(self) -> ControlParameters:
        """What the electronics around the arrays allow."""
        return parse_control(self.quantities, f"target {self.name!r}")

    @cached_property
    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it."""
        spec: ArraySpec = self.parameters.array_spec()
        return replace(spec, **asdict(self.control))

    @property
    def declared(self) -> dict[str, Quantity]:
        """All quantities that a description of this model may give, by name: unit, range and what each is."""
        return {**declared_quantities(self._family), **declared_quantities(ControlParameters)}

    @property
    def assumed_ranges(self) -> dict[str, AssumedRange]:
        """Between which values each number that the description calls assumed may well lie, by name."""
        return assumed_ranges(self.quantities, self.assumed, self.declared)

    @property
    def device_names(self) -> tuple[str, ...]:
        """Names that `device` accepts, the default first: `NAME` or `NAME-emulator` of this target, and `ideal`."""
        return tuple(self._kinds)

    @cached_property
    def _kinds(self) -> dict[str, str | None]:
        """Kind of each device by its name; None: the exact array. A target may be called `ideal` without being exact."""
        kinds: dict[str, str | None] = {}
        for kind in self._family.devices:
            short = not kinds and self.name != EXACT_DEVICE
            kinds[self.name if short else f"{self.name}-{kind}"] = kind
        return {**kinds, EXACT_DEVICE: None}

    def device_name(self, name: str | None = None) -> str:
        """The name of `device_names` that a device's name stands for: itself, or the part behind the target's name alone.

        Args:
            name: as for `device`.

        Raises:
            TargetError: this target has no such device.
        """
        names = self.device_names
        if name is None or name in names:
            return name or names[0]
        short = {self.name: names[0]}
        for kind, full in zip(self._family.devices, names, strict=False):  # the exact array is the last
            short |= {kind: full, f"{self.name}-{kind}": full}
        if name not in short:
            raise TargetError(f"target {self.name!r} has no device {shown(name)}; allowed: {', '.join(names)}")
        return short[name]

    @property
    def _family(self) -> type[ArrayParameters]:
        return load_family(self.model, f"target {self.name!r}")

    def device(self, name: str | None = None, seed: int = 0, without: Collection[str] = ()) -> Device:
        """Make a simulated chip of this target.

        Args:
            name: one of `device_names`; None takes the default; the part behind the target's name alone will do.
            seed: which chip: devices and noise depend on it.
            without: error sources to switch off, of `error_sources.DEVICE_SOURCES`; the rest of the chip stays as it is.

        Raises:
            TargetError: this target has no such device, its errors cannot be told apart, or the seed is no whole number.
        """
        kind = self._device_class(name)
        number = as_whole_number(seed)
        if number is None or number.bit_length() > MOST_SEED_BITS:
            raise TargetError(f"seed = {shown(seed)} of a chip is no whole number of at most {MOST_SEED_BITS} bits")
        if kind is None:
            return IdealArray(self.array_spec, number)
        if without and not kind.separable:
            others = {other: self._device_class(other) for other in self.device_names}
            allowed = [other for other, of in others.items() if of is None or of.separable]
            raise TargetError(
                f"the errors of device {self.device_name(name)!r} cannot be switched off one by one; "
                f"devices that can: {', '.join(allowed)}"
            )
        made: Device = kind(without_sources(self.parameters, without), number)  # type: ignore[call-arg]  # see `load_device`
        return made

    @property
    def has_defects(self) -> bool:
        """Whether the first arrays of a chip of this target have defects, and a map of them."""
        chip = self.device()
        return isinstance(chip, HasDefectMap) and any(chip.cell_limits(i) is not None for i in range(_ARRAYS_LOOKED_AT))

    def error_sources(self, name: str | None = None) -> tuple[str, ...]:
        """The sources of `error_sources.DEVICE_SOURCES` that change a device of this target.

        Args:
            name: as for `device`.

        Raises:
            TargetError: this target has no such device, or its errors cannot be told apart.
        """
        if self._device_class(name) is None:
            return ()
        self.device(name, without=DEVICE_SOURCES)  # raises where they cannot
        own = self.parameters
        return tuple(source for source in DEVICE_SOURCES if without_sources(own, [source]) != own)

    def _device_class(self, name: str | None) -> type[SimulatedDevice] | None:
        """The class of a device of this target; None: the exact array, which every target has."""
        kind = self._kinds[self.device_name(name)]
        return None if kind is None else load_device(self.model, kind)

    def with_quantities(self, source: str, /, **values: float) -> Target:
        """The same target with other numbers, such as `junctions=2`; `source` says where they come from.

        Whole numbers and flags may be given as any Python or numpy number: 2.0 is 2 there.

        Args:
            source: where the numbers come from; it stands beside them.
            values: number by name.

        Raises:
            TargetError: an unknown name, or a value of the wrong type or range.
        """
        known = {**ASSUMED, **self.quantities}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise TargetError(
                    f"target {self.name!r} has no quantity {shown(name)}{hint}; known: {', '.join(self.declared)}"
                )
        changed = {
            name: {**known[name], "value": self.declared[name].as_declared(value), "source": source}
            for name, value in values.items()
        }
        quantities = {**self.quantities, **changed}
        ranges = {name: pair for name, pair in self.assumed.items() if says_assumed(quantities[name]["source"])}
        table = {key: getattr(self, key) for key in _KEYS} | {"quantities": quantities, "assumed": ranges}
        return Target.from_table(table, f"target {self.name!r}")

    def to_json(self) -> str:
        """Canonical text of the description."""
        return json.dumps({key: getattr(self, key) for key in sorted(_KEYS)}, indent=1, sort_keys=True)

    @classmethod
    def from_table(cls, table: dict[str, Any], where: str) -> Target:
        """Build and check a target from a description's table.

        Args:
            table: the description as TOML or JSON gives it.
            where: what to call it in messages.

        Raises:
            TargetError: unknown or missing key, unknown model, or a faulty quantity.
        """
        unknown = sorted(set(table) - _KEYS - {"assumed"})
        if unknown:
            allowed = ", ".join([*sorted(_KEYS), "assumed", "extends"])
            raise TargetError(f"{where}: unknown key {shown(unknown[0])}; allowed: {allowed}")
        missing = sorted(_KEYS - set(table))
        if missing:
            raise TargetError(f"{where}: key {missing[0]!r} is missing")
        for key in sorted(_KEYS - {"quantities"}):
            if not isinstance(table[key], str):
                raise TargetError(f"{where}: {key} = {shown(table[key])} is not text")
        if not isinstance(table["quantities"], dict):
            raise TargetError(f"{where}: quantities must be a table")
        if not table["name"].strip() or not table["name"].isprintable():
            raise TargetError(f"{where}: name = {shown(table['name'])} is no text of one line that can be read")
        target = cls(**{key: table[key] for key in _KEYS})
        parse_quantities(load_family(target.model, where), model_quantities(target.quantities), where)
        parse_control(target.quantities, where)
        _check_size(target.array_spec, where)
        return replace(
            target, assumed=parse_ranges(table.get("assumed", {}), target.quantities, target.declared, where)
        )


def _check_size(spec: ArraySpec, where: str) -> None:
    """Raise TargetError for an array that no memory holds."""
    levels = 1 if spec.levels is None else len(spec.levels)
    if spec.rows * spec.columns * levels > MOST_CELL_LEVELS:
        raise TargetError(
            f"{where}: an array of {spec.rows:,} x {spec.columns:,} cells with {levels} level{'s' * (levels > 1)} each is too "
            f"large; allowed: {MOST_CELL_LEVELS // levels:,} cells; take fewer rows or columns"
        )

"""Target descriptions: reading, checking and embedding them, and making devices from them."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec
from xbcompile.targets.contract import Device
from xbcompile.targets.control import ASSUMED, model_quantities, parse_control
from xbcompile.targets.error_sources import DEVICE_SOURCES, without_sources
from xbcompile.targets.quantity import parse_quantities

# Model family -> parameters class, and its devices by name; the first device is the default.
MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "ideal": ("xbcompile.targets.families.ideal:IdealParameters", {}),
    "resistance_sum": (
        "xbcompile.targets.families.resistance_sum:ResistanceSumParameters",
        {
            "physics": "xbcompile.targets.families.resistance_sum:ResistanceSumArray",
            "emulator": "xbcompile.targets.families.error_histograms:ErrorHistogramArray",
        },
    ),
    "multistate": (
        "xbcompile.targets.families.multistate:MultistateParameters",
        {"physics": "xbcompile.targets.families.multistate:MultistateArray"},
    ),
    "serial_junctions": (
        "xbcompile.targets.families.serial_junctions:SerialJunctionParameters",
        {"physics": "xbcompile.targets.families.serial_junctions:SerialJunctionArray"},
    ),
    "differential_memristor": (
        "xbcompile.targets.families.differential_memristor:MemristorParameters",
        {"physics": "xbcompile.targets.families.differential_memristor:MemristorArray"},
    ),
    "spin_orbit": (
        "xbcompile.targets.families.spin_orbit:SpinOrbitParameters",
        {"physics": "xbcompile.targets.families.spin_orbit:SpinOrbitArray"},
    ),
}

_KEYS = {"name", "model", "summary", "paper", "pipeline", "quantities"}


@dataclass(frozen=True)
class Target:
    """A target as one value: what a program embeds, and all that the compiler and runtime need.

    Args:
        name: its name on the command line.
        model: model family, a key of MODELS.
        summary: one line for listings.
        paper: where its numbers come from.
        pipeline: default pass pipeline as text.
        quantities: the description's numbers, name -> {value, unit, source}; those of `control` where they are given.
    """

    name: str
    model: str
    summary: str
    paper: str
    pipeline: str
    quantities: dict[str, dict[str, Any]]

    @cached_property
    def parameters(self) -> Any:
        """The checked parameters object of the model family."""
        parameters, _ = parse_quantities(
            _load(_model(self.model, self.name)[0]), model_quantities(self.quantities), f"target {self.name!r}"
        )
        return parameters

    @cached_property
    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it."""
        spec: ArraySpec = self.parameters.array_spec()
        control = parse_control(self.quantities, f"target {self.name!r}")
        return replace(
            spec,
            shares_rows=bool(control.shares_rows),
            shares_columns=bool(control.shares_columns),
            writes_while_reading=bool(control.writes_while_reading),
            writes_at_a_time=control.writes_at_a_time,
        )

    @property
    def device_names(self) -> tuple[str, ...]:
        """Names that `device` accepts, the default first: `NAME` or `NAME-emulator` of this target, and `ideal`."""
        kinds = list(_model(self.model, self.name)[1])
        if not kinds:
            return ("ideal",)
        own = [self.name] + [f"{self.name}-{kind}" for kind in kinds[1:]]
        return (*own, "ideal")

    def device(self, name: str | None = None, seed: int = 0, without: Collection[str] = ()) -> Device:
        """Make a simulated chip of this target.

        Args:
            name: one of `device_names`; None takes the default; the part behind the target's name alone will do.
            seed: which chip: devices and noise depend on it.
            without: error sources to switch off, of `error_sources.DEVICE_SOURCES`; the rest of the chip stays as it is.

        Raises:
            TargetError: this target has no such device, or its errors cannot be told apart.
        """
        kind = self._device_class(name)
        if kind is None:
            from xbcompile.targets.families.ideal import IdealArray

            return IdealArray(self.array_spec, seed)
        if without and not getattr(kind, "separable", True):
            allowed = [each for each in self.device_names if getattr(self._device_class(each), "separable", True)]
            raise TargetError(
                f"the errors of device {name or self.device_names[0]!r} cannot be switched off one by one; "
                f"devices that can: {', '.join(allowed)}"
            )
        device: Device = kind(without_sources(self.parameters, without), seed)
        return device

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

    def _device_class(self, name: str | None) -> Any:
        """The class of a device of this target; None: the exact array, which every target has."""
        kinds = _model(self.model, self.name)[1]
        wanted = (self.device_names[0] if name is None else name).removeprefix(f"{self.name}-")
        if wanted == "ideal":
            return None
        if wanted == self.name:
            wanted = next(iter(kinds))
        if wanted not in kinds:
            raise TargetError(f"target {self.name!r} has no device {name!r}; allowed: {', '.join(self.device_names)}")
        return _load(kinds[wanted])

    def with_quantities(self, source: str, **values: float) -> Target:
        """The same target with other numbers, such as `junctions=2`; `source` says where they come from.

        Raises:
            TargetError: an unknown name, or a value of the wrong type or range.
        """
        known = {**self.quantities, **{name: ASSUMED[name] for name in ASSUMED if name not in self.quantities}}
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise TargetError(f"target {self.name!r} has no quantity {name!r}{hint}; known: {', '.join(known)}")
        changed = {n: {**known[n], "value": value, "source": source} for n, value in values.items()}
        table = {key: getattr(self, key) for key in _KEYS} | {"quantities": {**self.quantities, **changed}}
        return Target.from_table(table, f"target {self.name!r}")

    def to_json(self) -> str:
        """Canonical text of the description."""
        return json.dumps({key: getattr(self, key) for key in sorted(_KEYS)}, indent=1, sort_keys=True)

    @classmethod
    def from_table(cls, table: dict[str, Any], where: str) -> Target:
        """Build and check a target from a description's table.

        Raises:
            TargetError: unknown or missing key, unknown model, or a faulty quantity.
        """
        unknown = sorted(set(table) - _KEYS)
        if unknown:
            raise TargetError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(sorted(_KEYS))}, extends")
        missing = sorted(_KEYS - set(table))
        if missing:
            raise TargetError(f"{where}: key {missing[0]!r} is missing")
        for key in sorted(_KEYS - {"quantities"}):
            if not isinstance(table[key], str):
                raise TargetError(f"{where}: {key} = {table[key]!r} is not text")
        if not isinstance(table["quantities"], dict):
            raise TargetError(f"{where}: quantities must be a table")
        if table["name"] == "":
            raise TargetError(f"{where}: name is empty")
        target = cls(**table)
        _model(target.model, where)
        parse_quantities(
            _load(MODELS[target.model][0]) if target.model in MODELS else _load(_model(target.model, where)[0]),
            model_quantities(target.quantities),
            where,
        )
        parse_control(target.quantities, where)
        return target


def target_names() -> list[str]:
    """Names of the shipped targets."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.toml"))


def load_target(name_or_path: str | os.PathLike[str]) -> Target:
    """Load a shipped target by name, or a description from a file whose name ends in .toml.

    A file may start with `extends = "mram64"` and then give only what differs.

    Raises:
        TargetError: no such target or file, not TOML, or a faulty description.
    """
    text = os.fspath(name_or_path)
    if not text.endswith(".toml"):
        if text not in target_names():
            raise TargetError(
                f"unknown target {text!r}; allowed: {', '.join(target_names())}, or the path of a .toml description"
            )
        path = Path(__file__).parent / f"{text}.toml"
    else:
        path = Path(text)
    return Target.from_table(_read_table(path), str(path) if text.endswith(".toml") else f"target {text!r}")


def _read_table(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetError(
            f"target file {str(path)!r} does not exist; shipped targets: {', '.join(target_names())}"
        ) from None
    except OSError as error:
        raise TargetError(f"target file {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"target file {str(path)!r} is not valid TOML: {error}") from None
    if "extends" not in table:
        return table
    base_name = table.pop("extends")
    if base_name not in target_names():
        raise TargetError(f"{path}: extends = {base_name!r} is unknown; allowed: {', '.join(target_names())}")
    base = _read_table(Path(__file__).parent / f"{base_name}.toml")
    quantities = table.pop("quantities", {})
    if not isinstance(quantities, dict):
        raise TargetError(f"{path}: quantities must be a table")
    return {**base, **table, "quantities": {**base["quantities"], **quantities}}


def _model(model: str, where: str) -> tuple[str, dict[str, str]]:
    """Parameters class and devices of a model family, shipped or registered."""
    if model in MODELS:
        return MODELS[model]
    registered = {entry.name: entry for entry in entry_points(group="xbcompile.models")}
    if model in registered:
        entry: tuple[str, dict[str, str]] = registered[model].load()
        return entry
    raise TargetError(f"{where}: unknown model {model!r}; allowed: {', '.join([*MODELS, *registered])}")


def _load(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)

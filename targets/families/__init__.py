"""Device families: simulated arrays, one file per kind of physics; other packages add theirs by entry points.

`ideal.py` is exact and the shortest, read it first; `conductance_array.py` and `resistance_sum.py` are the bases of
those that add currents and resistances. A target file names its family and gives the numbers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from xbcompile.errors import TargetError
from xbcompile.extensions import Registry
from xbcompile.targets.contract import SimulatedDevice
from xbcompile.targets.control import ASSUMED
from xbcompile.targets.parameters import ArrayParameters
from xbcompile.targets.quantity import declared_quantities

FAMILIES = Registry(
    kind="model family",
    group="xbcompile.families",
    own={
        "ideal": "xbcompile.targets.families.ideal:IdealParameters",
        "resistance_sum": "xbcompile.targets.families.resistance_sum:ResistanceSumParameters",
        "multistate": "xbcompile.targets.families.multistate:MultistateParameters",
        "serial_junctions": "xbcompile.targets.families.serial_junctions:SerialJunctionParameters",
        "differential_memristor": "xbcompile.targets.families.differential_memristor:MemristorParameters",
        "spin_orbit": "xbcompile.targets.families.spin_orbit:SpinOrbitParameters",
    },
)


def load_family(name: str, where: str) -> type[ArrayParameters]:
    """The parameters class of a model family; `where` says what asks for it.

    Raises:
        TargetError: there is no such family.
        ExtensionError: it cannot be loaded.
        TypeError: its class does not keep the contract.
    """
    known = FAMILIES.extensions()
    if name not in known:
        raise TargetError(f"{where}: unknown model {name!r}; allowed: {', '.join(known)}")
    return _checked(known[name].load())


@cache
def _checked(family: Any) -> type[ArrayParameters]:
    if not (isinstance(family, type) and issubclass(family, ArrayParameters)):
        raise TypeError(f"model family {family!r} is no subclass of xbcompile.targets.parameters.ArrayParameters")
    taken = sorted(set(declared_quantities(family)) & set(ASSUMED))
    if taken:
        raise TypeError(f"{family.__name__}.{taken[0]} bears the name of a quantity that every target has")
    return family


def load_device(model: str, kind: str) -> type[SimulatedDevice]:
    """The class of a device of a known model family, a name in its `devices`; it is made with (parameters, seed).

    Raises:
        ExtensionError: it cannot be loaded.
        TypeError: it is no SimulatedDevice.
    """
    family = FAMILIES.extensions()[model]
    where = _checked(family.load()).devices[kind]
    device = replace(family, kind="device", name=kind, where=where).load()
    if not (isinstance(device, type) and issubclass(device, SimulatedDevice)):
        raise TypeError(f"device {kind!r} of model family {model!r}: {device!r} is no subclass of SimulatedDevice")
    return device

"""Passes: what is done to a network before it is mapped, and on a chip when it is commissioned. One file per pass.

`contract.py` (read it first) is what a pass is; `bitserial.py` is a short one. `pipeline.py` reads pipelines as text.
The registry is a literal table, loaded lazily; third parties add by the entry-point group `xbcompile.passes`.
"""

from __future__ import annotations

from typing import Any

from xbcompile.extensions import Registry
from xbcompile.passes.contract import DevicePass, NetworkPass, Pass
from xbcompile.passes.options import option_types

PASSES = Registry(
    kind="pass",
    group="xbcompile.passes",
    own={
        "analogue": "xbcompile.passes.analogue:Analogue",
        "avoid-defects": "xbcompile.passes.device.avoid_defects:AvoidDefects",
        "bitserial": "xbcompile.passes.bitserial:BitSerial",
        "calibrate-offsets": "xbcompile.passes.device.calibrate_offsets:CalibrateOffsets",
        "choose-coding": "xbcompile.passes.choose_coding:ChooseCoding",
        "fold-batchnorm": "xbcompile.passes.fold_batchnorm:FoldBatchNorm",
        "join-groups": "xbcompile.passes.join_groups:JoinGroups",
        "order-rows": "xbcompile.passes.order_rows:OrderRows",
        "pca": "xbcompile.passes.pca:PrincipalComponents",
        "planes": "xbcompile.passes.planes:Planes",
        "quantize": "xbcompile.passes.quantize:Quantize",
        "quiet-columns": "xbcompile.passes.device.quiet_columns.quiet_columns:QuietColumns",
        "recalibrate": "xbcompile.passes.device.recalibrate:Recalibrate",
        "reduce": "xbcompile.passes.reduce:Reduce",
        "thermometer": "xbcompile.passes.thermometer:Thermometer",
        "use-spare-cells": "xbcompile.passes.use_spare_cells:UseSpareCells",
    },
)


def pass_names() -> list[str]:
    """Names of all passes, shipped and registered."""
    return PASSES.names()


def load_pass(name: str) -> type[Pass]:
    """The class of a pass in `pass_names()`.

    Raises:
        ExtensionError: a registered package does not bring the class that it names.
        TypeError: the class does not keep the contract of a pass; its author's fault.
    """
    return _checked(PASSES.load(name), name)


def _checked(pass_class: Any, name: str) -> type[Pass]:
    if not (isinstance(pass_class, type) and issubclass(pass_class, (NetworkPass, DevicePass))):
        raise TypeError(f"pass {name!r}: {pass_class!r} is a subclass neither of NetworkPass nor of DevicePass")
    if getattr(pass_class, "name", None) != name:
        raise TypeError(
            f"{pass_class.__name__}.name is {getattr(pass_class, 'name', None)!r}; it is registered as {name!r}"
        )
    if issubclass(pass_class, DevicePass) and not (
        pass_class.fit is not DevicePass.fit and hasattr(pass_class, "stage")
    ):
        raise TypeError(f"device pass {name!r}: {pass_class.__name__} must define fit, and say its stage")
    option_types(pass_class)
    return pass_class

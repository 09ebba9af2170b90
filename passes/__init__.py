"""Passes: what is done to a network before it is mapped, and on a chip when it is commissioned. One file per pass.

`contract.py` (read it first) is what a pass is; `bitserial.py` is a short one. `pipeline.py` reads pipelines as text.
The registry is a literal table, loaded lazily; third parties add by the entry-point group `xbcompile.passes`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from xbcompile.errors import PipelineError
from xbcompile.passes.contract import Pass

PASSES = {
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
}


@cache
def _registered() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entry_points(group="xbcompile.passes"):
        if entry.name in PASSES or entry.name in found:
            other = found.get(entry.name, PASSES.get(entry.name))
            raise PipelineError(f"pass name {entry.name!r} is claimed by both {other} and {entry.value}; uninstall one")
        found[entry.name] = entry.value
    return found


def pass_names() -> list[str]:
    """Names of all passes, shipped and registered."""
    return sorted([*PASSES, *_registered()])


def load_pass(name: str) -> type[Pass]:
    """The class of a pass in `pass_names()`.

    Raises:
        PipelineError: a registered package does not bring the class that it names.
    """
    where = {**PASSES, **_registered()}[name]
    module, _, attribute = where.partition(":")
    try:
        loaded: type[Pass] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise PipelineError(f"pass {name!r} ({where}) cannot be loaded: {error}") from error
    return loaded

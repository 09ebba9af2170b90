"""Targets: descriptions of arrays (TOML files with a source and a unit per number) and the models behind them.

`contract.py` (read it first) is what a device is, `registry.py` reads descriptions, `families/` are the simulated
arrays. No other room knows a number of any hardware. The registries are literal tables; third parties add to them by
the entry-point group `xbcompile.models`.
"""

from __future__ import annotations

from xbcompile.targets.contract import BatchedDevice, Device, LoadedImages, Read, ReadBlock, Write, WrittenImages
from xbcompile.targets.registry import Target, load_target, target_names

__all__ = [
    "BatchedDevice",
    "Device",
    "LoadedImages",
    "Read",
    "ReadBlock",
    "Target",
    "Write",
    "WrittenImages",
    "load_target",
    "target_names",
]

"""Targets: descriptions of arrays (TOML files with a source and a unit per number) and the models behind them.

Start at `target.py` (a description as a value), `parameters.py` and `contract.py` (what a model family and a device offer). Other
packages add targets and families by entry points: see `xbcompile.extensions`.
"""

from __future__ import annotations

from xbcompile.targets.contract import BatchedDevice, Device, Read, Write, WrittenImages
from xbcompile.targets.loaded_images import LoadedImages
from xbcompile.targets.read_block import ReadBlock
from xbcompile.targets.registry import load_target, target_names
from xbcompile.targets.target import Target

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

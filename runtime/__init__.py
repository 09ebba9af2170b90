"""Runtime: executes programs on devices.

Read `session` first, then `player` (event by event), `layer_executor` (many events together) and `timeline` (which write a read
sees); `commission` fits device passes through `chip_view`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbcompile.names import public_names

if TYPE_CHECKING:
    from xbcompile.runtime.commissioning import commission
    from xbcompile.runtime.corrections_file import load_corrections, save_corrections
    from xbcompile.runtime.cost import Cost, Counters, cost_of
    from xbcompile.runtime.session import Session
    from xbcompile.runtime.statistics import ColumnStatistics, LayerStatistics

_WHERE = {
    "ColumnStatistics": "xbcompile.runtime.statistics",
    "Cost": "xbcompile.runtime.cost",
    "Counters": "xbcompile.runtime.cost",
    "LayerStatistics": "xbcompile.runtime.statistics",
    "Session": "xbcompile.runtime.session",
    "commission": "xbcompile.runtime.commissioning",
    "cost_of": "xbcompile.runtime.cost",
    "load_corrections": "xbcompile.runtime.corrections_file",
    "save_corrections": "xbcompile.runtime.corrections_file",
}

__all__ = [
    "ColumnStatistics",
    "Cost",
    "Counters",
    "LayerStatistics",
    "Session",
    "commission",
    "cost_of",
    "load_corrections",
    "save_corrections",
]

__getattr__ = public_names(__name__, _WHERE)

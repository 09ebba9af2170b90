"""Runtime: executes programs on devices.

Read `session` first, then `player` (event by event), `layer_executor` (many events together) and `timeline` (which write a read
sees); `commission` fits device passes through `chip_view`.
"""

from xbcompile.runtime.commissioning import commission
from xbcompile.runtime.corrections_file import load_corrections, save_corrections
from xbcompile.runtime.cost import Cost, Counters, cost_of
from xbcompile.runtime.session import Session
from xbcompile.runtime.statistics import LayerStatistics

__all__ = [
    "Cost",
    "Counters",
    "LayerStatistics",
    "Session",
    "commission",
    "cost_of",
    "load_corrections",
    "save_corrections",
]

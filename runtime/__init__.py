"""The runtime: executes programs on devices.

`session.py` (read it first) is one program on one chip; `player.py` makes the schedule's steps events, one by one, and
`layer_executor.py` plays many together; `commission.py` fits the corrections of a chip, `cost.py` counts what runs take.
"""

from xbcompile.runtime.commission import commission
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

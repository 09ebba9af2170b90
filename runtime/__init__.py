"""Runtime: executes programs on devices."""

from xbcompile.runtime.cost import Cost, Counters, cost_of
from xbcompile.runtime.session import Session
from xbcompile.runtime.statistics import LayerStatistics

__all__ = ["Cost", "Counters", "LayerStatistics", "Session", "cost_of"]

"""The values that the compiler passes along: frozen dataclasses and numpy tables, compared by content.

`layer.py` and `network.py` (read them first) are what the frontend makes and passes change, `weight_code.py` and
`input_code.py` how numbers are put on an array, `array_spec.py` what a target asks for, `schedule.py` the tables of
tiles, copies and steps, `site_grid.py` where arrays can sit, `sample_axes.py` what
counts as a sample. Nothing here computes a mapping or knows a device.
"""

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.geometry import Contraction, Geometry, Patches
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.layer import DigitalSegment, InputGrid, LoweringRecord, MatrixLayer
from xbcompile.ir.network import Executed, Network, NetworkNode
from xbcompile.ir.recurrence import Recurrence, SequenceInput, StackedOutput, State
from xbcompile.ir.sample_axes import SampleAxes
from xbcompile.ir.schedule import Schedule, Use
from xbcompile.ir.weight_code import WeightCode

__all__ = [
    "ArraySpec",
    "Contraction",
    "DigitalSegment",
    "Executed",
    "Geometry",
    "InputCode",
    "InputGrid",
    "LoweringRecord",
    "MatrixLayer",
    "Network",
    "NetworkNode",
    "Patches",
    "Recurrence",
    "SampleAxes",
    "Schedule",
    "SequenceInput",
    "StackedOutput",
    "State",
    "Use",
    "WeightCode",
]

"""The values that the compiler passes along: frozen dataclasses and numpy tables, compared by content.

`layer.py` and `network.py` (read them first) are what the frontend makes and passes change, `weight_code.py` and
`input_code.py` how numbers are put on an array, `array_spec.py` what a target asks for, `schedule.py` the tables of
tiles, copies and steps, `site_grid.py` where arrays can sit, `sample_axes.py` what
counts as a sample. Nothing here computes a mapping or knows a device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbcompile.names import public_names

if TYPE_CHECKING:
    from xbcompile.ir.array_spec import ArraySpec
    from xbcompile.ir.geometry import Contraction, Geometry, Patches
    from xbcompile.ir.input_code import InputCode
    from xbcompile.ir.layer import DigitalSegment, InputGrid, LoweringRecord, MatrixLayer
    from xbcompile.ir.network import Executed, Network, NetworkNode
    from xbcompile.ir.recurrence import Recurrence, SequenceInput, StackedOutput, State
    from xbcompile.ir.sample_axes import SampleAxes
    from xbcompile.ir.schedule import Schedule, Use
    from xbcompile.ir.weight_code import WeightCode

_WHERE = {
    "ArraySpec": "xbcompile.ir.array_spec",
    "Contraction": "xbcompile.ir.geometry",
    "DigitalSegment": "xbcompile.ir.layer",
    "Executed": "xbcompile.ir.network",
    "Geometry": "xbcompile.ir.geometry",
    "InputCode": "xbcompile.ir.input_code",
    "InputGrid": "xbcompile.ir.layer",
    "LoweringRecord": "xbcompile.ir.layer",
    "MatrixLayer": "xbcompile.ir.layer",
    "Network": "xbcompile.ir.network",
    "NetworkNode": "xbcompile.ir.network",
    "Patches": "xbcompile.ir.geometry",
    "Recurrence": "xbcompile.ir.recurrence",
    "SampleAxes": "xbcompile.ir.sample_axes",
    "Schedule": "xbcompile.ir.schedule",
    "SequenceInput": "xbcompile.ir.recurrence",
    "StackedOutput": "xbcompile.ir.recurrence",
    "State": "xbcompile.ir.recurrence",
    "Use": "xbcompile.ir.schedule",
    "WeightCode": "xbcompile.ir.weight_code",
}

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

__getattr__ = public_names(__name__, _WHERE)

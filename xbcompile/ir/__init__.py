"""The values that the compiler passes along: layers, codes, networks, array demands and schedules."""

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.geometry import Contraction, Geometry, Patches
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.layer import DigitalSegment, InputGrid, LoweringRecord, MatrixLayer
from xbcompile.ir.network import Executed, Network, NetworkNode
from xbcompile.ir.recurrence import Recurrence, SequenceInput, StackedOutput, State
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
    "Schedule",
    "SequenceInput",
    "StackedOutput",
    "State",
    "Use",
    "WeightCode",
]

"""The values that the compiler passes along: layers, codes, networks, array demands and schedules."""

from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.geometry import Contraction, Geometry, Patches
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.layer import DigitalSegment, LoweringRecord, MatrixLayer
from xbcompile.ir.network import Network
from xbcompile.ir.schedule import Schedule
from xbcompile.ir.weight_code import WeightCode

__all__ = [
    "ArraySpec",
    "Contraction",
    "DigitalSegment",
    "Geometry",
    "InputCode",
    "LoweringRecord",
    "MatrixLayer",
    "Network",
    "Patches",
    "Schedule",
    "WeightCode",
]

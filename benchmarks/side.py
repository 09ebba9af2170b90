"""What every side of a row is: something made once that does its work again and again."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np

# Side: module and class; it is made from the name of a piece of work. Peers are imported by nobody else.
SIDES = {
    "xbcompile": "benchmarks.own:ProgramSide",
    "memory": "benchmarks.own:MemorySide",
    "compile": "benchmarks.own:CompileSide",
    "sessions": "benchmarks.own:SessionsSide",
    "repeat": "benchmarks.own:RepeatSide",
    "lines": "benchmarks.lines:LinesSide",
    "badcrossbar": "benchmarks.lines:BadcrossbarSide",
    "lightning": "benchmarks.lightning:LightningSide",
    "crosssim": "benchmarks.crosssim:CrossSimSide",
    "onnxruntime": "benchmarks.float_runtime:FloatSide",
    "command": "benchmarks.start_up:CommandSide",
}


class Side(Protocol):
    """One simulator with one piece of work."""

    facts: dict[str, Any]

    def run(self, threads: int) -> None:
        """Do the whole work once on so many threads."""


def make_side(name: str, work: str) -> Side:
    """Import what the side needs, and set it up: nothing of this is timed."""
    module, kind = SIDES[name].split(":")
    made: Side = getattr(import_module(module), kind)(work)
    return made


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over the spread of what is expected: shows that the same network is computed."""
    difference = np.asarray(found, np.float64).ravel() - np.asarray(expected, np.float64).ravel()
    return float(np.sqrt(np.mean(difference**2)) / np.std(expected))

"""The Python interface: what users call and hold, put together from the other rooms.

`compiling.py` (read it first) makes a program of a model, `models.py` says what counts as one; `program.py` is the program with
all that can be asked of it; `evaluation.py` runs it on labelled data, for `running.py` and for the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbcompile.names import public_names

if TYPE_CHECKING:
    from xbcompile.api.compiling import compile
    from xbcompile.api.diagnosing import diagnose
    from xbcompile.api.program import Program, load_program
    from xbcompile.api.running import Run, run

_WHERE = {
    "Program": "xbcompile.api.program",
    "Run": "xbcompile.api.running",
    "compile": "xbcompile.api.compiling",
    "diagnose": "xbcompile.api.diagnosing",
    "load_program": "xbcompile.api.program",
    "run": "xbcompile.api.running",
}

__all__ = ["Program", "Run", "compile", "diagnose", "load_program", "run"]

__getattr__ = public_names(__name__, _WHERE)

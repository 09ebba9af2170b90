"""xbcompile: compile ONNX networks to tiled analogue crossbar arrays and execute them with device errors.

import xbcompile

program = xbcompile.compile("model.onnx", target="mram64", calibration="mnist:train:1000")
program.save("model.xbar")
session = xbcompile.Session(xbcompile.load_program("model.xbar"), seed=1)
outputs = session.run_samples({"input": images})
"""

from __future__ import annotations

from xbcompile.names import public_names

__version__ = "0.1.0"

TYPE_CHECKING = False  # as in `names`
if TYPE_CHECKING:
    from xbcompile.api.compiling import compile
    from xbcompile.api.diagnosing import diagnose
    from xbcompile.api.program import Program, load_program
    from xbcompile.api.running import Run, run
    from xbcompile.errors import XbcompileError
    from xbcompile.frontend.explain import explain
    from xbcompile.interop.inference_session import InferenceSession
    from xbcompile.options import CompileOptions, PlanOptions
    from xbcompile.planning.plan import Plan, plan
    from xbcompile.runtime import Session, commission, load_corrections, save_corrections
    from xbcompile.targets import Target, load_target
    from xbcompile.verification.verify import verify

_WHERE = {
    "CompileOptions": "xbcompile.options",
    "InferenceSession": "xbcompile.interop.inference_session",
    "Plan": "xbcompile.planning.plan",
    "PlanOptions": "xbcompile.options",
    "Program": "xbcompile.api.program",
    "Run": "xbcompile.api.running",
    "Session": "xbcompile.runtime",
    "Target": "xbcompile.targets",
    "XbcompileError": "xbcompile.errors",
    "commission": "xbcompile.runtime",
    "compile": "xbcompile.api.compiling",
    "diagnose": "xbcompile.api.diagnosing",
    "explain": "xbcompile.frontend.explain",
    "load_corrections": "xbcompile.runtime",
    "load_program": "xbcompile.api.program",
    "load_target": "xbcompile.targets",
    "plan": "xbcompile.planning.plan",
    "run": "xbcompile.api.running",
    "save_corrections": "xbcompile.runtime",
    "verify": "xbcompile.verification.verify",
}

__all__ = [
    "CompileOptions",
    "InferenceSession",
    "Plan",
    "PlanOptions",
    "Program",
    "Run",
    "Session",
    "Target",
    "XbcompileError",
    "commission",
    "compile",
    "diagnose",
    "explain",
    "load_corrections",
    "load_program",
    "load_target",
    "plan",
    "run",
    "save_corrections",
    "verify",
]


__getattr__ = public_names(__name__, _WHERE)


def __dir__() -> list[str]:
    """Names that are loaded when they are first used, too."""
    return sorted({*globals(), *__all__})

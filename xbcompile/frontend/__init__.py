"""The frontend: the only place that reads ONNX models. `load_model` then `import_network`.

A rewriting of an operator takes a `Replacement`, and gives True, or raises `StaysDigital` with the reason why it cannot.
"""

from xbcompile.frontend.load import load_model
from xbcompile.frontend.network import import_network, runnable
from xbcompile.frontend.operands import StaysDigital
from xbcompile.frontend.rewriter import Replacement

__all__ = ["Replacement", "StaysDigital", "import_network", "load_model", "runnable"]

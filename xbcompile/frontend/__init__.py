"""The frontend: the only place that reads ONNX models. `load_model`, then `import_network`.

`operators.py` (read it first) is the table of operators: what becomes a matrix, what is rewritten, what stays digital
and why. `network.py` lists the stages in order: fold, rewrite, lower, partition.

A rewriting of an operator takes a `Replacement`, and gives True, or raises `StaysDigital` with the reason why it cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xbcompile.names import public_names

if TYPE_CHECKING:
    from xbcompile.frontend.load import load_model
    from xbcompile.frontend.network import import_network, runnable
    from xbcompile.frontend.operands import StaysDigital
    from xbcompile.frontend.rewriter import Replacement

_WHERE = {
    "Replacement": "xbcompile.frontend.rewriter",
    "StaysDigital": "xbcompile.frontend.operands",
    "import_network": "xbcompile.frontend.network",
    "load_model": "xbcompile.frontend.load",
    "runnable": "xbcompile.frontend.network",
}

__all__ = ["Replacement", "StaysDigital", "import_network", "load_model", "runnable"]

__getattr__ = public_names(__name__, _WHERE)

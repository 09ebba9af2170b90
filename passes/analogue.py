"""analogue: real inputs -> one analogue slice, for arrays whose rows are driven by a converter of their own.

    x  ->  low + (high - low) * v,  v in [0, 1]

Exact inside the range; values outside are clipped, as the driver saturates. Where rows take both signs the calibrated range
is symmetric, so that an input of 0 drives nothing.
Source: MultiSpin.AI deliverable D4.2 (2026), section 2.3: I = a_I x + b_I.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xbcompile.errors import PassError
from xbcompile.ir import Network
from xbcompile.ir.input_code import InputCode, drives_rows
from xbcompile.passes.contract import PassContext
from xbcompile.passes.input_coding import InputCoding


@dataclass(frozen=True)
class Analogue(InputCoding):
    """Drive the inputs of every matrix layer that has no input code yet as they are, scaled to the drivers' range."""

    name: ClassVar[str] = "analogue"
    scheme: ClassVar[str] = "analogue"

    def requires(self, network: Network, context: PassContext) -> None:
        """The rows must take any value."""
        if not drives_rows(InputCode(self.scheme), context.spec.drive):
            raise PassError(
                f"the target's rows take {context.spec.drive} drives only; use thermometer{{}} or bitserial{{}}"
            )

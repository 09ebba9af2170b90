"""thermometer: real inputs -> T binary slices summed with equal weights.

    x  ->  low + step * sum_t c_t v_t,  v_t in {0, 1}

Error bound: half a step, (high - low) / (2 bits). `bits` reads per tile; read noise of power s^2 adds up to bits * s^2.
Source: Jung et al., Nature 601, 211 (2022), Methods "BNN algorithm".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xbcompile.errors import PassError
from xbcompile.passes.input_coding import InputCoding


@dataclass(frozen=True)
class Thermometer(InputCoding):
    """Code the inputs of every matrix layer that has no input code yet.

    Args:
        bits: slices T; the input takes T + 1 values; fewer where the model itself quantizes the input to fewer.
    """

    name: ClassVar[str] = "thermometer"
    scheme: ClassVar[str] = "thermometer"
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 255:
            raise PassError(f"bits={self.bits} is out of range; allowed: 1 to 255")

    def slices(self) -> int:
        """One slice per bit."""
        return self.bits

    def slices_for(self, steps: int) -> int | None:
        """A slice per step."""
        return steps if steps <= self.bits else None

"""thermometer: real inputs -> T binary slices summed with equal weights.

    x  ->  low + step * sum_t c_t v_t,  v_t in {0, 1}

Error bound: half a step, (high - low) / (2 bits). `bits` reads per tile; read noise of power s^2 adds up to bits * s^2.
Source: Jung et al., Nature 601, 211 (2022), Methods "BNN algorithm".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from xbcompile.ir.input_code import MOST_BITS
from xbcompile.passes.contract import Advice, LayerTrouble
from xbcompile.passes.input_coding import InputCoding

MOST_SLICES = MOST_BITS["thermometer"]


@dataclass(frozen=True)
class Thermometer(InputCoding):
    """Code the inputs of every matrix layer that has no input code yet.

    Args:
        bits: slices T; the input takes T + 1 values; fewer where the model itself quantizes the input to fewer.
    """

    name: ClassVar[str] = "thermometer"
    helps_against: ClassVar[Mapping[str, int]] = {"coding": 0, "random": 0}
    scheme: ClassVar[str] = "thermometer"
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("bits", 1, MOST_SLICES)

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """More slices; against noise also in place of bits in series, whose noise is weighted by powers of two."""
        code = trouble.input_code
        if code is None or code.scheme == "analogue":
            return None
        if code.scheme == cls.scheme and code.bits < MOST_SLICES:
            now, bits = trouble.used.get(cls.name), min(2 * code.bits, MOST_SLICES)
            more = replace(now, bits=bits) if isinstance(now, cls) else cls(bits=bits)
            why = f"more slices ({more})" if trouble.source == "coding" else f"{more}, over which noise averages"
            return Advice(more, why)
        if trouble.source == "random" and code.scheme == "bitserial" and code.steps <= MOST_SLICES:
            least = cls(bits=code.steps)
            return Advice(least, f"{least} (noise power {code.steps} s² against {code.noise_power:g} s²)")
        return None

    def slices(self) -> int:
        """One slice per bit."""
        return self.bits

    def slices_for(self, steps: int) -> int | None:
        """A slice per step."""
        return steps if steps <= self.bits else None

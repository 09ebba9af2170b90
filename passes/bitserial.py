"""bitserial: real inputs -> B binary slices weighted by powers of two.

    x  ->  low + step * sum_t c_t v_t,  v_t in {0, 1}

Error bound: half a step, (high - low) / (2 (2^bits - 1)). `bits` reads per tile; read noise of power s^2 adds up to
sum_t 4^t s^2: for 3 bits 21 s^2, against 7 s^2 for the 7-slice thermometer code with as many levels.
Source: Jung et al., Nature 601, 211 (2022), Methods "BNN algorithm".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from xbcompile.ir.input_code import MOST_BITS
from xbcompile.passes.contract import Advice, LayerTrouble
from xbcompile.passes.input_coding import InputCoding

MOST_SLICES = MOST_BITS["bitserial"]


@dataclass(frozen=True)
class BitSerial(InputCoding):
    """Code the inputs of every matrix layer that has no input code yet.

    Args:
        bits: slices B; the input takes 2^B values; fewer where the model itself quantizes the input to fewer.
    """

    name: ClassVar[str] = "bitserial"
    helps_against: ClassVar[Mapping[str, int]] = {"coding": 1}
    scheme: ClassVar[str] = "bitserial"
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("bits", 1, MOST_SLICES)

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """One more bit halves the step."""
        code = trouble.input_code
        if code is None or code.scheme != cls.scheme or code.bits >= MOST_SLICES:
            return None
        now = trouble.used.get(cls.name)
        more = replace(now, bits=code.bits + 1) if isinstance(now, cls) else cls(bits=code.bits + 1)
        return Advice(more, f"more slices ({more})")

    def slices(self) -> int:
        """One slice per bit."""
        return self.bits

    def slices_for(self, steps: int) -> int | None:
        """Just the bits that number the steps."""
        return steps.bit_length() if steps.bit_length() <= self.bits else None

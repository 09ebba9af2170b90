"""choose-coding: thermometer or bit-serial inputs, whichever has less noise within the reads that there is time for.

    x  ->  low + step * sum_t c_t v_t,  v_t in {0, 1}

Of the two codes that resolve `steps` steps, thermometer of `steps` slices and bit-serial of ceil(log2(steps + 1)), the one
whose read noise is least in units of the full scale, among those of at most `reads` slices. With noise of power s^2 per
slice, the coded input has sum_t c_t^2 s^2 in units of its step: 7 s^2 for 7 thermometer slices and 21 s^2 = (1 + 4 + 16) s^2
for 3 bits, in 7 and 3 reads (`InputCode.noise_power`); over the full scale that is 1/7 and 3/7 s^2.
Error bound: half a step of the code that is taken, which has at least `steps` steps.
Source: Jung et al., Nature 601, 211 (2022), Methods "BNN algorithm".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xbcompile.errors import PassError
from xbcompile.ir import InputCode, Network
from xbcompile.passes.bitserial import BitSerial
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.passes.input_coding import InputCoding
from xbcompile.passes.thermometer import Thermometer

MOST_SLICES = {"thermometer": 255, "bitserial": 16}


@dataclass(frozen=True)
class ChooseCoding(NetworkPass):
    """Code the inputs of every matrix layer that has no input code yet by thermometer or in series, by noise and time.

    Args:
        steps: steps between the smallest and the largest input that the code must resolve at least.
        reads: reads per input vector and tile at most.
        low: real value of the smallest code, the same for all layers; None: calibrated.
        high: real value of the largest code; None: calibrated.
    """

    name: ClassVar[str] = "choose-coding"
    needs: ClassVar[str] = InputCoding.needs
    steps: int = 7
    reads: int = 8
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("steps", 1, 2 ** MOST_SLICES["bitserial"] - 1)
        self._check_count("reads", 1)
        if self.reads < self.steps.bit_length():
            raise PassError(
                f"reads={self.reads} cannot resolve steps={self.steps}; allowed: {self.steps.bit_length()} or more"
            )
        self.chosen()  # a range that is none is refused here

    def candidates(self) -> list[InputCode]:
        """The codes that resolve `steps` steps, without their range."""
        slices = {"thermometer": self.steps, "bitserial": self.steps.bit_length()}
        return [InputCode(scheme, bits) for scheme, bits in slices.items() if bits <= MOST_SLICES[scheme]]

    def chosen(self) -> InputCoding:
        """The pass that does it."""
        allowed = [code for code in self.candidates() if code.bits <= self.reads]
        best = min(allowed, key=relative_noise_power)
        pass_class = Thermometer if best.scheme == "thermometer" else BitSerial
        return pass_class(bits=best.bits, low=self.low, high=self.high)

    def note(self, before: Network, after: Network) -> str | None:
        """What was compared and taken, where anything was coded."""
        if after is before:
            return super().note(before, after)
        compared = "; ".join(
            f"{code.scheme} {code.bits}: {code.bits} reads, noise power {code.noise_power:g} s² in steps, "
            f"{relative_noise_power(code):.3g} s² of full scale"
            for code in self.candidates()
        )
        return f"{self}: {compared}; takes {self.chosen().scheme} for at most {self.reads} reads"

    def run(self, network: Network, context: PassContext) -> Network:
        """Code every layer that has no input code yet."""
        return self.chosen().run(network, context)

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Every layer is coded."""
        self.chosen().ensures(before, after, context)


def relative_noise_power(code: InputCode) -> float:
    """Noise power of a code's inputs over the square of its full scale, in units of s^2."""
    return code.noise_power / code.steps**2

"""The code that turns a layer's real inputs into drives of the array's rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Slices of each scheme at most; those of bits in series stand for whole numbers that float32 holds.
MOST_BITS = {"analogue": 1, "thermometer": 255, "bitserial": 16}
SCHEMES = tuple(MOST_BITS)


@dataclass(frozen=True)
class InputCode:
    """`x ~= low + step * sum_t coefficients[t] * v_t`, with slices v_t in [0, 1] (binary, or one analogue value).

    With L = round((x - low) / step) clipped to 0..steps: the thermometer code has v_t = (L >= t) for t = 1..steps and
    coefficients 1 (summing equal weights keeps the noise power at `steps` s^2, Jung et al. 2022, Methods "BNN
    algorithm"); the bit-serial code has the bits of L and powers of two. The analogue code has a single slice v = (x -
    low) / (high - low), clipped to 0..1, and no rounding.

    A target's rows take v as it is (unipolar, analogue) or as u = 2 v - 1 (bipolar).

    Args:
        scheme: "analogue", "thermometer" or "bitserial".
        bits: slices: 1 for analogue, T for a T-level thermometer, B for a B-bit code.
        low: real value of code 0; None: each vector's own minimum, taken when it runs.
        high: real value of the largest code; None: each vector's own maximum.
        span: what lies between the two of a dynamic range, where it is known before: each vector's own range is then
            stretched about 0 to it, `low` a whole number of steps; None: it is each vector's own too.

    Raises:
        ValueError: a field is not as stated, or `low` is not below `high` as float32 has them.
    """

    scheme: str
    bits: int = 1
    low: float | None = None
    high: float | None = None
    span: float | None = None

    def __post_init__(self) -> None:
        if self.scheme not in MOST_BITS:
            raise ValueError(f"input code: scheme = {self.scheme!r}; allowed: {', '.join(SCHEMES)}")
        most = MOST_BITS[self.scheme]
        if not isinstance(self.bits, int) or isinstance(self.bits, bool) or not 1 <= self.bits <= most:
            raise ValueError(f"input code: {self.scheme} has bits = {self.bits!r}; allowed: 1 to {most}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"input code: low = {self.low!r} and high = {self.high!r}; give both, or neither")
        if self.low is not None and self.high is not None and not is_range(self.low, self.high):
            raise ValueError(f"input code: low = {self.low!r} and high = {self.high!r} are no range of float32")
        if self.span is not None and (self.low is not None or not self.steps or not is_range(0.0, self.span)):
            raise ValueError(
                f"input code: span = {self.span!r}; it is for steps of a range without low and high, above 0 as float32"
            )

    @property
    def steps(self) -> int:
        """Number of steps between `low` and `high`; 0 for the analogue code, which has none."""
        return {"analogue": 0, "thermometer": self.bits, "bitserial": 2**self.bits - 1}[self.scheme]

    @property
    def coefficients(self) -> np.ndarray:
        """Digital weight of each slice, float64 [bits]."""
        if self.scheme == "bitserial":
            return 2.0 ** np.arange(self.bits)
        return np.ones(self.bits)

    @property
    def noise_power(self) -> float:
        """Noise power of the coded input in units of step^2 s^2, for independent noise of power s^2 in each slice's read:
        the sum of squared coefficients (7 for the thermometer code of 7 slices, 21 = 1 + 4 + 16 for 3 bits in series, Jung
        et al. 2022, Methods "BNN algorithm").
        """
        return float(np.square(self.coefficients).sum())

    @property
    def is_dynamic(self) -> bool:
        """Whether the range is each vector's own."""
        return self.low is None or self.high is None

    @property
    def taken(self) -> tuple[float, float] | None:
        """The smallest and the largest real value that is not clipped: half a step beyond the range, which rounding takes back,
        or for the analogue code what float32 rounds; None where the range is each vector's own.
        """
        if self.low is None or self.high is None:
            return None
        margin = (self.high - self.low) * (0.5 / self.steps if self.steps else 2.0**-20)
        return self.low - margin, self.high + margin


def is_range(low: float, high: float) -> bool:
    """Whether the arithmetic, which is in float32, sees a finite span above 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        span = np.float32(high) - np.float32(low)
    return bool(np.isfinite(span) and span > 0)


def drives_rows(code: InputCode | None, drive: str) -> bool:
    """Whether rows that accept such a drive (see `ArraySpec`) take inputs that are coded so; None: not at all."""
    if drive == "unbounded":
        return True
    if code is None:
        return False
    return code.scheme != "analogue" or drive in ("analogue", "signed")

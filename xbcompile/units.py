"""Numbers for people: SI prefixes and thousands."""

from __future__ import annotations

_PREFIXES = (
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
    (1e-15, "f"),
)


def si(value: float, unit: str) -> str:
    """`3.1e-11, "J"` -> `31 pJ`, four significant digits."""
    if value == 0:
        return f"0 {unit}"
    rounded = abs(float(f"{value:.4g}"))
    factor, prefix = next(((f, p) for f, p in _PREFIXES if rounded >= f), _PREFIXES[-1])
    return f"{value / factor:.4g} {prefix}{unit}"


def percent(fraction: float, digits: int = 2) -> str:
    """`0.9758` -> `97.58 %`."""
    return f"{100 * fraction:.{digits}f} %"


def counted(count: int, noun: str) -> str:
    """`1, "image"` -> `1 image`; `1200, "image"` -> `1,200 images`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"

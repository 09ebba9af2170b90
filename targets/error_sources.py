"""What makes a simulated device's readings differ from exact sums, by source: each can be switched off on its own.

A parameters class whose devices can be split has one method,

    def without(self, source: str) -> Self

which returns the parameters of the same device without that source (itself where it has none). Rules: a device without all
sources reads exact sums; with the same seed, what is sampled for one source does not depend on another being there; random
noise is drawn by the read's stamp, so that two devices that differ in another source draw the same noise.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from xbcompile.errors import TargetError

# In the order in which they act on a reading, but for random noise, which is left for last so that the other states are
# free of it: what stays the same from read to read (devices, line resistance, amplifiers); the limits of the converter's or
# amplifier's range; the rounding to its codes; what differs from read to read.
DEVICE_SOURCES = ("systematic", "saturation", "rounding", "random")


def without_sources(parameters: Any, sources: Collection[str]) -> Any:
    """The parameters of the same device without these sources.

    Raises:
        TargetError: the model family does not say how to switch sources off.
    """
    for source in sources:
        if source not in DEVICE_SOURCES:
            raise ValueError(f"unknown source {source!r}; known: {DEVICE_SOURCES}")
        switch = getattr(parameters, "without", None)
        if switch is None:
            raise TargetError(
                f"{type(parameters).__name__} has no method without(source), so its errors cannot be told apart by source"
            )
        parameters = switch(source)
    return parameters

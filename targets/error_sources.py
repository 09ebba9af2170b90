"""What makes a simulated device's readings differ from exact sums, by source: each can be switched off on its own.

`ArrayParameters.without(source)` gives the parameters of the same device without that source (itself where it has none). Rules:
a device without all sources reads exact sums; with the same seed, what is sampled for one source does not depend on another
being there; random noise is drawn by the read, so that two devices that differ in another source draw the same noise.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import reduce

from xbcompile.targets.parameters import ArrayParameters

# In the order in which they act on a reading, but for random noise, which is left for last so that the other states are
# free of it: what stays the same from read to read (devices, line resistance, amplifiers); the limits of the converter's or
# amplifier's range; the rounding to its codes; what differs from read to read.
DEVICE_SOURCES = ("systematic", "saturation", "rounding", "random")


def without_sources(parameters: ArrayParameters, sources: Collection[str]) -> ArrayParameters:
    """The parameters of the same device without these sources.

    Raises:
        TargetError: the model family does not say how to switch sources off.
    """
    unknown = sorted(set(sources) - set(DEVICE_SOURCES))
    if unknown:
        raise ValueError(f"unknown source {unknown[0]!r}; known: {DEVICE_SOURCES}")
    return reduce(lambda rest, source: rest.without(source), sources, parameters)

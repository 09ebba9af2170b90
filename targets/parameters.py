"""What the parameters class of a model family offers: all that compiler and runtime may ask of a description's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np

from xbcompile.errors import TargetError
from xbcompile.ir import ArraySpec


class ArrayParameters:
    """Base of the parameters class of every model family.

    A subclass is a frozen dataclass. A description gives its fields that are declared with `quantity`; fields with a default
    are for `without`. Numbers that do not go together make its `__post_init__` raise TargetError.

    Attributes:
        devices: its simulated devices by name, the default first: "module:Class" of subclasses of
            `contract.SimulatedDevice` that are made with (parameters, seed). None: a target has the exact array alone.
    """

    devices: ClassVar[Mapping[str, str]] = {}

    def array_spec(self) -> ArraySpec:
        """The array as the compiler sees it; what the electronics allow is added from the description's control numbers."""
        raise TypeError(f"{type(self).__name__} must define array_spec")

    def state_names(self) -> list[str]:
        """Physical meaning of each level index, for reports; none for cells that hold any value."""
        levels = self.array_spec().levels
        return [] if levels is None else [f"level {level:g}" for level in levels]

    def cell_states(self, cells: np.ndarray) -> dict[str, np.ndarray]:
        """What cells are written to on the device before any error, each quantity with its unit in its name.

        Args:
            cells: level indices (uint8), or float32 values on continuous arrays, of any shape.

        Returns:
            Arrays of the same shape by name, as `plus_siemens`; empty unless the family says more of its cells.
        """
        return {}

    def row_signals(self, drives: np.ndarray) -> dict[str, np.ndarray]:
        """What rows are driven with on the device, each quantity with its unit in its name.

        Args:
            drives: float32 in the array's drive alphabet, of any shape.

        Returns:
            Arrays of the same shape by name, as `voltage_volt`; empty unless the family says more of its rows.
        """
        return {}

    def without(self, source: str) -> Self:
        """The parameters of the same array without a source of errors, of `error_sources.DEVICE_SOURCES`: itself where it has
        none. The rules that devices keep are those of `error_sources`.

        Args:
            source: one of `error_sources.DEVICE_SOURCES`.

        Raises:
            TargetError: the errors of this family cannot be told apart, which is so unless it defines this method.
        """
        raise TargetError(
            f"{type(self).__name__} has no method without(source), so its errors cannot be told apart by source"
        )

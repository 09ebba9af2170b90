"""What the input-coding passes share: the range of a layer's inputs, and coding every layer that has no code yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.ir import InputCode, MatrixLayer, Network, Patches
from xbcompile.ir.input_code import is_range
from xbcompile.passes.contract import NetworkPass, PassContext

LEAST_STEP = float(np.finfo(np.float32).tiny)  # float32 rounds smaller ones to whole multiples of 1e-45
GRID_TOLERANCE = 1e-4  # of a step, by which 0 may miss a grid that contains it: rounding of scales and zero points


@dataclass(frozen=True)
class InputCoding(NetworkPass):
    """Base of `thermometer`, `bitserial` and `analogue`.

    The range is `low` and `high` where given, else the model's own where its quantizers leave a layer's inputs no more
    values than the code has (`on_grid`), else the smallest and largest value of each layer's inputs on the calibration
    inputs, else (without calibration inputs) each vector's own range, found when it runs.

    Args:
        low: real value of the smallest code, the same for all layers; None: calibrated.
        high: real value of the largest code; None: calibrated.
    """

    needs: ClassVar[str] = "a matrix layer whose inputs are not coded yet"
    scheme: ClassVar[str]
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.low is None) != (self.high is None):
            raise PassError("give both low= and high=, or neither")
        if self.low is not None and self.high is not None and not is_range(self.low, self.high):
            raise PassError(
                f"low={self.low:g} high={self.high:g} is no range; low must be below high, both finite as float32"
            )

    def slices(self) -> int:
        """Slices per input vector."""
        return 1

    def run(self, network: Network, context: PassContext) -> Network:
        """Code every layer that has no input code yet."""
        if all(layer.input_code is not None for layer in network.layers):
            return network
        symmetric = self.scheme == "analogue" and context.spec.drive == "signed"
        codes = {layer.name: layer.input_code or self.on_grid(layer, symmetric) for layer in network.layers}
        measured: dict[str, list[np.ndarray]] = {}
        if self.low is None and context.calibration is not None and not all(codes.values()):
            measured = context.layer_inputs(network, self.name)
        return network.with_layers(
            replace(layer, input_code=codes[layer.name] or self.code(layer, measured.get(layer.name), symmetric))
            for layer in network.layers
        )

    def on_grid(self, layer: MatrixLayer, symmetric: bool = False) -> InputCode | None:
        """The code that takes exactly the values of the layer's input grid; None where there is none that does.

        Bit-serial inputs take as many bits as the grid needs, thermometer inputs as many slices, analogue ones its range.
        Where one tensor has a narrower window on the grid, which is found when it runs, so is the range.
        """
        grid = layer.input_grid
        if self.low is not None or grid is None or grid.tensor != layer.input:
            return None
        if grid.window is not None:
            return self.in_window(grid.step, grid.window)
        low, step, steps = grid.low, grid.step, grid.steps
        if isinstance(layer.geometry, Patches):  # padding drives rows with 0
            below = round(-low / step * 2) / 2
            if abs(below + low / step) > GRID_TOLERANCE * max(1.0, abs(below)):
                return None
            if below % 1:  # 0 lies half-way between two values
                step, steps, below = step / 2, 2 * steps, 2 * below
            first, last = min(0.0, -below), max(steps - below, 0.0)
            low, steps = first * step, round(last - first)
        slices = self.slices_for(max(steps, 1))
        if slices is None:
            return None
        code = InputCode(self.scheme, slices)
        high = low + step * (code.steps or max(steps, 1))
        if symmetric:
            high = max(abs(low), abs(high))
            low = -high
        low, high = float(np.float32(low)), float(np.float32(high))
        return replace(code, low=low, high=high) if is_range(low, high) else None

    def in_window(self, step: float, steps: int) -> InputCode | None:
        """The code of a window of so many steps from each vector's smallest value on; None where none has so many, and for
        analogue inputs, whose range is measured instead.
        """
        slices = self.slices_for(steps)
        code = None if slices is None else InputCode(self.scheme, slices)
        return None if code is None or not code.steps else replace(code, span=float(np.float32(step * code.steps)))

    def slices_for(self, steps: int) -> int | None:
        """Slices of a code with at least so many steps of one size; None where it would take more than allowed."""
        return 1

    def code(self, layer: MatrixLayer, values: list[np.ndarray] | None, symmetric: bool = False) -> InputCode:
        """The input code of one layer; `values` are its inputs on the calibration data, chunk by chunk."""
        if values is None:
            return InputCode(self.scheme, self.slices(), self.low, self.high)
        low, high = (float(np.float32(f([f(value) for value in values]))) for f in (np.min, np.max))
        if not np.isfinite([low, high]).all():
            raise PassError(f"inputs of layer {layer.name!r} are not finite on the calibration inputs")
        if isinstance(layer.geometry, Patches):  # padding drives rows with 0
            low, high = min(low, 0.0), max(high, 0.0)
        if symmetric:
            high = max(abs(low), abs(high))
            low = -high
        code = InputCode(self.scheme, self.slices())
        if high - low < LEAST_STEP * max(code.steps, 1):  # a constant input still needs a step
            low, high = (-1.0, 1.0) if symmetric else (low, low + max(1.0, abs(low)))
        if not is_range(low, high):
            raise PassError(
                f"inputs of layer {layer.name!r} go from {low:g} to {high:g} on the calibration inputs, a range that float32 "
                "cannot hold; scale the model's inputs down"
            )
        return replace(code, low=low, high=high)

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Every layer is coded."""
        for layer in after.layers:
            if layer.input_code is None:
                raise ValueError(f"layer {layer.name!r} has no input code")

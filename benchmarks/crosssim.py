"""CrossSim: arrays of 64x64, programming error in proportion to the weight, converters; read noise, drawn per cell, is off."""

from __future__ import annotations

import torch
from simulator import CrossSimParameters
from simulator.algorithms.dnn.torch.conv import AnalogConv2d
from simulator.algorithms.dnn.torch.linear import AnalogLinear
from threadpoolctl import ThreadpoolController

from benchmarks.torch_network import TorchSide
from benchmarks.work import ROWS, Work


def parameters(largest_input: float, work: Work) -> CrossSimParameters:
    """Arrays, devices and converters."""
    made = CrossSimParameters()
    made.core.rows_max = made.core.cols_max = ROWS
    made.core.mapping.inputs.mvm.min, made.core.mapping.inputs.mvm.max = -largest_input, largest_input
    error = made.xbar.device.programming_error
    error.enable, error.model, error.magnitude = True, "NormalProportionalDevice", work.programming_error
    if work.codes:
        converter = made.xbar.adc.mvm
        converter.model, converter.bits = "QuantizerADC", (work.codes - 1).bit_length()
        converter.calibrated_range = [-work.step_bound, work.step_bound]
    return made


def analogue(layer: torch.nn.Module, largest_input: float, work: Work) -> torch.nn.Module:
    """The layer on arrays."""
    kind = AnalogConv2d if isinstance(layer, torch.nn.Conv2d) else AnalogLinear
    made: torch.nn.Module = kind.from_torch(layer, parameters(largest_input, work), 0)
    return made.eval()


class CrossSimSide(TorchSide):
    """See the module; products are numpy's, so its threads count."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadpoolController().select(user_api="blas")
        super().__init__(name, analogue)

    def run(self, threads: int) -> None:
        with self._threads.limit(limits=threads):
            super().run(threads)

"""aihwkit-lightning: tiles of 64 rows; columns are not split.

Noise of outputs exists in training mode alone, which is used without gradients.
Weights are perturbed once, before the layer is made: its own weight noise is drawn anew in every call, for training.
"""

from __future__ import annotations

import math

import torch
from aihwkit_lightning.nn import AnalogConv2d, AnalogLinear
from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

from benchmarks.torch_network import TorchSide, spread
from benchmarks.work import ROWS, Work


def configuration(largest_input: float, inputs: int, work: Work) -> TorchInferenceRPUConfig:
    """Tiles, converter and noise. The noise given is that of a whole sum: each tile gets it over the root of their number."""
    made = TorchInferenceRPUConfig()
    made.mapping.max_input_size = ROWS
    if not work.codes:
        return made
    fixed = made.pre_post.input_range
    fixed.enable, fixed.fast_mode, fixed.learn_input_range = True, True, False
    fixed.init_from_data, fixed.init_value = 0, largest_input
    made.forward.out_noise = work.noise * math.sqrt(-(-inputs // ROWS))
    made.forward.out_bound, made.forward.out_res = work.step_bound, work.codes - 1
    return made


def analogue(layer: torch.nn.Module, largest_input: float, work: Work) -> torch.nn.Module:
    """The layer on tiles."""
    layer.weight.data = spread(layer.weight.data, work.programming_error)
    kind = AnalogConv2d if isinstance(layer, torch.nn.Conv2d) else AnalogLinear
    made: torch.nn.Module = kind.from_digital(layer, configuration(largest_input, layer.weight[0].numel(), work))
    return made.train()


class LightningSide(TorchSide):
    """See the module."""

    def __init__(self, name: str) -> None:
        super().__init__(name, analogue)

"""Networks for cells of two-state magnetic junctions: the error of a written weight, and training with it in torch.

Source: Liu et al., "Evaluation of Wafer-Scale SOT-MRAM for Analog Crossbar Array Applications", Fig. 2c and 3b; the
numbers are those of the compiler's targets `sot` (pairs) and `sot-single`. Conductances of devices and of writes deviate in
proportion to their means, Gaussian and independent (assumed).

    pair    +1 low - high, -1 high - low, 0 high - high                       (resistance states of the two devices)
    single  +1 low - reference, -1 high - reference; all columns of a row share the reference: one device in each state,
            halved (assumed)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot

import torch
from torch import nn

from xbcompile.targets import load_target


def device_sigmas(target: str) -> tuple[float, float]:
    """Return the standard deviation of a device in the high- and in the low-resistance state, in units of a weight of 1."""
    parameters = load_target(target).parameters
    spreads = parameters.high_sigma, parameters.low_sigma
    states = zip(parameters.state_siemens, spreads, strict=True)
    high, low = (
        siemens * hypot(spread, parameters.write_noise) / parameters.level_siemens for siemens, spread in states
    )
    return high, low


_HIGH, _LOW = device_sigmas("sot")
SIGMA_PAIR_ZERO, SIGMA_PAIR_ONE = hypot(_HIGH, _HIGH), hypot(_HIGH, _LOW)  # 0.080, 0.173
SIGMA_HIGH, SIGMA_LOW = device_sigmas("sot-single")  # 0.113, 0.327
SIGMA_REFERENCE = hypot(SIGMA_HIGH, SIGMA_LOW) / 2  # 0.173


def pair_error(codes: torch.Tensor) -> torch.Tensor:
    """Draw the error of each ternary weight, in units of one weight step."""
    return torch.randn_like(codes) * torch.where(codes == 0, SIGMA_PAIR_ZERO, SIGMA_PAIR_ONE)


def single_error(signs: torch.Tensor) -> torch.Tensor:
    """Draw the error of each binary weight, [inputs, outputs], in units of one weight step."""
    own = torch.randn_like(signs) * torch.where(signs > 0, SIGMA_LOW, SIGMA_HIGH)
    return own - SIGMA_REFERENCE * torch.randn(len(signs), 1)


def ternary(latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes -1, 0, +1 and a scale per output (axis 0), shaped to multiply: Li and Liu, Ternary Weight Networks (2016).

    A weight is 0 below 0.7 times the mean magnitude of its output; the scale is the mean magnitude of the others.
    """
    magnitude = latent.abs()
    axes = tuple(range(1, latent.ndim))
    on = (magnitude > 0.7 * magnitude.mean(dim=axes, keepdim=True)).to(latent.dtype)
    scale = (on * magnitude).sum(dim=axes, keepdim=True) / on.sum(dim=axes, keepdim=True)
    return on * latent.sign(), scale


class TernaryLayer(nn.Module):
    """A convolution or dense layer with ternary weights, trained through real latent weights (straight-through).

    `chip` holds the errors of one simulated chip, `gain` and `offset` its digital recalibration per output; without them
    the weights are exact, or drawn anew in each call with `noisy`.
    """

    def __init__(self, source: nn.Conv2d | nn.Linear):
        super().__init__()
        self.latent = nn.Parameter(source.weight.detach().clone())
        self.bias = nn.Parameter(source.bias.detach().clone())
        self.padding = source.padding if isinstance(source, nn.Conv2d) else None
        self.noisy = False
        self.chip: torch.Tensor | None = None
        self.gain = torch.ones_like(self.bias)
        self.offset = torch.zeros_like(self.bias)

    def codes(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the layer is written as: see `ternary`."""
        return ternary(self.latent)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sums, recalibrated, plus bias."""
        codes, scale = self.codes()
        error = self.chip if self.chip is not None else pair_error(codes) if self.noisy else torch.zeros_like(codes)
        weight = self.latent + (scale * (codes + error) - self.latent).detach()
        if self.padding is None:
            return nn.functional.linear(value, weight, self.bias) * self.gain + self.offset
        sums = nn.functional.conv2d(value, weight, self.bias, padding=self.padding)
        return sums * self.gain[:, None, None] + self.offset[:, None, None]


@torch.no_grad()
def recalibrate(
    layers: Sequence[nn.Module], outputs: Callable[[], list[torch.Tensor]], exact: list[torch.Tensor]
) -> None:
    """Set `gain` and `offset` of each layer in order, by least squares of `exact` on the outputs of a simulated chip.

    `outputs` gives those of all layers, [samples, outputs, ...], on the calibration inputs, with what is set so far.
    """
    for index, (layer, reference) in enumerate(zip(layers, exact, strict=True)):
        x, y = (t.transpose(0, 1).flatten(1) for t in (outputs()[index], reference))
        centred = x - x.mean(dim=1, keepdim=True)
        layer.gain = (centred * y).mean(dim=1) / centred.square().mean(dim=1).clamp_min(1e-12)
        layer.offset = y.mean(dim=1) - layer.gain * x.mean(dim=1)

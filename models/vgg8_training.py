"""VGG-8 with binary weights for a resistance-sum array: the network, its errors on the array, and the training in torch.

The array is that of `binary_training.py` (64x64 STT-MRAM, Jung et al., Nature 601, 2022). Three of its errors are trained
for, each with the numbers of the target's description:

- row weights: known in advance, a factor of each weight;
- spread of the resistances: a cell's weight differs from +-1 with the standard deviation
  sqrt(sigma_H^2 + sigma_L^2) / (R_H - R_L) = 0.197, fixed on a chip, so one draw per batch for all images and places;
- converter: 6 units per code and jitter, so an error of sqrt(6^2 / 12 + 1.15^2) per read, independent in every tile.
  In units of one weight times one full input it halves, as drives are -1 and +1, and the slices of a thermometer code
  read nearly the same pattern, so that it hardly averages over them.

Batch normalization uses the statistics of the disturbed batch, which stands for the recalibration of a chip's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from binary_training import EPSILON
from torch import nn
from torch.nn import functional

from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.targets import load_target
from xbcompile.tiler import MatrixShape, plan_layout

CELL_SPREAD = 0.197  # sqrt(2.0^2 + 1.6^2) / (26 - 13), from R_H, R_L in kOhm
READ_SPREAD = 2.08  # sqrt(6^2 / 12 + 1.15^2), in units of the dot product of -1 and +1
TILE_ROWS = 64
KERNEL = 3
BIT16 = torch.bfloat16


@dataclass(frozen=True)
class Layer:
    """Shape of one layer.

    Args:
        name: its name in the ONNX file.
        inputs: channels in.
        outputs: channels out.
        kernel: 3 for a convolution (padding 1); 1 for a dense layer.
        stride: of the convolution.
        pool: (kernel, stride) of the max pooling that follows, or None.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = KERNEL
    stride: int = 1
    pool: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """Inputs of the layer's matrix: channels, then the kernel's rows and columns."""
        return self.inputs * self.kernel**2


def row_weights(layers: Sequence[Layer]) -> list[np.ndarray]:
    """Return, per layer, the weight of the array row under each weight, float32 [inputs, outputs]."""
    spec = load_target("mram64").array_spec
    shapes = [MatrixShape(1, layer.rows, layer.outputs) for layer in layers]
    tiles = plan_layout(shapes, spec.rows, spec.columns, pack=False).tiles
    found = [row_weight_of_layer(tiles, i, (1, s.inputs, s.outputs), spec) for i, s in enumerate(shapes)]
    return [weight[0] for weight in found if weight is not None]


class _RoundToLevels(torch.autograd.Function):
    """Clip to [0, 1] and round to multiples of 1/levels; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(context, value, levels):  # type: ignore[no-untyped-def]  # torch has no type for its context
        context.save_for_backward(value)
        return value.clamp(0, 1).mul_(levels).round_().div_(levels)

    @staticmethod
    def backward(context, gradient):  # type: ignore[no-untyped-def]  # as forward
        (value,) = context.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, value, 0, 1), None


class NoisePool:
    """Standard normal numbers drawn once per epoch; each use takes a run of them from a random place."""

    def __init__(self, size: int = 1 << 23):
        self.size = size
        self.refill()

    def refill(self) -> None:
        """Draw new numbers."""
        self.values = torch.randn(self.size).to(BIT16)

    def like(self, value: torch.Tensor) -> torch.Tensor:
        """Return numbers of the value's shape, 4 axes, channels last."""
        first = int(torch.randint(self.size - value.numel() + 1, ()))
        count, channels, height, width = value.shape
        taken = self.values[first : first + value.numel()]
        return taken.view(count, height, width, channels).permute(0, 3, 1, 2)


class ArrayLayer(nn.Module):
    """Signs times row weights, convolved or multiplied, then max pooling and batch normalization."""

    def __init__(self, layer: Layer, gains: np.ndarray, pool: NoisePool):
        super().__init__()
        self.pool = pool
        shape = (layer.outputs, layer.inputs, layer.kernel, layer.kernel)
        self.layer = layer
        self.latent = nn.Parameter(0.1 * torch.randn(shape))
        self.gains = torch.from_numpy(np.ascontiguousarray(gains.T)).reshape(shape)
        self.sigma = READ_SPREAD / 2 * float(np.ceil(layer.rows / TILE_ROWS)) ** 0.5
        self.norm = nn.BatchNorm2d(layer.outputs, eps=EPSILON)

    def signs(self) -> torch.Tensor:
        """Return the binary weights [outputs, inputs, kernel, kernel], constants to the gradient."""
        latent = self.latent.detach()
        return torch.copysign(torch.ones_like(latent), latent)

    def weights(self, binary: bool, noise: float = 0.0) -> torch.Tensor:
        """Return row weight times latent weight or sign; the gradient goes straight to the latent weight."""
        value = self.latent
        if binary:
            value = value + (self.signs() - value.detach())
        if noise:
            value = value + noise * CELL_SPREAD * self.pool.like(value)
        return self.gains * value

    def sums(self, value: torch.Tensor, binary: bool, noise: float = 0.0) -> torch.Tensor:
        """Return the pooled sums, with `noise` times the array's errors."""
        layer = self.layer
        weights = self.weights(binary, noise).to(value.dtype)
        if layer.kernel == 1:
            result = functional.linear(value.flatten(1), weights.flatten(1))[:, :, None, None]
        else:
            weights = weights.contiguous(memory_format=torch.channels_last)
            result = functional.conv2d(value, weights, stride=layer.stride, padding=1)
        if noise:
            result = result + noise * self.sigma * self.pool.like(result)
        return result if layer.pool is None else functional.max_pool2d(result, *layer.pool)

    def forward(self, value: torch.Tensor, binary: bool, noise: float) -> torch.Tensor:
        """Return the normalized sums."""
        return self.norm(self.sums(value, binary, noise))


class BinaryVgg(nn.Module):
    """Binary layers with activations of a few levels between them.

    Args:
        layers: their shapes; the input channels of the first say how many rows share a pixel.
        levels: thermometer slices; activations are 0, 1/levels, ... 1.
    """

    def __init__(self, layers: Sequence[Layer], levels: int):
        super().__init__()
        self.levels = levels
        pairs = zip(layers, row_weights(layers), strict=True)
        self.pool = NoisePool()
        self.layers = nn.ModuleList(ArrayLayer(layer, gains, self.pool) for layer, gains in pairs)
        for layer in list(self.layers)[:-1]:
            nn.init.constant_(layer.norm.weight, 0.4)
            nn.init.constant_(layer.norm.bias, 0.3)  # most sums start inside [0, 1]

    def spread(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels [n, 1, h, w] as a thermometer code over the input channels: channel c is clip(channels x - c, 0, 1)."""
        channels = self.layers[0].layer.inputs
        value = channels * images - torch.arange(channels, dtype=images.dtype)[:, None, None]
        return self.round(value).contiguous(memory_format=torch.channels_last)

    def round(self, value: torch.Tensor) -> torch.Tensor:
        """Clip to [0, 1] and round to the levels."""
        return _RoundToLevels.apply(value, self.levels)

    def forward(self, images: torch.Tensor, binary: bool = True, noise: float = 0.0) -> torch.Tensor:
        """Return the logits of images [n, 1, h, w] in [0, 1]."""
        value = self.spread(images)
        for layer in self.layers[:-1]:
            value = self.round(layer(value, binary, noise))
        return self.layers[-1](value, binary, noise).flatten(1)


def moved(images: torch.Tensor, degrees: float = 10.0, scale: float = 0.1, pixels: float = 2.0) -> torch.Tensor:
    """Rotate, scale and shift each image [n, 1, h, w] by its own random amounts, uniform within these limits."""
    count, side = len(images), images.shape[-1]
    angle, size, x, y = (2 * torch.rand(4, count) - 1) * torch.tensor(
        [[np.deg2rad(degrees)], [scale], [2 * pixels / side], [2 * pixels / side]], dtype=torch.float32
    )
    cosine, sine = (1 + size) * angle.cos(), (1 + size) * angle.sin()
    rows = torch.stack([torch.stack([cosine, -sine, x], 1), torch.stack([sine, cosine, y], 1)], 1)
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@dataclass(frozen=True)
class Recipe:
    """The schedule: epochs with real weights, then with binary ones and noise; Adam, one cosine over all."""

    real_epochs: int
    binary_epochs: int
    batch: int = 100
    learning_rate: float = 5e-3
    norm_learning_rate: float = 5e-3
    noise: float = 1.0
    label_smoothing: float = 0.05


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    network: BinaryVgg,
    recipe: Recipe,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train in place on images [n, 1, h, w] in 16 bits: real weights, then binary ones by the straight-through estimator."""
    latents = [layer.latent for layer in network.layers]
    norms = [parameter for layer in network.layers for parameter in layer.norm.parameters()]
    groups = [
        {"params": latents, "lr": recipe.learning_rate},
        {"params": norms, "lr": recipe.norm_learning_rate},
    ]
    optimizer = torch.optim.Adam(groups)
    steps_per_epoch = len(images) // recipe.batch
    epochs = recipe.real_epochs + recipe.binary_epochs
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps_per_epoch * epochs)
    for epoch in range(epochs):
        network.train()
        network.pool.refill()
        binary = epoch >= recipe.real_epochs
        order = torch.randperm(len(images))
        loss_sum = 0.0
        for start in range(0, steps_per_epoch * recipe.batch, recipe.batch):
            chosen = order[start : start + recipe.batch]
            logits = network(moved(images[chosen]).to(BIT16), binary, recipe.noise * binary).float()
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += float(loss.detach())
            with torch.no_grad():
                for latent in latents:
                    latent.clamp_(-1, 1)
        print(f"epoch {epoch + 1} of {epochs}, binary {binary}: loss {loss_sum / steps_per_epoch:.4f}", flush=True)
        after_epoch(epoch)


@torch.no_grad()
def set_statistics(network: BinaryVgg, images: torch.Tensor, batch: int = 1000) -> None:
    """Give the batch normalizations the undisturbed mean and variance over all the images, layer by layer."""
    network.eval()
    values = [network.spread(chunk) for chunk in images.split(batch)]
    for layer in network.layers:
        sums = [layer.sums(value, binary=True) for value in values]
        mean = torch.stack([each.mean(dim=(0, 2, 3)) for each in sums]).mean(dim=0)
        variance = torch.stack([(each - mean[:, None, None]).square().mean(dim=(0, 2, 3)) for each in sums]).mean(dim=0)
        layer.norm.running_mean.copy_(mean)
        layer.norm.running_var.copy_(variance)
        values = [network.round(layer.norm(each)) for each in sums]


@torch.no_grad()
def correct(network: BinaryVgg, images: torch.Tensor, labels: torch.Tensor, noise: float = 0.0) -> float:
    """Return the percentage of images whose largest output is their label's.

    With noise, the batch normalizations take the statistics of each 500 images, as a recalibrated chip would.
    """
    network.train(bool(noise))
    kept = [(layer.norm.running_mean.clone(), layer.norm.running_var.clone()) for layer in network.layers]
    hits = 0
    for chunk, truth in zip(images.split(500), labels.split(500), strict=True):
        hits += int((network(chunk, noise=noise).argmax(1) == truth).sum())
    for layer, (mean, variance) in zip(network.layers, kept, strict=True):
        layer.norm.running_mean.copy_(mean)
        layer.norm.running_var.copy_(variance)
    network.eval()
    return 100 * hits / len(labels)

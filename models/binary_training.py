"""Binary networks for a resistance-sum array: the weights of the array's rows, and the training in torch.

Source of the array: the 64x64 STT-MRAM crossbar of Jung et al. (Nature 601, 2022). A column of N cells in
series is read by the delay of its distributed RC line (Elmore), C_P per cell and C_L at the end:

    tau = sum_j R_j (C_P (N - j) + C_L), row j = 0 being at the supply.

So a cell counts by its row: by 1.65 at the supply down to 0.35 at the end, mean 1. This is known in advance,
linear, and the largest error of the array when ignored; the networks here are trained with it.

The other errors (4-bit converter, spread of the resistances) enter the training as Gaussian noise on the
sums. Sums on the devices and converter themselves, drawn anew for every batch, gave the same accuracy for
twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.targets import load_target
from xbcompile.tiler import MatrixShape, plan_layout

LEVELS = 8  # thermometer slices; activations are 0, 1/8, ... 1
EPSILON = 1e-5  # of the batch normalization
SIDE = 28  # pixels along a side of an image


def row_weights(inputs: int, outputs: int) -> np.ndarray:
    """Return, for each (input, output), the weight of the array row that the compiler puts the input on."""
    spec = load_target("mram64").array_spec
    tiles = plan_layout([MatrixShape(1, inputs, outputs)], spec.rows, spec.columns, pack=False).tiles
    weights = row_weight_of_layer(tiles, 0, (1, inputs, outputs), spec)
    assert weights is not None  # the rows of mram64 differ
    return weights[0]


def round_to_levels(value: torch.Tensor) -> torch.Tensor:
    """Clip to [0, 1] and round to multiples of 1/8; the gradient passes through the rounding."""
    clipped = value.clamp(0, 1)
    return clipped + ((clipped * LEVELS).round() / LEVELS - clipped).detach()


def pixels_of_rows(images: torch.Tensor, pixels: int, rows: int) -> np.ndarray:
    """Choose the pixel that each row of layer 1 takes: the busiest ones in order, then the very busiest again.

    Busy means a large variance over the images. A pixel on two rows of weights g and h has four weights to choose
    from, +-(g + h) and +-(g - h). Giving such pixels a heavy and a light row each, or the busiest pixels the rows of
    weight next to 1, was no better on held-out images.

    Args:
        images: float32 [images, all pixels].
        pixels: how many different pixels to take.
        rows: how many rows there are, from `pixels` to twice as many.

    Returns:
        int64 [rows], indices of pixels.
    """
    busiest = np.argsort(-images.var(dim=0).numpy(), kind="stable")[:pixels]
    return np.concatenate([np.sort(busiest), busiest[: rows - pixels]])


def shifted(images: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Move each image by one pixel up, down, left, right or not at all, and return the given pixels of it.

    Args:
        images: float32 [batch, SIDE * SIDE].
        pixels: int64 [rows], indices into an image.

    Returns:
        float32 [batch, rows]; 0 where an image was moved away from.
    """
    framed = nn.functional.pad(images.view(-1, SIDE, SIDE), (1, 1, 1, 1)).flatten(1)
    width = SIDE + 2
    origin = (pixels // SIDE + 1) * width + pixels % SIDE + 1
    step = torch.tensor([0, 1, -1, width, -width])[torch.randint(0, 5, (len(images),))]
    return framed.gather(1, origin[None, :] + step[:, None])


class BinaryLayer(nn.Module):
    """Signs times row weights, then batch normalization; trained through real latent weights in [-1, 1]."""

    def __init__(self, inputs: int, outputs: int, gains: np.ndarray, sigma: float):
        super().__init__()
        self.latent = nn.Parameter(0.1 * torch.randn(inputs, outputs))
        self.gains = torch.from_numpy(gains)
        self.sigma = sigma
        self.norm = nn.BatchNorm1d(outputs, eps=EPSILON)

    def signs(self) -> torch.Tensor:
        """Return the binary weights; zero counts as +1."""
        return torch.where(self.latent >= 0, 1.0, -1.0)

    def weights(self, binary: bool) -> torch.Tensor:
        """Return row weight times latent weight or sign; the gradient goes straight to the latent weight."""
        if binary:
            return self.gains * (self.latent + (self.signs() - self.latent).detach())
        return self.gains * self.latent

    def forward(self, value: torch.Tensor, binary: bool, noisy: bool) -> torch.Tensor:
        """Return the normalized sums, with the layer's Gaussian error if noisy."""
        sums = value @ self.weights(binary)
        if noisy:
            sums = sums + self.sigma * torch.randn_like(sums)
        return self.norm(sums)


class BinaryNetwork(nn.Module):
    """Two binary layers with nine-level activations between them.

    Args:
        gains: row weights of both layers, float32 [inputs, outputs] each.
        sigmas: standard deviation of the Gaussian error of the sums of each layer.
        copies: how many outputs of layer 2 are averaged into one logit; output c * logits + i is copy c of logit i.
    """

    def __init__(self, gains: tuple[np.ndarray, np.ndarray], sigmas: tuple[float, float], copies: int = 1):
        super().__init__()
        self.copies = copies
        self.layers = nn.ModuleList(
            BinaryLayer(gain.shape[0], gain.shape[1], gain, sigma) for gain, sigma in zip(gains, sigmas, strict=True)
        )
        nn.init.constant_(self.layers[0].norm.weight, 0.3)  # most hidden sums start inside [0, 1]
        nn.init.constant_(self.layers[0].norm.bias, 0.3)

    def forward(self, images: torch.Tensor, binary: bool = True, noisy: bool = False) -> torch.Tensor:
        """Return the logits; the images are already rounded to levels."""
        hidden = round_to_levels(self.layers[0](images, binary, noisy))
        outputs = self.layers[1](hidden, binary, noisy)
        return outputs.unflatten(1, (self.copies, -1)).mean(dim=1) if self.copies > 1 else outputs


@dataclass(frozen=True)
class Recipe:
    """The schedule: epochs with real weights, then with binary ones and noise; Adam, one cosine over all."""

    real_epochs: int
    binary_epochs: int
    batch: int = 100
    learning_rate: float = 1e-2
    norm_learning_rate: float = 5e-3


def unchanged(batch: torch.Tensor) -> torch.Tensor:
    """Return the batch as it is."""
    return batch


def train(
    images: torch.Tensor,
    labels: torch.Tensor,
    network: BinaryNetwork,
    recipe: Recipe,
    rows_of: Callable[[torch.Tensor], torch.Tensor] = unchanged,
) -> None:
    """Train in place: first real weights, then binary ones by the straight-through estimator.

    `rows_of` turns a batch of images into the inputs of layer 1, anew each time.
    """
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
    criterion = nn.CrossEntropyLoss()
    network.train()
    for epoch in range(epochs):
        binary = epoch >= recipe.real_epochs
        order = torch.randperm(len(images))
        loss_sum = 0.0
        for start in range(0, steps_per_epoch * recipe.batch, recipe.batch):
            chosen = order[start : start + recipe.batch]
            loss = criterion(network(rows_of(images[chosen]), binary, noisy=binary), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += float(loss.detach())
            with torch.no_grad():
                for latent in latents:
                    latent.clamp_(-1, 1)
        mean_loss = loss_sum / steps_per_epoch
        print(f"epoch {epoch + 1} of {epochs}, binary {binary}: loss {mean_loss:.4f}", flush=True)


@torch.no_grad()
def set_statistics(network: BinaryNetwork, images: torch.Tensor) -> None:
    """Give the batch normalizations the undisturbed mean and variance over all the images."""
    network.eval()
    value = images
    for layer in network.layers:
        sums = value @ layer.weights(binary=True)
        layer.norm.running_mean.copy_(sums.mean(dim=0))
        layer.norm.running_var.copy_(sums.var(dim=0, unbiased=False))
        value = round_to_levels(layer.norm(sums))

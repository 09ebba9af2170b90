"""Training of small float networks in torch, shared by the scripts of the dense models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Recipe:
    """How to train: Adam with a cosine or a fixed learning rate, and L2 weight decay inside the gradient.

    The decay is deliberately Adam's own (not decoupled as in AdamW): where a weight gets no gradient from the
    data, as for a pixel that is never on, Adam normalises the decay alone to full steps, and the weight
    vanishes.
    """

    epochs: int
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-5
    average_from: float = (
        0.5  # the weights given back are a running average that starts after this part; 1: the last ones
    )
    seed: int = 0
    annealed: bool = True  # whether the learning rate falls along a cosine to 0
    glorot: bool = False  # uniform in +-sqrt(6 / (inputs + outputs)), biases 0, instead of torch's own start


def unchanged(batch: torch.Tensor) -> torch.Tensor:
    """Return the batch as it is."""
    return batch


def fit(
    images: np.ndarray,
    labels: np.ndarray,
    hidden: int,
    recipe: Recipe,
    distort: Callable[[torch.Tensor], torch.Tensor] = unchanged,
) -> nn.Sequential:
    """Train inputs-hidden-10 on images that `distort` changes anew each time; return the averaged network."""
    torch.manual_seed(recipe.seed)
    network = nn.Sequential(nn.Linear(images.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, 10))
    if recipe.glorot:
        for layer in (network[0], network[2]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return train(network, images, labels, recipe, distort)


def train(
    network: nn.Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    recipe: Recipe,
    distort: Callable[[torch.Tensor], torch.Tensor] = unchanged,
) -> nn.Sequential:
    """Train a network that was initialised under the recipe's seed; return the averaged network."""
    torch.set_num_threads(1)
    averaged = copy.deepcopy(network)
    decay = recipe.weight_decay
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate, weight_decay=decay)
    data, target = torch.from_numpy(images), torch.from_numpy(labels)
    steps_per_epoch = len(data) // recipe.batch
    total = recipe.epochs * steps_per_epoch
    fixed = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total) if recipe.annealed else fixed
    step = 0
    for _ in range(recipe.epochs):
        order = torch.randperm(len(data))
        for start in range(0, steps_per_epoch * recipe.batch, recipe.batch):
            chosen = order[start : start + recipe.batch]
            loss = nn.functional.cross_entropy(network(distort(data[chosen])), target[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            _average(averaged, network, step >= recipe.average_from * total)
    return averaged


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, started: bool) -> None:
    """Move the average towards the network by 1/500, or copy the network before averaging starts."""
    for mean, value in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 / 500 if started else 1.0)


def layers(network: nn.Sequential) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return (name, weights [inputs, outputs], bias) of each linear layer."""
    linear = [module for module in network if isinstance(module, nn.Linear)]
    return [
        (f"fc{index + 1}", module.weight.detach().numpy().T, module.bias.detach().numpy())
        for index, module in enumerate(linear)
    ]


@torch.no_grad()
def accuracy_of(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the percentage of rightly classified images."""
    return 100 * float(np.mean(network(torch.from_numpy(images)).argmax(dim=1).numpy() == labels))

"""Train fashion_bnn.onnx: 784-200-200-10 with weights -1 and +1, for Fashion-MNIST on one device per weight.

What for: the binary network that Liu et al. (SOT-MRAM) train on line on their array, one device per weight against
a shared reference column and one comparator per hidden output: 83 % with the switching of a single device, 76 % with the
measured spread of switching voltages. Here it is trained off line, with the spread of the conductances.

    input 0..1 -> subtract the mean pixel -> fc1 -> fc2 -> fc3 -> logits

Hidden outputs are +1 where sum plus bias is at least 0, else -1. Batch normalization is used in training only; then it is
a bias per hidden output, and a scale and bias per logit. The biases of fc2 are odd numbers: its sums are even, so none is
exactly at its threshold. A negative gain turns the signs of its column.

Errors of the weights are drawn anew for every batch (sot_training.py). Batch normalization then sees the sums of that
chip, as the recalibration of a chip does.

Dense weights are stored [outputs, inputs], see train_mnist_lenet5.py.

Settings were tried with --holdout 5000 (train on the first 55,000 training images, look at the other 5,000): 30 epochs gave
87.6 %, and 87.2 % on ten simulated chips. The shipped file is trained on all 60,000. The test images are read once, for
the last line.

Run: python models/train_fashion_bnn.py   (about 5 minutes on one core)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import MODELS_DIR, accuracy, command_line, constant, save_model
from onnx import helper
from sot_training import recalibrate, single_error
from torch import nn
from torch.nn import functional

from xbcompile.data.datasets import load_set

SIZES = (784, 200, 200, 10)
EPSILON = 1e-5  # of the batch normalization
CALIBRATION = 500  # images that a simulated chip is recalibrated on


class BinaryLayer(nn.Module):
    """Signs, then batch normalization; trained through real latent weights in [-1, 1].

    `chip` holds the errors of one simulated chip, `gain` and `offset` its digital recalibration per output.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.latent = nn.Parameter(0.1 * torch.randn(inputs, outputs))
        self.norm = nn.BatchNorm1d(outputs, eps=EPSILON)
        self.chip: torch.Tensor | None = None
        self.gain = torch.ones(outputs)
        self.offset = torch.zeros(outputs)

    def signs(self) -> torch.Tensor:
        """Return the binary weights; zero counts as +1."""
        return torch.where(self.latent >= 0, 1.0, -1.0)

    def sums(self, value: torch.Tensor, noise: float) -> torch.Tensor:
        """Return the sums; the gradient goes straight to the latent weights. `noise` is the share of the real errors."""
        weight = self.signs()
        if self.chip is not None:
            weight = weight + self.chip
        elif noise:
            weight = weight + noise * single_error(weight)
        return value @ (self.latent + (weight - self.latent).detach()) * self.gain + self.offset


def sign(value: torch.Tensor) -> torch.Tensor:
    """Return +1 from 0 on, else -1; the gradient passes where the value is in -1..1."""
    clipped = value.clamp(-1, 1)
    return clipped + (torch.where(value >= 0, 1.0, -1.0) - clipped).detach()


class BinaryNetwork(nn.Module):
    """Three binary layers with signs between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BinaryLayer(*shape) for shape in pairwise(SIZES))

    def forward(self, images: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
        """Return the logits of centred images."""
        value = images
        for index, layer in enumerate(self.layers):
            value = layer.norm(layer.sums(value, noise))
            if index < len(self.layers) - 1:
                value = sign(value)
        return value

    def sums(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the sums of each layer."""
        value, found = images, []
        for layer in self.layers:
            found.append(layer.sums(value, 0.0))
            value = sign(layer.norm(found[-1]))
        return found


@dataclass(frozen=True)
class Recipe:
    """How to train: Adam, one cosine for the learning rate."""

    epochs: int
    learning_rate: float = 3e-3
    noise: float = 1.0
    flip: bool = True
    smoothing: float = 0.0
    batch: int = 100


def train(images: torch.Tensor, labels: torch.Tensor, network: BinaryNetwork, recipe: Recipe) -> None:
    """Train in place by the straight-through estimator."""
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    steps_per_epoch = len(images) // recipe.batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps_per_epoch * recipe.epochs)
    mirror = torch.arange(784).view(28, 28).flip(1).flatten()
    network.train()
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images))
        loss_sum = 0.0
        for start in range(0, steps_per_epoch * recipe.batch, recipe.batch):
            chosen = order[start : start + recipe.batch]
            batch = images[chosen]
            if recipe.flip:
                batch = torch.where(torch.rand(len(batch), 1) < 0.5, batch, batch[:, mirror])
            logits = network(batch, recipe.noise)
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += float(loss.detach())
            with torch.no_grad():
                for layer in network.layers:
                    layer.latent.clamp_(-1, 1)
        print(f"epoch {epoch + 1} of {recipe.epochs}: loss {loss_sum / steps_per_epoch:.4f}", flush=True)


@torch.no_grad()
def set_statistics(network: BinaryNetwork, images: torch.Tensor) -> None:
    """Give the batch normalizations the mean and variance of the exact sums over all the images."""
    network.eval()
    value = images
    for layer in network.layers:
        sums = layer.sums(value, 0.0)
        layer.norm.running_mean.copy_(sums.mean(dim=0))
        layer.norm.running_var.copy_(sums.var(dim=0, unbiased=False))
        value = sign(layer.norm(sums))


@torch.no_grad()
def percent_right(network: BinaryNetwork, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the percentage of rightly classified images."""
    return 100 * float((network(images).argmax(1) == labels).float().mean())


@torch.no_grad()
def on_chips(
    network: BinaryNetwork, calibration: torch.Tensor, images: torch.Tensor, labels: torch.Tensor, chips: int
) -> np.ndarray:
    """Return the accuracy on simulated chips of single devices, recalibrated per output."""
    exact = network.sums(calibration)
    found = []
    for _ in range(chips):
        chip = copy.deepcopy(network)
        for layer in chip.layers:
            layer.chip = single_error(layer.signs())
        recalibrate(chip.layers, lambda chip=chip: chip.sums(calibration), exact)
        found.append(percent_right(chip, images, labels))
    return np.array(found)


@torch.no_grad()
def folded(layer: BinaryLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return signs [inputs, outputs], scale > 0 and bias such that the normalized sums are scale * (x @ signs + bias)."""
    norm = layer.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    turn = torch.where(scale < 0, -1.0, 1.0)
    bias = norm.bias / scale.abs().clamp_min(1e-12) - turn * norm.running_mean
    return (layer.signs() * turn).numpy(), scale.abs().numpy(), bias.numpy()


def write(path: Path, network: BinaryNetwork, mean_pixel: float, description: str) -> None:
    """Write Sub, then Gemm, GreaterOrEqual, Where for each hidden layer, then Gemm."""
    scalars = {"mean_pixel": mean_pixel, "zero": 0, "one": 1, "minus_one": -1}
    constants = [constant(name, np.array(value, np.float32)) for name, value in scalars.items()]
    nodes = [helper.make_node("Sub", ["input", "mean_pixel"], ["centred"], name="centre")]
    value = "centred"
    for index, layer in enumerate(network.layers):
        name, last = f"fc{index + 1}", index == len(network.layers) - 1
        signs, scale, bias = folded(layer)
        if last:
            bias = bias * scale
        else:
            scale = np.float32(1)
        if index == 1:  # even sums
            bias = 2 * np.floor(bias / 2) + 1
        constants += [
            constant(f"{name}.signs", signs.T.astype(np.int8)),
            constant(f"{name}.scale", scale),
            constant(f"{name}.bias", bias.astype(np.float32)),
        ]
        target = "logits" if last else f"{name}_sum"
        axis: dict[str, Any] = {"axis": 0} if last else {}
        inputs = [f"{name}.signs", f"{name}.scale"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}.weight"], name=f"{name}.weight", **axis))
        inputs = [value, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [target], name=name, transB=1))
        if not last:
            value = f"{name}_active"
            nodes.append(helper.make_node("GreaterOrEqual", [target, "zero"], [f"{name}_on"], name=f"{name}_compare"))
            nodes.append(helper.make_node("Where", [f"{name}_on", "one", "minus_one"], [value], name=f"{name}_sign"))
    save_model(path, nodes, constants, SIZES[0], SIZES[-1], description=description)


def load(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Fashion-MNIST images, float32 [n, 784] in [0, 1], and labels."""
    images, labels = load_set("fashion-mnist", part)
    return torch.from_numpy(images.reshape(len(images), -1)), torch.from_numpy(labels)


def main() -> None:
    """Train the network and write it, or only report hold-out accuracies."""
    parser = command_line(__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--noise", type=float, default=1.0, help="share of the real errors of the weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, default=0, help="keep back N training images; write nothing")
    parser.add_argument("--output", type=Path, default=MODELS_DIR / "fashion_bnn.onnx")
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    images, labels = load("train")
    mean_pixel = float(images.mean())
    centred = images - mean_pixel
    kept = len(images) - arguments.holdout
    network = BinaryNetwork()
    train(centred[:kept], labels[:kept], network, Recipe(arguments.epochs, arguments.learning_rate, arguments.noise))
    set_statistics(network, centred[:kept])

    if arguments.holdout:
        held = centred[kept:], labels[kept:]
        chips = on_chips(network, centred[:CALIBRATION], *held, chips=10)
        print(f"hold-out accuracy {percent_right(network, *held):.2f} %")
        print(f"on 10 simulated chips: mean {chips.mean():.2f} %, worst {chips.min():.2f} %")
        return
    write(arguments.output, network, mean_pixel, "Fashion-MNIST, 784-200-200-10, weights and hidden outputs -1 and +1")
    test_images, test_labels = load("test")
    found = accuracy(arguments.output, test_images.numpy(), test_labels.numpy())
    print(f"{arguments.output.name}: test accuracy {found:.2f} %")


if __name__ == "__main__":
    main()

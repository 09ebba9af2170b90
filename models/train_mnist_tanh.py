"""Train mnist_tanh.onnx (400-100-100-10) and mnist_tanh32.onnx (400-32-32-10): 20x20 MNIST, tanh.

What for: the networks of the multi-bit MRAM cells of Rzeszut et al. (2022): the central 20x20 pixels of MNIST,
two hidden layers of N tanh neurons, a linear output whose softmax is left to the reader (the largest logit is
the same). The graph takes the usual 784 pixels and picks the 400 itself. The paper's error is below 3 % from four
junctions per cell on, close to its software.

Weight decay keeps the weights small, and takes those of pixels that are hardly ever on towards zero: a cell of N
serial junctions has few levels, and the largest weights of a column set their spacing.

Settings were chosen with --holdout 5000 (train on the first 55,000 training images, look at the other 5,000): a
weight decay of 3e-4 gives 98.5 % and 97.6 %, 1e-5 gives 98.5 % and 97.3 % with weights up to 1.6 times as large.
The shipped files are trained on all 60,000. The test images are read once, for the last line.

Run: python models/train_mnist_tanh.py   (about 2 minutes on one core)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import MODELS_DIR, accuracy, command_line, constant, dense_nodes, load_mnist, save_model
from dense_training import Recipe, accuracy_of, layers, train
from onnx import helper
from torch import nn

SIDE, CROP = 28, 20
HIDDEN = {"mnist_tanh": 100, "mnist_tanh32": 32}


def central_pixels() -> np.ndarray:
    """Return the indices, int64 [400], of the central 20x20 of 28x28 pixels, row by row."""
    margin = (SIDE - CROP) // 2
    kept = slice(margin, margin + CROP)
    return np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[kept, kept].reshape(-1)


def fit(images: np.ndarray, labels: np.ndarray, hidden: int, recipe: Recipe) -> nn.Sequential:
    """Train 400-hidden-hidden-10 on cropped images."""
    torch.manual_seed(recipe.seed)
    network = nn.Sequential(
        nn.Linear(CROP * CROP, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 10)
    )
    return train(network, images, labels, recipe)


def write(path: Path, network: nn.Sequential, hidden: int) -> None:
    """Write input -> Gather central pixels -> Gemm, Tanh, Gemm, Tanh, Gemm -> logits."""
    crop = helper.make_node("Gather", ["input", "crop.indices"], ["pixels"], name="crop", axis=1)
    nodes, constants = dense_nodes("pixels", layers(network), "logits", "Tanh")
    constants.append(constant("crop.indices", central_pixels()))
    description = f"MNIST, central 20x20 pixels, 400-{hidden}-{hidden}-10 tanh"
    save_model(path, [crop, *nodes], constants, SIDE * SIDE, 10, description=description)


def main() -> None:
    """Train both networks and write them, or only report the hold-out accuracy."""
    parser = command_line(__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--weight-decay", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, default=0, help="keep back N training images; write nothing")
    parser.add_argument("--output-dir", type=Path, default=MODELS_DIR)
    arguments = parser.parse_args()

    images, labels = load_mnist("train")
    images = np.ascontiguousarray(images[:, central_pixels()])
    kept = len(images) - arguments.holdout
    recipe = Recipe(arguments.epochs, weight_decay=arguments.weight_decay, seed=arguments.seed)
    for name, hidden in HIDDEN.items():
        network = fit(images[:kept], labels[:kept], hidden, recipe)
        if arguments.holdout:
            percent = accuracy_of(network, images[kept:], labels[kept:])
            print(f"{name}: hold-out accuracy {percent:.2f} %", flush=True)
        else:
            path = arguments.output_dir / f"{name}.onnx"
            write(path, network, hidden)
            print(f"{path.name}: test accuracy {accuracy(path, *load_mnist('test')):.2f} %", flush=True)
        for layer, weight, _ in layers(network):
            largest, spread = float(np.abs(weight).max()), float(weight.std())
            print(f"  {layer}: largest weight {largest:.3f}, {largest / spread:.1f} standard deviations")


if __name__ == "__main__":
    main()

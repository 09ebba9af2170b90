"""Train digits_mlp.onnx: 64-32-10 with ReLU on scikit-learn's bundled 8x8 digits.

What for: a network that any test can load and run in a second without downloading data. Inputs are pixel /
16, so in [0, 1]. The first 1,437 samples of load_digits() are for training, the last 360 for testing: they
come from other writers, so the test is harder than a random split, and small random affine distortions in
training help. Settings were chosen by cross-validation over four contiguous parts of the training samples
(--cross-validate: 95.8 %, without distortions 94.0 %).

Run: python models/train_digits_mlp.py   (about 15 seconds on one core)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import MODELS_DIR, accuracy, command_line, dense_relu_nodes, save_model
from dense_training import Recipe, accuracy_of, fit, layers
from torch.nn import functional

from xbcompile.data.datasets import load_set

HIDDEN = 32
SIDE = 8
SHIFT, ROTATION, SCALE, SHEAR, NOISE = (
    0.2,
    0.15,
    0.08,
    0.1,
    0.05,
)  # standard deviations: pixels, radian, 1, 1, 1
FOLDS = 4


def distort(batch: torch.Tensor) -> torch.Tensor:
    """Shift, turn, scale and shear each image a little and add pixel noise."""
    count = len(batch)
    angle = ROTATION * torch.randn(count)
    width, height = 1 + SCALE * torch.randn(2, count)
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = width * torch.cos(angle)
    maps[:, 0, 1] = SHEAR * torch.randn(count) - torch.sin(angle)
    maps[:, 1, 0] = torch.sin(angle)
    maps[:, 1, 1] = height * torch.cos(angle)
    maps[:, :, 2] = SHIFT * torch.randn(count, 2) * 2 / SIDE  # the image spans -1 .. 1
    squares = batch.view(count, 1, SIDE, SIDE)
    grid = functional.affine_grid(maps, list(squares.shape), align_corners=False)
    moved = functional.grid_sample(squares, grid, align_corners=False).view(count, -1)
    return (moved + NOISE * torch.randn_like(moved)).clamp(0, 1)


def cross_validate(images: np.ndarray, labels: np.ndarray, recipe: Recipe) -> None:
    """Print the accuracy on each contiguous part of the samples, trained on the others."""
    results = []
    for part in np.array_split(np.arange(len(images)), FOLDS):
        others = np.setdiff1d(np.arange(len(images)), part)
        network = fit(images[others], labels[others], HIDDEN, recipe, distort)
        results.append(accuracy_of(network, images[part], labels[part]))
    print(f"accuracy by part {np.round(results, 1)} %, mean {np.mean(results):.2f} %")


def main() -> None:
    """Train and write the network, or only cross-validate the settings."""
    parser = command_line(__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--weight-decay", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cross-validate", action="store_true", help="report only; write nothing")
    parser.add_argument("--output", type=Path, default=MODELS_DIR / "digits_mlp.onnx")
    arguments = parser.parse_args()

    images, labels = load_set("digits", "train")
    recipe = Recipe(arguments.epochs, 64, 1e-2, arguments.weight_decay, seed=arguments.seed)
    if arguments.cross_validate:
        cross_validate(images, labels, recipe)
        return
    network = fit(images, labels, HIDDEN, recipe, distort)
    nodes, constants = dense_relu_nodes("input", layers(network), "logits")
    save_model(arguments.output, nodes, constants, 64, 10, description="8x8 digits, 64-32-10 ReLU")
    percent = accuracy(arguments.output, *load_set("digits", "test"))
    print(f"{arguments.output.name}: test accuracy {percent:.2f} %")


if __name__ == "__main__":
    main()

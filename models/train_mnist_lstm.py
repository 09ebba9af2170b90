"""Train mnist_lstm.onnx: an LSTM of 48 units that reads an MNIST image row by row, then a dense layer.

What for: a recurrent network small enough to look at. Its two matrices for the gates, 28x192 from a row of pixels and
48x192 from the state before, are on the arrays; the second is read once per row, 28 times an image, each time on what
the step before left behind, so that errors of the array feed back.

Settings were chosen with --holdout 5000 (train on the first 55,000 training images, look at the other 5,000): 12 epochs
with 48 units give 98.6 %. The shipped file is trained on all 60,000. The test images are read once, for the last line.

Run: python models/train_mnist_lstm.py   (about 2 minutes on one core)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from common import MODELS_DIR, accuracy, command_line, constant, dense_nodes, load_mnist, save_model
from dense_training import Recipe, accuracy_of, train
from onnx import helper
from torch import nn

SIDE = 28
UNITS = 48


class RowByRow(nn.Module):
    """Images [n, 784] -> logits [n, 10]: the LSTM's state after the last row of pixels, through a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SIDE, UNITS)
        self.dense = nn.Linear(UNITS, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        rows = images.reshape(-1, SIDE, SIDE).transpose(0, 1)
        _, (state, _) = self.lstm(rows)
        return self.dense(state[0])


def onnx_gates(parameter: torch.Tensor) -> np.ndarray:
    """Reorder torch's gates (input, forget, cell, output) as ONNX has them (input, output, forget, cell), axis 0."""
    i, f, c, o = parameter.detach().numpy().reshape(4, UNITS, -1)
    return np.concatenate([i, o, f, c])


def write(path: Path, network: RowByRow) -> None:
    """Write input -> Reshape, Transpose (rows first) -> LSTM -> Squeeze -> Gemm -> logits."""
    lstm = network.lstm
    bias = np.concatenate([onnx_gates(lstm.bias_ih_l0).ravel(), onnx_gates(lstm.bias_hh_l0).ravel()])
    fc = ("fc", network.dense.weight.detach().numpy().T, network.dense.bias.detach().numpy())
    dense, dense_constants = dense_nodes("features", [fc], "logits", "Relu")
    nodes = [
        helper.make_node("Reshape", ["input", "image.shape"], ["images"], name="reshape"),
        helper.make_node("Transpose", ["images"], ["rows"], name="rows_first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["rows", "lstm.W", "lstm.R", "lstm.B"], ["", "state"], name="lstm", hidden_size=UNITS),
        helper.make_node("Squeeze", ["state", "direction"], ["features"], name="squeeze"),
        *dense,
    ]
    constants = [
        constant("image.shape", np.array([-1, SIDE, SIDE], np.int64)),
        constant("direction", np.array([0], np.int64)),
        constant("lstm.W", onnx_gates(lstm.weight_ih_l0)[None]),
        constant("lstm.R", onnx_gates(lstm.weight_hh_l0)[None]),
        constant("lstm.B", bias[None]),
        *dense_constants,
    ]
    save_model(path, nodes, constants, SIDE * SIDE, 10, description=f"MNIST row by row, LSTM of {UNITS} units, 48-10")


def main() -> None:
    """Train the network and write it, or only report the hold-out accuracy."""
    parser = command_line(__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, default=0, help="keep back N training images; write nothing")
    parser.add_argument("--output", type=Path, default=MODELS_DIR / "mnist_lstm.onnx")
    arguments = parser.parse_args()

    images, labels = load_mnist("train")
    kept = len(images) - arguments.holdout
    recipe = Recipe(arguments.epochs, learning_rate=4e-3, seed=arguments.seed)
    torch.manual_seed(recipe.seed)
    network = train(RowByRow(), images[:kept], labels[:kept], recipe)
    if arguments.holdout:
        print(f"hold-out accuracy {accuracy_of(network, images[kept:], labels[kept:]):.2f} %")
        return
    write(arguments.output, network)
    print(f"{arguments.output.name}: test accuracy {accuracy(arguments.output, *load_mnist('test')):.2f} %")


if __name__ == "__main__":
    main()

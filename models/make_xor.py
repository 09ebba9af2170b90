"""Make xor.onnx, a 2-2-1 sigmoid network whose weights are published and whose biases are fitted here.

Weights: the XOR example of the multistate-MTJ crossbar report (deliverable D4.2, section 3.1.2): rows of W1
(one row per hidden neuron) [11.97, 12.06] and [8.57, 8.58], W2 holds -16.87 and 16.05. The report prints
neither its biases nor which hidden neuron each value of W2 belongs to. All weights of W1 are positive, so one
hidden neuron has to become OR and the other AND, and XOR = OR and not AND: 16.05 goes to OR, -16.87 to AND.
The script fits the three biases for both assignments (full-batch cross-entropy over the four input pairs, the
report's loss) and keeps the one with the smaller loss. It then checks all four outputs with the published
weights and with W1 quantized to the values that the report maps to resistances.

Run: python models/make_xor.py   (about 1 second; numpy and onnx only)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import MODELS_DIR, command_line, constant, predict, save_model
from onnx import helper

W1 = np.array([[11.97, 12.06], [8.57, 8.58]])  # [hidden, input]
W1_QUANTIZED = np.array([[12.015, 12.015], [8.575, 8.575]])
W2_OR, W2_AND = 16.05, -16.87
PAIRS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
TRUTH = np.array([0, 1, 1, 0])


def sigmoid(value: np.ndarray) -> np.ndarray:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-value))


def forward(weight1: np.ndarray, weight2: np.ndarray, biases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hidden activations [4, 2] and the output [4]; biases = (hidden 1, hidden 2, output)."""
    hidden = sigmoid(PAIRS @ weight1.T + biases[:2])
    return hidden, sigmoid(hidden @ weight2 + biases[2])


def fit_biases(weight2: np.ndarray, or_neuron: int, steps: int) -> tuple[np.ndarray, float]:
    """Fit the biases by gradient descent on the cross-entropy; return them and the final loss.

    The start puts the thresholds half-way: OR between 0 and 1 active inputs, AND between 1 and 2.
    """
    mean_weight = W1.mean(axis=1)
    active_inputs = np.where(np.arange(2) == or_neuron, 0.5, 1.5)
    biases = np.append(-mean_weight * active_inputs, -weight2.max() / 2)
    for _ in range(steps):
        hidden, output = forward(W1, weight2, biases)
        error = (output - TRUTH) / len(TRUTH)
        hidden_error = error[:, None] * weight2 * hidden * (1 - hidden)
        biases -= np.append(hidden_error.sum(axis=0), error.sum())
    _, output = forward(W1, weight2, biases)
    loss = -np.mean(np.log(np.where(TRUTH == 1, output, 1 - output)))
    return biases, float(loss)


def build(path: Path, weight2: np.ndarray, biases: np.ndarray) -> None:
    """Write the network as Gemm, Sigmoid, Gemm, Sigmoid with weights stored [inputs, outputs]."""
    nodes = [
        helper.make_node("Gemm", ["input", "fc1.weight", "fc1.bias"], ["fc1_sum"], name="fc1"),
        helper.make_node("Sigmoid", ["fc1_sum"], ["hidden"], name="sigmoid1"),
        helper.make_node("Gemm", ["hidden", "fc2.weight", "fc2.bias"], ["fc2_sum"], name="fc2"),
        helper.make_node("Sigmoid", ["fc2_sum"], ["output"], name="sigmoid2"),
    ]
    constants = [
        constant("fc1.weight", W1.T.astype(np.float32)),
        constant("fc1.bias", biases[:2].astype(np.float32)),
        constant("fc2.weight", weight2[:, None].astype(np.float32)),
        constant("fc2.bias", biases[2:].astype(np.float32)),
    ]
    save_model(path, nodes, constants, 2, 1, "output", "XOR, 2-2-1 sigmoid; published weights, fitted biases")


def main() -> None:
    """Fit, write, check."""
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, default=MODELS_DIR / "xor.onnx")
    parser.add_argument("--steps", type=int, default=5000, help="gradient steps for each assignment")
    arguments = parser.parse_args()

    found = []
    for or_neuron in (0, 1):
        weight2 = np.where(np.arange(2) == or_neuron, W2_OR, W2_AND)
        biases, loss = fit_biases(weight2, or_neuron, arguments.steps)
        print(f"OR is hidden neuron {or_neuron + 1}: biases {np.round(biases, 4)}, loss {loss:.5f}")
        found.append((loss, or_neuron, weight2, biases))
    _, _, weight2, biases = min(found)
    build(arguments.output, weight2, biases)

    exact = predict(arguments.output, PAIRS)[:, 0]
    _, quantized = forward(W1_QUANTIZED, weight2, biases)
    for pair, value, value_quantized in zip(PAIRS, exact, quantized, strict=True):
        print(f"{pair}: {value:.4f}, with quantized W1 {value_quantized:.4f}")
    worst = max(np.abs(exact - TRUTH).max(), np.abs(quantized - TRUTH).max())
    if worst > 0.1:
        raise SystemExit(f"an output is {worst:.3f} away from XOR, allowed 0.1")


if __name__ == "__main__":
    main()

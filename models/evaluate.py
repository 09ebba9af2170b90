"""Print the software accuracy of every model in this folder, computed by onnxruntime on its full test set.

Needs numpy, onnx and onnxruntime, and scikit-learn for the digits; no torch. These accuracies are the
baselines that a compiled program is compared with. The binary networks quantize their activations inside the
graph, so the numbers include that rounding.

Run: python models/evaluate.py   (a few seconds)
"""

from __future__ import annotations

import numpy as np
import onnx
from common import MODELS_DIR, accuracy, command_line, load_mnist, predict

from xbcompile.data.datasets import load_set

_PAPER = ("mnist_mlp_paper", "mnist_mlp_pca87_paper", "mnist_bnn_paper")
MNIST_MODELS = (
    "mnist_mlp",
    "mnist_mlp_pca87",
    "mnist_bnn",
    "mnist_bnn_plain",
    "mnist_vgg8",
    "mnist_bnn_live",
    "mnist_bnn_spare",
    "mnist_lenet5",
    "mnist_lenet5_ternary",
    "mnist_lenet5_int8",
    "mnist_lenet5_paper",
    "mnist_lenet5_paper_b",
    "mnist_lenet5_paper_c",
    "mnist_lenet5_paper_noise10",
    "mnist_lenet5_paper_noise20",
    "mnist_lenet5_paper_noise30",
    "mnist_lstm",
    "mnist_tanh",
    "mnist_tanh32",
    *(f"{name}{suffix}" for name in _PAPER for suffix in ("", "_1", "_2")),
)


def xor_accuracy() -> float:
    """Return the percentage of the four input pairs whose output is on the right side of one half."""
    pairs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    on = predict(MODELS_DIR / "xor.onnx", pairs)[:, 0] > 0.5
    return 100 * float(np.mean(on == [False, True, True, False]))


def main() -> None:
    """Check each model and print a Markdown table."""
    command_line(__doc__).parse_args()
    mnist, digits = load_mnist("test"), load_set("digits", "test")
    fashion, articles = load_set("fashion-mnist", "test")
    rows = [(name, len(mnist[1]), accuracy(MODELS_DIR / f"{name}.onnx", *mnist)) for name in MNIST_MODELS]
    fashion = fashion.reshape(len(fashion), -1)
    rows.append(("fashion_bnn", len(articles), accuracy(MODELS_DIR / "fashion_bnn.onnx", fashion, articles)))
    rows.append(("digits_mlp", len(digits[1]), accuracy(MODELS_DIR / "digits_mlp.onnx", *digits)))
    rows.append(("letters_mlp", 640, accuracy(MODELS_DIR / "letters_mlp.onnx", *load_set("letters", "test"))))
    scenes, cells = load_set("scenes", "test")
    scenes = scenes.reshape(len(scenes), -1)
    rows.append(("scenes_detector", len(cells), accuracy(MODELS_DIR / "scenes_detector.onnx", scenes, cells)))
    rows.append(("xor", 4, xor_accuracy()))
    print("| model | bytes | test samples | software accuracy |")
    print("| --- | --- | --- | --- |")
    for name, samples, percent in rows:
        path = MODELS_DIR / f"{name}.onnx"
        onnx.checker.check_model(path, full_check=True)
        print(f"| {name} | {path.stat().st_size:,} | {samples:,} | {percent:.2f} % |")


if __name__ == "__main__":
    main()

"""Quantize mnist_lenet5.onnx to 8 bits with onnxruntime's own tool: mnist_lenet5_int8.onnx, in QDQ form.

What for: the form in which quantized networks usually come: QuantizeLinear and DequantizeLinear around every
operator, int8 weights per output channel, uint8 activations. The compiler keeps those integers: they are the weight code
and the input code, and nothing is quantized a second time.

Ranges of activations are those of the first 1,000 training images. The test images are read once, for the last line.

Run: python models/quantize_mnist_lenet5.py   (some seconds)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from common import MODELS_DIR, accuracy, command_line, load_mnist
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SAMPLES = 1000


class Images(CalibrationDataReader):
    """Hand over training images in batches of 100."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = iter([{"input": batch} for batch in np.split(images, len(images) // 100)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None behind the last."""
        return next(self.batches, None)


def main() -> None:
    """Quantize, write and evaluate."""
    parser = command_line(__doc__)
    parser.add_argument("--output", type=Path, default=MODELS_DIR / "mnist_lenet5_int8.onnx")
    output = parser.parse_args().output
    images, _ = load_mnist("train")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "quantized.onnx"
        quantize_static(
            MODELS_DIR / "mnist_lenet5.onnx",
            written,
            Images(images[:SAMPLES]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        model = onnx.load(written)
    onnx.checker.check_model(model, full_check=True)
    output.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{output.name}: test accuracy {accuracy(output, *load_mnist('test')):.2f} %")


if __name__ == "__main__":
    main()

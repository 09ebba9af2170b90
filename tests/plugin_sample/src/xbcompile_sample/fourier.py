"""The discrete Fourier transform of real vectors as one product.

    y[k] = sum_n x[n] exp(-2 pi i k n / N): [batch, N, 1] -> [batch, N, 2], real and imaginary parts

Source: the operator's definition in the ONNX specification (DFT, version 17).
"""

import numpy as np

from xbcompile.frontend import Replacement, StaysDigital


def rewrite_dft(r: Replacement) -> bool:
    """A transform of real vectors along axis 1, forward, whole, of their own length."""
    shape = r.graph.shape(r.node.input[0])
    attributes = {each.name: each.i for each in r.node.attribute}
    if shape is None or len(shape) != 3 or shape[2] != 1 or shape[1] is None:
        raise StaysDigital("only real vectors of known length become a product")
    if len([name for name in r.node.input if name]) > 1 or attributes.get("axis", 1) != 1:
        raise StaysDigital("only transforms along axis 1, of the whole length, become a product")
    if attributes.get("inverse") or attributes.get("onesided"):
        raise StaysDigital("inverse and one-sided transforms are not rewritten")
    n = shape[1]
    angle = -2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    weights = np.stack([np.cos(angle), np.sin(angle)], axis=2).reshape(n, 2 * n).astype(np.float32)
    product = r.emit("MatMul", r.squeeze(r.node.input[0], [2]), r.constant(weights), name=r.matrix_name())
    r.emit("Reshape", product, r.constant([-1, n, 2]), output=r.node.output[0])
    return True

"""Accuracy of outputs, and of the user's own model in onnxruntime: what every run is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xbcompile.program.program import Program
from xbcompile.reference.evaluate import model_outputs


def accuracy_of(output: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of samples classified right: the largest entry; of a single entry the class itself where it is a whole
    number, else whether it is above one half.
    """
    flat = output.reshape(len(output), -1)
    if flat.shape[1] > 1:
        predicted = flat.argmax(axis=1)
    else:
        predicted = flat[:, 0] > 0.5 if flat.dtype.kind == "f" else flat[:, 0]
    return float((predicted == labels).mean())


def software_accuracy(
    program: Program, inputs: dict[str, np.ndarray], labels: np.ndarray, states: Mapping[str, str] | None = None
) -> float | None:
    """Accuracy of the original model in onnxruntime on the same inputs; None where the program does not hold it."""
    if program.source is None:
        return None
    samples, name = program.network.samples, program.network.outputs[0].name
    output = model_outputs(program.source, samples, inputs, [name], states)[name]
    return accuracy_of(samples.samples_first(name, output), labels)

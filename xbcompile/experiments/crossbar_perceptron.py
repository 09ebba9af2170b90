"""The perceptron that memristor crossbars make without digital help: 16 inputs and a bias, hidden neurons and a bias, outputs.

Source: Merrikh Bayat et al., Nat. Commun. 9, 2331 (2018), equations 1 and 2, with V the read voltage and R the feedback:

    V_H = V tanh(R sum_i V_i (G+ - G-)),   V_out = R sum_j V_H,j (G+ - G-)

Weights here are w = (G+ - G-) / (G_max - G_min), -1..1, inputs V_i / V are -1 or 1, the bias 1; so R V (G_max - G_min), 18 V with
the paper's numbers, multiplies every sum. Outputs are compared as tanh(V_out / 1 V), since amplifiers saturate (paper), with
targets +t for the class and -t for the others.

Learning is backpropagation over all patterns together ("batch-mode", paper). The error of an output counts without its own slope,
which saturated outputs have none of: the cost is then the cross entropy of the outputs; the paper's is the mean square error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbcompile.data.synthetic import letters

Weights = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Perceptron:
    """What is the same for all networks of one task; leading dimensions are networks side by side.

    Args:
        inputs: float64 [patterns, 17], -1 and 1, the bias last.
        labels: int64 [patterns].
        classes: outputs.
        gain: of every sum of products, R V (G_max - G_min) in volts.
        target: output that is aimed at, of tanh.
    """

    inputs: np.ndarray
    labels: np.ndarray
    classes: int
    gain: float
    target: float

    @classmethod
    def of_letters(cls, part: str, classes: int, gain: float, target: float) -> Perceptron:
        """The task of the first letters: A, T, V, X.

        Args:
            part: "train" or "test".
            classes: how many letters.
            gain: see the class.
            target: see the class.
        """
        patterns, labels = letters(part)
        kept = labels < classes
        return cls(with_bias(patterns[kept].astype(np.float64)), labels[kept], classes, gain, target)

    def outputs(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Hidden neurons with their bias, and outputs, both of tanh.

        Args:
            weights: float64 [..., 17, hidden] and [..., hidden + 1, classes].

        Returns:
            float64 [..., patterns, hidden + 1] and [..., patterns, classes].
        """
        hidden = with_bias(np.tanh(self.gain * (self.inputs @ weights[0])))
        return hidden, np.tanh(self.gain * (hidden @ weights[1]))

    def fidelity(self, outputs: np.ndarray) -> np.ndarray:
        """Per cent of patterns whose largest output is that of their class: float64 [...].

        Args:
            outputs: float64 [..., patterns, classes].
        """
        return np.asarray(100 * (outputs.argmax(axis=-1) == self.labels).mean(axis=-1))

    def gradients(self, hidden: np.ndarray, outputs: np.ndarray, second: np.ndarray) -> Weights:
        """Slopes of the cost over weights, means over patterns, in units of gain squared (first matrix) and gain (second).

        The two matrices so have rates of their own: the gain is large, and hidden neurons are mostly saturated.

        Args:
            hidden: of `outputs`, as measured.
            outputs: likewise.
            second: float64 [..., hidden + 1, classes], the second matrix, through which errors go back.
        """
        wanted = np.where(np.arange(self.classes) == self.labels[:, None], self.target, -self.target)
        error = outputs - wanted
        back = (error @ np.swapaxes(second, -1, -2))[..., :-1] * (1 - hidden[..., :-1] ** 2)
        count = len(self.labels)
        return self.inputs.T @ back / count, np.swapaxes(hidden, -1, -2) @ error / count


def with_bias(values: np.ndarray) -> np.ndarray:
    """Values with a last one of 1: float64 [..., n + 1].

    Args:
        values: float64 [..., n].
    """
    return np.concatenate([values, np.ones((*values.shape[:-1], 1))], axis=-1)

"""Dense networks of tanh neurons with a softmax behind them: trained in numpy, and as models that are compiled.

Leading dimensions of weights are networks side by side, which see the same samples. The loss is the mean cross entropy of the
softmax; changes are Adam's (Kingma and Ba, arXiv 1412.6980), with a learning rate that falls along a cosine to 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper

from xbcompile.experiments.switching.rules import adam_updates
from xbcompile.onnx_graph.builder import make_graph, make_model, tensor, value

_OPSET, _IR_VERSION = 21, 10
_BETA1, _BETA2 = 0.9, 0.999


@dataclass(frozen=True, eq=False)
class TanhNetwork:
    """Weights and biases of each layer, changed by training.

    Args:
        weights: float32 [inputs, outputs] of each layer.
        biases: float32 [outputs] of each layer.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]

    @classmethod
    def random(cls, sizes: Sequence[int], seed: int) -> TanhNetwork:
        """Weights uniform in +-sqrt(6 / (inputs + outputs)) (Glorot and Bengio, 2010), biases 0.

        Args:
            sizes: inputs, hidden neurons of each layer, outputs.
            seed: of the weights.
        """
        rng = np.random.default_rng(seed)
        weights = [
            (rng.uniform(-1, 1, shape) * np.sqrt(6 / sum(shape))).astype(np.float32) for shape in pairwise(sizes)
        ]
        return cls(tuple(weights), tuple(np.zeros(size, np.float32) for size in sizes[1:]))

    def accuracy(self, inputs: np.ndarray, labels: np.ndarray) -> float:
        """Per cent of samples whose largest output is that of their class.

        Args:
            inputs: float32 [samples, inputs].
            labels: int64 [samples].
        """
        return 100 * float(np.mean(self.outputs(inputs, self.weights)[-1].argmax(axis=-1) == labels))

    def outputs(self, inputs: np.ndarray, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The inputs, what each hidden layer gives, and logits: [..., samples, neurons] each.

        Args:
            inputs: float32 [samples, inputs].
            weights: that are seen: the network's own, or [..., inputs, outputs] of each layer, as devices hold them.
        """
        found = [inputs]
        for layer, (matrix, bias) in enumerate(zip(weights, self.biases, strict=True)):
            sums = found[-1] @ matrix + bias
            found.append(sums if layer == len(self.biases) - 1 else np.tanh(sums))
        return found

    def model(self) -> onnx.ModelProto:
        """`input` [N, inputs] -> Gemm, Tanh, ..., Gemm -> `logits` [N, outputs]."""
        nodes, constants, name, last = [], [], "input", len(self.weights) - 1
        for layer, (matrix, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            label, sums = f"fc{layer + 1}", "logits" if layer == last else f"fc{layer + 1}_sum"
            constants += [tensor(f"{label}.weight", matrix), tensor(f"{label}.bias", bias)]
            nodes.append(helper.make_node("Gemm", [name, f"{label}.weight", f"{label}.bias"], [sums], name=label))
            name = sums
            if layer != last:
                name = f"{label}_active"
                nodes.append(helper.make_node("Tanh", [sums], [name], name=f"{label}_tanh"))
        inputs = value("input", TensorProto.FLOAT, ["N", self.weights[0].shape[0]])
        outputs = value("logits", TensorProto.FLOAT, ["N", self.weights[-1].shape[1]])
        graph = make_graph("tanh_network", nodes, [inputs], [outputs], constants)
        return make_model(graph, [("", _OPSET)], _IR_VERSION)


def gradients(
    outputs: Sequence[np.ndarray], labels: np.ndarray, weights: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Slopes of the mean cross entropy over the weights that were seen and over biases, of each layer, [..., inputs, outputs] and
    [..., outputs].

    Args:
        outputs: of `TanhNetwork.outputs`.
        labels: int64 [samples].
        weights: that were seen.
    """
    logits = outputs[-1]
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    back = shares / shares.sum(axis=-1, keepdims=True)
    back[..., np.arange(len(labels)), labels] -= 1
    back /= back.dtype.type(len(labels))
    of_weights, of_biases = [], []
    for layer in reversed(range(len(weights))):
        of_weights.append(np.swapaxes(outputs[layer], -1, -2) @ back)
        of_biases.append(back.sum(axis=-2))
        if layer:
            back = (back @ np.swapaxes(weights[layer], -1, -2)) * (1 - np.square(outputs[layer]))
    return of_weights[::-1], of_biases[::-1]


class Adam:
    """Changes arrays in place.

    Args:
        arrays: float32, contiguous.
        rate: of the first step.
        steps: after which the rate is 0.
    """

    def __init__(self, arrays: Sequence[np.ndarray], rate: float, steps: int) -> None:
        self._arrays, self._rate, self._steps, self._done = list(arrays), rate, steps, 0
        self._moments = [(np.zeros(each.size, np.float32), np.zeros(each.size, np.float32)) for each in arrays]

    def step(self, slopes: Sequence[np.ndarray]) -> None:
        """One change.

        Args:
            slopes: float32, of the arrays' shapes.
        """
        rate = np.float32(self._rate * (1 + np.cos(np.pi * self._done / self._steps)) / 2)
        self._done += 1
        for array, slope, (mean, square) in zip(self._arrays, slopes, self._moments, strict=True):
            changes = np.empty(array.size, np.float32)
            adam_updates(np.ascontiguousarray(slope).ravel(), mean, square, changes, _BETA1, _BETA2, self._done)
            array += rate * changes.reshape(array.shape)

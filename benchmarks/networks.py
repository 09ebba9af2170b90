"""Networks of random weights that are timed: a dense layer, a convolution, residual networks, GPT-2. No file is downloaded."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 9


class NetworkBuilder:
    """Appends the nodes of a network; weights are drawn so that activations keep their size (He et al., 2015).

    Args:
        shape: of one sample of the input.
        seed: of the weights.
        tokens: whether the input is whole numbers, not floats.
    """

    def __init__(self, shape: tuple[int, ...], seed: int = 0, *, tokens: bool = False) -> None:
        self.shape, self.type = shape, TensorProto.INT64 if tokens else TensorProto.FLOAT
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._generator = np.random.default_rng(seed)

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Append a node; the name of its output."""
        output = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def weights(self, *shape: int, gain: float = 2.0) -> str:
        """Random weights [outputs, inputs, ...]: sums of products have `gain` times the mean square of the inputs."""
        scale = np.float32(np.sqrt(gain / np.prod(shape[1:])))
        return self.constant(self._generator.standard_normal(shape, dtype=np.float32) * scale)

    def convolution(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 2.0) -> str:
        """Conv with bias, as batch normalization folded into it leaves it."""
        bias = self.constant(np.zeros(outputs, np.float32))
        pads = [kernel // 2] * 4
        return self.node(
            "Conv", x, self.weights(outputs, inputs, kernel, kernel, gain=gain), bias, strides=[stride] * 2, pads=pads
        )

    def gemm(self, x: str, inputs: int, outputs: int) -> str:
        """Gemm with bias."""
        bias = self.constant(np.zeros(outputs, np.float32))
        return self.node("Gemm", x, self.weights(outputs, inputs), bias, transB=1)

    def model(self, output: str) -> onnx.ModelProto:
        """The whole; its first axis is open and counts samples."""
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("input", self.type, ["batch", *self.shape])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def constant(self, value: np.ndarray) -> str:
        """Append a constant; its name."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name


def dense(inputs: int, outputs: int) -> onnx.ModelProto:
    """One matrix."""
    build = NetworkBuilder((inputs,))
    return build.model(build.gemm("input", inputs, outputs))


def convolution(inputs: int, outputs: int, size: int, groups: int = 1) -> onnx.ModelProto:
    """One 3x3 convolution of images of `size` x `size`; as many groups as inputs make it depthwise."""
    build = NetworkBuilder((inputs, size, size))
    weights = build.weights(outputs, inputs // groups, 3, 3)
    return build.model(build.node("Conv", "input", weights, pads=[1] * 4, group=groups))


def resnet18() -> onnx.ModelProto:
    """ResNet-18 for images of 32x32: 556 million MACs.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016; with a 3x3 stem and no pooling behind it.
    """
    build = NetworkBuilder((3, 32, 32))
    x, channels = build.node("Relu", build.convolution("input", 3, 64, 3)), 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            shortcut = x if channels == outputs else build.convolution(x, channels, outputs, 1, stride, gain=1.0)
            inner = build.node("Relu", build.convolution(x, channels, outputs, 3, stride))
            inner = build.convolution(inner, outputs, outputs, 3, gain=0.5)
            x, channels = build.node("Relu", build.node("Add", inner, shortcut)), outputs
    return _classifier(build, x, channels, 10)


def resnet50() -> onnx.ModelProto:
    """ResNet-50 for images of 224x224 (the same paper, strides in the 3x3 convolutions): 25.5 million weights."""
    build = NetworkBuilder((3, 224, 224))
    x, channels = build.node("Relu", build.convolution("input", 3, 64, 7, 2)), 64
    x = build.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride, outputs = (2 if stage and not block else 1), 4 * width
            shortcut = x if block else build.convolution(x, channels, outputs, 1, stride, gain=1.0)
            inner = build.node("Relu", build.convolution(x, channels, width, 1))
            inner = build.node("Relu", build.convolution(inner, width, width, 3, stride))
            inner = build.convolution(inner, width, outputs, 1, gain=0.5)
            x, channels = build.node("Relu", build.node("Add", inner, shortcut)), outputs
    return _classifier(build, x, channels, 1000)


def gpt2_small(tokens: int = 64) -> onnx.ModelProto:
    """GPT-2 small: 12 blocks, 768 wide, 12 heads, 50,257 words, the table of words used at both ends; 124 million weights.

    Source: Radford et al., "Language models are unsupervised multitask learners", 2019; normalization before each part.

    Args:
        tokens: of a text; the network reads up to 1,024.
    """
    width, heads, words, blocks = 768, 12, 50257, 12
    build = NetworkBuilder((tokens,), tokens=True)
    table = build.weights(words, width, gain=width * 0.02**2)
    x = build.node("Gather", table, "input")
    x = build.node("Add", x, build.weights(tokens, width, gain=width * 0.02**2))
    hidden = np.triu(np.full((tokens, tokens), -1e9, np.float32), 1)  # a word sees those before it alone
    mask, root = build.constant(hidden), build.constant(np.float32(np.sqrt(width / heads)))
    apart, joined = (build.constant(np.array(s)) for s in ([0, tokens, heads, width // heads], [0, tokens, width]))

    def normalized(x: str) -> str:
        ones, zeros = build.constant(np.ones(width, np.float32)), build.constant(np.zeros(width, np.float32))
        return build.node("LayerNormalization", x, ones, zeros)

    def linear(x: str, inputs: int, outputs: int) -> str:
        product = build.node(
            "MatMul", x, build.node("Transpose", build.weights(outputs, inputs, gain=1.0), perm=[1, 0])
        )
        return build.node("Add", product, build.constant(np.zeros(outputs, np.float32)))

    for _ in range(blocks):
        inner = normalized(x)
        query, key, value = (build.node("Reshape", linear(inner, width, width), apart) for _ in range(3))
        query, value = (build.node("Transpose", each, perm=[0, 2, 1, 3]) for each in (query, value))
        scores = build.node("MatMul", query, build.node("Transpose", key, perm=[0, 2, 3, 1]))
        weights = build.node("Softmax", build.node("Add", build.node("Div", scores, root), mask), axis=-1)
        mixed = build.node("Transpose", build.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        x = build.node("Add", x, linear(build.node("Reshape", mixed, joined), width, width))
        inner = linear(normalized(x), width, 4 * width)
        x = build.node("Add", x, linear(build.node("Gelu", inner, approximate="tanh"), 4 * width, width))
    words_first = build.node("Transpose", table, perm=[1, 0])
    return build.model(build.node("MatMul", normalized(x), words_first))


def _classifier(build: NetworkBuilder, x: str, channels: int, classes: int) -> onnx.ModelProto:
    pooled = build.node("Flatten", build.node("GlobalAveragePool", x))
    return build.model(build.gemm(pooled, channels, classes))

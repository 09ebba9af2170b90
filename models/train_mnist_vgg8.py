"""Train mnist_vgg8.onnx: VGG-8 with binary weights for a resistance-sum array.

What for: the eight-layer VGG that Jung et al. (Nature 601, 2022) run on an emulation of their 64x64 STT-MRAM crossbar
(software 99.28 %, array 98.86 %). The paper gives no widths; these are ours: six 3x3 convolutions in three pairs of 28-64,
64-64 and 128-128 channels and two dense layers of 128 and 10, all eight on the array, batch normalizations and max
pooling digital. The first convolution has stride 2, which replaces one pooling and saves three quarters of its reads.

A pixel drives seven rows: channel c is clip(7 x - c, 0, 1), a thermometer code over rows. A single row would move
the sum by one, where a code of the converter spans six.

The weights are +- the weight of the array row that each sits in: int8 signs behind DequantizeLinear, whose scale
along the input axis is the row weight. vgg8_training.py says which errors of the array the training knows.

The graph rounds the input and the activations to 0, 1/T, ... 1 itself, so thermometer{bits=T} loses nothing against
onnxruntime.

Settings were judged with --holdout 5000 (train on the first 55,000 training images, look at the other 5,000), with 1 + 11
epochs: 99.36 % in software, 99.26 % on two simulated chips. The shipped file is trained on all 60,000, with 1 + 23 epochs.
The test images are read once, for the last line.

Run: python models/train_mnist_vgg8.py   (about 12 minutes on one core)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from binary_training import EPSILON
from common import MODELS_DIR, accuracy, command_line, constant, load_mnist, save_model
from onnx import NodeProto, helper
from train_mnist_bnn import Part, rounding_nodes, weight_parts
from vgg8_training import ArrayLayer, BinaryVgg, Layer, Recipe, correct, set_statistics, train

SIDE, CLASSES = 28, 10
LEVELS = 2  # thermometer slices
LAYERS = (
    Layer("conv1", 7, 28, stride=2),  # 28x28 to 14x14
    Layer("conv2", 28, 64, pool=(2, 2)),  # to 7x7
    Layer("conv3", 64, 64),
    Layer("conv4", 64, 64, pool=(3, 2)),  # to 3x3
    Layer("conv5", 64, 128),
    Layer("conv6", 128, 128),
    Layer("fc7", 3 * 3 * 128, 128, kernel=1),
    Layer("fc8", 128, CLASSES, kernel=1),
)


def input_parts(channels: int) -> Part:
    """Build the pixels [batch, channels, 28, 28] in levels from "input" [batch, 784]: clip(channels x - c, 0, 1)."""
    constants = [
        constant("image_shape", np.array([-1, 1, SIDE, SIDE], np.int64)),
        constant("spread.gain", np.array(channels, np.float32)),
        constant("spread.shift", np.arange(channels, dtype=np.float32)[:, None, None]),
    ]
    nodes = [
        helper.make_node("Reshape", ["input", "image_shape"], ["image"], name="image"),
        helper.make_node("Mul", ["image", "spread.gain"], ["spread_scaled"], name="spread_scaled"),
        helper.make_node("Sub", ["spread_scaled", "spread.shift"], ["spread"], name="spread"),
        *rounding_nodes("quantize_input", "spread", "pixels"),
    ]
    return nodes, constants


def matrix_nodes(layer: Layer, source: str, target: str) -> Part:
    """Build the convolution or product with `NAME.weight` [inputs, outputs]."""
    name = layer.name
    if layer.kernel == 1:
        return [helper.make_node("MatMul", [source, f"{name}.weight"], [target], name=name)], []
    shape = np.array([layer.outputs, layer.inputs, layer.kernel, layer.kernel], np.int64)
    attributes: dict[str, Any] = {"kernel_shape": [layer.kernel] * 2, "pads": [1] * 4, "strides": [layer.stride] * 2}
    nodes = [
        helper.make_node("Transpose", [f"{name}.weight"], [f"{name}.rows"], name=f"{name}.rows", perm=[1, 0]),
        helper.make_node("Reshape", [f"{name}.rows", f"{name}.shape"], [f"{name}.kernel"], name=f"{name}.kernel"),
        helper.make_node("Conv", [source, f"{name}.kernel"], [target], name=name, **attributes),
    ]
    return nodes, [constant(f"{name}.shape", shape)]


def layer_parts(array_layer: ArrayLayer, source: str, target: str) -> Part:
    """Build the weights, product, pooling and BatchNormalization of one layer."""
    layer, norm = array_layer.layer, array_layer.norm
    name = layer.name
    signs, gains = (value.numpy().reshape(layer.outputs, -1).T for value in (array_layer.signs(), array_layer.gains))
    nodes, constants = weight_parts(name, signs, gains)
    product = matrix_nodes(layer, source, f"{name}_sum")
    nodes, constants = nodes + product[0], constants + product[1]
    sums = f"{name}_sum"
    if layer.pool is not None:
        kernel, stride = layer.pool
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        nodes.append(helper.make_node("MaxPool", [sums], [f"{name}_pooled"], name=f"{name}_pool", **attributes))
        sums = f"{name}_pooled"
    values = {"scale": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "variance": norm.running_var}
    constants += [constant(f"{name}.bn.{key}", value.detach().numpy()) for key, value in values.items()]
    inputs = [sums, *(f"{name}.bn.{key}" for key in values)]
    nodes.append(helper.make_node("BatchNormalization", inputs, [target], name=f"{name}.bn", epsilon=EPSILON))
    return nodes, constants


def write(path: Path, network: BinaryVgg) -> None:
    """Write the network as "input" [batch, 784] -> "logits" [batch, 10]."""
    nodes: list[NodeProto]
    nodes, constants = input_parts(network.layers[0].layer.inputs)
    constants += [
        constant(name, np.array(value, np.float32))
        for name, value in (("zero", 0), ("one", 1), ("levels", network.levels))
    ]
    source = "pixels"
    for index, layer in enumerate(network.layers):
        name, last = layer.layer.name, index == len(network.layers) - 1
        if layer.layer.kernel == 1 and network.layers[index - 1].layer.kernel != 1:
            nodes.append(helper.make_node("Flatten", [source], ["features"], name="features"))
            source = "features"
        parts = layer_parts(layer, source, "logits" if last else f"{name}_normal")
        nodes, constants = nodes + parts[0], constants + parts[1]
        source = f"{name}_active"
        if not last:
            nodes += rounding_nodes(f"quantize_{name}", f"{name}_normal", source)
    text = "MNIST, VGG-8, binary weights +- the array's row weight, activations of a few levels"
    save_model(path, nodes, constants, SIDE**2, CLASSES, description=text)


def main() -> None:
    """Train the network and write it, or only report hold-out accuracies."""
    parser = command_line(__doc__)
    parser.add_argument("--epochs", type=int, nargs=2, default=(1, 23), help="with real, with binary weights")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--levels", type=int, default=LEVELS, help="thermometer slices of the activations")
    parser.add_argument("--noise", type=float, default=1.0, help="times the array's errors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--holdout", type=int, default=0, help="keep back N training images")
    parser.add_argument("--output", type=Path, help="file to write; with --holdout nothing is written without it")
    arguments = parser.parse_args()

    path = arguments.output or MODELS_DIR / "mnist_vgg8.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    network = BinaryVgg(LAYERS, arguments.levels)
    real, binary = arguments.epochs
    recipe = Recipe(real, binary, learning_rate=arguments.learning_rate, noise=arguments.noise)
    images, labels = (torch.from_numpy(array) for array in load_mnist("train"))
    images = images.reshape(-1, 1, SIDE, SIDE)
    kept = len(images) - arguments.holdout
    train(images[:kept], labels[:kept], network, recipe)
    set_statistics(network, images[:kept])
    if arguments.holdout:
        exact, noisy = (correct(network, images[kept:], labels[kept:], noise) for noise in (0.0, 1.0))
        print(f"hold-out accuracy {exact:.2f} %, with noise {noisy:.2f} %")
    if arguments.output or not arguments.holdout:
        write(path, network)
    if not arguments.holdout:
        print(f"{path.name}: test accuracy {accuracy(path, *load_mnist('test')):.2f} %")


if __name__ == "__main__":
    main()

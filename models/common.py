"""Shared by the training scripts: data loading, ONNX building and accuracy in onnxruntime.

Needs no torch, so that `evaluate.py` runs without it. Data sets come from `xbcompile.data.datasets`: from the folder that the
environment variable XBCOMPILE_DATA names, else downloaded into the user's cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from xbcompile.data.datasets import load_set

MODELS_DIR = Path(__file__).resolve().parent
OPSET = 21
IR_VERSION = 10  # the first with metadata on nodes


def command_line(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows the script's own description as it is written."""
    as_written = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=as_written)


def load_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, float32 [n, 784] in [0, 1], and labels, int64 [n], of split "train" or "test"."""
    images, labels = load_set("mnist", split)
    return images.reshape(len(images), -1), labels


def constant(name: str, values: np.ndarray) -> TensorProto:
    """Make an initializer that owns a contiguous copy of the values."""
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def dense_nodes(
    source: str, layers: Sequence[tuple[str, np.ndarray, np.ndarray]], output: str, activation: str
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Build Gemm, activation, Gemm, ... from (name, weights [inputs, outputs], bias), no activation after the last.

    `activation` is an ONNX operator without attributes, such as "Relu" or "Tanh".
    """
    nodes, constants = [], []
    for index, (name, weight, bias) in enumerate(layers):
        last = index == len(layers) - 1
        target = output if last else f"{name}_sum"
        constants += [constant(f"{name}.weight", weight), constant(f"{name}.bias", bias)]
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [target], name=name))
        if not last:
            source = f"{name}_active"
            name = f"{activation.lower()}{index + 1}"
            nodes.append(helper.make_node(activation, [target], [source], name=name))
    return nodes, constants


def dense_relu_nodes(
    source: str, layers: Sequence[tuple[str, np.ndarray, np.ndarray]], output: str
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Build Gemm, ReLU, Gemm, ...; see dense_nodes."""
    return dense_nodes(source, layers, output, "Relu")


def save_model(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[TensorProto],
    inputs: int,
    outputs: int,
    output_name: str = "logits",
    description: str = "",
) -> None:
    """Check and write a model "input" [batch, inputs] -> output_name [batch, outputs], all float32."""
    graph = helper.make_graph(
        list(nodes),
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", inputs])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", outputs])],
        list(constants),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xbcompile-models",
        doc_string=description,
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def predict(path: Path, images: np.ndarray) -> np.ndarray:
    """Run the model in onnxruntime on one thread and return its only output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the percentage of images whose largest output is their label's."""
    return 100 * float(np.mean(predict(path, images).argmax(axis=1) == labels))

"""Shared by the training scripts: data loading, ONNX building and accuracy in onnxruntime.

Needs only numpy, onnx and onnxruntime, so that `evaluate.py` runs without torch.

The folder of the data sets is named by the environment variable XBCOMPILE_DATA; MNIST is expected in its
sub-folder `mnist` as the four gzip-compressed IDX files under their original names.
"""

from __future__ import annotations

import argparse
import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MODELS_DIR = Path(__file__).resolve().parent
OPSET = 21
IR_VERSION = 10  # the first with metadata on nodes

_IDX_DTYPES = {0x08: np.uint8}


def command_line(description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows the script's own description as it is written."""
    as_written = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=as_written)


def read_idx(path: Path) -> np.ndarray:
    """Read one gzip-compressed IDX file (two zero bytes, type, number of axes, big-endian sizes, data)."""
    with gzip.open(path, "rb") as stream:
        header = stream.read(4)
        if header[:2] != b"\0\0" or header[2] not in _IDX_DTYPES:
            raise ValueError(f"{path}: not an IDX file of unsigned bytes (header {header.hex()})")
        shape = np.frombuffer(stream.read(4 * header[3]), ">u4").astype(np.int64)
        return np.frombuffer(stream.read(), _IDX_DTYPES[header[2]]).reshape(shape)


def load_mnist(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, float32 [n, 784] in [0, 1], and labels, int64 [n], of split "train" or "test"."""
    folder = os.environ.get("XBCOMPILE_DATA")
    if folder is None:
        raise SystemExit("set XBCOMPILE_DATA to the folder that holds mnist/train-images-idx3-ubyte.gz")
    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_idx(Path(folder) / "mnist" / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(Path(folder) / "mnist" / f"{prefix}-labels-idx1-ubyte.gz")
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64)


def load_digits_split(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 8x8 digits: the first 1,437 samples are "train", the last 360 "test"."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    chosen = {"train": slice(0, 1437), "test": slice(1437, None)}[split]
    return (bunch.data[chosen] / 16).astype(np.float32), bunch.target[chosen].astype(np.int64)


def constant(name: str, values: np.ndarray) -> TensorProto:
    """Make an initializer that owns a contiguous copy of the values."""
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def dense_relu_nodes(
    source: str, layers: Sequence[tuple[str, np.ndarray, np.ndarray]], output: str
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """Build Gemm, ReLU, Gemm, ... from (name, weights [inputs, outputs], bias), no ReLU after the last."""
    nodes, constants = [], []
    for index, (name, weight, bias) in enumerate(layers):
        last = index == len(layers) - 1
        target = output if last else f"{name}_sum"
        constants += [constant(f"{name}.weight", weight), constant(f"{name}.bias", bias)]
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Gemm", inputs, [target], name=name))
        if not last:
            source = f"{name}_active"
            nodes.append(helper.make_node("Relu", [target], [source], name=f"relu{index + 1}"))
    return nodes, constants


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

"""Running a network's ideal meaning in onnxruntime: what passes and verification look at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort

from xbcompile.errors import DataError
from xbcompile.ir.host import to_onnx
from xbcompile.ir.network import Network

CHUNK_SAMPLES = 500  # samples per onnxruntime call: bounds the memory of intermediate tensors


def make_session(model: onnx.ModelProto, threads: int = 0) -> ort.InferenceSession:
    """A quiet CPU session of onnxruntime; `threads` 0 leaves the number to it."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Idle workers of onnxruntime would spin on the processors that matrix layers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def model_batch(inputs: tuple[onnx.ValueInfoProto, ...]) -> int | None:
    """The fixed batch size that the model's inputs ask for on axis 0; None when it is open."""
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value"):
            return int(dims[0].dim_value)
    return None


def sample_chunks(feeds: dict[str, np.ndarray], size: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Split feeds along axis 0 into runs of at most `size` samples: (first sample, chunk)."""
    samples = next(iter(feeds.values())).shape[0]
    for first in range(0, samples, size):
        yield first, {name: value[first : first + size] for name, value in feeds.items()}


def evaluate(network: Network, feeds: dict[str, np.ndarray], tensors: list[str]) -> list[np.ndarray]:
    """Values of the named tensors on these feeds, chunk by chunk.

    Args:
        network: any stage of compilation.
        feeds: graph inputs by name; axis 0 counts samples.
        tensors: names of graph inputs, or of tensors that some node writes.

    Raises:
        DataError: the model has a fixed batch size that does not divide the number of samples.
    """
    return evaluate_model(to_onnx(network), network.inputs, feeds, tensors)


def evaluate_model(
    model: onnx.ModelProto,
    inputs: tuple[onnx.ValueInfoProto, ...],
    feeds: dict[str, np.ndarray],
    tensors: list[str],
) -> list[np.ndarray]:
    """`evaluate` for any ONNX model with these graph inputs; the model's list of outputs is replaced."""
    computed = sorted(set(tensors) - set(feeds))
    if not computed:
        return [feeds[name] for name in tensors]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    session = make_session(model)
    batch = model_batch(inputs)
    samples = next(iter(feeds.values())).shape[0]
    if batch is not None and samples % batch:
        raise DataError(f"{samples} samples do not fill the model's fixed batch of {batch}; give a multiple of {batch}")
    parts = [session.run(computed, chunk) for _, chunk in sample_chunks(feeds, batch or CHUNK_SAMPLES)]
    values = {name: np.concatenate(column) for name, column in zip(computed, zip(*parts, strict=True), strict=True)}
    return [feeds[name] if name in feeds else values[name] for name in tensors]


def layer_inputs(network: Network, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Input tensor of every matrix layer, by layer name."""
    layers = network.layers
    values = evaluate(network, feeds, [layer.input for layer in layers])
    return {layer.name: value for layer, value in zip(layers, values, strict=True)}

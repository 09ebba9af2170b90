"""Running a network's ideal meaning in onnxruntime: what passes and verification look at."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from xbcompile.errors import DataError
from xbcompile.ir.network import Network
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.engine import open_session
from xbcompile.onnx_graph.split_model import SplitModel
from xbcompile.reference.host_graph import host_graph
from xbcompile.reference.host_recurrence import expose, scan_bodies

CHUNK_SAMPLES = 500  # samples per onnxruntime call: bounds the memory of intermediate tensors


def model_batch(inputs: tuple[onnx.ValueInfoProto, ...]) -> int | None:
    """The fixed batch size that all of the model's inputs ask for on axis 0; None when any leaves it open or differs."""
    shapes = [value.type.tensor_type.shape.dim for value in inputs]
    sizes = {int(dims[0].dim_value) if dims and dims[0].HasField("dim_value") else None for dims in shapes}
    return sizes.pop() if len(sizes) == 1 else None


def whole_batches(inputs: tuple[onnx.ValueInfoProto, ...], samples: int) -> int:
    """The largest number of samples, at most this many, that fills whole batches of the model; 0 where none is full."""
    return samples - samples % (model_batch(inputs) or 1)


def sample_chunks(feeds: dict[str, np.ndarray], size: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Split feeds along axis 0 into runs of at most `size` samples: (first sample, chunk)."""
    samples = next(iter(feeds.values())).shape[0]
    for first in range(0, samples, size):
        yield first, {name: value[first : first + size] for name, value in feeds.items()}


def evaluate(network: Network, feeds: dict[str, np.ndarray], tensors: list[str]) -> list[list[np.ndarray]]:
    """Values of the named tensors on these feeds, each a list with one value per chunk of samples.

    Chunks are not joined: axis 0 of a tensor inside the network need not count samples. A tensor in the body of a
    recurrence has one axis more, axis 0, which counts steps.

    Args:
        network: any stage of compilation.
        feeds: graph inputs by name; axis 0 counts samples.
        tensors: names of graph inputs, or of tensors that some node writes.

    Raises:
        DataError: the model has a fixed batch size that does not divide the number of samples.
    """
    return evaluate_model(host_graph(network), network.inputs, feeds, tensors)


def evaluate_model(
    model: onnx.ModelProto | SplitModel,
    inputs: tuple[onnx.ValueInfoProto, ...],
    feeds: dict[str, np.ndarray],
    tensors: list[str],
) -> list[list[np.ndarray]]:
    """`evaluate` for any ONNX model with these graph inputs; the list of outputs of a ModelProto is replaced."""
    batch = model_batch(inputs)
    samples = next(iter(feeds.values())).shape[0]
    if batch is not None and samples % batch:
        raise DataError(f"{samples} samples do not fill the model's fixed batch of {batch}; give a multiple of {batch}")
    chunks = [chunk for _, chunk in sample_chunks(feeds, batch or CHUNK_SAMPLES)]
    computed = sorted(set(tensors) - set(feeds))
    if not computed:
        return [[chunk[name] for chunk in chunks] for name in tensors]
    model = model.copy() if isinstance(model, SplitModel) else model
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    stacked = expose(graph, computed)
    wanted = [stacked.get(name, name) for name in computed]
    del graph.output[:]
    graph.output.extend(map(builder.value, wanted))
    session = open_session(model)
    values = [chunk | dict(zip(computed, session.run(wanted, chunk), strict=True)) for chunk in chunks]
    return [[value[name] for value in values] for name in tensors]


def computed_tensors(model: onnx.ModelProto | SplitModel) -> frozenset[str]:
    """Names of the tensors whose values `evaluate_model` can give, graph inputs apart.

    They are what the nodes of the graph write, and what exists inside the bodies of its Scans (one axis more, axis 0, which
    counts steps). What other control flow keeps to itself is not among them.
    """
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    written = (name for node in graph.node for name in node.output if name)
    return frozenset(written).union(scan_bodies(graph))


def layer_inputs(network: Network, feeds: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Input tensors of every matrix layer, one per chunk of samples, by layer name."""
    layers = network.layers
    values = evaluate(network, feeds, [layer.input for layer in layers])
    return {layer.name: value for layer, value in zip(layers, values, strict=True)}

"""Running a network's ideal meaning in onnxruntime: what passes and verification look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx

from xbcompile.deferred import library
from xbcompile.ir.network import Network
from xbcompile.ir.sample_axes import SampleAxes
from xbcompile.onnx_graph import builder
from xbcompile.onnx_graph.split_model import SplitModel
from xbcompile.reference.host_graph import host_graph
from xbcompile.reference.host_recurrence import expose, scan_bodies
from xbcompile.reference.sequence import calls_in_sequence

if TYPE_CHECKING:
    from xbcompile.onnx_graph import engine
else:
    engine = library("xbcompile.onnx_graph.engine")  # it loads onnxruntime

CHUNK_SAMPLES = 500  # samples per onnxruntime call: bounds the memory of intermediate tensors


def evaluate(network: Network, feeds: dict[str, np.ndarray], tensors: list[str]) -> list[list[np.ndarray]]:
    """Values of the named tensors on these feeds, each a list with one value per call of the model.

    They are not joined: a tensor inside the network may hold samples along any axis, or none. A tensor in the body of a
    recurrence has one axis more, axis 0, which counts steps.

    Args:
        network: any stage of compilation.
        feeds: graph inputs by name, see `SampleAxes`.
        tensors: names of graph inputs, or of tensors that some node writes.

    Raises:
        DataError: inputs hold different numbers of samples, none, or such as do not fill calls of the model.
    """
    return evaluate_model(host_graph(network), network.samples, feeds, tensors)


def evaluate_model(
    model: onnx.ModelProto | SplitModel,
    samples: SampleAxes,
    feeds: dict[str, np.ndarray],
    tensors: list[str],
) -> list[list[np.ndarray]]:
    """`evaluate` for any ONNX model with such samples; the list of outputs of a ModelProto is replaced."""
    samples.checked_samples(feeds)
    chunks = [chunk for _, chunk in samples.parts(feeds, CHUNK_SAMPLES)]
    computed = sorted(set(tensors) - set(feeds))
    if not computed:
        return [[chunk[name] for chunk in chunks] for name in tensors]
    model = model.copy() if isinstance(model, SplitModel) else model
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    stacked = expose(graph, computed)
    wanted = [stacked.get(name, name) for name in computed]
    del graph.output[:]
    graph.output.extend(map(builder.value, wanted))
    session = engine.open_session(model)
    values = [chunk | dict(zip(computed, session.run(wanted, chunk), strict=True)) for chunk in chunks]
    return [[value[name] for value in values] for name in tensors]


def model_outputs(
    model: SplitModel,
    samples: SampleAxes,
    feeds: Mapping[str, np.ndarray],
    names: list[str],
    states: Mapping[str, str] | None = None,
    chunk: int = CHUNK_SAMPLES,
) -> dict[str, np.ndarray]:
    """Graph outputs of a model for all samples, joined.

    Args:
        model: the model.
        samples: which axes of its inputs and outputs count samples.
        feeds: graph inputs by name.
        names: of the outputs.
        states: inputs by the output whose value of one call they take in the next; see `calls_in_sequence`.
        chunk: samples of a call, where the model leaves that open.
    """
    session = engine.open_session(model)
    if not states:
        parts = [dict(zip(names, session.run(names, part), strict=True)) for _, part in samples.parts(feeds, chunk)]
        return samples.join(parts, bool(samples.given_per_call(feeds)))
    wanted = [*dict.fromkeys([*names, *states])]
    parts = calls_in_sequence(
        samples, feeds, states, lambda part, _: dict(zip(wanted, session.run(wanted, part), strict=True))
    )
    return samples.join([{name: part[name] for name in names} for part in parts], stack=True)


def computed_tensors(model: onnx.ModelProto | SplitModel) -> frozenset[str]:
    """Names of the tensors whose values `evaluate_model` can give, graph inputs apart.

    They are what the nodes of the graph write, and what exists inside the bodies of its Scans (one axis more, axis 0, which
    counts steps). What other control flow keeps to itself is not among them.
    """
    graph = (model.skeleton if isinstance(model, SplitModel) else model).graph
    written = (name for node in graph.node for name in node.output if name)
    return frozenset(written).union(scan_bodies(graph))


def layer_inputs(network: Network, feeds: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Input tensors of every matrix layer, one per call of the model, by layer name."""
    layers = network.layers
    values = evaluate(network, feeds, [layer.input for layer in layers])
    return {layer.name: value for layer, value in zip(layers, values, strict=True)}

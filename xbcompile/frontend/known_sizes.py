"""What shapes alone tell of whole numbers: sizes of tensors, picked and put together, where other sizes of them are open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import NodeProto, TensorProto

from xbcompile.frontend.operands import attribute, is_constant
from xbcompile.onnx_graph.domains import ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.tensors import elements, to_array

_LARGEST = 64  # assumed: numbers of a constant that says something of shapes
_WHOLE = (TensorProto.INT32, TensorProto.INT64)
_SIZES = ("Shape", "Size")

_Known = Callable[[str], np.ndarray | None]  # by name: an array of objects, None where a number is not known


def known_sizes(graph: Graph) -> dict[str, np.ndarray]:
    """The values, int64, that are made of known sizes, with small constants to pick them, by name of the tensor.

    Shape, Size, and what exporters put behind them: Gather, Slice, Squeeze, Unsqueeze, Concat, Cast, Identity.
    """
    partly: dict[str, np.ndarray] = {}

    def known(name: str) -> np.ndarray | None:
        if name in partly or not is_constant(graph, name):
            return partly.get(name)
        tensor = graph.constants[name]
        is_small = tensor.data_type in _WHOLE and elements(tensor) <= _LARGEST
        return to_array(tensor).astype(object) if is_small else None

    found = {}
    for node in graph.nodes:
        if node.domain not in ONNX_DOMAINS or not (node.op_type in _SIZES or _reads_sizes(node, partly)):
            continue
        value = _value(node, graph, known)
        if value is None:
            continue
        partly[node.output[0]] = value
        if None not in value.reshape(-1).tolist():
            found[node.output[0]] = value.astype(np.int64)
    return found


def _reads_sizes(node: NodeProto, partly: Mapping[str, np.ndarray]) -> bool:
    """Whether it moves sizes, all of which are int64; what constants alone tell may have another type."""
    moved = node.input if node.op_type == "Concat" else node.input[:1]
    return node.op_type in _COMPUTE and not partly.keys().isdisjoint(moved)


def _value(node: NodeProto, graph: Graph, known: _Known) -> np.ndarray | None:
    if node.op_type in _SIZES:
        shape = graph.shape(node.input[0])
        if shape is None:
            return None
        if node.op_type == "Shape":
            return _objects(shape[slice(attribute(node, "start", None), attribute(node, "end", None))])
        return None if None in shape else np.array(np.prod(np.array(shape, np.int64), dtype=np.int64), object)
    found = [known(name) for name in node.input if name]
    values = [value for value in found if value is not None]
    picking = values[1:] if node.op_type != "Concat" else []
    if len(values) < len(found) or any(None in value.reshape(-1).tolist() for value in picking):
        return None
    try:
        return _COMPUTE[node.op_type](node, *values)
    except (IndexError, ValueError, TypeError):
        return None  # onnxruntime's error is the better one


def _objects(values: Sequence[int | None]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _gather(node: NodeProto, data: np.ndarray, indices: np.ndarray) -> np.ndarray:
    picked = np.take(data, indices.astype(np.int64), axis=attribute(node, "axis", 0))
    return np.asarray(picked, object)


def _slice(node: NodeProto, data: np.ndarray, *bounds: np.ndarray) -> np.ndarray | None:
    starts, ends = (
        (value.tolist() for value in bounds[:2])
        if bounds
        else (list(attribute(node, name, ())) for name in ("starts", "ends"))
    )
    steps = bounds[3].tolist() if len(bounds) > 3 else [1]
    if data.ndim != 1 or len(starts) != 1:
        return None
    end = None if steps[0] < 0 and ends[0] < -len(data) else ends[0]
    return data[slice(starts[0], end, steps[0])]


def _squeeze(node: NodeProto, data: np.ndarray, *axes: np.ndarray) -> np.ndarray:
    return np.squeeze(data, tuple(_axes(node, axes)) or None)


def _unsqueeze(node: NodeProto, data: np.ndarray, *axes: np.ndarray) -> np.ndarray:
    return np.expand_dims(data, tuple(_axes(node, axes)))


def _axes(node: NodeProto, axes: Sequence[np.ndarray]) -> list[int]:
    return [int(axis) for axis in (axes[0].reshape(-1).tolist() if axes else attribute(node, "axes", ()))]


def _concat(node: NodeProto, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=attribute(node, "axis", 0))


def _cast(node: NodeProto, data: np.ndarray) -> np.ndarray | None:
    return data if attribute(node, "to", 0) == TensorProto.INT64 else None


def _identity(_: NodeProto, data: np.ndarray) -> np.ndarray:
    return data


_COMPUTE: dict[str, Callable[..., np.ndarray | None]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Gather": _gather,
    "Identity": _identity,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}

"""What becomes of each node of a model: matrices on arrays, or digital and why; no target is needed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnx import NodeProto

from xbcompile.frontend import load_model
from xbcompile.frontend.inputs import ModelInputs
from xbcompile.frontend.macs import Count
from xbcompile.frontend.network import History, import_with_history
from xbcompile.frontend.operators import operator_of
from xbcompile.ir import MatrixLayer
from xbcompile.onnx_graph.dimensions import open_dimensions
from xbcompile.onnx_graph.domains import MICROSOFT, ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Origin, bodies

EVALUATED = "constant: evaluated when compiling"
NOT_NEEDED = "not needed for any output"


@dataclass(frozen=True)
class MatrixExplanation:
    """A matrix on the arrays.

    Args:
        name: the matrix layer.
        groups: independent matrices of this size (groups of a convolution).
        inputs: rows.
        outputs: columns.
        vectors: input vectors per inference and group; None where an open dimension decides.
    """

    name: str
    groups: int
    inputs: int
    outputs: int
    vectors: int | None

    @property
    def macs(self) -> int | None:
        """Multiply-accumulate operations per inference."""
        return None if self.vectors is None else self.groups * self.inputs * self.outputs * self.vectors


@dataclass(frozen=True)
class NodeExplanation:
    """One node of the model.

    Args:
        node: its name, or one made of operator and output where it has none.
        operator: its operator.
        inside: the control-flow node whose body it is in; empty for nodes of the main graph.
        lowered: whether a matrix of it is on the arrays.
        matrices: those matrices.
        macs: multiply-accumulate operations of matrix products and convolutions per inference, on arrays and digital; None
            where a size is unknown. A node inside a body counts as if it ran once; the node with the body, for all its runs.
        macs_on_arrays: those of the matrices, as far as known.
        reason: why it is digital, or what of it is; empty where all of it is on arrays.
    """

    node: str
    operator: str
    inside: str
    lowered: bool
    matrices: tuple[MatrixExplanation, ...]
    macs: int | None
    macs_on_arrays: int
    reason: str


@dataclass(frozen=True)
class Totals:
    """Sums over the model.

    Args:
        macs: per inference, of all nodes whose sizes are known.
        macs_on_arrays: those on arrays.
        share_percent: their share; None where nothing could be counted.
        nodes: nodes, those in bodies included.
        lowered: nodes with a matrix on the arrays.
        matrices: matrices that the nodes use, each node's counted.
        weights: weights on the arrays; a matrix that several nodes share counts once.
        uncounted: nodes whose MACs are not known.
        segments: digital segments that run between the matrices.
    """

    macs: int
    macs_on_arrays: int
    share_percent: float | None
    nodes: int
    lowered: int
    matrices: int
    weights: int
    uncounted: int
    segments: int


@dataclass(frozen=True)
class Explanation:
    """What becomes of a model.

    Args:
        model: the ONNX graph's name.
        nodes: its nodes in execution order, functions inlined; Constant nodes are values and not among them.
        totals: sums.
        open_dimensions: names of the input dimensions that the model leaves open.
    """

    model: str
    nodes: tuple[NodeExplanation, ...]
    totals: Totals
    open_dimensions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data: the keys of `explain --json`, documented in docs/json.md."""
        return asdict(self)


def explain(
    model: str | os.PathLike[str] | onnx.ModelProto,
    digital: Collection[str] = (),
    dims: Mapping[str, int] | None = None,
    keep_inputs: Collection[str] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
) -> Explanation:
    """What becomes of each node of a model.

    Args:
        model: path of an .onnx file, or a model in memory.
        digital: names (or patterns) of nodes that stay digital.
        dims: sizes of open dimensions, by name or `INPUT:AXIS`.
        keep_inputs: initializers that stay inputs.
        fixed_inputs: values of inputs that become constants.

    Raises:
        ModelError: the model cannot be read or imported, or has no such dimension or input.
    """
    proto = load_model(model, ModelInputs(dims or {}, keep_inputs, fixed_inputs or {}))
    history = import_with_history(proto, (digital,) if isinstance(digital, str) else digital)
    return _Explainer(history).explanation()


class _Explainer:
    """The rows of the table, node by node."""

    def __init__(self, history: History) -> None:
        self.history = history
        network = history.network
        self.layers = {layer.name: layer for layer in network.layers}
        self.writers = {layer.output: layer.name for layer in network.layers}
        self.records = {record.node: record for record in network.records}
        self.counter = history.counter
        self.runs = {name for each in network.segments for node in each.model.graph.node for name in node.output}
        self.digital: dict[str, Count] = defaultdict(Count)
        for node in history.graph.nodes:
            origin = history.graph.origins.get(node.name, Origin(node.name, node.op_type))
            self.digital[origin.node] += self.counter.node(node)

    def explanation(self) -> Explanation:
        network = self.history.network
        nodes = tuple(row for node in self.history.model.nodes for row in self._rows(node))
        on_arrays = [self._matrix(layer) for layer in network.layers]
        macs_on_arrays = sum(matrix.macs or 0 for matrix in on_arrays)
        macs = macs_on_arrays + sum(count.macs for count in self.digital.values())
        stored = {id(layer.weights): layer.weights.size for layer in network.layers}
        totals = Totals(
            macs=macs,
            macs_on_arrays=macs_on_arrays,
            share_percent=100 * macs_on_arrays / macs if macs else None,
            nodes=len(nodes),
            lowered=sum(node.lowered for node in nodes),
            matrices=len(on_arrays),
            weights=sum(stored.values()),
            uncounted=sum(matrix.macs is None for matrix in on_arrays)
            + sum(count.uncounted for count in self.digital.values()),
            segments=len(network.segments),
        )
        return Explanation(network.name, nodes, totals, tuple(open_dimensions(network.inputs)))

    def _rows(self, node: NodeProto) -> Iterator[NodeExplanation]:
        record = self.records.get(node.name)
        layers = [self.layers[name] for name in record.layers if name in self.layers] if record is not None else []
        matrices = tuple(self._matrix(layer) for layer in layers)
        count = self.digital.get(node.name, Count())
        known = not count.uncounted and all(matrix.macs is not None for matrix in matrices)
        on_arrays = sum(matrix.macs or 0 for matrix in matrices)
        yield NodeExplanation(
            node=node.name,
            operator=node.op_type,
            inside="",
            lowered=bool(matrices),
            matrices=matrices,
            macs=on_arrays + count.macs if known else None,
            macs_on_arrays=on_arrays,
            reason=(record.reason if record is not None else "") or ("" if matrices else self._reason(node)),
        )
        for inner, inner_count in self.counter.inner(node):
            yield NodeExplanation(
                node=inner.name or f"{inner.op_type}_{next(filter(None, inner.output), '')}",
                operator=inner.op_type,
                inside=node.name,
                lowered=False,
                matrices=(),
                macs=None if inner_count.uncounted else inner_count.macs,
                macs_on_arrays=0,
                reason=f'inside the body of {node.op_type} "{node.name}"',
            )

    def _matrix(self, layer: MatrixLayer) -> MatrixExplanation:
        return MatrixExplanation(layer.name, layer.groups, layer.inputs, layer.outputs, layer.vectors_per_inference)

    def _reason(self, node: NodeProto) -> str:
        """Why a node without a record of its own is digital."""
        if node.name not in self.history.needed:
            return NOT_NEEDED
        layer = next((self.writers[name] for name in node.output if name in self.writers), None)
        if layer is not None:
            return f'part of "{layer}": its bias'
        if not self.runs.intersection(node.output) and not any(True for _ in bodies(node)):
            return EVALUATED if node.name in self.history.constant else "joined with the nodes around it"
        return digital_reason(node)


def digital_reason(node: NodeProto) -> str:
    """Why an operator without a matrix runs digitally."""
    if any(True for _ in bodies(node)):
        return "control flow"
    known = node.domain in (*ONNX_DOMAINS, MICROSOFT)
    return operator_of(node).reason or ("no weights" if known else f"operator of domain {node.domain}")

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
from xbcompile.frontend.recurrence import is_recurrence
from xbcompile.frontend.runs import check_runs
from xbcompile.ir import MatrixLayer
from xbcompile.onnx_graph.dimensions import open_dimensions
from xbcompile.onnx_graph.domains import MICROSOFT, ONNX_DOMAINS
from xbcompile.onnx_graph.graph import Graph, Origin
from xbcompile.onnx_graph.nodes import bodies
from xbcompile.onnx_graph.splicing import without_constants

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
            where a size is unknown. A node inside a body that runs digitally counts as if it ran once; the node with the body,
            for all its runs.
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
        samples: which axes of the inputs count samples, in words.
    """

    model: str
    nodes: tuple[NodeExplanation, ...]
    totals: Totals
    open_dimensions: tuple[str, ...]
    samples: str

    def to_json(self) -> dict[str, Any]:
        """Plain data: the keys of `explain --json`, documented in docs/json.md."""
        return asdict(self)


def explain(
    model: str | os.PathLike[str] | onnx.ModelProto,
    digital: Collection[str] = (),
    dims: Mapping[str, int] | None = None,
    batch_axis: Mapping[str, int | None] | None = None,
    keep_inputs: Collection[str] = (),
    fixed_inputs: Mapping[str, Any] | None = None,
) -> Explanation:
    """What becomes of each node of a model.

    Args:
        model: path of an .onnx file, or a model in memory.
        digital: names (or patterns) of nodes that stay digital.
        dims: sizes of open dimensions, by name or `INPUT:AXIS`.
        batch_axis: the axis that counts samples by input, see `CompileOptions`.
        keep_inputs: initializers that stay inputs.
        fixed_inputs: values of inputs that become constants.

    Raises:
        ModelError: the model cannot be read, imported or run, or has no such dimension or input.
        ScheduleError: a recurrence of too many steps.
    """
    proto = load_model(model, ModelInputs(dims or {}, keep_inputs, fixed_inputs or {}))
    history = import_with_history(proto, (digital,) if isinstance(digital, str) else digital, batch_axis)
    check_runs(history.network)
    return _Explainer(history).explanation()


class _Explainer:
    """The rows of the table, node by node."""

    def __init__(self, history: History) -> None:
        self.history = history
        network = history.network
        self.layers = {layer.name: layer for layer in network.layers}
        self.writers = {layer.output: layer.name for layer in network.layers}
        self.written = {node.name: node.output for node in _all_nodes(history.graph)}
        self.records = {record.node: record for record in network.records}
        self.counter = history.counter
        self.runs = {self._origin(node) for each in network.segments for node in each.model.graph.node}
        self.digital: dict[str, Count] = defaultdict(Count)
        for node in history.graph.nodes:
            self.digital[self._origin(node)] += self.counter.node(node)

    def _origin(self, node: NodeProto) -> str:
        """Name of the model's node that a node stands for."""
        return self.history.graph.origins.get(node.name, Origin(node.name, node.op_type)).node

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
        return Explanation(network.name, nodes, totals, tuple(open_dimensions(network.inputs)), network.samples.words())

    def _rows(self, node: NodeProto, inside: str = "") -> Iterator[NodeExplanation]:
        yield self._row(node, inside)
        if node.name in self.history.graph.decided:
            for body in bodies(node):
                for inner in without_constants(body)[0]:
                    yield from self._rows(inner, node.name)
            return
        for inner, count in self.counter.inner(node):
            yield NodeExplanation(
                node=inner.name,
                operator=inner.op_type,
                inside=node.name,
                lowered=False,
                matrices=(),
                macs=None if count.uncounted else count.macs,
                macs_on_arrays=0,
                reason=self._inside(inner, node),
            )

    def _row(self, node: NodeProto, inside: str) -> NodeExplanation:
        record = self.records.get(node.name)
        layers = [self.layers[name] for name in record.layers if name in self.layers] if record is not None else []
        matrices = tuple(self._matrix(layer) for layer in layers)
        count = self.digital.get(node.name, Count())
        known = not count.uncounted and all(matrix.macs is not None for matrix in matrices)
        on_arrays = sum(matrix.macs or 0 for matrix in matrices)
        return NodeExplanation(
            node=node.name,
            operator=node.op_type,
            inside=inside,
            lowered=bool(matrices),
            matrices=matrices,
            macs=on_arrays + count.macs if known else None,
            macs_on_arrays=on_arrays,
            reason=(record.reason if record is not None else "") or ("" if matrices else self._reason(node)),
        )

    def _matrix(self, layer: MatrixLayer) -> MatrixExplanation:
        return MatrixExplanation(layer.name, layer.groups, layer.inputs, layer.outputs, layer.vectors_per_inference)

    def _reason(self, node: NodeProto) -> str:
        """Why a node without a record of its own is digital, or what was decided of it."""
        if node.name in self.history.graph.decided:
            return self.history.graph.decided[node.name]
        if node.name not in self.history.needed:
            return NOT_NEEDED
        written = self.written.get(node.name, node.output)
        layer = next((self.writers[name] for name in written if name in self.writers), None)
        if layer is not None:
            return f'part of "{layer}": its bias'
        if node.name not in self.runs and not any(True for _ in bodies(node)):
            return EVALUATED if node.name in self.history.constant else "joined with the nodes around it"
        return digital_reason(node)

    def _inside(self, inner: NodeProto, around: NodeProto) -> str:
        """Why a node in the body of digital control flow is digital."""
        record = self.records.get(inner.name)
        return f'inside the body of {around.op_type} "{around.name}"' if record is None else record.reason


def _all_nodes(graph: Graph) -> Iterator[NodeProto]:
    """The nodes of a graph, and those in the bodies of its recurrences."""
    for node in graph.nodes:
        yield node
        if is_recurrence(node, graph):
            yield from (inner for body in bodies(node) for inner in body.node)


def digital_reason(node: NodeProto) -> str:
    """Why an operator without a matrix runs digitally."""
    if any(True for _ in bodies(node)):
        return "control flow"
    known = node.domain in (*ONNX_DOMAINS, MICROSOFT)
    return operator_of(node).reason or ("no weights" if known else f"operator of domain {node.domain}")

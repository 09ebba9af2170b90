"""A network: matrix layers, digital segments and recurrences joined by tensor names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.layer import DigitalSegment, LoweringRecord, MatrixLayer
from xbcompile.ir.recurrence import Recurrence
from xbcompile.ir.sample_axes import SampleAxes
from xbcompile.ir.schedule import Use

if TYPE_CHECKING:
    import onnx

Executed = MatrixLayer | DigitalSegment
NetworkNode = MatrixLayer | DigitalSegment | Recurrence


@dataclass(frozen=True, eq=False)
class Network(ContentEqual):
    """The whole model, in an order in which it can be executed.

    Args:
        name: the ONNX graph's name.
        inputs: the model's graph inputs (without initializers), with type and shape.
        outputs: the model's graph outputs, in the model's order. An output may be a graph input or an initializer that
            passes straight through: then a digital segment holds the Identity.
        nodes: matrix layers, digital segments and recurrences of them in topological order.
        records: what became of each MVM-like node.
        opset_imports: operator sets of the model (domain, version).
        ir_version: IR version of the model.
        samples: which axes of inputs and outputs count samples.
    """

    name: str
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[onnx.ValueInfoProto, ...]
    nodes: tuple[NetworkNode, ...]
    records: tuple[LoweringRecord, ...]
    opset_imports: tuple[tuple[str, int], ...]
    ir_version: int
    samples: SampleAxes = field(default_factory=SampleAxes)

    @cached_property
    def layers(self) -> tuple[MatrixLayer, ...]:
        """The matrix layers in execution order, those in bodies too; a position here is the layer's index in every table."""
        return tuple(node for node in self.executed if isinstance(node, MatrixLayer))

    @cached_property
    def segments(self) -> tuple[DigitalSegment, ...]:
        """The digital segments in execution order, those in bodies too."""
        return tuple(node for node in self.executed if isinstance(node, DigitalSegment))

    @property
    def recurrences(self) -> tuple[Recurrence, ...]:
        """The recurrences in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, Recurrence))

    @cached_property
    def executed(self) -> tuple[Executed, ...]:
        """Matrix layers and digital segments in execution order, each recurrence in its body's place."""
        nested = ((node.nodes if isinstance(node, Recurrence) else (node,)) for node in self.nodes)
        return tuple(inner for nodes in nested for inner in nodes)

    def writes(self, tensor: str) -> bool:
        """Whether a tensor of that name is made in the network, in a recurrence or outside; graph inputs are not."""
        inside = (recurrence.inner_names for recurrence in self.recurrences)
        return any(tensor in names for names in (*(node.output_names for node in self.nodes), *inside))

    def layer_dependencies(self) -> list[list[int]]:
        """For each matrix layer, the indices of the matrix layers that it waits for directly (through segments).

        In a recurrence a layer waits for layers before it in any step; that it waits, at the next step, for itself and
        the layers after it is said by `uses` alone.
        """
        uses = _uses(self, steps=2)
        found: list[set[int]] = [set() for _ in self.layers]
        for use in uses:
            found[use.layer].update(uses[before].layer for before in use.waits_for)
        return [sorted(before for before in each if before < i) for i, each in enumerate(found)]

    @cached_property
    def matrices(self) -> tuple[int, ...]:
        """For each matrix layer, the index of the first layer that uses the same matrix: its owner (`MatrixLayer.matrix`)."""
        owner: dict[str, int] = {}
        return tuple(owner.setdefault(layer.matrix, i) if layer.matrix else i for i, layer in enumerate(self.layers))

    @cached_property
    def uses(self) -> tuple[Use, ...]:
        """Every use of a matrix in one inference, in an order in which they can be executed.

        A layer uses its matrix once, with all its vectors. In a recurrence it does so once per step, with that step's
        vectors, and not before the step before has ended; where the shapes leave the number of steps open, one step is
        counted. Vectors that the shapes leave open count as one per use.
        """
        return tuple(_uses(self))

    def with_layers(self, layers: Iterable[MatrixLayer]) -> Network:
        """The same network with matrix layers replaced by those of the same name."""
        by_name = {layer.name: layer for layer in layers}
        return self.with_each(lambda node: (by_name.get(node.name, node) if isinstance(node, MatrixLayer) else node,))

    def with_each(self, change: Callable[[Executed], Sequence[Executed]]) -> Network:
        """The same network with every matrix layer and digital segment replaced by a run of them, in bodies too."""

        def changed(nodes: Iterable[Executed]) -> tuple[Executed, ...]:
            return tuple(new for node in nodes for new in change(node))

        result: list[NetworkNode] = []
        for node in self.nodes:
            result.extend(
                [replace(node, nodes=changed(node.nodes))] if isinstance(node, Recurrence) else changed([node])
            )
        return replace(self, nodes=tuple(result))

    def check(self) -> None:
        """Raise ValueError (our own fault, never the user's) when names clash, the order cannot be executed, or layers
        that share a matrix differ in it.
        """
        names = [node.name for node in (*self.nodes, *(n for r in self.recurrences for n in r.nodes))]
        if len(set(names)) != len(names):
            raise ValueError(f"node names repeat: {sorted({n for n in names if names.count(n) > 1})}")
        known = {value.name for value in self.inputs}
        for node in self.nodes:
            _check_reads(node, known)
            if isinstance(node, Recurrence):
                _check_body(node, known)
            known.update(node.output_names)
        missing = {value.name for value in self.outputs} - known
        if missing:
            raise ValueError(f"outputs {sorted(missing)} are never written")
        for layer, owner in zip(self.layers, self.matrices, strict=True):
            if not _same_matrix(layer, self.layers[owner]):
                raise ValueError(
                    f"{layer.name} and {self.layers[owner].name} share the matrix {layer.matrix!r}, but its weights or "
                    f"code differ; a layer whose weights are changed for it alone names no matrix: matrix=''"
                )


def _same_matrix(layer: MatrixLayer, owner: MatrixLayer) -> bool:
    """Whether two layers hold the same weights and code; one object is compared with itself at no cost."""
    if layer is owner:
        return True
    if layer.weight_code is not owner.weight_code and layer.weight_code != owner.weight_code:
        return False
    if layer.weight_code is not None or layer.weights is owner.weights:
        return True  # the real weights that were coded may be forgotten by now
    return np.array_equal(layer.weights, owner.weights)


def _check_reads(node: NetworkNode, known: set[str]) -> None:
    missing = set(node.input_names) - known
    if missing:
        raise ValueError(f"{node.name} reads {sorted(missing)} before anything writes it")
    twice = set(node.output_names) & known
    if twice:
        raise ValueError(f"{node.name} writes {sorted(twice)} a second time")


def _check_body(recurrence: Recurrence, known: set[str]) -> None:
    if not recurrence.sequences:
        raise ValueError(f"{recurrence.name} has no sequence to say how many steps there are")
    starts = {*(each.inner for each in recurrence.sequences), *(each.start for each in recurrence.states)}
    if starts & known:
        raise ValueError(f"{recurrence.name} uses {sorted(starts & known)} inside, which is a tensor outside")
    inside = known | starts
    for node in recurrence.nodes:
        _check_reads(node, inside)
        inside.update(node.output_names)
    known.update(inside)  # names inside are unique in the whole network


def _uses(network: Network, steps: int | None = None) -> list[Use]:
    """See `Network.uses`; `steps`: so few of every recurrence, in place of its own number, with all that they wait for."""
    index = {layer.name: i for i, layer in enumerate(network.layers)}
    matrices = network.matrices
    uses: list[Use] = []
    nothing: frozenset[int] = frozenset()
    waits: dict[str, frozenset[int]] = {}  # tensor -> uses whose results it is made of, through segments

    def run(node: Executed, parts: int) -> None:
        found = nothing.union(*(waits.get(name, nothing) for name in node.input_names))
        if isinstance(node, MatrixLayer):
            vectors = (node.vectors_per_inference or parts) // parts
            matrix = matrices[index[node.name]]
            use = Use(index[node.name], matrix, node.slices * vectors, tuple(sorted(found)), vectors)
            found = frozenset({len(uses)})
            uses.append(use)
        waits.update(dict.fromkeys(node.output_names, found))

    def latest(found: frozenset[int]) -> frozenset[int]:
        """Without uses that another one waits for itself: else the last of many steps would wait for each of them."""
        if steps is not None:
            return found
        return found - {before for use in found for before in uses[use].waits_for}

    for node in network.nodes:
        if not isinstance(node, Recurrence):
            run(node, 1)
            continue
        waits.update({each.inner: waits.get(each.outer, nothing) for each in node.sequences})
        waits.update({each.start: waits.get(each.initial, nothing) for each in node.states})
        stacked = dict.fromkeys((each.inner for each in node.outputs), nothing)
        begun = len(uses)
        for step in range(steps or node.steps or 1):
            if step and steps is None:  # a step's entries are cut when the step before has ended
                ended = latest(frozenset(range(begun, len(uses))))
                waits.update({each.inner: latest(ended | waits.get(each.outer, nothing)) for each in node.sequences})
            begun = len(uses)
            for inner in node.nodes:
                run(inner, node.steps or 1)
            stacked = {name: latest(found | waits.get(name, nothing)) for name, found in stacked.items()}
            waits.update({each.start: latest(waits.get(each.end, nothing)) for each in node.states})
        waits.update({each.final: waits[each.start] for each in node.states})
        waits.update({each.outer: stacked[each.inner] for each in node.outputs})
    return uses

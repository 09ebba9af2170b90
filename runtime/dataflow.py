"""Running a network node by node as soon as what each needs is there; matrix layers are left to the caller.

A `Flow` holds the tensors of one set of inputs. It runs digital segments on its own and stops where nothing but matrix layers
is left to do: `pending` says which, `give` takes their outputs. A recurrence is a flow inside a flow, one per step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from xbcompile.errors import DataError
from xbcompile.ir import DigitalSegment, MatrixLayer, Network, NetworkNode, Recurrence
from xbcompile.ir.vectors import lay_out
from xbcompile.onnx_graph.engine import ERRORS, one_line, open_session
from xbcompile.runtime.layer_input import LayerInput


class Pending(NamedTuple):
    """A matrix layer whose input is there.

    Attributes:
        layer: its index.
        step: how many steps its recurrence has done; 0 outside of recurrences.
        entry: the entry of the sequences that this step is at: the last comes first in a reverse recurrence.
    """

    layer: int
    step: int = 0
    entry: int = 0


class RunsSegment(Protocol):
    """What runs a digital segment: a session of onnxruntime."""

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        """Outputs of these names.

        Args:
            names: of the outputs.
            feeds: inputs by name.
        """


class Digital:
    """A network with its digital segments ready to run.

    Args:
        network: the network.
        more_reads: tensors that must be kept until a node has run, beside its inputs, by the node's name.
        segments: sessions of the network's digital segments by name; None: they are opened.
    """

    def __init__(
        self,
        network: Network,
        more_reads: Mapping[str, str] | None = None,
        segments: Mapping[str, RunsSegment] | None = None,
    ) -> None:
        self.network = network
        self.more_reads = more_reads or {}
        self.index = {layer.name: i for i, layer in enumerate(network.layers)}
        self.known_steps: dict[str, int] = {}  # of recurrences whose number of steps the model leaves open
        self.segments: Mapping[str, RunsSegment] = segments or {
            segment.name: open_session(segment.model) for segment in network.segments
        }

    def steps_of(self, node: Recurrence) -> int:
        """Number of steps of a recurrence, before its sequences are there; 0 where that is not known."""
        return node.steps or self.known_steps.get(node.name, 0)

    def needed(self, node: NetworkNode) -> tuple[str, ...]:
        """Tensors that must be there when a node runs."""
        more = self.more_reads.get(node.name)
        return node.input_names if more is None or more in node.input_names else (*node.input_names, more)


class Flow:
    """The tensors of one set of inputs on their way through the network.

    Args:
        digital: the network.
        feeds: graph inputs by name.
    """

    def __init__(self, digital: Digital, feeds: Mapping[str, Any]) -> None:
        network = digital.network
        self._body = _Body(digital, network.nodes, dict(feeds), {value.name for value in network.outputs})
        self._outputs = [value.name for value in network.outputs]
        self._body.advance()

    @property
    def pending(self) -> list[Pending]:
        """Layers that can run now, in order of the network."""
        return list(self._body.pending())

    @property
    def done(self) -> bool:
        """Whether all nodes have run."""
        return not self._body.waiting

    def values(self, layer: Pending) -> Mapping[str, Any]:
        """The tensors at hand where a pending layer is."""
        return self._body.holder(layer).values

    def give(self, layer: Pending, output: np.ndarray) -> None:
        """Add a pending layer's output, and run what can run then."""
        self._body.give(layer, output)

    @property
    def steps(self) -> dict[str, int]:
        """How many steps each recurrence has that was reached, by its name."""
        return dict(self._body.steps)

    def outputs(self) -> dict[str, Any]:
        """Graph outputs by name, once it is done."""
        return {name: self._body.values[name] for name in self._outputs}


class _Body:
    """Nodes in an order in which they can run, and their tensors."""

    def __init__(
        self,
        digital: Digital,
        nodes: Sequence[NetworkNode],
        values: dict[str, Any],
        kept: set[str],
        step: int = 0,
        entry: int = 0,
    ) -> None:
        self.digital, self.values, self.kept = digital, values, kept
        self.step, self.entry = step, entry
        self.waiting: dict[str, NetworkNode] = {node.name: node for node in nodes}
        self.loops: dict[str, _Loop] = {}
        self.steps: dict[str, int] = {}  # of recurrences
        self.readers = Counter(name for node in nodes for name in set(digital.needed(node)))

    def advance(self) -> None:
        """Run all that can run without a matrix layer."""
        progress = True
        while progress:
            progress = False
            for node in list(self.waiting.values()):
                if isinstance(node, Recurrence):
                    progress |= self._go_round(node)
                    continue
                if isinstance(node, MatrixLayer) or not self._ready(node):
                    continue
                names = list(node.output_names)
                results = self._run(node, names)
                self._finished(node, dict(zip(names, results, strict=True)))
                progress = True

    def _run(self, node: DigitalSegment, names: list[str]) -> list[Any]:
        """Outputs of a segment; what onnxruntime refuses to run is the inputs' fault, or the model's."""
        session = self.digital.segments[node.name]
        try:
            return session.run(names, {name: self.values[name] for name in node.input_names})
        except ERRORS as error:
            raise DataError(
                f"onnxruntime cannot run the model on these inputs: segment {node.name!r}: {one_line(error)}"
            ) from error

    def _ready(self, node: NetworkNode) -> bool:
        return all(name in self.values for name in node.input_names)

    def _finished(self, node: NetworkNode, results: dict[str, Any]) -> None:
        del self.waiting[node.name]
        self.values |= {name: value for name, value in results.items() if self.readers[name] or name in self.kept}
        for name in set(self.digital.needed(node)):
            self.readers[name] -= 1
            if not self.readers[name] and name not in self.kept:
                self.values.pop(name, None)

    def _go_round(self, node: Recurrence) -> bool:
        """Let a recurrence go as far as it can; whether it has ended. Its first step may read states alone: it begins when it is
        known that there is one, before the sequences are there.
        """
        if node.name not in self.loops:
            if not self._ready(node) and not self.digital.steps_of(node):
                return False
            self.loops[node.name] = _Loop(self.digital, node)
        self.loops[node.name].offer(self.values)
        self.steps[node.name] = self.loops[node.name].steps
        return self._loop_ended(node.name)

    def _loop_ended(self, name: str) -> bool:
        loop = self.loops[name]
        if loop.results is None:
            return False
        del self.loops[name]
        self._finished(loop.node, loop.results)
        return True

    def pending(self) -> Iterator[Pending]:
        for name, node in self.waiting.items():
            if name in self.loops:
                yield from self.loops[name].body.pending()
            elif isinstance(node, MatrixLayer) and self._ready(node):
                yield Pending(self.digital.index[name], self.step, self.entry)

    def _loop_of(self, layer: Pending) -> _Loop | None:
        name = self.digital.network.layers[layer.layer].name
        return next((loop for loop in self.loops.values() if any(name == each.name for each in loop.node.layers)), None)

    def holder(self, layer: Pending) -> _Body:
        """The body whose tensors a pending layer reads."""
        loop = self._loop_of(layer)
        return self if loop is None else loop.body

    def give(self, layer: Pending, output: np.ndarray) -> None:
        loop = self._loop_of(layer)
        if loop is not None:
            loop.give(layer, output)
            if self._loop_ended(loop.node.name):
                self.advance()
            return
        node = self.waiting[self.digital.network.layers[layer.layer].name]
        self._finished(node, {node.output_names[0]: output})
        self.advance()


class _Loop:
    """A recurrence at one of its steps."""

    def __init__(self, digital: Digital, node: Recurrence) -> None:
        self.digital, self.node = digital, node
        self.outside: dict[str, Any] = {}
        self.steps = digital.steps_of(node)
        self.state: dict[str, Any] = {}
        self.step = 0
        self.stacked: dict[str, dict[int, Any]] = {each.outer: {} for each in node.outputs}
        self.results: dict[str, Any] | None = None
        self.body = self._body()

    @property
    def _complete(self) -> bool:
        """Whether all tensors outside that it reads are there."""
        return len(self.outside) == len(self.node.input_names)

    def offer(self, values: Mapping[str, Any]) -> None:
        """Take what is there of the tensors outside, and go on."""
        new = {name: values[name] for name in self.node.input_names if name in values and name not in self.outside}
        self.outside |= new
        first = self.node.sequences[0].outer
        if first in new:
            self.steps = len(new[first])
            self.body.entry = self._entry  # of a reverse recurrence the last, known now
        if new:
            if self.step == 0:
                self.state |= {each.start: new[each.initial] for each in self.node.states if each.initial in new}
            self.body.values |= self._values()
        self._go_on()

    def _values(self) -> dict[str, Any]:
        """What the body reads at this step, as far as it is there."""
        node, outside = self.node, self.outside
        values = {name: outside[name] for name in node.outer_reads if name in outside} | self.state
        if self.step < self.steps:
            cut = (each for each in node.sequences if each.outer in outside)
            values |= {each.inner: outside[each.outer][self._entry] for each in cut}
        return values

    @property
    def _entry(self) -> int:
        return self.steps - 1 - self.step if self.node.reverse else self.step

    def _body(self) -> _Body:
        node = self.node
        kept = {*(each.end for each in node.states), *(each.inner for each in node.outputs)}
        return _Body(self.digital, node.nodes, self._values(), kept, self.step, self._entry)

    def give(self, layer: Pending, output: np.ndarray) -> None:
        self.body.give(layer, output)
        self._go_on()

    def _go_on(self) -> None:
        """Go from step to step until one waits for a layer, or for something outside."""
        while self.step < self.steps:
            self.body.advance()
            values = self.body.values
            ends = (*(each.end for each in self.node.states), *(each.inner for each in self.node.outputs))
            if self.body.waiting or not all(name in values for name in ends):
                return
            for each in self.node.outputs:
                self.stacked[each.outer][self.body.entry] = values[each.inner]
            self.state = {each.start: values[each.end] for each in self.node.states}
            self.step += 1
            self.body = self._body()
        if not self._complete:
            return
        self.results = {each.final: self.state[each.start] for each in self.node.states}
        if self.steps:
            stacked = self.stacked.items()
            self.results |= {name: np.stack([entries[i] for i in range(self.steps)]) for name, entries in stacked}
        elif self.node.outputs:
            self.results |= self._no_steps()

    def _no_steps(self) -> dict[str, np.ndarray]:
        """Stacked outputs of no step: their shapes are those of a step on zeros, in which no array is read."""
        body = self.body
        for each in self.node.sequences:
            entries = self.outside[each.outer]
            body.values[each.inner] = np.zeros(entries.shape[1:], entries.dtype)
        body.advance()
        while body.waiting:
            pending = next(body.pending())
            layer = self.digital.network.layers[pending.layer]
            body.give(pending, _zeros(layer, body.values[layer.input]))
        found = {each: body.values[each.inner] for each in self.node.outputs}
        return {each.outer: np.empty((0, *value.shape), value.dtype) for each, value in found.items()}


def count_steps(digital: Digital, feeds: Mapping[str, Any]) -> dict[str, int]:
    """How many steps each recurrence makes on these inputs: that is a matter of shapes, so layers give zeros."""
    return _dry_run(Digital(digital.network, segments=digital.segments), feeds, lambda values, output: None).steps


def count_bytes(digital: Digital, feeds: Mapping[str, Any]) -> int:
    """Bytes that the tensors of a call take at most at a time: those that wait for their readers, and what a layer gives or a
    segment takes and gives, which onnxruntime copies. A matter of shapes, too.
    """
    waiting = most = 0

    def layer_done(values: Mapping[str, Any], output: np.ndarray) -> None:
        nonlocal waiting, most
        waiting = _bytes(values.values()) + output.nbytes
        most = max(most, waiting)

    def segment_done(taken: Mapping[str, Any], given: Sequence[Any]) -> None:
        nonlocal most
        most = max(most, waiting + _bytes(taken.values()) + 2 * _bytes(given))

    watched = {name: _Watched(session, segment_done) for name, session in digital.segments.items()}
    _dry_run(Digital(digital.network, segments=watched), feeds, layer_done)
    return most


def _bytes(values: Iterable[Any]) -> int:
    return sum(getattr(value, "nbytes", 0) for value in values)


class _Watched:
    """A segment whose runs are told."""

    def __init__(self, session: RunsSegment, done: Callable[[Mapping[str, Any], Sequence[Any]], None]) -> None:
        self.session, self.done = session, done

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        """See RunsSegment."""
        given = self.session.run(names, feeds)
        self.done(feeds, given)
        return given


def _dry_run(digital: Digital, feeds: Mapping[str, Any], done: Callable[[Mapping[str, Any], np.ndarray], None]) -> Flow:
    """A flow through all nodes, with zeros from the layers; `done` is told the tensors at hand and the output of each."""
    flow = Flow(digital, feeds)
    while not flow.done:
        at = flow.pending[0]
        layer, values = digital.network.layers[at.layer], flow.values(at)
        output = _zeros(layer, values[layer.input])
        done(values, output)
        flow.give(at, output)
    return flow


def _zeros(layer: MatrixLayer, x: np.ndarray) -> np.ndarray:
    """An output tensor of the shape that a layer gives for its input."""
    source = LayerInput(layer, x, both_signs=False)
    return lay_out(layer, np.zeros((source.count, layer.groups * layer.outputs), x.dtype), source.shape)


# In place of a matrix layer: takes the tensors at hand of several flows to its outputs, one for each.
Execute = Callable[[Pending, Sequence[Mapping[str, Any]]], Sequence[np.ndarray]]


def walk(digital: Digital, chunks: Sequence[Mapping[str, Any]], execute: Execute) -> list[dict[str, Any]]:
    """Run the network on several sets of inputs side by side, layer after layer.

    Args:
        digital: the network.
        chunks: graph inputs by name, each what the model takes in one call.
        execute: in place of each matrix layer.

    Returns:
        graph outputs by name, for each set.
    """
    flows = [Flow(digital, feeds) for feeds in chunks]
    while any(not flow.done for flow in flows):
        layer = min(flow.pending[0] for flow in flows if not flow.done)
        mine = [flow for flow in flows if layer in flow.pending]
        outputs = execute(layer, [flow.values(layer) for flow in mine])
        for flow, output in zip(mine, outputs, strict=True):
            flow.give(layer, output)
    return [flow.outputs() for flow in flows]

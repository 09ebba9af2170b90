"""A recurrence: nodes that are executed once per step of a sequence, with states carried from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.layer import DigitalSegment, MatrixLayer


@dataclass(frozen=True)
class SequenceInput:
    """A tensor that is cut along axis 0, one entry per step.

    Args:
        outer: the tensor [steps, ...] outside.
        inner: one step's entry [...] inside.
    """

    outer: str
    inner: str


@dataclass(frozen=True)
class State:
    """A tensor that is carried from step to step.

    Args:
        initial: its value before the first step, outside.
        start: its value at the start of a step, inside.
        end: its value at the end of a step, inside.
        final: its value after the last step, outside.
    """

    initial: str
    start: str
    end: str
    final: str


@dataclass(frozen=True)
class StackedOutput:
    """A tensor of the body whose values at all steps are stacked along a new axis 0.

    Args:
        inner: the tensor [...] inside.
        outer: all of them, [steps, ...], outside.
    """

    inner: str
    outer: str


@dataclass(frozen=True, eq=False)
class Recurrence(ContentEqual):
    """A body of nodes executed once per step. Names of tensors and nodes are unique in the whole network.

    The number of steps is the length of the sequences, found when it runs; with no step at all states end as they
    start. The body may read any tensor outside as it is. A body holds no recurrence.

    Args:
        name: unique.
        nodes: the body in an order in which it can be executed.
        sequences: what is cut, at least one; all of the same length.
        states: what is carried.
        outputs: what is stacked.
        reverse: steps go from the last entry of the sequences to the first; stacked outputs lie as the sequences do.
        steps: the length of the sequences where the shapes tell it.
    """

    name: str
    nodes: tuple[MatrixLayer | DigitalSegment, ...]
    sequences: tuple[SequenceInput, ...]
    states: tuple[State, ...]
    outputs: tuple[StackedOutput, ...]
    reverse: bool = False
    steps: int | None = None

    @property
    def layers(self) -> tuple[MatrixLayer, ...]:
        """The body's matrix layers in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, MatrixLayer))

    @property
    def segments(self) -> tuple[DigitalSegment, ...]:
        """The body's digital segments in execution order."""
        return tuple(node for node in self.nodes if isinstance(node, DigitalSegment))

    @property
    def inner_names(self) -> tuple[str, ...]:
        """Tensors that exist inside only."""
        starts = (*(each.inner for each in self.sequences), *(each.start for each in self.states))
        return (*starts, *(name for node in self.nodes for name in node.output_names))

    @property
    def outer_reads(self) -> tuple[str, ...]:
        """Tensors outside that the body reads as they are."""
        inner = set(self.inner_names)
        names = (*self._names_read_inside(), *(each.inner for each in self.outputs), *(s.end for s in self.states))
        return tuple(dict.fromkeys(name for name in names if name not in inner))

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensors outside that must be there before the first step, as `DigitalSegment` has them."""
        cut, initial = (each.outer for each in self.sequences), (each.initial for each in self.states)
        return tuple(dict.fromkeys((*cut, *initial, *self.outer_reads)))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Tensors outside that it writes."""
        return (*(each.final for each in self.states), *(each.outer for each in self.outputs))

    def _names_read_inside(self) -> Iterator[str]:
        for node in self.nodes:
            yield from node.input_names

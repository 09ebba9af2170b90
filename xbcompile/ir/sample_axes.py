"""What counts as a sample: the axes of graph inputs and outputs along which samples lie, asked by all that cut or count them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbcompile.errors import DataError


@dataclass(frozen=True)
class SampleAxes:
    """Which axis of each input and output holds samples, and how many of them one call of the model takes.

    An input without such an axis is the same for all samples of a call. It may be given once, as the model wants it, or once per
    call, with one more axis in front. Where no input has one, each call of the model is one sample.

    Args:
        inputs: of each graph input its axis of samples, counted from 0; None: it holds none.
        outputs: likewise of each graph output; None: each call gives one value, which is `shared`, or the sample's own.
        ranks: number of axes of the inputs for which the model states it.
        call: samples of every call of the model; None: any number.
        shared: outputs that are the same for all samples.
        mixed: samples of one call influence each other, so that those of a data set go into calls of their own.
    """

    inputs: Mapping[str, int | None] = field(default_factory=dict)
    outputs: Mapping[str, int | None] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    call: int | None = None
    shared: tuple[str, ...] = ()
    mixed: bool = False

    @property
    def parted(self) -> bool:
        """Whether inputs hold samples along an axis, so that a call may be cut."""
        return any(axis is not None for axis in self.inputs.values())

    @property
    def per_call(self) -> int:
        """Samples that a call takes at least."""
        return self.call or 1

    def given_per_call(self, feeds: Mapping[str, Any]) -> tuple[str, ...]:
        """Inputs without samples that come with one more axis in front, which counts calls."""
        ranks = {name: rank for name, rank in self.ranks.items() if self.inputs.get(name) is None}
        return tuple(name for name, rank in ranks.items() if name in feeds and np.ndim(feeds[name]) == rank + 1)

    def counts(self, feeds: Mapping[str, Any]) -> dict[str, int]:
        """Samples that each input holds, of those that hold any."""
        found = {
            name: int(np.shape(feeds[name])[axis])
            for name, axis in self.inputs.items()
            if axis is not None and name in feeds and np.ndim(feeds[name]) > axis
        }
        return found | {name: len(feeds[name]) * self.per_call for name in self.given_per_call(feeds)}

    def samples(self, feeds: Mapping[str, Any]) -> int:
        """Number of samples; 1 where no input holds any.

        Args:
            feeds: graph inputs by name; an input with a single sample goes with all samples of the others.
        """
        counts = set(self.counts(feeds).values())
        return max(counts - {1}, default=min(counts, default=1)) if 0 not in counts else 0

    def checked_samples(self, feeds: Mapping[str, Any]) -> int:
        """`samples` of inputs that go together.

        Args:
            feeds: graph inputs by name.

        Raises:
            DataError: there are none, inputs disagree, or they do not fill calls of the model.
        """
        counts, samples = self.counts(feeds), self.samples(feeds)
        if samples == 0:
            raise DataError("there are no samples to run")
        once = self.call == 1  # a single one then goes with all samples
        if any(n != samples and not (n == 1 and once) for n in counts.values()):
            raise DataError(f"inputs have different numbers of samples: {counts}; {self.words(counts)}")
        if self.call and self.parted and samples % self.call:
            raise DataError(
                f"{samples} samples do not fill the model's fixed batch of {self.call}; give a multiple of {self.call}"
            )
        return samples

    def whole(self, samples: int) -> int:
        """The largest number of samples, at most this many, that fills calls of the model; 0 where none is full.

        Args:
            samples: so many at most.
        """
        return samples - samples % self.per_call

    def chunk(self, feeds: Mapping[str, Any], wanted: int) -> int:
        """Samples that one call takes: `wanted`, unless the model or its inputs say another number.

        Args:
            feeds: graph inputs by name.
            wanted: samples.
        """
        return self.call or (1 if self.given_per_call(feeds) else wanted)

    def cuts(self, name: str, value: Any) -> bool:
        """Whether calls take some of an input's samples each; one that holds none, or a single one, may go with all.

        Args:
            name: of the input.
            value: all its samples.
        """
        axis = self.inputs.get(name)
        return axis is not None and np.ndim(value) > axis and int(np.shape(value)[axis]) > 1

    def part(self, feeds: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """Some samples of all inputs, as one call takes them; inputs that hold none are the same for all.

        Args:
            feeds: graph inputs by name.
            start: the first sample.
            stop: end; no more than one call where inputs are given per call.
        """
        samples, stacked = self.samples(feeds), self.given_per_call(feeds)

        def cut(name: str, value: Any) -> Any:
            if name in stacked:
                return value[start // self.per_call if len(value) > 1 else 0, ...]  # of scalars arrays, too
            axis = self.inputs.get(name)
            if axis is None or np.ndim(value) <= axis or (value.shape[axis] == 1 and samples > 1):
                return value
            return value[(slice(None),) * axis + (slice(start, stop),)]

        return {name: cut(name, value) for name, value in feeds.items()}

    def first(self, feeds: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """The first samples of all inputs, in the form in which they came.

        Args:
            feeds: graph inputs by name.
            samples: so many at most.
        """
        stacked, calls = self.given_per_call(feeds), -(-samples // self.per_call)
        rest = {name: value for name, value in feeds.items() if name not in stacked}
        return self.part(rest, 0, samples) | {name: feeds[name][:calls] for name in stacked}

    def rest(self, feeds: Mapping[str, Any], samples: int) -> dict[str, Any]:
        """All but the `first` samples of all inputs, in the form in which they came.

        Args:
            feeds: graph inputs by name.
            samples: so many first ones are left out, in whole calls.
        """
        stacked, last = self.given_per_call(feeds), self.samples(feeds)
        given = {name: value for name, value in feeds.items() if name not in stacked}
        return self.part(given, samples, last) | {name: feeds[name][samples // self.per_call :] for name in stacked}

    def parts(self, feeds: Mapping[str, Any], wanted: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The calls that run all samples: (first sample, inputs of the call).

        Args:
            feeds: graph inputs by name.
            wanted: samples per call where model and inputs leave that open.
        """
        size = self.chunk(feeds, wanted)
        for start in range(0, self.samples(feeds), size):
            yield start, self.part(feeds, start, start + size)

    def join(self, parts: Sequence[Mapping[str, Any]], stack: bool = False) -> dict[str, Any]:
        """Outputs of calls as those of one: along the axis of samples, or a new axis 0 for what has none.

        Args:
            parts: outputs by name of each call, in order.
            stack: inputs without samples differed from call to call, and so may all outputs.
        """
        if not (self.parted or stack):
            assert len(parts) == 1
            return dict(parts[0])
        return {name: self._joined(name, [part[name] for part in parts], stack) for name in parts[0]}

    def _joined(self, name: str, values: Sequence[Any], stack: bool) -> Any:
        axis = self.outputs.get(name)
        if axis is None:
            return values[0] if name in self.shared and not stack else np.stack(values)
        if isinstance(values[0], list):
            return [each for value in values for each in value]
        return values[0] if len(values) == 1 else np.concatenate(values, axis)

    def samples_first(self, name: str, output: np.ndarray) -> np.ndarray:
        """A joined output with its axis of samples in front.

        Args:
            name: of the output.
            output: its value for all samples.
        """
        return np.moveaxis(output, self.outputs.get(name) or 0, 0) if np.ndim(output) else output

    def words(self, names: Mapping[str, Any] | None = None) -> str:
        """Where samples lie, as users read it.

        Args:
            names: inputs to speak of; None: all.
        """
        places = [
            f"axis {axis} of {name}"
            for name, axis in self.inputs.items()
            if axis is not None and (names is None or name in names)
        ]
        if not places:
            return "each call of the model is one sample"
        return f"{' and '.join(places)} {'counts' if len(places) == 1 else 'count'} samples"

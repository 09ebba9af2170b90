"""Which axes of a model's inputs may count samples, the likeliest first: by names, by operators, by position."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx

from xbcompile.errors import ModelError, shown, written
from xbcompile.onnx_graph.dimensions import is_fixed, open_dimensions

EVERY_INPUT = "*"  # in what users say: all inputs
MOST_CANDIDATES = 8  # assumed: what comes later is not worth the time

_BATCH = re.compile(r"(n|b|bs|.*batch.*|.*samples?)", re.IGNORECASE)
_ALONG = re.compile(r"(t|l|s|h|w|.*(seq|time|len|frame|step|token|height|width|point).*)", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """Axes that may count samples.

    Args:
        axes: of every graph input its axis; None: it holds no samples.
        size: samples that a call takes; None: any number.
    """

    axes: Mapping[str, int | None]
    size: int | None

    @property
    def counts(self) -> dict[str, int]:
        """The inputs that hold samples, and along which axis."""
        return {name: axis for name, axis in self.axes.items() if axis is not None}

    def agrees(self, given: Mapping[str, int | None]) -> bool:
        """Whether it is what users say."""
        return all(self.axes[name] == axis for name, axis in given.items())


def candidates(inputs: Sequence[onnx.ValueInfoProto], second_axis: Collection[str]) -> list[Candidate]:
    """Candidates in the order in which they are to be tried.

    Names of open dimensions that speak of a batch come first, then symbols that inputs share, then axis 1 of what recurrent
    operators read, then axis 0, and then any other open axis.

    Args:
        inputs: the model's graph inputs.
        second_axis: those that recurrent operators read with their batch on axis 1.
    """
    dims = {value.name: value.type.tensor_type.shape.dim for value in inputs}
    symbols = _symbols(inputs)
    first_open = {name for name, each in dims.items() if len(each) and not is_fixed(each[0])}
    likely = [each for name, each in symbols if _BATCH.fullmatch(name) and first_open <= each.keys()]
    shared = [each for name, each in symbols if len(each) > 1 and not _ALONG.fullmatch(name)]
    found = [Candidate(each, None) for each in (*likely, *shared)]
    if second_axis:
        found += _along(dims, {name: int(name in second_axis and len(each) > 1) for name, each in dims.items()})
    found += _along(dims, dict.fromkeys(dims, 0))
    rest = sorted(symbols, key=lambda each: (bool(_ALONG.fullmatch(each[0])), -len(each[1])))
    found += [Candidate(each, None) for _, each in rest]
    whole = [Candidate({name: each.axes.get(name) for name in dims}, each.size) for each in found]
    return [each for i, each in enumerate(whole) if each not in whole[:i]][:MOST_CANDIDATES]


def _symbols(inputs: Sequence[onnx.ValueInfoProto]) -> list[tuple[str, dict[str, int]]]:
    """Open dimensions that stand on one axis of an input at most, by name, those of many inputs first."""
    found = [(name, dict(places)) for name, places in open_dimensions(inputs).items()]
    kept = [each for each in found if len(each[1]) == len(open_dimensions(inputs)[each[0]])]
    return sorted(kept, key=lambda each: (-len(each[1]), max(each[1].values())))


def _along(dims: Mapping[str, Sequence[onnx.TensorShapeProto.Dimension]], axes: Mapping[str, int]) -> list[Candidate]:
    """Candidates on one axis of each input: those that are open there, else those of one fixed size."""
    sized = {name: dims[name][axis] for name, axis in axes.items() if axis < len(dims[name])}
    free = {name: axes[name] for name, dim in sized.items() if not is_fixed(dim)}
    if free:
        return [Candidate(free, None)]
    sizes = Counter(dim.dim_value for dim in sized.values() if dim.dim_value)
    found = []
    for size in sorted(sizes, key=lambda size: (size == 1, -sizes[size])):
        places = {name: _sized_axis(each, axes[name], size) for name, each in dims.items()}
        if size == 1 or all(places[name] is not None for name, each in dims.items() if len(each) > 1):
            found.append(Candidate(places, size))
    return found


def _sized_axis(dims: Sequence[onnx.TensorShapeProto.Dimension], likely: int, size: int) -> int | None:
    """The axis of this fixed size, of several the likely one, else the first."""
    fitting = [axis for axis, dim in enumerate(dims) if is_fixed(dim) and int(dim.dim_value) == size]
    return likely if likely in fitting else next(iter(fitting), None)


def parse_axes(settings: Collection[str]) -> dict[str, int | None]:
    """Axes of samples by input from texts: `AXIS` or `none` for all inputs, `INPUT=AXIS` or `INPUT=none` for one.

    Args:
        settings: the texts.

    Raises:
        ModelError: a text is not of that form.
    """
    axes: dict[str, int | None] = {}
    for setting in settings:
        name, _, text = setting.rpartition("=")
        if text != "none" and not re.fullmatch(r"\d{1,3}", text, re.ASCII):
            raise ModelError(
                f"--batch-axis {written(setting)}: write --batch-axis AXIS, or --batch-axis INPUT=AXIS for one input, with "
                f"the number of the axis that counts samples, from 0, or none"
            )
        axes[name or EVERY_INPUT] = None if text == "none" else int(text)
    return axes


def given_axes(inputs: Sequence[onnx.ValueInfoProto], given: Mapping[str, int | None]) -> dict[str, int | None]:
    """What users say of single inputs, `EVERY_INPUT` written out.

    Args:
        inputs: the model's graph inputs.
        given: axes by input, or for `EVERY_INPUT`.

    Raises:
        ModelError: there is no such input, or it has no such axis.
    """
    ranks = {value.name: _rank(value) for value in inputs}
    unknown = sorted(given.keys() - ranks.keys() - {EVERY_INPUT})
    if unknown:
        raise ModelError(f"--batch-axis {written(unknown[0])}: the model's inputs are {', '.join(ranks) or 'none'}")
    axes = dict.fromkeys(ranks, given[EVERY_INPUT]) if EVERY_INPUT in given else {}
    axes |= {name: axis for name, axis in given.items() if name != EVERY_INPUT}
    for name, axis in axes.items():
        rank = ranks[name]
        if axis is not None and rank is not None and not 0 <= axis < rank:
            raise ModelError(
                f"--batch-axis {written(name)}={shown(axis)}: the input has {rank} axes, counted from 0; give one of "
                f"them, or none"
            )
    return axes


def _rank(value: onnx.ValueInfoProto) -> int | None:
    kind = value.type
    return len(kind.tensor_type.shape.dim) if kind.tensor_type.HasField("shape") else None


def candidate_of(inputs: Sequence[onnx.ValueInfoProto], axes: Mapping[str, int | None]) -> Candidate:
    """What users say, and of the inputs that they do not name those with the same symbol.

    Args:
        inputs: the model's graph inputs.
        axes: see `given_axes`.
    """
    dims = {value.name: value.type.tensor_type.shape.dim for value in inputs}
    chosen = [dims[name][axis] for name, axis in axes.items() if axis is not None and axis < len(dims[name])]
    symbols = {dim.dim_param for dim in chosen} - {""}
    whole: dict[str, int | None] = {
        name: next((axis for axis, dim in enumerate(each) if dim.dim_param in symbols), None)
        for name, each in dims.items()
    }
    sizes = {dim.dim_value if is_fixed(dim) else None for dim in chosen}
    return Candidate(whole | dict(axes), sizes.pop() if len(sizes) == 1 else None)


def ranks_of(inputs: Sequence[onnx.ValueInfoProto]) -> dict[str, int]:
    """Number of axes of the tensors among the inputs, where the model states it."""
    return {value.name: rank for value in inputs if (rank := _rank(value)) is not None}

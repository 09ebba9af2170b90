"""What a manifest may say: every field with its type and range, so that nothing behind it meets another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**62)]
Positive = Annotated[int, Meta(ge=1, le=2**62)]
Size = Annotated[int, Meta(ge=1, le=2**40)]  # of an axis of a matrix, or of a kernel
Axis = Annotated[int, Meta(ge=0, le=63)]
Seconds = Annotated[float, Meta(ge=0, le=1e100)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]
FromTheEnd = Literal[-1, -2]
Member = Annotated[str, Meta(pattern=r"^tensors/[0-9a-f]{64}\Z")]
Version = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON object that has all these keys and no others."""


class ContractionEntry(Entry, tag_field="kind", tag="Contraction"):
    """See `ir.Contraction`."""

    input_axis: FromTheEnd
    output_axis: FromTheEnd
    squeeze: bool


class PatchesEntry(Entry, tag_field="kind", tag="Patches"):
    """See `ir.Patches`."""

    kernel: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=3)]
    strides: tuple[Size, ...]
    dilations: tuple[Size, ...]
    pads: tuple[Annotated[int, Meta(ge=0, le=2**40)], ...]
    auto_pad: Annotated[str, Meta(pattern=r"^(NOTSET|VALID|SAME_UPPER|SAME_LOWER)\Z")]


class InputCodeEntry(Entry):
    """See `ir.InputCode`."""

    scheme: Annotated[str, Meta(pattern=r"^(analogue|thermometer|bitserial)\Z")]
    bits: Annotated[int, Meta(ge=1, le=255)]
    low: Finite | None
    high: Finite | None
    span: Finite | None


class InputGridEntry(Entry):
    """See `ir.InputGrid`."""

    tensor: str
    low: Finite
    step: Finite
    steps: Count
    window: Count | None


class LayerEntry(Entry):
    """A matrix layer, see `ir.MatrixLayer`; its tensors are described apart."""

    layer: str
    input: str
    output: str
    matrix: str
    shape: tuple[Size, Size, Size]
    geometry: ContractionEntry | PatchesEntry
    element_type: Literal[1, 6, 10, 11]  # float, int32, float16, double
    vectors_per_inference: Positive | None
    sample_axis: Axis
    input_code: InputCodeEntry | None
    stands_for: str
    input_grid: InputGridEntry | None


class SegmentEntry(Entry):
    """A run of nodes of the host graph, see `ir.DigitalSegment`."""

    segment: str
    first: Count
    count: Count
    constants: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class SequenceEntry(Entry):
    """See `ir.SequenceInput`."""

    outer: str
    inner: str


class StateEntry(Entry):
    """See `ir.State`."""

    initial: str
    start: str
    end: str
    final: str


class StackedEntry(Entry):
    """See `ir.StackedOutput`."""

    inner: str
    outer: str


class RecurrenceEntry(Entry):
    """See `ir.Recurrence`."""

    recurrence: str
    position: Count
    nodes: list[dict[str, Any]]
    sequences: tuple[SequenceEntry, ...]
    states: tuple[StateEntry, ...]
    outputs: tuple[StackedEntry, ...]
    reverse: bool
    steps: Positive | None


class TensorEntry(Entry):
    """Where a tensor is, and what it is made of."""

    member: Member
    element_type: Annotated[str, Meta(pattern=r"^(float32|uint8)\Z")]
    shape: tuple[Annotated[int, Meta(ge=0, le=2**40)], ...]


class LayerTensors(Entry, omit_defaults=True):
    """The tensors of a layer; the weight code of layers that share a matrix is with the first."""

    bias: TensorEntry
    codes: TensorEntry | None = None
    scale: TensorEntry | None = None
    offset: TensorEntry | None = None


class SamplesEntry(Entry):
    """See `ir.SampleAxes`."""

    inputs: tuple[tuple[str, Axis | None], ...]
    outputs: tuple[tuple[str, Axis | None], ...]
    ranks: tuple[tuple[str, Axis], ...]
    call: Annotated[int, Meta(ge=1, le=2**28)] | None
    shared: tuple[str, ...]
    mixed: bool


class RecordEntry(Entry):
    """See `ir.LoweringRecord`."""

    node: str
    operator: str
    lowered: bool
    reason: str
    layers: tuple[str, ...]


class ScheduleEntry(Entry):
    """See `ir.Schedule`; its tables are members of their own."""

    rows: Size
    columns: Size
    arrays: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    batch: Positive
    setup_s: Seconds
    period_s: Seconds
    objective: str
    images_lower_bound: Count
    packing_status: Annotated[str, Meta(pattern=r"^(optimal|feasible|unpacked)\Z")]
    makespan_lower_bound_s: Seconds
    period_lower_bound_s: Seconds
    weight_updates_lower_bound: Count
    cells_written: Count | None
    floorplan: str
    hop_values: Annotated[int, Meta(ge=0)]
    hop_values_lower_bound: Annotated[int, Meta(ge=0)]


class Manifest(Entry):
    """`manifest.json`; `nodes` are read by `node_entries`."""

    format_version: int
    xbcompile_version: str
    pipeline: str
    options: dict[str, Any]
    cuts: Annotated[str, Meta(pattern=r"^(greedy|balanced|free)\Z")]
    packing: Annotated[str, Meta(pattern=r"^(dense|in-order|none)\Z")]
    notes: tuple[str, ...]
    calibration: tuple[str, ...]
    ir_version: Version
    schedule: ScheduleEntry
    samples: SamplesEntry
    records: tuple[RecordEntry, ...]
    nodes: list[dict[str, Any]]
    tensors: tuple[LayerTensors, ...]


NodeEntry = LayerEntry | SegmentEntry | RecurrenceEntry
Kind = TypeVar("Kind")


class Malformed(ValueError):
    """A part of a file says something that it may not; the message names field, found and allowed."""


def parsed_json(content: bytes, name: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        content: its text, in UTF-8.
        name: of the member that holds it, for messages.

    Raises:
        Malformed: it is no JSON, too deep, no object, or a text in it is none.
    """
    try:
        found = json.loads(content)
    except RecursionError:
        raise Malformed(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise Malformed(f"{name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise Malformed(f"{name} holds no object but {type(found).__name__}")
    if b"\\ud" in content.lower():
        _check_texts(found, name)
    return found


def _check_texts(found: dict[str, Any], name: str) -> None:
    """Raise Malformed for half of a pair of surrogates, which JSON can escape and no text holds."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name} holds a text that is none: half of a pair of surrogates") from None


def checked(value: Any, kind: type[Kind], name: str) -> Kind:
    """What JSON gave, as a type.

    Args:
        value: dicts, lists, numbers and texts.
        kind: a type of this module.
        name: where the value stands, for messages.

    Raises:
        Malformed: a field is missing, unknown, of another type or out of range.
    """
    try:
        return msgspec.convert(value, kind)
    except RecursionError:
        raise Malformed(f"{name} is nested too deeply") from None
    except msgspec.ValidationError as error:
        what, _, path = str(error).rpartition(" - at `$")
        where = f"{name}{path.removesuffix('`')}" if what else name
        raise Malformed(f"{where}: {what or error}") from None


def node_entries(nodes: Sequence[dict[str, Any]], name: str = "manifest.json.nodes") -> Iterator[NodeEntry]:
    """The nodes of a network or of a recurrence's body, in their order.

    Args:
        nodes: as the manifest has them.
        name: where they stand, for messages.

    Raises:
        Malformed: see `checked`.
    """
    kinds: dict[str, type[Any]] = {"recurrence": RecurrenceEntry, "segment": SegmentEntry, "layer": LayerEntry}
    for i, node in enumerate(nodes):
        kind = next((kinds[key] for key in kinds if key in node), LayerEntry)
        yield checked(node, kind, f"{name}[{i}]")

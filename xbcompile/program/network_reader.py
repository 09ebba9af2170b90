"""A network from a program file: rebuilt from its description, which must be that of the host graph beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from msgspec.structs import asdict
from onnx import helper

from xbcompile.ir import (
    ArraySpec,
    Contraction,
    DigitalSegment,
    Geometry,
    InputCode,
    InputGrid,
    MatrixLayer,
    Network,
    NetworkNode,
    Patches,
    Recurrence,
    SampleAxes,
    Schedule,
    SequenceInput,
    StackedOutput,
    State,
    WeightCode,
)
from xbcompile.ir.input_code import drives_rows
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.onnx_graph.dimensions import is_fixed
from xbcompile.onnx_graph.domains import XBCOMPILE
from xbcompile.onnx_graph.split_model import SplitModel, fill, is_apart
from xbcompile.program.archive import Archive
from xbcompile.program.manifest import (
    ContractionEntry,
    LayerEntry,
    Malformed,
    Manifest,
    NodeEntry,
    RecurrenceEntry,
    SamplesEntry,
    SegmentEntry,
    TensorEntry,
    node_entries,
)
from xbcompile.program.network_file import code_bits, unpack_codes
from xbcompile.reference.host_graph import layer_parameters
from xbcompile.reference.host_recurrence import body_of, is_scan, is_wired_as

# Steps of a recurrence times the nodes of its body; assumed: a schedule of more takes minutes to look through.
MOST_STEPS = 2**21
# Elements of the smallest input that a convolution takes, with its padding; assumed to fit into any memory.
LARGEST_PATCH = 2**26


def layer_entries(entries: Iterable[NodeEntry]) -> list[LayerEntry]:
    """The layers among nodes in order of execution, those in bodies of recurrences too.

    Args:
        entries: as the manifest describes them.

    Raises:
        Malformed: a node in a body is not described as it must be.
    """
    found: list[LayerEntry] = []
    for entry in entries:
        if isinstance(entry, RecurrenceEntry):
            inner = node_entries(entry.nodes, f"manifest.json: recurrence {entry.recurrence!r}.nodes")
            found += [each for each in inner if isinstance(each, LayerEntry)]
        elif isinstance(entry, LayerEntry):
            found.append(entry)
    return found


def host_of(stored: SplitModel, network: Network) -> SplitModel:
    """The host graph of a file, its layers' parameters taken from the network.

    Raises:
        Malformed: it needs a tensor that neither the file nor the network has, or one of another shape or element type.
    """
    own, tensors = layer_parameters(network), {}
    for initializer in filter(is_apart, stored.skeleton.graph.initializer):
        name = initializer.name
        found = stored.tensors.get(name, own.get(name))
        if found is None:
            raise Malformed(f"host.onnx: initializer {name!r} is neither stored nor a parameter of a layer")
        if found.shape != tuple(initializer.dims) or found.dtype != helper.tensor_dtype_to_np_dtype(
            initializer.data_type
        ):
            raise Malformed(
                f"host.onnx: initializer {name!r} has shape {list(initializer.dims)}; its layer's is {list(found.shape)}"
            )
        tensors[name] = found
    return SplitModel(stored.skeleton, tensors)


class NodeReader:
    """Rebuilds the network's nodes, in the order in which they are described, which must be that of the host graph.

    Args:
        archive: the program file.
        host: the host graph as it is stored.
        manifest: the whole manifest.
        schedule: the tables.
        spec: the target's array.
    """

    def __init__(
        self, archive: Archive, host: SplitModel, manifest: Manifest, schedule: Schedule, spec: ArraySpec
    ) -> None:
        self.archive, self.host, self.schedule, self.spec = archive, host, schedule, spec
        self.tensors, self.ir_version = manifest.tensors, manifest.ir_version
        self.layers: list[MatrixLayer] = []
        self.codes: dict[str, WeightCode] = {}  # by the name of the matrix
        graph = host.skeleton.graph
        self.types = _types_of(graph)
        self.initializers = {initializer.name: i for i, initializer in enumerate(graph.initializer)}

    def nodes(self, entries: Sequence[NodeEntry]) -> tuple[NetworkNode, ...]:
        """The nodes of the network.

        Args:
            entries: as the manifest describes them.

        Raises:
            Malformed: they are not those of the host graph.
        """
        found = tuple(self._nodes(self.host.skeleton.graph, entries))
        if len(self.layers) != len(self.tensors):
            raise Malformed(
                f"manifest.json.tensors: they are of {len(self.tensors)} layers; there are {len(self.layers)}"
            )
        return found

    def _nodes(self, graph: onnx.GraphProto, entries: Sequence[NodeEntry]) -> Iterator[NetworkNode]:
        """The nodes of the host graph or of a body in it, each in its place."""
        position = 0
        for entry in entries:
            count = entry.count if isinstance(entry, SegmentEntry) else 1
            if position + count > len(graph.node):
                raise Malformed(
                    f"host.onnx: graph {graph.name!r} has {len(graph.node)} nodes, fewer than the manifest's"
                )
            if isinstance(entry, SegmentEntry):
                yield self._segment(graph, entry, position)
            elif isinstance(entry, LayerEntry):
                yield self._layer(graph.node[position], entry)
            else:
                yield self._recurrence(graph, entry, position)
            position += count
        if position != len(graph.node):
            raise Malformed(
                f"host.onnx: graph {graph.name!r} has {len(graph.node)} nodes, more than the manifest's {position}"
            )

    def _recurrence(self, graph: onnx.GraphProto, entry: RecurrenceEntry, position: int) -> Recurrence:
        scan, what = graph.node[position], f"manifest.json: recurrence {entry.recurrence!r}"
        if graph is not self.host.skeleton.graph:
            raise Malformed(f"{what} is inside of another; none may be")
        if entry.position != position or not is_scan(scan):
            raise Malformed(
                f"{what} is node {entry.position} of the host graph, which is no Scan, or has another place"
            )
        inner = tuple(node_entries(entry.nodes, f"{what}.nodes"))
        if (entry.steps or 1) * len(inner) > MOST_STEPS:
            raise Malformed(f"{what} has {entry.steps:,} steps of {len(inner):,} nodes; allowed: {MOST_STEPS:,} in all")
        nodes = tuple(self._nodes(body_of(scan), inner))
        recurrence = Recurrence(
            name=entry.recurrence,
            nodes=tuple(node for node in nodes if not isinstance(node, Recurrence)),
            sequences=tuple(SequenceInput(**asdict(each)) for each in entry.sequences),
            states=tuple(State(**asdict(each)) for each in entry.states),
            outputs=tuple(StackedOutput(**asdict(each)) for each in entry.outputs),
            reverse=entry.reverse,
            steps=entry.steps,
        )
        for layer in recurrence.layers:
            if (layer.vectors_per_inference or 0) % (entry.steps or 1):
                raise Malformed(
                    f"manifest.json: layer {layer.name!r} has vectors_per_inference = {layer.vectors_per_inference}; it is in a "
                    f"recurrence of {entry.steps} steps, so allowed are multiples of that"
                )
        if not is_wired_as(scan, recurrence):
            raise Malformed(f"{what}: its states and sequences are not those of the host graph")
        return recurrence

    def _layer(self, node: onnx.NodeProto, entry: LayerEntry) -> MatrixLayer:
        found = node.domain, node.name, list(node.input[:1]), list(node.output)
        if found != (XBCOMPILE, entry.layer, [entry.input], [entry.output]):
            raise Malformed(
                f"manifest.json: layer {entry.layer!r} from {entry.input!r} to {entry.output!r} is not the host graph's node "
                f"{node.name!r} in its place"
            )
        index = len(self.layers)
        if index >= len(self.tensors):
            raise Malformed(f"manifest.json.tensors: layer {entry.layer!r} has none")
        known = self.codes.get(entry.matrix) if entry.matrix else None
        code = known or self._code(index, entry)
        if code.codes.shape != entry.shape:
            raise Malformed(f"manifest.json: layer {entry.layer!r} has another shape than the matrix {entry.matrix!r}")
        if entry.matrix:
            self.codes[entry.matrix] = code
        bias = self._tensor(index, "bias", "float32", (entry.shape[0] * entry.shape[2],))
        self.layers.append(_layer_of(entry, code, bias, self.spec))
        return self.layers[-1]

    def _segment(self, around: onnx.GraphProto, entry: SegmentEntry, position: int) -> DigitalSegment:
        """A run of nodes of the host graph, or of a body in it, `around`, as a model."""
        host, what = self.host.skeleton, f"manifest.json: segment {entry.segment!r}"
        types = self.types if around is host.graph else {**self.types, **_types_of(around)}
        if entry.first != position or not entry.count:
            raise Malformed(f"{what} starts at node {entry.first} and has {entry.count}; its place is {position}")
        for name in (*entry.inputs, *entry.outputs):
            if name not in types:
                raise Malformed(f"{what}: the host graph has no type of its tensor {name!r}")
        for name in entry.constants:
            if name not in self.initializers:
                raise Malformed(f"{what}: the host graph has no initializer {name!r}")
        model = onnx.ModelProto(ir_version=self.ir_version, producer_name="xbcompile")
        model.opset_import.extend(o for o in host.opset_import if o.domain != XBCOMPILE)
        model.functions.extend(f for f in host.functions if f.domain != XBCOMPILE)
        graph = model.graph
        graph.name = entry.segment
        graph.node.extend(around.node[position : position + entry.count])
        if any(node.domain == XBCOMPILE for node in graph.node):
            raise Malformed(f"{what} holds a matrix layer of the host graph")
        graph.initializer.extend(host.graph.initializer[self.initializers[name]] for name in entry.constants)
        graph.input.extend(types[name] for name in entry.inputs)
        graph.output.extend(types[name] for name in entry.outputs)
        for initializer in filter(is_apart, graph.initializer):
            if initializer.name not in self.host.tensors:
                raise Malformed(f"{what}: its constant {initializer.name!r} is not stored")
        fill(graph, self.host.tensors)
        return DigitalSegment(entry.segment, model)

    def _code(self, index: int, entry: LayerEntry) -> WeightCode:
        """The weight code of the layer that owns its matrix."""
        groups, _, outputs = full = entry.shape
        levels = self.spec.levels
        bits = 0 if levels is None else code_bits(len(levels))
        stored = full if levels is None else (-(-math.prod(full) * bits // 8),)
        packed = self._tensor(index, "codes", "float32" if levels is None else "uint8", stored)
        codes = unpack_codes(packed, full, levels)
        if levels is not None and len(levels) < 2**bits and int(codes.max(initial=0)) >= len(levels):
            raise Malformed(f"layer {entry.layer!r} has codes beyond the target's {len(levels)} levels")
        return WeightCode(
            levels=levels,
            codes=codes,
            scale=self._tensor(index, "scale", "float32", (groups, outputs)),
            offset=self._tensor(index, "offset", "float32", (groups, outputs)),
            row_weight=row_weight_of_layer(self.schedule.tiles, index, full, self.spec),
        )

    def _tensor(self, index: int, name: str, element_type: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of a layer."""
        described: TensorEntry | None = getattr(self.tensors[index], name)
        where = f"manifest.json.tensors[{index}].{name}"
        if described is None:
            raise Malformed(f"{where} is missing")
        tensor = self.archive.tensor(described.member, described.element_type, described.shape)
        if (described.element_type, described.shape) != (element_type, shape):
            raise Malformed(
                f"{where} is {described.element_type} {list(described.shape)}; its layer wants {element_type} {list(shape)}"
            )
        return tensor


def samples_of(described: SamplesEntry, host: onnx.GraphProto) -> SampleAxes:
    """Which axes count samples, as a manifest describes it.

    Args:
        described: the fields.
        host: the host graph, whose inputs and outputs they must be.

    Raises:
        Malformed: they are not those of the graph.
    """
    samples = SampleAxes(
        inputs=dict(described.inputs),
        outputs=dict(described.outputs),
        ranks=dict(described.ranks),
        call=described.call,
        shared=described.shared,
        mixed=described.mixed,
    )
    for values, axes in ((host.input, samples.inputs), (host.output, samples.outputs)):
        if [value.name for value in values] != list(axes):
            raise Malformed(f"axes of samples are those of {', '.join(axes)}")
        for value in values:
            axis, shape = axes[value.name], value.type.tensor_type
            if axis is not None and shape.HasField("shape") and axis >= len(shape.shape.dim):
                raise Malformed(f"{value.name!r} has no axis {axis} of samples")
    for value in host.input:
        axis, dims = samples.inputs[value.name], value.type.tensor_type.shape.dim
        if axis is not None and axis < len(dims) and is_fixed(dims[axis]) and dims[axis].dim_value != samples.call:
            raise Malformed(
                f"manifest.json.samples: call = {samples.call}, and input {value.name!r} takes {dims[axis].dim_value} samples"
            )
    if not samples.inputs.keys() >= samples.ranks.keys() or not samples.outputs.keys() >= set(samples.shared):
        raise Malformed("manifest.json.samples: ranks are of inputs, shared are outputs; it names others")
    return samples


def _types_of(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    return {value.name: value for value in [*graph.output, *graph.input, *graph.value_info]}


def _layer_of(entry: LayerEntry, code: WeightCode, bias: np.ndarray, spec: ArraySpec) -> MatrixLayer:
    input_code = None if entry.input_code is None else InputCode(**asdict(entry.input_code))
    if not drives_rows(input_code, spec.drive):
        coded = "uncoded" if input_code is None else input_code.scheme
        raise Malformed(f"layer {entry.layer!r} has {coded} inputs, and the target's rows take {spec.drive} drives")
    layer = MatrixLayer(
        name=entry.layer,
        input=entry.input,
        output=entry.output,
        weights=code.codes,
        bias=bias,
        geometry=_geometry_of(entry),
        element_type=entry.element_type,
        vectors_per_inference=entry.vectors_per_inference,
        sample_axis=entry.sample_axis,
        weight_code=code,
        input_code=input_code,
        stands_for=entry.stands_for,
        matrix=entry.matrix,
        input_grid=None if entry.input_grid is None else InputGrid(**asdict(entry.input_grid)),
    )
    return layer.with_stored_weights()


def _geometry_of(entry: LayerEntry) -> Geometry:
    geometry, (groups, inputs, outputs) = entry.geometry, entry.shape
    what = f"manifest.json: layer {entry.layer!r} of shape {list(entry.shape)}"
    if isinstance(geometry, ContractionEntry):
        if groups != 1 or (geometry.squeeze and outputs != 1):
            raise Malformed(f"{what} is a contraction: of one group, and with squeeze of one output")
        return Contraction(**asdict(geometry))
    kernel, rank = geometry.kernel, len(geometry.kernel)
    if (len(geometry.strides), len(geometry.dilations), len(geometry.pads)) != (rank, rank, 2 * rank):
        raise Malformed(f"{what}: strides, dilations and pads do not fit a kernel of {rank} axes")
    if inputs % math.prod(kernel):
        raise Malformed(f"{what}: a kernel of {'x'.join(map(str, kernel))} does not fit its {inputs} inputs")
    sizes = [(k - 1) * d + 1 for k, d in zip(kernel, geometry.dilations, strict=True)]
    sizes = [size + geometry.pads[i] + geometry.pads[i + rank] for i, size in enumerate(sizes)]
    if groups * (inputs // math.prod(kernel)) * math.prod(sizes) > LARGEST_PATCH:
        raise Malformed(f"{what}: kernel, dilations and pads take more than {LARGEST_PATCH:,} input values at a time")
    return Patches(**asdict(geometry))

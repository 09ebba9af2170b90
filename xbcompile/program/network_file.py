"""A network in a program file: its nodes described in the manifest, its tensors in the archive."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from onnx import helper

from xbcompile.ir import (
    ArraySpec,
    Contraction,
    DigitalSegment,
    Executed,
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
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.onnx_graph.domains import XBCOMPILE
from xbcompile.onnx_graph.split_model import SplitModel, fill, is_apart
from xbcompile.program.archive import Archive, TensorPool
from xbcompile.reference.host_graph import layer_parameters
from xbcompile.reference.host_recurrence import body_of


def describe_nodes(nodes: Sequence[NetworkNode]) -> list[dict[str, Any]]:
    """Order of execution: a layer's fields, the run of host-graph nodes that is a segment, or a recurrence.

    Positions count the nodes of the host graph, in a recurrence those of its Scan's body.
    """
    described: list[dict[str, Any]] = []
    position = 0
    for node in nodes:
        if isinstance(node, DigitalSegment):
            count = len(node.model.graph.node)
            described.append(
                {
                    "segment": node.name,
                    "first": position,
                    "count": count,
                    "constants": [initializer.name for initializer in node.model.graph.initializer],
                    "inputs": list(node.input_names),
                    "outputs": list(node.output_names),
                }
            )
            position += count
            continue
        position += 1
        if isinstance(node, Recurrence):
            fields = {
                f.name: getattr(node, f.name) for f in dataclasses.fields(node) if f.name not in ("name", "nodes")
            }
            for name in ("sequences", "states", "outputs"):
                fields[name] = [asdict(each) for each in fields[name]]
            body = describe_nodes(node.nodes)
            described.append({"recurrence": node.name, "position": position - 1, "nodes": body, **fields})
            continue
        assert node.weight_code is not None
        described.append(
            {
                "layer": node.name,
                "input": node.input,
                "output": node.output,
                "matrix": node.matrix,
                "shape": list(node.shape),
                "geometry": {"kind": type(node.geometry).__name__, **asdict(node.geometry)},
                "element_type": node.element_type,
                "vectors_per_inference": node.vectors_per_inference,
                "sample_axis": node.sample_axis,
                "input_code": None if node.input_code is None else asdict(node.input_code),
                "stands_for": node.stands_for,
                "input_grid": None if node.input_grid is None else asdict(node.input_grid),
            }
        )
    return described


def describe_samples(samples: SampleAxes) -> dict[str, Any]:
    """Which axes count samples; the order of inputs and outputs is the model's, which JSON objects do not keep."""
    return {
        "inputs": list(samples.inputs.items()),
        "outputs": list(samples.outputs.items()),
        "ranks": list(samples.ranks.items()),
        "call": samples.call,
        "shared": list(samples.shared),
        "mixed": samples.mixed,
    }


def describe_tensors(network: Network, pool: TensorPool) -> list[dict[str, dict[str, Any]]]:
    """The tensors of each matrix layer; the weight code of layers that share a matrix is with the first."""
    described = []
    for i, layer in enumerate(network.layers):
        code = layer.weight_code
        assert code is not None
        arrays = {"bias": layer.bias}
        if network.matrices[i] == i:
            arrays |= {"codes": pack_codes(code), "scale": code.scale, "offset": code.offset}
        described.append({name: _described(array, pool) for name, array in arrays.items()})
    return described


def _described(array: np.ndarray, pool: TensorPool) -> dict[str, Any]:
    return {"member": pool.add(array), "element_type": array.dtype.name, "shape": list(array.shape)}


def stored_skeleton(model: SplitModel, pool: TensorPool, left_out: Collection[str]) -> bytes:
    """The skeleton as it is stored: its initializers name their tensors, but for those that are not stored."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model.skeleton)
    for initializer in skeleton.graph.initializer:
        if is_apart(initializer) and initializer.name not in left_out:
            initializer.external_data.add(key="location", value=pool.add(model.tensors[initializer.name]))
    data: bytes = skeleton.SerializeToString(deterministic=True)
    return data


def read_skeleton(archive: Archive, member: str) -> SplitModel:
    """Inverse of `stored_skeleton`, without the tensors that are not stored."""
    skeleton = onnx.ModelProto.FromString(archive.read(member))
    tensors = {}
    for initializer in skeleton.graph.initializer:
        if is_apart(initializer) and initializer.external_data:
            dtype = helper.tensor_dtype_to_np_dtype(initializer.data_type)
            location = initializer.external_data[0].value
            tensors[initializer.name] = archive.tensor(location, dtype, tuple(initializer.dims))
            initializer.ClearField("external_data")
    return SplitModel(skeleton, tensors)


def host_of(stored: SplitModel, network: Network) -> SplitModel:
    """The host graph of a file, its layers' parameters taken from the network.

    Raises:
        KeyError: it needs a tensor that neither the file nor the network has.
    """
    own = layer_parameters(network)
    names = [initializer.name for initializer in stored.skeleton.graph.initializer if is_apart(initializer)]
    return SplitModel(
        stored.skeleton, {name: stored.tensors[name] if name in stored.tensors else own[name] for name in names}
    )


class NodeReader:
    """Rebuilds the network's nodes, in the order in which they are described."""

    def __init__(
        self, archive: Archive, host: SplitModel, manifest: dict[str, Any], schedule: Schedule, spec: ArraySpec
    ) -> None:
        self.archive, self.host, self.schedule, self.spec = archive, host, schedule, spec
        self.tensors: list[dict[str, dict[str, Any]]] = manifest["tensors"]
        self.ir_version: int = manifest["ir_version"]
        self.layers: list[MatrixLayer] = []
        self.codes: dict[str, WeightCode] = {}  # by the name of the matrix
        graph = host.skeleton.graph
        self.types = _types_of(graph)
        self.initializers = {initializer.name: i for i, initializer in enumerate(graph.initializer)}

    def node(self, graph: onnx.GraphProto, described: dict[str, Any]) -> NetworkNode:
        """A node of the host graph or of a body in it."""
        if "recurrence" in described:
            body = body_of(graph.node[described["position"]])
            return Recurrence(
                name=described["recurrence"],
                nodes=tuple(self.executed(body, inner) for inner in described["nodes"]),
                sequences=tuple(SequenceInput(**each) for each in described["sequences"]),
                states=tuple(State(**each) for each in described["states"]),
                outputs=tuple(StackedOutput(**each) for each in described["outputs"]),
                reverse=described["reverse"],
                steps=described["steps"],
            )
        return self.executed(graph, described)

    def executed(self, graph: onnx.GraphProto, described: dict[str, Any]) -> Executed:
        """A segment or layer."""
        if "segment" in described:
            return self.segment(graph, described)
        index, matrix = len(self.layers), described["matrix"]
        code = self.codes.get(matrix) if matrix else None
        if code is None:
            code = self.codes[matrix] = self.code(index, described["shape"])
        bias = self.tensor(index, "bias")
        self.layers.append(_layer_of(described, code, bias))
        return self.layers[-1]

    def segment(self, around: onnx.GraphProto, described: dict[str, Any]) -> DigitalSegment:
        """A run of nodes of the host graph, or of a body in it, `around`, as a model."""
        host = self.host.skeleton
        types = self.types if around is host.graph else {**self.types, **_types_of(around)}
        first, count = described["first"], described["count"]
        model = onnx.ModelProto(ir_version=self.ir_version, producer_name="xbcompile")
        model.opset_import.extend(o for o in host.opset_import if o.domain != XBCOMPILE)
        model.functions.extend(f for f in host.functions if f.domain != XBCOMPILE)
        graph = model.graph
        graph.name = described["segment"]
        graph.node.extend(around.node[first : first + count])
        graph.initializer.extend(host.graph.initializer[self.initializers[name]] for name in described["constants"])
        graph.input.extend(types[name] for name in described["inputs"])
        graph.output.extend(types[name] for name in described["outputs"])
        fill(graph, self.host.tensors)
        return DigitalSegment(described["segment"], model)

    def code(self, index: int, shape: Sequence[int]) -> WeightCode:
        """The weight code of the layer that owns its matrix."""
        groups, inputs, outputs = shape
        full = (groups, inputs, outputs)
        return WeightCode(
            levels=self.spec.levels,
            codes=unpack_codes(self.tensor(index, "codes"), full, self.spec.levels),
            scale=self.tensor(index, "scale"),
            offset=self.tensor(index, "offset"),
            row_weight=row_weight_of_layer(self.schedule.tiles, index, full, self.spec),
        )

    def tensor(self, index: int, name: str) -> np.ndarray:
        """A tensor of a layer."""
        described = self.tensors[index][name]
        return self.archive.tensor(described["member"], described["element_type"], tuple(described["shape"]))


def samples_of(described: dict[str, Any], host: onnx.GraphProto) -> SampleAxes:
    """Which axes count samples, as a manifest describes it.

    Args:
        described: the fields.
        host: the host graph, whose inputs and outputs they must be.

    Raises:
        ValueError: they are not those of the graph.
    """
    mappings = {name: dict(described[name]) for name in ("inputs", "outputs", "ranks")}
    samples = SampleAxes(
        **mappings, call=described["call"], shared=tuple(described["shared"]), mixed=described["mixed"]
    )
    for values, axes in ((host.input, samples.inputs), (host.output, samples.outputs)):
        if [value.name for value in values] != list(axes):
            raise ValueError(f"axes of samples are those of {', '.join(axes)}")
    for value in host.input:
        axis, shape = samples.inputs[value.name], value.type.tensor_type
        if axis is not None and (axis < 0 or (shape.HasField("shape") and axis >= len(shape.shape.dim))):
            raise ValueError(f"input {value.name!r} has no axis {axis} of samples")
    return samples


def _types_of(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    return {value.name: value for value in [*graph.output, *graph.input, *graph.value_info]}


def _layer_of(described: dict[str, Any], code: WeightCode, bias: np.ndarray) -> MatrixLayer:
    input_code = described["input_code"]
    layer = MatrixLayer(
        name=described["layer"],
        input=described["input"],
        output=described["output"],
        weights=code.codes,
        bias=bias,
        geometry=_geometry_of(dict(described["geometry"])),
        element_type=described["element_type"],
        vectors_per_inference=described["vectors_per_inference"],
        sample_axis=described["sample_axis"],
        weight_code=code,
        input_code=None if input_code is None else InputCode(**input_code),
        stands_for=described["stands_for"],
        matrix=described["matrix"],
        input_grid=None if described["input_grid"] is None else InputGrid(**described["input_grid"]),
    )
    return layer.with_stored_weights()


def _geometry_of(described: dict[str, Any]) -> Geometry:
    kind = described.pop("kind")
    if kind == "Contraction":
        return Contraction(**described)
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
    return Patches(**fields)


def pack_codes(code: WeightCode) -> np.ndarray:
    """Codes as they are stored: 1, 2, 4 or 8 bits each in a uint8 vector; continuous cells as float32."""
    if code.levels is None:
        return code.codes
    bits = _code_bits(len(code.levels))
    if bits == 8:
        return code.codes.ravel()
    codes = code.codes.ravel()
    if bits == 1:
        return np.packbits(codes, bitorder="little")
    each = 8 // bits
    packed = np.zeros(-(-codes.size // each), np.uint8)
    for i in range(each):  # the first code of a byte in its lowest bits
        some = codes[i::each]
        packed[: some.size] |= some << np.uint8(i * bits)
    return packed


def unpack_codes(packed: np.ndarray, shape: tuple[int, ...], levels: np.ndarray | None) -> np.ndarray:
    """Inverse of `pack_codes`."""
    if levels is None:
        return packed.reshape(shape)
    bits, count = _code_bits(len(levels)), int(np.prod(shape))
    if bits == 8:
        return packed.reshape(shape)
    if bits == 1:
        return np.unpackbits(packed, count=count, bitorder="little").reshape(shape)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = packed[:, None] >> shifts
    codes &= np.uint8(2**bits - 1)
    return codes.reshape(-1)[:count].reshape(shape)


def _code_bits(levels: int) -> int:
    return next(bits for bits in (1, 2, 4, 8) if levels <= 2**bits)

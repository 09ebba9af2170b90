"""A program: the inert result of compiling, and its file.

The file is a zip archive without compression (bytes then depend on nothing but content), its members in a fixed order
with fixed times, closed by a SHA-256 of everything before it:

    manifest.json     format version, pipeline, options, layers, order of execution
    target.json       the target's description, complete
    host.onnx         the ideal meaning, which plain onnxruntime runs
    source.onnx       the user's model as it came (unless left out)
    schedule/*.npy    tiles, images, permutations, steps
    layers/*.npy      packed weight codes, scale, offset, bias
    calibration/*.npy inputs on which device passes are fitted (where the pipeline has any)
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types

from xbcompile.errors import ProgramError
from xbcompile.ir import (
    ArraySpec,
    Contraction,
    DigitalSegment,
    Geometry,
    InputCode,
    LoweringRecord,
    MatrixLayer,
    Network,
    Patches,
    Schedule,
    WeightCode,
)
from xbcompile.ir.content import ContentEqual
from xbcompile.ir.host import DOMAIN, to_onnx
from xbcompile.ir.network_pass import DevicePass
from xbcompile.ir.routing import ImageRoute
from xbcompile.ir.rows import row_weight_of_layer
from xbcompile.pipeline import parse_pipeline
from xbcompile.targets import Target

FORMAT_VERSION = 2
_COMMENT = b"xbcompile sha256:"
_COMMENT_BYTES = len(_COMMENT) + 64
_TABLES = ("tiles", "image_array", "column_permutation", "steps")


@dataclass(frozen=True, eq=False)
class Program(ContentEqual):
    """Which cells to write, what to drive, how to recombine.

    Args:
        network: coded matrix layers and digital segments.
        schedule: tables of tiles, images and steps.
        target: the description that the program was compiled for.
        pipeline: the whole pass pipeline as text; its device passes run when a session starts.
        calibration: inputs for the device passes, by graph input name; empty where there are none.
        source: the user's model, serialised; None where it was left out.
        options: options of the compilation that have no place elsewhere.
        routes: one per image where a session routed the program for its chip; None in every program file.
    """

    network: Network
    schedule: Schedule
    target: Target
    pipeline: str
    calibration: dict[str, np.ndarray]
    source: bytes | None
    options: dict[str, Any]
    routes: tuple[ImageRoute, ...] | None = None

    @property
    def spec(self) -> ArraySpec:
        """The array that the program is for."""
        return self.target.array_spec

    @cached_property
    def host(self) -> onnx.ModelProto:
        """The ideal meaning as an ONNX model with function bodies."""
        return to_onnx(self.network)

    def cells(self, images: np.ndarray) -> np.ndarray:
        """Physical content of weight images, built on demand.

        Args:
            images: indices [n].

        Returns:
            [n, rows, columns] level indices (uint8), or float32 values for continuous cells.
        """
        spec, schedule = self.spec, self.schedule
        continuous = spec.levels is None
        cells = np.empty((len(images), spec.rows, spec.columns), np.float32 if continuous else np.uint8)
        cells[:] = 0.0 if continuous else spec.neutral_level[:, None]
        codes = [layer.weight_code.codes for layer in self.network.layers if layer.weight_code is not None]
        order, starts = self._tiles_by_image
        for i, image in enumerate(images):
            for layer, group, k0, k1, m0, m1, _, row, column in schedule.tiles[
                order[starts[image] : starts[image + 1]]
            ].tolist():
                physical = schedule.column_permutation[image, column : column + m1 - m0]
                cells[i, row : row + k1 - k0, physical] = codes[layer][group, k0:k1, m0:m1].T
            if self.routes is not None:
                cells[i] = _routed_cells(cells[i], self.routes[image], spec)
        return cells

    @cached_property
    def _tiles_by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Tile indices in order of image, and where each image's run starts (one entry more than images)."""
        image = self.schedule.tiles["image"]
        order = np.argsort(image, kind="stable")
        return order, np.searchsorted(image[order], np.arange(self.schedule.images + 1))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the program's file, in hexadecimal."""
        return _seal(self._archive())[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program file: beside its place first, then renamed, so that a half-written file never exists.

        Raises:
            ProgramError: the folder does not exist or cannot be written.
        """
        data, _ = _seal(self._archive())
        write_atomically(path, data)

    def _archive(self) -> bytearray:
        if self.routes is not None:
            raise ValueError("a program that is routed for one chip is not for a file")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = b" " * _COMMENT_BYTES
            for name, data in self._members():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
        return bytearray(buffer.getbuffer())

    def _members(self) -> Iterator[tuple[str, bytes]]:
        yield "manifest.json", json.dumps(self._manifest(), indent=1, sort_keys=True).encode()
        yield "target.json", self.target.to_json().encode()
        yield "host.onnx", self.host.SerializeToString(deterministic=True)
        if self.source is not None:
            yield "source.onnx", self.source
        for name in _TABLES:
            yield f"schedule/{name}.npy", _npy(getattr(self.schedule, name))
        for i, layer in enumerate(self.network.layers):
            code = layer.weight_code
            assert code is not None
            yield f"layers/{i}.codes.npy", _npy(pack_codes(code))
            yield f"layers/{i}.scale.npy", _npy(code.scale)
            yield f"layers/{i}.offset.npy", _npy(code.offset)
            yield f"layers/{i}.bias.npy", _npy(layer.bias)
        for i, name in enumerate(sorted(self.calibration)):
            yield f"calibration/{i}.npy", _npy(self.calibration[name])

    def _manifest(self) -> dict[str, Any]:
        from xbcompile import __version__

        schedule = {name: getattr(self.schedule, name) for name in Schedule.__dataclass_fields__ if name not in _TABLES}
        return {
            "format_version": FORMAT_VERSION,
            "xbcompile_version": __version__,
            "pipeline": self.pipeline,
            "options": self.options,
            "calibration": sorted(self.calibration),
            "ir_version": self.network.ir_version,
            "schedule": schedule,
            "records": [asdict(record) for record in self.network.records],
            "nodes": _describe_nodes(self.network),
        }


def _routed_cells(cells: np.ndarray, route: ImageRoute, spec: ArraySpec) -> np.ndarray:
    """Cells [logical rows, physical columns] with the route's signs, on its physical rows."""
    column_sign = np.empty_like(route.column_sign)
    column_sign[route.column] = route.column_sign
    negative = route.row_sign[:, None] * column_sign < 0
    opposite = -cells if spec.levels is None else len(spec.levels) - 1 - cells
    result = np.empty_like(cells)
    result[route.row] = np.where(negative, opposite, cells)
    return result


def _describe_nodes(network: Network) -> list[dict[str, Any]]:
    """Order of execution: a layer's fields, or the run of host-graph nodes that is a segment."""
    described: list[dict[str, Any]] = []
    position = 0
    for node in network.nodes:
        if isinstance(node, DigitalSegment):
            count = len(node.model.graph.node)
            described.append(
                {
                    "segment": node.name,
                    "first": position,
                    "count": count,
                    "inputs": list(node.input_names),
                    "outputs": list(node.output_names),
                }
            )
            position += count
            continue
        assert node.weight_code is not None
        described.append(
            {
                "layer": node.name,
                "input": node.input,
                "output": node.output,
                "shape": list(node.weights.shape),
                "geometry": {"kind": type(node.geometry).__name__, **asdict(node.geometry)},
                "element_type": node.element_type,
                "vectors_per_inference": node.vectors_per_inference,
                "input_code": None if node.input_code is None else asdict(node.input_code),
                "stands_for": node.stands_for,
            }
        )
        position += 1
    return described


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program file.

    Raises:
        ProgramError: the file is missing, no program, damaged (one flipped byte is enough) or of another format
            version.
    """
    name = os.fspath(path)
    try:
        data = Path(name).read_bytes()
    except FileNotFoundError:
        raise ProgramError(f"program file {name!r} does not exist") from None
    except OSError as error:
        raise ProgramError(f"program file {name!r} cannot be read: {error.strerror}") from None
    if not data.startswith(b"PK\x03\x04"):
        raise ProgramError(
            f"{name!r} is not an xbcompile program; make one with: xbcompile compile MODEL.onnx -o P.xbar"
        )
    if data[-_COMMENT_BYTES:] != _COMMENT + _sha256(data).encode():
        raise ProgramError(f"program file {name!r} is damaged: its digest does not match; compile it again")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if "manifest.json" not in archive.namelist():
            raise ProgramError(f"{name!r} is an archive without manifest.json, so it is no xbcompile program")
        manifest = json.loads(archive.read("manifest.json"))
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise ProgramError(
                f"program file {name!r} has format version {version}; this xbcompile reads {FORMAT_VERSION}: compile it again"
            )
        try:
            return _read(archive, manifest, name)
        except (KeyError, TypeError, DecodeError) as error:
            raise ProgramError(f"program file {name!r} lacks a part that it must have: {error}") from None


def _read(archive: zipfile.ZipFile, manifest: dict[str, Any], where: str) -> Program:
    target = Target.from_table(json.loads(archive.read("target.json")), where)
    tables: dict[str, Any] = {table: _load_npy(archive, f"schedule/{table}.npy") for table in _TABLES}
    schedule = Schedule(**tables, **manifest["schedule"])
    host = onnx.ModelProto.FromString(archive.read("host.onnx"))
    nodes: list[MatrixLayer | DigitalSegment] = []
    layers = 0
    for described in manifest["nodes"]:
        if "segment" in described:
            nodes.append(_segment_of(host, described, manifest["ir_version"]))
        else:
            nodes.append(_layer_of(archive, layers, described, schedule, target.array_spec))
            layers += 1
    network = Network(
        name=host.graph.name,
        inputs=tuple(host.graph.input),
        outputs=tuple(host.graph.output),
        nodes=tuple(nodes),
        records=tuple(LoweringRecord(**record) for record in manifest["records"]),
        opset_imports=tuple((o.domain, o.version) for o in host.opset_import if o.domain != "xbcompile"),
        ir_version=manifest["ir_version"],
    )
    program = Program(
        network=network,
        schedule=schedule,
        target=target,
        pipeline=manifest["pipeline"],
        calibration={n: _load_npy(archive, f"calibration/{i}.npy") for i, n in enumerate(manifest["calibration"])},
        source=archive.read("source.onnx") if "source.onnx" in archive.namelist() else None,
        options=manifest["options"],
    )
    program.__dict__["host"] = host  # the file's own, so that verification compares the file with itself
    return program


def _segment_of(host: onnx.ModelProto, described: dict[str, Any], ir_version: int) -> DigitalSegment:
    types = {value.name: value for value in [*host.graph.value_info, *host.graph.input, *host.graph.output]}
    first, count = described["first"], described["count"]
    model = onnx.ModelProto(ir_version=ir_version, producer_name="xbcompile")
    model.opset_import.extend(o for o in host.opset_import if o.domain != "xbcompile")
    model.functions.extend(f for f in host.functions if f.domain != DOMAIN)
    graph = model.graph
    graph.name = described["segment"]
    graph.node.extend(host.graph.node[first : first + count])
    used = _names_read(graph)
    graph.initializer.extend(i for i in host.graph.initializer if i.name in used)
    graph.input.extend(types[name] for name in described["inputs"])
    graph.output.extend(types[name] for name in described["outputs"])
    return DigitalSegment(described["segment"], model)


def _names_read(graph: onnx.GraphProto) -> set[str]:
    names = {name for node in graph.node for name in node.input}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                names |= _names_read(inner) if inner.node or inner.output else set()
    return names | {value.name for value in graph.output}


def _layer_of(
    archive: zipfile.ZipFile, index: int, described: dict[str, Any], schedule: Schedule, spec: ArraySpec
) -> MatrixLayer:
    groups, inputs, outputs = described["shape"]
    shape = (groups, inputs, outputs)
    code = WeightCode(
        levels=spec.levels,
        codes=unpack_codes(_load_npy(archive, f"layers/{index}.codes.npy"), shape, spec.levels),
        scale=_load_npy(archive, f"layers/{index}.scale.npy"),
        offset=_load_npy(archive, f"layers/{index}.offset.npy"),
        row_weight=row_weight_of_layer(schedule.tiles, index, shape, spec),
    )
    input_code = described["input_code"]
    return MatrixLayer(
        name=described["layer"],
        input=described["input"],
        output=described["output"],
        weights=code.dequantized(),
        bias=_load_npy(archive, f"layers/{index}.bias.npy"),
        geometry=_geometry_of(dict(described["geometry"])),
        element_type=described["element_type"],
        vectors_per_inference=described["vectors_per_inference"],
        weight_code=code,
        input_code=None if input_code is None else InputCode(**input_code),
        stands_for=described["stands_for"],
    )


def _geometry_of(described: dict[str, Any]) -> Geometry:
    kind = described.pop("kind")
    if kind == "Contraction":
        return Contraction(**described)
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items()}
    return Patches(**fields)


def with_stored_weights(network: Network) -> Network:
    """The network whose layers' real weights are what their codes stand for: what a program keeps."""
    return network.with_layers(
        replace(layer, weights=layer.weight_code.dequantized())
        for layer in network.layers
        if layer.weight_code is not None
    )


def pack_codes(code: WeightCode) -> np.ndarray:
    """Codes as they are stored: 1, 2, 4 or 8 bits each in a uint8 vector; continuous cells as float32."""
    if code.levels is None:
        return code.codes
    bits = _code_bits(len(code.levels))
    if bits == 8:
        return code.codes.ravel()
    planes = (code.codes.reshape(-1, 1) >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(planes.ravel(), bitorder="little")


def unpack_codes(packed: np.ndarray, shape: tuple[int, ...], levels: np.ndarray | None) -> np.ndarray:
    """Inverse of `pack_codes`."""
    if levels is None:
        return packed.reshape(shape)
    bits, count = _code_bits(len(levels)), int(np.prod(shape))
    if bits == 8:
        return packed.reshape(shape)
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return (planes << np.arange(bits, dtype=np.uint8)).sum(axis=1, dtype=np.uint8).reshape(shape)


def _code_bits(levels: int) -> int:
    return next(bits for bits in (1, 2, 4, 8) if levels <= 2**bits)


def write_atomically(path: str | os.PathLike[str], data: bytes | bytearray) -> None:
    """Write a file beside its place and rename it; nothing is left behind on failure or interruption.

    Raises:
        ProgramError: the folder does not exist or cannot be written.
    """
    name = os.path.abspath(os.fspath(path))
    folder = os.path.dirname(name)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(name)}.", dir=folder)
    except OSError as error:
        raise ProgramError(f"cannot write into folder {folder!r}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, name)
    except OSError as error:
        os.unlink(temporary)
        raise ProgramError(f"cannot write {name!r}: {error.strerror}") from None
    except BaseException:
        os.unlink(temporary)
        raise


def device_passes(pipeline: str) -> list[DevicePass]:
    """The device passes of a pipeline text, in order."""
    return [p for p in parse_pipeline(pipeline) if isinstance(p, DevicePass)]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _load_npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(memoryview(data)[:-_COMMENT_BYTES]).hexdigest()


def _seal(data: bytearray) -> tuple[bytearray, str]:
    digest = _sha256(data)
    data[-_COMMENT_BYTES:] = _COMMENT + digest.encode()
    return data, digest

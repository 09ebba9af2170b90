"""A program: the inert result of compiling, and its file, a sealed archive (see `archive`):

    manifest.json     format version, pipeline, options, layers, order of execution
    target.json       the target's description, complete
    host.onnx         the ideal meaning, without its large initializers
    source.onnx       the user's model as it came (unless left out), without its large initializers
    taken_apart.onnx  that model taken apart into matrices and the rest, where device passes look at tensors that only exist then
    schedule/*.npy    tiles, images, permutations, steps
    calibration/*.npy inputs on which device passes are fitted (where the pipeline has any)
    tensors/*         packed weight codes, scale, offset and bias of the layers, and large initializers, each once

Large initializers are external data in the sense of ONNX, so that an unpacked archive holds a `source.onnx` that any tool
reads. Those of the host graph that are parameters of layers are not stored again: they follow from the layers.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import IO, Any

import msgspec
import numpy as np
import onnx

from xbcompile.errors import ProgramError, XbcompileError
from xbcompile.files import atomic_file
from xbcompile.ir import ArraySpec, LoweringRecord, Network, Schedule
from xbcompile.ir.content_equality import ContentEqual
from xbcompile.notebook import html_table, html_text
from xbcompile.onnx_graph.split_model import SplitModel
from xbcompile.options import CompileOptions
from xbcompile.passes.contract import DevicePass
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.archive import Archive, TensorPool, npy, opened, write_archive
from xbcompile.program.cells import CellImages
from xbcompile.program.manifest import Manifest, checked, node_entries, parsed_json
from xbcompile.program.network_file import describe_nodes, describe_samples, describe_tensors
from xbcompile.program.network_reader import NodeReader, host_of, layer_entries, samples_of
from xbcompile.program.stored_graph import read_skeleton, stored_skeleton
from xbcompile.program.stored_tables import TABLES, check_follows, read_calibration, read_schedule
from xbcompile.reference.host_graph import host_graph, layer_parameters
from xbcompile.targets import Target

FORMAT_VERSION = 6


@dataclass(frozen=True, eq=False, repr=False)
class Program(ContentEqual):
    """Which cells to write, what to drive, how to recombine.

    Args:
        network: coded matrix layers and digital segments.
        schedule: tables of tiles, images and steps.
        target: the description that the program was compiled for.
        pipeline: the whole pass pipeline as text; its device passes run when a session starts.
        calibration: inputs for the device passes, by graph input name; empty where there are none.
        source: the user's model, its large initializers as arrays; None where it was left out.
        taken_apart: that model with its operators taken apart into matrices and the rest, for tensors that only exist then; None
            where it is not needed or the model was left out.
        options: all that the user decided, so that the program can be compiled again.
        cuts: how the matrices were cut: one of those that `options` allow.
        packing: how tiles were packed, likewise.
        notes: what passes had to say: what they chose, and where they changed nothing.
    """

    network: Network
    schedule: Schedule
    target: Target
    pipeline: str
    calibration: dict[str, np.ndarray]
    source: SplitModel | None
    options: CompileOptions
    cuts: str
    packing: str
    taken_apart: SplitModel | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In one line: what is on how many arrays."""
        layers, schedule = len(self.network.layers), self.schedule
        return (
            f"<Program {self.network.name!r} on {self.target.name!r}: {layers} matrix layer{'s' * (layers != 1)}, "
            f"{schedule.images:,} weight image{'s' * (schedule.images != 1)} of {schedule.rows}x{schedule.columns} on "
            f"{schedule.arrays:,} array{'s' * (schedule.arrays != 1)}>"
        )

    def _repr_html_(self) -> str:
        """The same for notebooks, and a row for each layer."""
        columns = ("layer", "groups", "inputs", "outputs", "reads per vector and tile")
        rows = [(each.name, *each.shape, each.slices) for each in self.network.layers]
        return html_text(repr(self)[1:-1]) + html_table(columns, rows)

    @property
    def spec(self) -> ArraySpec:
        """The array that the program is for."""
        return self.target.array_spec

    @cached_property
    def host_graph(self) -> SplitModel:
        """The ideal meaning as an ONNX model with function bodies; its large parameters are the layers' own arrays."""
        return host_graph(self.network)

    @property
    def host(self) -> onnx.ModelProto:
        """`host_graph` in one message, which plain onnxruntime runs, and which cannot be serialised above 2 GiB."""
        return self.host_graph.joined()

    def cells(self, images: np.ndarray) -> np.ndarray:
        """Physical content of weight images, as the schedule has them; see `CellImages.of`.

        Args:
            images: whole numbers [n], which weight images.
        """
        return self._cell_images.of(images)

    @cached_property
    def _cell_images(self) -> CellImages:
        return CellImages(self.network, self.schedule, self.spec)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the program's file, in hexadecimal."""
        return self._write(None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program file: beside its place first, then renamed, so that a half-written file never exists.

        Args:
            path: of the program file; what is there is replaced.

        Raises:
            ProgramError: the folder does not exist or cannot be written.
        """
        with atomic_file(path) as file:
            digest = self._write(file)
        self.__dict__["digest"] = digest

    def _write(self, file: IO[bytes] | None) -> str:
        return write_archive(file, self._members())

    def _members(self) -> Iterator[tuple[str, bytes | memoryview]]:
        pool = TensorPool()
        yield "manifest.json", json.dumps(self._manifest(pool), indent=1, sort_keys=True).encode()
        yield "target.json", self.target.to_json().encode()
        yield "host.onnx", stored_skeleton(self.host_graph, pool, layer_parameters(self.network).keys())
        if self.source is not None:
            yield "source.onnx", stored_skeleton(self.source, pool, ())
        if self.taken_apart is not None:
            yield "taken_apart.onnx", stored_skeleton(self.taken_apart, pool, ())
        for name in TABLES:
            yield f"schedule/{name}.npy", npy(getattr(self.schedule, name))
        for i, name in enumerate(sorted(self.calibration)):
            yield f"calibration/{i}.npy", npy(self.calibration[name])
        yield from pool.members()

    def _manifest(self, pool: TensorPool) -> dict[str, Any]:
        from xbcompile import __version__

        schedule = {name: getattr(self.schedule, name) for name in Schedule.__dataclass_fields__ if name not in TABLES}
        return {
            "format_version": FORMAT_VERSION,
            "xbcompile_version": __version__,
            "pipeline": self.pipeline,
            "options": self.options.to_table(),
            "cuts": self.cuts,
            "packing": self.packing,
            "notes": list(self.notes),
            "calibration": sorted(self.calibration),
            "ir_version": self.network.ir_version,
            "schedule": schedule,
            "samples": describe_samples(self.network.samples),
            "records": [asdict(record) for record in self.network.records],
            "nodes": describe_nodes(self.network.nodes),
            "tensors": describe_tensors(self.network, pool),
        }


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program file, and check all of it by the rules that the compiler keeps.

    Whoever made it, nothing but the file is read, and what it says is of the types, ranges and sizes that a run needs; whether it
    is right, `verify` tells.

    Args:
        path: of the program file.

    Raises:
        ProgramError: the file is missing, no program, damaged (one flipped byte is enough), of another format version, or
            it says what no program may.
    """
    with opened(path) as archive:
        return _read_version(archive)


def _read_version(archive: Archive) -> Program:
    name = archive.name
    if "manifest.json" not in archive:
        made = ": it holds corrections of a chip, for run --fit" if "fit.json" in archive else ""
        raise ProgramError(f"{name!r} is an archive without manifest.json, so it is no xbcompile program{made}")
    content = archive.read("manifest.json")
    try:
        manifest = parsed_json(content, "manifest.json")
        version = manifest.get("format_version")
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise ProgramError(
                f"program file {name!r} has format version {reprlib.repr(version)}; this xbcompile reads {FORMAT_VERSION}: "
                f"compile it again"
            )
        archive.check_names()
        return _read(archive, checked(manifest, Manifest, "manifest.json"))
    except ProgramError:
        raise
    except (ValueError, XbcompileError) as error:  # what values say that check themselves
        raise archive.malformed(error) from None


def _read(archive: Archive, manifest: Manifest) -> Program:
    target = Target.from_table(parsed_json(archive.read("target.json"), "target.json"), "target.json")
    entries = tuple(node_entries(manifest.nodes))
    schedule = read_schedule(archive, manifest.schedule, layer_entries(entries), target.array_spec)
    stored = read_skeleton(archive, "host.onnx", is_host=True)
    host = stored.skeleton
    network = Network(
        name=host.graph.name,
        inputs=tuple(host.graph.input),
        outputs=tuple(host.graph.output),
        nodes=NodeReader(archive, stored, manifest, schedule, target.array_spec).nodes(entries),
        records=tuple(LoweringRecord(**msgspec.structs.asdict(record)) for record in manifest.records),
        opset_imports=tuple((o.domain, o.version) for o in host.opset_import if o.domain != "xbcompile"),
        ir_version=manifest.ir_version,
        samples=samples_of(manifest.samples, host.graph),
    )
    network.check()
    check_follows(schedule, network)
    program = Program(
        network=network,
        schedule=schedule,
        target=target,
        pipeline=manifest.pipeline,
        calibration=read_calibration(archive, manifest.calibration, network),
        source=read_skeleton(archive, "source.onnx") if "source.onnx" in archive else None,
        options=CompileOptions.from_table(manifest.options),
        cuts=manifest.cuts,
        packing=manifest.packing,
        taken_apart=read_skeleton(archive, "taken_apart.onnx") if "taken_apart.onnx" in archive else None,
        notes=manifest.notes,
    )
    program.__dict__["digest"] = archive.digest
    program.__dict__["host_graph"] = host_of(
        stored, network
    )  # the file's own: verification compares the file with itself
    return program


def with_stored_weights(network: Network) -> Network:
    """The network whose layers' real weights are what their codes stand for: what a program keeps."""
    return network.with_layers(layer.with_stored_weights() for layer in network.layers if layer.weight_code is not None)


def device_passes(pipeline: str) -> list[DevicePass]:
    """The device passes of a pipeline text, in order."""
    return [p for p in parse_pipeline(pipeline) if isinstance(p, DevicePass)]

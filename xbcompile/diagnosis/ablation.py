"""Ablation: a session with sources of error switched off, what a program would give without them, on the same chip.

Two sources belong to the program, the rest to the device (`xbcompile.targets.error_sources`). For one layer let f0 be the
user's model from the layer's input tensor to its output tensor, f1 the same with the weights that the cells stand for, f2 with
coded inputs too, and D the device, whose exact meaning is f2. Then
    y = D + (f0 - f1 where weights are off) + (f1 - f2 where coding is off)
removes just the difference that a source makes, at the inputs at hand, and leaves the others: the rounding of inputs goes
through the weights as written, whether weights are on or off. With every source of the device
off, D is f2 itself. Device passes are fitted on the result, as they would be on such a chip.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from xbcompile.errors import ProgramError
from xbcompile.ir import MatrixLayer, Patches
from xbcompile.ir.corrections import Corrections
from xbcompile.ir.vectors import collect, lay_out, of_type
from xbcompile.onnx_graph.engine import open_session
from xbcompile.onnx_graph.nodes import reads
from xbcompile.program.program import Program
from xbcompile.runtime.chip_view import ColumnErrors
from xbcompile.runtime.commissioning import fitted
from xbcompile.runtime.dataflow import Digital
from xbcompile.runtime.drive import CodedInput
from xbcompile.runtime.layer_executor import LayerExecutor, ReadingObserver
from xbcompile.runtime.one_by_one import EffortCounter, batched
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.runtime.session import Session
from xbcompile.runtime.timeline import VectorRange
from xbcompile.runtime.workers import ALONE, Workers
from xbcompile.targets import BatchedDevice, Device
from xbcompile.targets.error_sources import DEVICE_SOURCES

PROGRAM_SOURCES = ("weights", "coding")
SOURCES = (*PROGRAM_SOURCES, *DEVICE_SOURCES)


@dataclass(frozen=True)
class ModelLayer:
    """One layer as the user's model has it, by itself in onnxruntime: f0.

    Args:
        layer: the layer.
        start: the tensor from which the model leads to the layer's output: its input, or what the digital segment before it
            reads where a pass put that segment in.
        session: the model's part from `start` to the layer's output.
    """

    layer: MatrixLayer
    start: str
    session: ort.InferenceSession

    def vectors(self, x: np.ndarray) -> np.ndarray:
        """Output vectors, float64 [V, groups * outputs], of a value of `start`."""
        layer = self.layer
        (y,) = self.session.run([tensor_name(layer)], {self.start: x})
        if layer.stands_for:
            geometry = layer.geometry
            axis = geometry.channel_axis if isinstance(geometry, Patches) else geometry.output_axis
            y = np.concatenate([y] * (layer.groups * layer.outputs // y.shape[axis]), axis=axis)
        return collect(layer, y).astype(np.float64)


def tensor_name(layer: MatrixLayer) -> str:
    """The model's tensor that the layer's output is, or is copies of."""
    return layer.stands_for or layer.output


def model_of(program: Program) -> onnx.ModelProto:
    """The user's model.

    Raises:
        ProgramError: the program does not hold it.
    """
    if program.source is None:
        raise ProgramError(
            "the program does not hold its model, which its errors are measured against; compile it without --no-embed-model"
        )
    return program.source.joined()


def model_layers(program: Program) -> list[ModelLayer | None]:
    """f0 of every layer; None where the model does not have the layer's output, or no single tensor leads to it.

    Raises:
        ProgramError: the program does not hold its model.
    """
    model = model_of(program)
    segments = {name: segment for segment in program.network.segments for name in segment.output_names}
    found = []
    for layer in program.network.layers:
        start, part = layer.input, _model_part(model, layer, layer.input, layer.element_type)
        while part is None and start in segments and len(segments[start].input_names) == 1:
            (value,) = segments[start].model.graph.input
            start = value.name
            part = _model_part(model, layer, start, value.type.tensor_type.elem_type)
        found.append(None if part is None else ModelLayer(layer, start, open_session(part)))
    return found


def _model_part(model: onnx.ModelProto, layer: MatrixLayer, start: str, element_type: int) -> onnx.ModelProto | None:
    """The model from one tensor to a layer's output; None where other inputs lead there."""
    writers = {name: node for node in model.graph.node for name in node.output if name}
    constants = {each.name for each in model.graph.initializer}
    constants |= {each.values.name for each in model.graph.sparse_initializer}
    if tensor_name(layer) not in writers:
        return None
    needed, pending = set(), [tensor_name(layer)]
    while pending:
        name = pending.pop()
        if name == start:
            continue
        if name in writers:
            if id(writers[name]) not in needed:
                needed.add(id(writers[name]))
                pending.extend(reads(writers[name]))
        elif name not in constants:
            return None
    part = onnx.ModelProto()
    part.CopyFrom(model)
    kept = [node for node in model.graph.node if id(node) in needed]
    for field in ("node", "input", "output", "value_info"):
        part.graph.ClearField(field)
    part.graph.node.extend(kept)
    part.graph.input.append(helper.make_tensor_value_info(start, element_type, None))
    part.graph.output.append(onnx.ValueInfoProto(name=tensor_name(layer)))
    return part


class AblationExecutor(LayerExecutor):
    """A layer on a device, with sources switched off; see the module.

    Args:
        placed: the program as the chip runs it.
        index: which matrix layer.
        device: the device, already without the sources of its own that are off.
        workers: share the work.
        counter: see LayerExecutor.
        on: the sources that are on, of SOURCES.
        model_layer: f0; needed where weights are off.
    """

    def __init__(
        self,
        placed: PlacedProgram,
        index: int,
        device: BatchedDevice,
        workers: Workers = ALONE,
        counter: EffortCounter | None = None,
        *,
        on: frozenset[str],
        model_layer: ModelLayer | None,
    ) -> None:
        super().__init__(placed, index, device, workers, counter)
        self.on = on
        self.model_layer = model_layer
        self.dequantized = self.code.dequantized().astype(np.float64)
        # Values of the tensor from which the model leads to this layer, by the identity of the input that comes with each.
        self.starts: dict[int, np.ndarray] = {}

    def run(self, x: np.ndarray, reads: VectorRange | None = None, alone: bool = False) -> np.ndarray:
        """See LayerExecutor."""
        y, shape = self.vectors(x, reads)
        return lay_out(self.layer, of_type(y, x.dtype), shape)

    def vectors_before_gain(
        self, x: np.ndarray, reads: VectorRange | None = None, observer: ReadingObserver | None = None
    ) -> tuple[np.ndarray, tuple[int, ...]]:
        """See LayerExecutor."""
        uses_device = not self.on.isdisjoint(DEVICE_SOURCES)
        if uses_device:
            y, shape = super().vectors_before_gain(x, reads, observer)
            if "coding" not in self.on:
                y = y - self._through_weights(x, "error")[0]
        else:
            y, shape = self._through_weights(x, "coded" if "coding" in self.on else "exact")
            y = y + self.layer.bias
        # Commissioning looks at the readings of a column on inputs of its own, not at the layer's outputs.
        if "weights" not in self.on and not isinstance(observer, ColumnErrors):
            y = y + self._model_vectors(x) - (self._through_weights(x, "exact")[0] + self.layer.bias)
        return y, shape

    def _model_vectors(self, x: np.ndarray) -> np.ndarray:
        """f0 at the layer's input."""
        assert self.model_layer is not None
        return self.model_layer.vectors(x if self.model_layer.start == self.layer.input else self.starts[id(x)])

    def _through_weights(self, x: np.ndarray, which: str) -> tuple[np.ndarray, tuple[int, ...]]:
        """Products of the dequantised weights with the layer's inputs, float64 [V, groups * outputs], and the shape.

        Args:
            x: input tensor.
            which: "exact" inputs, "coded" ones, or the coding's "error" (coded minus exact).
        """
        source = self.input(x)
        y = np.empty((source.count, self.layer.groups * self.layer.outputs))
        for start, stop in self.parts(0, source.count):
            values = vectors = source.vectors(start, stop)
            if which != "exact":
                coded = self._decoded(source.coder.code(vectors, start))
                values = coded if which == "coded" else coded - vectors
            part = np.matmul(values.astype(np.float64), self.dequantized)
            y[start:stop] = part.transpose(1, 0, 2).reshape(stop - start, -1)
        return y, source.shape

    def _decoded(self, coded: CodedInput) -> np.ndarray:
        """The inputs that a code stands for, float64 [groups, V, K]."""
        code, value = self.layer.input_code, coded.value.astype(np.float64)
        if self.tiles.both_signs and code is not None:
            value = 2 * value - code.coefficients.sum()
        return value * coded.gain[:, None] + coded.shift[:, None]


class AblationSession(Session):
    """A session on one chip of the program's target with only these sources of error.

    Args:
        program: what to run, see Session; it must hold its model where weights are off.
        on: the sources that are on, of SOURCES.
        device: a device name of the program's target; None takes the default.
        seed: which simulated chip.
        layers: `model_layers(program)`, where it is at hand.
        threads: as for Session.

    Raises:
        TargetError: no such device, or its errors cannot be told apart.
        ProgramError: weights are off, and the model has no such layer.
    """

    calls_share_nothing = False

    def __init__(
        self,
        program: Program | PreparedProgram,
        on: Collection[str],
        device: str | None = None,
        seed: int = 0,
        layers: list[ModelLayer | None] | None = None,
        threads: int | None = None,
    ) -> None:
        prepared = program if isinstance(program, PreparedProgram) else PreparedProgram(program, threads)
        program = prepared.program
        found = [None] * len(program.network.layers) if "weights" in on else layers or model_layers(program)
        for layer, model_layer in zip(program.network.layers, found, strict=True):
            if "weights" not in on and model_layer is None:
                raise ProgramError(
                    f"layer {layer.name!r} cannot be run with the model's weights: in the model no single tensor before it "
                    f"leads to {tensor_name(layer)!r}"
                )
        off = [source for source in DEVICE_SOURCES if source not in on]
        self._on, self._found = frozenset(on), found
        self._starts = {} if "weights" in on else {each.layer.name: each.start for each in found if each is not None}
        super().__init__(prepared, program.target.device(device, seed, without=off), seed)
        self.plain = [
            self._executor(PlacedProgram(program, self._plain_corrections()), *each) for each in self._where()
        ]

    def _plain_corrections(self) -> Corrections:
        """Those of this chip without what acts before outputs are added up."""
        layers = tuple(replace(layer, tile_gain=None) for layer in self._corrections.layers)
        return replace(self._corrections, column_offset=None, layers=layers)

    def _where(self) -> list[tuple[int, BatchedDevice, Workers]]:
        return [(each.index, each.device, each.workers) for each in self.executors]

    def _executor(
        self,
        placed: PlacedProgram,
        index: int,
        device: BatchedDevice,
        workers: Workers = ALONE,
        counter: EffortCounter | None = None,
    ) -> LayerExecutor:
        return AblationExecutor(
            placed, index, device, workers, counter, on=self._on, model_layer=self._found[index]
        )  # fmt: skip

    def _digital_parts(self) -> Digital:
        return Digital(self.program.network, self._starts, self.prepared.segments)

    def _fitted(self, chip: Device) -> Corrections:
        return fitted(self.prepared, chip, self.digital, self._executor, self._note_start)

    def _make_executors(self) -> list[LayerExecutor]:
        on, workers = batched(self.device), self.prepared.workers
        return [self._executor(self.placed, i, on, workers) for i in range(len(self.program.network.layers))]

    def _input(self, index: int, values: Mapping[str, Any]) -> np.ndarray:
        x = super()._input(index, values)
        self._note_start(self.executors[index], [values])
        return x

    def _note_start(self, executor: LayerExecutor, values: Sequence[Mapping[str, Any]]) -> None:
        """Tell an executor the tensors that its model starts from."""
        start = self._starts.get(executor.layer.name)
        if start is not None and isinstance(executor, AblationExecutor):
            executor.starts = {id(each[executor.layer.input]): each[start] for each in values}

    def note_starts(self, index: int, values: Sequence[Mapping[str, Any]]) -> None:
        """Tell the executors of a layer the tensors at hand, before they see its inputs."""
        for executor in (self.executors[index], self.plain[index]):
            self._note_start(executor, values)

"""A session: one program on one chip."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper
from threadpoolctl import ThreadpoolController

from xbcompile.errors import DataError
from xbcompile.ir import Executed, MatrixLayer, NetworkNode, Recurrence
from xbcompile.ir.gather import gather
from xbcompile.onnx_graph.engine import open_session
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import CHUNK_SAMPLES, model_batch, sample_chunks
from xbcompile.runtime.commission import commission
from xbcompile.runtime.cost import Counters
from xbcompile.runtime.error_map import quieted
from xbcompile.runtime.gather import count_vectors, lay_out, of_type
from xbcompile.runtime.layer_executor import STEP_VECTORS, LayerExecutor
from xbcompile.runtime.one_by_one import batched
from xbcompile.runtime.routing import routed
from xbcompile.runtime.statistics import LayerStatistics, StatisticsCollector
from xbcompile.targets import Device

# In place of a matrix layer: `execute(index, tensors, step)` takes its input tensors, one per chunk, to its output tensors;
# `step` is the entry of the sequences that a recurrence is at, 0 outside of recurrences.
Execute = Callable[[int, list[np.ndarray], int], list[np.ndarray]]


class Session:
    """Runs a program: digital segments in onnxruntime, matrix layers on the device.

    The pipeline's device passes are fitted here, on the program's calibration inputs, because they belong to the chip
    and not to the program. The same program, device and seed give the same readings whatever the chunking and the
    threads, hence the same outputs, but for what is float arithmetic throughout: digital segments, and the `ideal`
    device, follow the rounding of their libraries.

    Args:
        program: what to run.
        device: a device name of the program's target (see `Target.device_names`), a Device, or None for the default.
        seed: which simulated chip.
        threads: worker threads; None takes one per processor.

    Raises:
        TargetError: the target has no such device.
    """

    def __init__(
        self, program: Program, device: str | Device | None = None, seed: int = 0, threads: int | None = None
    ) -> None:
        chosen = program.target.device(device, seed) if device is None or isinstance(device, str) else device
        self.device = batched(chosen)
        # The work is split over our own threads; a threaded BLAS below them would only compete.
        self._blas = ThreadpoolController().select(user_api="blas")
        self.program = program = self._placed(routed(program, chosen))
        self.counters = Counters()
        workers = threads or os.cpu_count() or 1
        self.executors = [LayerExecutor(program, i, self.device, workers) for i in range(len(program.network.layers))]
        self._index = {layer.name: i for i, layer in enumerate(program.network.layers)}
        self._segments: dict[str, ort.InferenceSession] = {
            segment.name: open_session(segment.model) for segment in program.network.segments
        }
        self._statistics = [StatisticsCollector(self.device) for _ in self.executors]
        if program.calibration:
            with self._blas.limit(limits=1):
                commission(self)

    def _placed(self, program: Program) -> Program:
        """The program with its columns where they err least on this chip, as far as a pass asks for it."""
        if not program.calibration:
            return program
        with self._blas.limit(limits=1):
            return quieted(program, self.device)

    @property
    def statistics(self) -> list[LayerStatistics]:
        """Per-layer statistics of the first samples of every run."""
        names = [layer.name for layer in self.program.network.layers]
        return [c.result(name) for c, name in zip(self._statistics, names, strict=True)]

    def run(self, feeds: dict[str, np.ndarray], first_sample: int = 0, observe: bool = False) -> dict[str, Any]:
        """Run the model once on exactly these inputs.

        Args:
            feeds: graph inputs by name.
            first_sample: index of the first sample in a longer run; noise depends on it.
            observe: also collect statistics of readings.

        Returns:
            graph outputs by name.
        """
        check_feeds(self.program, feeds)
        samples = max((len(x) for x in feeds.values() if isinstance(x, np.ndarray) and x.ndim), default=1)

        def execute(index: int, x: np.ndarray, step: int) -> np.ndarray:
            layer = self.program.network.layers[index]
            # Axis 0 of a layer's input may count something else than samples, behind a Reshape.
            first_vector = first_sample * (count_vectors(layer, x.shape) // max(1, samples)) + step * STEP_VECTORS
            with self._blas.limit(limits=1):
                y, shape = self.executors[index].vectors(x, first_vector, self._statistics[index] if observe else None)
            self.counters.count(self.program, index, len(y))
            return lay_out(layer, of_type(y, x.dtype), shape)

        return self.walk([feeds], lambda index, tensors, step: [execute(index, tensors[0], step)])[0]

    def walk(self, chunks: list[dict[str, Any]], execute: Execute) -> list[dict[str, Any]]:
        """Run the network on several chunks of samples side by side, node after node.

        A recurrence runs chunk by chunk, all its steps.

        Args:
            chunks: graph inputs by name, each what the model takes in one call.
            execute: in place of each matrix layer.

        Returns:
            graph outputs by name, for each chunk.
        """
        network = self.program.network
        values: list[dict[str, Any]] = [dict(feeds) for feeds in chunks]
        last_use = {name: i for i, node in enumerate(network.nodes) for name in self._names_needed(node)}
        public = {value.name for value in network.outputs}
        for i, node in enumerate(network.nodes):
            if isinstance(node, Recurrence):
                for each in values:
                    self._run_recurrence(node, each, execute)
            else:
                self._run_node(node, values, execute, 0)
            for name in self._names_needed(node):
                if last_use[name] == i and name not in public:
                    for each in values:
                        each.pop(name, None)
        return [{value.name: each[value.name] for value in network.outputs} for each in values]

    def _run_node(self, node: Executed, values: list[dict[str, Any]], execute: Execute, step: int) -> None:
        """Add what a node writes to the tensors of each chunk."""
        if isinstance(node, MatrixLayer):
            self._before_layer(self._index[node.name], values)
            outputs = execute(self._index[node.name], [each[node.input] for each in values], step)
            for each, output in zip(values, outputs, strict=True):
                each[node.output] = output
        else:
            names, session = list(node.output_names), self._segments[node.name]
            for each in values:
                results = session.run(names, {name: each[name] for name in node.input_names})
                each.update(zip(names, results, strict=True))

    def _run_recurrence(self, node: Recurrence, outside: dict[str, Any], execute: Execute) -> None:
        """Add what a recurrence writes to the tensors of one chunk."""
        steps = len(outside[node.sequences[0].outer])
        inside = {name: outside[name] for name in node.outer_reads}
        inside |= {state.start: outside[state.initial] for state in node.states}
        stacked: dict[str, list[Any]] = {output.outer: [None] * steps for output in node.outputs}
        for step in reversed(range(steps)) if node.reverse else range(steps):
            inside |= {sequence.inner: outside[sequence.outer][step] for sequence in node.sequences}
            for inner in node.nodes:
                self._run_node(inner, [inside], execute, step)
            for output in node.outputs:
                stacked[output.outer][step] = inside[output.inner]
            inside |= {state.start: inside[state.end] for state in node.states}
        outside |= {state.final: inside[state.start] for state in node.states}
        if steps:
            outside |= {name: np.stack(entries) for name, entries in stacked.items()}
        elif node.outputs:
            outside |= self._no_steps(node, outside, inside)

    def _no_steps(self, node: Recurrence, outside: dict[str, Any], inside: dict[str, Any]) -> dict[str, np.ndarray]:
        """Stacked outputs of no step: their shapes are those of a step on zeros, in which no array is read."""

        def execute(index: int, tensors: list[np.ndarray], step: int) -> list[np.ndarray]:
            layer, x = self.program.network.layers[index], tensors[0]
            vectors, shape = gather(layer, x)
            return [lay_out(layer, np.zeros((vectors.shape[1], layer.groups * layer.outputs), x.dtype), shape)]

        for sequence in node.sequences:
            entries = outside[sequence.outer]
            inside[sequence.inner] = np.zeros(entries.shape[1:], entries.dtype)
        for inner in node.nodes:
            self._run_node(inner, [inside], execute, 0)
        return {o.outer: np.empty((0, *inside[o.inner].shape), inside[o.inner].dtype) for o in node.outputs}

    def _names_needed(self, node: NetworkNode) -> tuple[str, ...]:
        """Tensors that must be there when a node runs."""
        return node.input_names

    def _before_layer(self, index: int, values: list[dict[str, Any]]) -> None:
        """Called before a layer runs, with the tensors at hand of every chunk; for sessions that need more than its input."""

    def run_samples(
        self, feeds: dict[str, np.ndarray], progress: Callable[[int], None] | None = None, chunk: int | None = None
    ) -> dict[str, np.ndarray]:
        """Run any number of samples (axis 0 of every input), chunk by chunk; outputs are joined along axis 0.

        Args:
            feeds: graph inputs by name.
            progress: told the number of samples done after each chunk.
            chunk: samples per chunk; None takes 500. A model's fixed batch goes before.

        Raises:
            DataError: the samples do not fill the model's fixed batch, or an input does not fit.
        """
        samples = check_samples(self.program, feeds)
        fixed = model_batch(self.program.network.inputs)
        size = fixed or chunk or CHUNK_SAMPLES
        self.counters.inferences += samples
        parts: list[dict[str, np.ndarray]] = []
        for first, part in sample_chunks(feeds, size):
            parts.append(self.run(part, first, observe=first == 0))
            if progress is not None:
                progress(min(samples, first + size))
        if len(parts) == 1:
            return parts[0]
        for name, value in parts[0].items():
            if np.ndim(value) == 0 or len(value) != size:
                raise DataError(
                    f"output {name!r} has shape {np.shape(value)} for {size} samples, so runs of several chunks cannot be "
                    f"joined along axis 0; run at most {size} samples at a time"
                )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_feeds(program: Program, feeds: dict[str, np.ndarray]) -> None:
    """Raise DataError when names, types or shapes of the inputs do not fit the model."""
    for value in program.network.inputs:
        if value.name not in feeds:
            raise DataError(f"model input {value.name!r} is missing; given: {', '.join(feeds) or 'none'}")
        x = feeds[value.name]
        if value.type.tensor_type.elem_type:
            dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            if np.asarray(x).dtype != dtype and dtype.kind != "O":  # texts have many types
                raise DataError(f"input {value.name!r} has type {np.asarray(x).dtype}; the model wants {dtype}")
        dims = value.type.tensor_type.shape.dim if value.type.tensor_type.HasField("shape") else None
        if dims is None:
            continue
        wanted = [d.dim_value if d.HasField("dim_value") else None for d in dims]
        found = np.shape(x)
        if len(found) != len(wanted) or any(w is not None and w != f for w, f in zip(wanted, found, strict=True)):
            text = "x".join("?" if w is None else str(w) for w in wanted)
            raise DataError(f"input {value.name!r} has shape {'x'.join(map(str, found))}; the model wants {text}")
    unknown = sorted(set(feeds) - {value.name for value in program.network.inputs})
    if unknown and any(tensor.name == unknown[0] for tensor in program.host_graph.skeleton.graph.initializer):
        raise DataError(
            f"{unknown[0]!r} is no input of the program: the model has a value for it, which was compiled in; to feed it, "
            "remove the initializer of that name from the model"
        )
    if unknown:
        raise DataError(f"the model has no input {unknown[0]!r}")


def check_samples(program: Program, feeds: dict[str, np.ndarray]) -> int:
    """Number of samples; raises DataError when inputs disagree, are empty, or do not fill the model's fixed batch."""
    counts = {name: len(value) for name, value in feeds.items()}
    samples = next(iter(counts.values()), 0)
    if samples == 0:
        raise DataError("there are no samples to run")
    if len(set(counts.values())) > 1:
        raise DataError(f"inputs have different numbers of samples: {counts}")
    fixed = model_batch(program.network.inputs)
    if fixed and samples % fixed:
        raise DataError(f"{samples} samples do not fill the model's fixed batch of {fixed}; give a multiple of {fixed}")
    return samples

"""Commissioning a chip: fitting the program's device passes through the device, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from xbcompile.ir.activations import CHUNK_SAMPLES, evaluate, evaluate_model, model_batch, sample_chunks
from xbcompile.ir.network_pass import CalibratedPass, OutputsPass, ReadingsPass
from xbcompile.program import Program, device_passes
from xbcompile.runtime.gather import collect, lay_out

if TYPE_CHECKING:
    from xbcompile.runtime.session import Session

# Noise counters of commissioning start here, far from those of any run.
COMMISSION_VECTOR = 1 << 48


def commission(session: Session) -> None:
    """Fit every device pass of the program's pipeline on its calibration inputs; the session keeps the corrections."""
    for each in device_passes(session.program.pipeline):
        if not isinstance(each, CalibratedPass):
            continue
        batch = model_batch(session.program.network.inputs)
        samples = max(each.samples // (batch or 1), 1) * (batch or 1)
        feeds = {name: value[:samples] for name, value in session.program.calibration.items()}
        if isinstance(each, ReadingsPass):
            _fit_column_offsets(session, each, feeds)
        elif isinstance(each, OutputsPass):
            _fit_outputs(session, each, feeds, batch)


class _ColumnErrors:
    """Sum of errors and number of readings per physical column."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.total = np.zeros(shape)
        self.count = np.zeros(shape)

    def observe(self, arrays: np.ndarray, columns: np.ndarray, readings: np.ndarray, exact: np.ndarray) -> None:
        """See ReadingObserver."""
        index = (arrays[:, None], columns)
        np.add.at(self.total, index, (readings - exact).sum(axis=(1, 2), dtype=np.float64))
        np.add.at(self.count, index, float(readings.shape[1] * readings.shape[2]))


def _fit_column_offsets(session: Session, each: ReadingsPass, feeds: dict[str, np.ndarray]) -> None:
    """All layers at once, on the network's ideal activations: the offset belongs to the array, not to a layer."""
    program = session.program
    errors = _ColumnErrors((program.schedule.arrays, program.spec.columns))
    layers = program.network.layers
    inputs = evaluate(program.network, feeds, [layer.input for layer in layers])
    for executor, chunks in zip(session.executors, inputs, strict=True):
        first_vector = COMMISSION_VECTOR
        for x in chunks:
            y, _ = executor.vectors(x, first_vector, errors)
            first_vector += len(y)
    offset = each.fit(errors.total / np.maximum(errors.count, 1), session.device.lsb)
    for executor in session.executors:
        executor.column_offset = offset


def reference_outputs(program: Program, feeds: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    """What each matrix layer's output should be, chunk by chunk: the user's model's own tensor of that name, where the
    program holds the model and the model has that tensor (quantization is then corrected along with the device); else
    the ideal meaning's.
    """
    names = [layer.output for layer in program.network.layers]
    ideal = dict(zip(names, evaluate(program.network, feeds, names), strict=True))
    if program.source is not None:
        model = onnx.ModelProto.FromString(program.source)
        own = [name for name in names if any(name in node.output for node in model.graph.node)]
        originals = evaluate_model(model, program.network.inputs, feeds, own)
        ideal |= {n: v for n, v in zip(own, originals, strict=True) if v[0].shape == ideal[n][0].shape}
    return [ideal[name] for name in names]


def _fit_outputs(session: Session, each: OutputsPass, feeds: dict[str, np.ndarray], batch: int | None) -> None:
    """In order of execution: each layer sees what the corrected layers before it give."""
    layers = session.program.network.layers
    references = reference_outputs(session.program, feeds)

    def execute(index: int, tensors: list[np.ndarray]) -> list[np.ndarray]:
        executor, layer = session.executors[index], layers[index]
        measured, shapes, first_vector = [], [], COMMISSION_VECTOR
        for x in tensors:
            y, shape = executor.vectors(x, first_vector)
            measured.append(y)
            shapes.append(shape)
            first_vector += len(y)
        reference = np.concatenate([collect(layer, chunk) for chunk in references[index]]).astype(np.float64)
        gain, shift = each.fit(np.concatenate(measured), reference)
        executor.gain, executor.shift = gain * executor.gain, gain * executor.shift + shift
        return [
            lay_out(layer, (gain * y + shift).astype(x.dtype), shape)
            for x, y, shape in zip(tensors, measured, shapes, strict=True)
        ]

    session.walk([chunk for _, chunk in sample_chunks(feeds, batch or CHUNK_SAMPLES)], execute)

"""Commissioning a chip: fitting the program's device passes through the device, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbcompile.frontend import import_network
from xbcompile.ir import MatrixLayer, Network, Patches
from xbcompile.passes.contract import CalibratedPass, OutputsPass, ReadingsPass
from xbcompile.program.program import Program, device_passes
from xbcompile.reference.evaluate import CHUNK_SAMPLES, evaluate, evaluate_model, model_batch, sample_chunks
from xbcompile.runtime.gather import collect, count_vectors, lay_out, of_type

if TYPE_CHECKING:
    from xbcompile.runtime.layer_executor import LayerExecutor
    from xbcompile.runtime.session import Session

# Noise counters of commissioning start here, far from those of any run.
COMMISSION_VECTOR = 1 << 48
# Vectors of a layer from which gains per tile are fitted, in whole chunks: more say little and cost memory.
TILE_VECTORS = 20_000


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


class ColumnErrors:
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
    errors = ColumnErrors((program.schedule.arrays, program.spec.columns))
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
    the ideal meaning's. A layer that stands for a tensor in copies gets as many copies of it.

    The model's own tensors include those that it has once its operators are taken apart into matrices and the rest.
    """
    layers = program.network.layers
    references = evaluate(program.network, feeds, [layer.output for layer in layers])
    if program.source is None:
        return references
    model = program.source
    names = [layer.stands_for or layer.output for layer in layers]
    own = sorted({name for name in names if any(name in node.output for node in model.skeleton.graph.node)})
    originals = dict(zip(own, evaluate_model(model, program.network.inputs, feeds, own), strict=True))
    taken_apart = imported_model(program) if len(own) < len(set(names)) else None
    if taken_apart is not None:
        rest = sorted(set(names) & _written(taken_apart) - originals.keys())
        originals.update(zip(rest, evaluate(taken_apart, feeds, rest), strict=True))
    for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
        found = [_copies(layer, chunk, layer.groups * layer.outputs) for chunk in originals.get(name, [])]
        if found and found[0].shape == references[i][0].shape:
            references[i] = found
    return references


def imported_model(program: Program) -> Network | None:
    """The network that the program's model was, before any pass; None where the program does not hold the model."""
    if program.source is None:
        return None
    return import_network(program.source.joined())


def _written(network: Network) -> set[str]:
    """Tensors that nodes of a network write, those in bodies too."""
    return {name for node in network.executed for name in node.output_names}


def _copies(layer: MatrixLayer, tensor: np.ndarray, columns: int) -> np.ndarray:
    """As many copies of a tensor along the layer's axis of outputs as fill it; itself where none stand for it."""
    if not layer.stands_for:
        return tensor
    axis = 1 if isinstance(layer.geometry, Patches) else layer.geometry.output_axis
    return np.concatenate([tensor] * (columns // tensor.shape[axis]), axis=axis)


def step_values(program: Program, feeds: dict[str, np.ndarray]) -> dict[int, tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs and right outputs of each layer inside a recurrence, by layer index: all steps stacked, chunk by chunk.

    They are the model's own, so that errors of earlier steps are not in them; the ideal meaning's where the program does
    not hold the model or a pass changed what the layer reads.
    """
    network = program.network
    inside = [i for i, layer in enumerate(network.layers) if any(layer in r.layers for r in network.recurrences)]
    if not inside:
        return {}
    model = imported_model(program)
    known = set() if model is None else {name for r in model.recurrences for name in r.inner_names}
    found = {}
    for i in inside:
        layer = network.layers[i]
        names = [layer.input, layer.stands_for or layer.output]
        source = model if model is not None and known.issuperset(names) else network
        if source is network:
            names[1] = layer.output
        inputs, outputs = evaluate(source, feeds, names)
        columns = layer.groups * layer.outputs
        found[i] = (inputs, [chunk if source is network else _copies(layer, chunk, columns) for chunk in outputs])
    return found


def _fit_outputs(session: Session, each: OutputsPass, feeds: dict[str, np.ndarray], batch: int | None) -> None:
    """In order of execution: each layer sees what the corrected layers before it give.

    Layers inside a recurrence are fitted on the model's own values at all steps, as what they see depends on themselves.
    """
    layers = session.program.network.layers
    references = reference_outputs(session.program, feeds)
    inside = step_values(session.program, feeds)

    def fit(index: int, tensors: list[np.ndarray], goal: list[np.ndarray]) -> list[np.ndarray]:
        executor, layer = session.executors[index], layers[index]
        if each.per_tile:
            _fit_tiles(executor, each, tensors, goal)
        measured, shapes, first_vector = [], [], COMMISSION_VECTOR
        for x in tensors:
            y, shape = executor.vectors(x, first_vector)
            measured.append(y)
            shapes.append(shape)
            first_vector += len(y)
        reference = np.concatenate([collect(layer, chunk) for chunk in goal]).astype(np.float64)
        gain, shift = each.fit(np.concatenate(measured), reference)
        executor.gain, executor.shift = gain * executor.gain, gain * executor.shift + shift
        return [
            lay_out(layer, of_type(gain * y + shift, x.dtype), shape)
            for x, y, shape in zip(tensors, measured, shapes, strict=True)
        ]

    counted = dict.fromkeys(inside, COMMISSION_VECTOR)

    def execute(index: int, tensors: list[np.ndarray], step: int) -> list[np.ndarray]:
        if index not in inside:
            return fit(index, tensors, references[index])
        outputs = []
        for x in tensors:
            y, shape = session.executors[index].vectors(x, counted[index])
            counted[index] += len(y)
            outputs.append(lay_out(layers[index], of_type(y, x.dtype), shape))
        return outputs

    for index, (tensors, goal) in inside.items():
        fit(index, tensors, goal)
    session.walk([chunk for _, chunk in sample_chunks(feeds, batch or CHUNK_SAMPLES)], execute)


def _fit_tiles(
    executor: LayerExecutor, each: OutputsPass, tensors: list[np.ndarray], references: list[np.ndarray]
) -> None:
    """Give every tile of the layer its own gain per column: each tile is read alone, with the others' gains at 0."""
    layer, table = executor.layer, executor.program.schedule.tiles[executor.tiles]
    block = np.unique(np.stack([table["group"], table["m0"]], axis=1), axis=0, return_inverse=True)[1].ravel()
    place = np.array([int((block[:i] == b).sum()) for i, b in enumerate(block)])  # among the tiles of its columns
    tiles = int(place.max()) + 1
    if tiles == 1:
        return
    counts = np.cumsum([count_vectors(layer, x.shape) for x in tensors])
    used = max(1, int(np.searchsorted(counts, TILE_VECTORS, side="right")))
    chunks, reference = (
        tensors[:used],
        np.concatenate([collect(layer, r) for r in references[:used]]).astype(np.float64),
    )

    def measured(gain: np.ndarray) -> np.ndarray:
        executor.tile_gain = np.repeat(gain[:, None], executor.program.spec.columns, axis=1)
        first_vector, outputs = COMMISSION_VECTOR, []
        for x in chunks:
            outputs.append(executor.vectors(x, first_vector)[0])
            first_vector += len(outputs[-1])
        return np.concatenate(outputs)

    rest = measured(np.zeros(len(table)))
    parts = np.stack([measured((place == t).astype(np.float64)) - rest for t in range(tiles)], axis=1)
    gain = each.fit_tiles(parts, reference - rest)
    executor.tile_gain = np.ones((len(table), executor.program.spec.columns))
    for i, (tile, t) in enumerate(zip(table, place, strict=True)):
        first = tile["group"] * layer.outputs
        executor.tile_gain[i, : tile["m1"] - tile["m0"]] = gain[t, first + tile["m0"] : first + tile["m1"]]

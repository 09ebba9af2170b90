"""What each matrix layer's outputs should be: the goal of commissioning and of diagnosis."""

from __future__ import annotations

import numpy as np

from xbcompile.ir import MatrixLayer, Patches
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import computed_tensors, evaluate, evaluate_model


def reference_outputs(program: Program, feeds: dict[str, np.ndarray]) -> list[list[np.ndarray]]:
    """What each matrix layer's output should be, chunk by chunk: the user's model's own tensor of that name, where the
    program holds the model and the model has that tensor (quantization is then corrected along with the device); else
    the ideal meaning's. A layer that stands for a tensor in copies gets as many copies of it.

    The model's own tensors include those that it has once its operators are taken apart into matrices and the rest.
    """
    layers = program.network.layers
    references = evaluate(program.network, feeds, [layer.output for layer in layers])
    names = [layer.stands_for or layer.output for layer in layers]
    originals: dict[str, list[np.ndarray]] = {}
    for model in (program.source, program.taken_apart):
        if model is not None:
            wanted = sorted((set(names) & computed_tensors(model)) - originals.keys())
            found = evaluate_model(model, program.network.samples, feeds, wanted)
            originals.update(zip(wanted, found, strict=True))
    for i, (layer, name) in enumerate(zip(layers, names, strict=True)):
        copies = [_copies(layer, chunk, layer.groups * layer.outputs) for chunk in originals.get(name, [])]
        if copies and copies[0].shape == references[i][0].shape:
            references[i] = copies
    return references


def _copies(layer: MatrixLayer, tensor: np.ndarray, columns: int) -> np.ndarray:
    """As many copies of a tensor along the layer's axis of outputs as fill it; itself where none stand for it."""
    if not layer.stands_for:
        return tensor
    geometry = layer.geometry
    axis = geometry.channel_axis if isinstance(geometry, Patches) else geometry.output_axis
    return np.concatenate([tensor] * (columns // tensor.shape[axis]), axis=axis)


def step_values(program: Program, feeds: dict[str, np.ndarray]) -> dict[int, tuple[list[np.ndarray], list[np.ndarray]]]:
    """Inputs and right outputs of each layer inside a recurrence, by layer index: all steps stacked, chunk by chunk.

    They are the model's own, so that errors of earlier steps are not in them; the ideal meaning's where the program does
    not hold the model or a pass changed what the layer reads.
    """
    network, model = program.network, program.taken_apart
    inside = [i for i, layer in enumerate(network.layers) if any(layer in r.layers for r in network.recurrences)]
    known = frozenset() if model is None or not inside else computed_tensors(model)
    found = {}
    for i in inside:
        layer = network.layers[i]
        names = [layer.input, layer.stands_for or layer.output]
        if model is not None and known.issuperset(names):
            inputs, outputs = evaluate_model(model, network.samples, feeds, names)
            found[i] = inputs, [_copies(layer, chunk, layer.groups * layer.outputs) for chunk in outputs]
        else:
            inputs, outputs = evaluate(network, feeds, [layer.input, layer.output])
            found[i] = inputs, outputs
    return found

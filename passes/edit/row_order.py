"""Which input of a dense layer sits on which rows of the array: what passes that move or copy inputs share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer, Network
from xbcompile.passes.contract import PassContext
from xbcompile.passes.edit import rewiring
from xbcompile.reference.evaluate import evaluate

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

MIDDLES = np.linspace(0.7, 1.3, 25)  # row weights tried as the one that is coded best; the mean of all rows is 1


def is_free(layer: MatrixLayer) -> bool:
    """Whether the layer's inputs can still be moved: dense, neither weights nor inputs coded."""
    return rewiring.is_dense(layer) and layer.weight_code is None and layer.input_code is None


def with_rows(network: Network, layer: MatrixLayer, rows: int) -> Network:
    """The network with a layer of another number of inputs, for questions about its layout only."""
    return network.with_layers([replace(layer, weights=np.zeros((1, rows, layer.outputs), np.float32), matrix="")])


def rows_at_hand(network: Network, layer: MatrixLayer, context: PassContext) -> int:
    """Rows that a layer may use: whole arrays where that takes no more weight images, else as many as it has."""
    rows = -(-layer.inputs // context.spec.rows) * context.spec.rows
    fits = context.images(with_rows(network, layer, rows)) <= context.images(network)
    return rows if fits else layer.inputs


def gains(network: Network, index: int, rows: int, context: PassContext) -> Floats:
    """Row weights of a layer that has this many rows, float64 [rows, outputs]; 1 where all rows count alike."""
    layer = network.layers[index]
    row_weight = context.row_weights(with_rows(network, layer, rows))[index]
    return np.ones((rows, layer.outputs)) if row_weight is None else row_weight[0].astype(np.float64)


def importance(network: Network, layer: MatrixLayer, context: PassContext, samples: int) -> Floats:
    """Variance of each input on the first calibration inputs times its mean squared weight, float64 [inputs].

    Where no input varies, as on a single vector, all are taken to vary alike.

    Raises:
        PassError: an input is not finite there.
    """
    feeds = {name: value[:samples] for name, value in context.require_calibration("the order of inputs").items()}
    chunks = evaluate(network, feeds, [layer.input])[0]
    vectors = np.concatenate([chunk.reshape(-1, layer.inputs) for chunk in chunks])
    if not np.isfinite(vectors).all():
        raise PassError(f"inputs of layer {layer.name!r} are not finite on the calibration inputs")
    variance = vectors.var(axis=0, dtype=np.float64)
    return (variance if variance.any() else np.ones(layer.inputs)) * np.square(
        layer.weights[0].astype(np.float64)
    ).mean(axis=1)


def place(importance: Floats, gain: Floats, pairs: bool) -> Indices:
    """Which input sits on which row.

    Args:
        importance: float64 [inputs], at least 0.
        gain: float64 [rows], row weights; no fewer rows than inputs.
        pairs: whether spare rows may share an input with another row.

    Returns:
        int64 [rows], index of the input, -1 for a pad. Every input has one or two rows.
    """
    spare = len(gain) - len(importance)
    falling = np.argsort(-importance, kind="stable")
    best: tuple[float, Indices] | None = None
    for count in sorted({0, spare // 4, spare // 2, 3 * spare // 4, spare}) if pairs else [0]:
        for middle in MIDDLES:
            slots, sums = _slots(gain, float(middle), count)
            misfit = np.square(1 - sums / middle)
            order = np.argsort(misfit, kind="stable")[: len(importance)]
            error = float(importance[falling] @ misfit[order])
            if best is None or error < best[0] * (1 - 1e-9):
                source = np.full(len(gain), -1)
                for each, slot in zip(falling, order, strict=True):
                    source[list(slots[slot])] = each
                best = error, source
    assert best is not None
    return best[1]


def _slots(gain: Floats, middle: float, pairs: int) -> tuple[list[tuple[int, ...]], Floats]:
    """Rows alone and in pairs: up to `pairs` of the lightest rows get the partner that brings the sum nearest to the middle.

    Returns the rows of each slot, and the sum of their weights; there are as many slots as rows less pairs.
    """
    free = np.argsort(gain, kind="stable").tolist()
    weights = gain[free].tolist()
    found: list[tuple[int, ...]] = []
    for _ in range(pairs):
        if len(free) < 2:
            break
        at = int(np.searchsorted(weights[1:], middle - weights[0])) + 1
        near = [i for i in (at - 1, at) if 1 <= i < len(free)]
        partner = min(near, key=lambda i: abs(weights[0] + weights[i] - middle))
        found.append((free[0], free[partner]))
        for i in (partner, 0):
            del free[i], weights[i]
    slots = found + [(row,) for row in free]
    return slots, np.array([gain[list(slot)].sum() for slot in slots])


def spread(weights: Floats, source: Indices, gain: Floats, rows_of_array: int) -> Floats:
    """Weights [rows, outputs] on their rows: shares of an input as their row weights are, pads of alternating sign.

    A pad's weight is the row weight times the least-squares scale of a binary code of the column, so that coding it does
    not move the scale. Signs alternate among the pads of one array and from output to output.
    """
    used = np.flatnonzero(source >= 0)
    total = np.zeros_like(weights)
    np.add.at(total, source[used], gain[used])
    result = np.zeros_like(gain)
    result[used] = weights[source[used]] * gain[used] / total[source[used]]
    scale = (gain[used] * np.abs(result[used])).sum(axis=0) / np.square(gain[used]).sum(axis=0)
    pads = np.flatnonzero(source < 0)
    first = np.searchsorted(pads, pads // rows_of_array * rows_of_array)  # of the pads of the same array
    sign = 1.0 - 2.0 * (((np.arange(len(pads)) - first)[:, None] + np.arange(weights.shape[1])) % 2)
    result[pads] = gain[pads] * scale * sign
    return result

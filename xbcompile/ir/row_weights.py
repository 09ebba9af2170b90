"""Row weights of a layer from where its tiles sit."""

from __future__ import annotations

import numpy as np

from xbcompile.ir.array_spec import ArraySpec


def row_weight_of_layer(
    tiles: np.ndarray, layer: int, shape: tuple[int, int, int], spec: ArraySpec
) -> np.ndarray | None:
    """Weight of the row on which each weight of one layer sits.

    Args:
        tiles: TILE table of the whole layout.
        layer: index of the layer.
        shape: (groups, inputs, outputs).
        spec: the target's array.

    Returns:
        float32 of that shape, or None where every row counts alike. Read-only, and without memory of its own for the axis of
        outputs, where all columns of the matrix have their weights on the same rows.
    """
    if not spec.has_row_weights:
        return None
    mine = tiles[tiles["layer"] == layer]
    strips = np.unique(mine[["group", "k0", "k1", "row"]])
    if (strips["k1"] - strips["k0"]).sum() == shape[0] * shape[1]:  # each row of the matrix is in one of them
        weight = np.ones((*shape[:2], 1), np.float32)
        for strip in strips:
            rows = spec.row_weight[strip["row"] : strip["row"] + strip["k1"] - strip["k0"]]
            weight[strip["group"], strip["k0"] : strip["k1"], 0] = rows
        return np.broadcast_to(weight, shape)
    weight = np.ones(shape, np.float32)
    for tile in mine:
        rows = spec.row_weight[tile["row"] : tile["row"] + tile["k1"] - tile["k0"]]
        weight[tile["group"], tile["k0"] : tile["k1"], tile["m0"] : tile["m1"]] = rows[:, None]
    return weight

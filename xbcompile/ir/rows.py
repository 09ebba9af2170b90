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
        float32 of that shape, or None where every row counts alike.
    """
    if not spec.has_row_weights:
        return None
    weight = np.ones(shape, np.float32)
    for tile in tiles[tiles["layer"] == layer]:
        rows = spec.row_weight[tile["row"] : tile["row"] + tile["k1"] - tile["k0"]]
        weight[tile["group"], tile["k0"] : tile["k1"], tile["m0"] : tile["m1"]] = rows[:, None]
    return weight

"""join-groups: several groups of a layer, as of a depthwise convolution, side by side in one matrix, so in one read.

    W[g, k, m]  ->  V[g // N, (g % N) K + k, (g % N) M + m] = W[g, k, m],  0 elsewhere

N groups on N times the rows and columns take N^2 cells in place of N, and one read in place of N. N divides the number of
groups, so inputs, outputs and geometry stay: the channels of neighbouring groups are neighbours.

Exact: cells off the diagonal hold the level 0, whatever is driven adds nothing there. So the pass works on weight codes, after
`quantize`, and no fit sees the zeros; real-valued cells without limit need no code. It refuses what cannot be exact: an array
without a level 0, whose rows weigh differently, or a code with an offset, which is a weight of its own for cells of 0.
(A NaN or infinite input reaches the outputs of its neighbours too.)
Source: block-diagonal matrices of grouped convolutions: our own derivation, as above.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError
from xbcompile.ir import ArraySpec, MatrixLayer, Network, WeightCode
from xbcompile.passes.contract import NetworkPass, PassContext


@dataclass(frozen=True)
class JoinGroups(NetworkPass):
    """Join groups of every layer that has several.

    Args:
        groups: groups in one read at most; 0: as many as fit an array. The largest number is taken that divides the layer's
            groups and whose matrix fits an array; where that is 1, the layer stays.
    """

    name: ClassVar[str] = "join-groups"
    needs: ClassVar[str] = "a layer of several groups that fit an array side by side"
    groups: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("groups", 1, zero="as many as fit")

    def requires(self, network: Network, context: PassContext) -> None:
        """Cells off the diagonal can hold an exact 0."""
        for layer in network.layers:
            if self.joined_groups(layer, context.spec) == 1:
                continue
            reason = _why_not(layer, context.spec)
            if reason:
                raise PassError(f"layer {layer.name!r}: its {layer.groups} groups cannot be joined: {reason}")

    def run(self, network: Network, context: PassContext) -> Network:
        """Layers that share a matrix share the joined one."""
        joined: dict[int, tuple[np.ndarray, WeightCode | None]] = {}
        changed = []
        for layer, owner in zip(network.layers, network.matrices, strict=True):
            count = self.joined_groups(layer, context.spec)
            if count == 1:
                continue
            if owner not in joined:
                code = None if layer.weight_code is None else joined_code(layer.weight_code, count)
                joined[owner] = block_diagonal(layer.weights, count, 0.0), code
            weights, code = joined[owner]
            changed.append(replace(layer, weights=weights, weight_code=code))
        return network.with_layers(changed) if changed else network

    def joined_groups(self, layer: MatrixLayer, spec: ArraySpec) -> int:
        """How many groups of a layer are joined: the largest divisor of their number that fits."""
        most = min(spec.rows // layer.inputs, spec.columns // layer.outputs, self.groups or layer.groups, layer.groups)
        return next((count for count in range(most, 1, -1) if layer.groups % count == 0), 1)


def block_diagonal(blocks: npt.NDArray[Any], count: int, fill: float) -> npt.NDArray[Any]:
    """`count` neighbouring blocks along the diagonal of each result.

    Args:
        blocks: [groups, K, M] of any type; `count` divides the groups.
        count: blocks per result.
        fill: value off the diagonal.

    Returns:
        [groups / count, count K, count M] of the same type.
    """
    groups, inputs, outputs = blocks.shape
    result = np.full((groups // count, count, inputs, count, outputs), fill, blocks.dtype)
    each = np.arange(count)
    # An index on two axes with a slice between comes first: [count, groups / count, K, M].
    result[:, each, :, each, :] = blocks.reshape(groups // count, count, inputs, outputs).swapaxes(0, 1)
    return result.reshape(groups // count, count * inputs, count * outputs)


def joined_code(code: WeightCode, count: int) -> WeightCode:
    """The code of joined groups: level 0 off the diagonal; scales as they were. Its offsets must be 0.

    Levels without a 0 become the values themselves: the array's cells are then real-valued.
    """
    groups = len(code.scale) // count
    levels, codes = code.levels, code.codes
    if levels is not None and not np.any(levels == 0):
        levels, codes = None, code.cell_values().astype(np.float32)
    zero = 0.0 if levels is None else int(np.flatnonzero(levels == 0)[0])
    return WeightCode(
        levels=levels,
        codes=block_diagonal(codes, count, zero),
        scale=code.scale.reshape(groups, -1),
        offset=code.offset.reshape(groups, -1),
    )


def _why_not(layer: MatrixLayer, spec: ArraySpec) -> str:
    """Why cells off the diagonal could not add exactly nothing; empty where they can."""
    code = layer.weight_code
    if spec.levels is not None and not np.any(spec.levels == 0):
        return f"the array's {len(spec.levels)} levels have no 0; leave join-groups out"
    if spec.has_row_weights:
        return "its rows weigh differently, and each weight is coded for its own row; leave join-groups out"
    if code is None:
        real = spec.levels is None and spec.cell_limit is None
        return "" if real else "its weights are not coded yet; put join-groups behind quantize"
    if np.any(code.offset):
        return "its code has offsets, so that a cell of 0 is a weight; use a symmetric scheme: quantize{scheme=ternary}"
    return ""

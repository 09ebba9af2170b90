"""order-rows: important inputs onto the rows of the array whose weight is nearest to what they need.

    y = x @ W + b   ->   y = x[source] @ V + b,   V[r] = W[source[r]] * share[r]

On an array whose readout weighs its rows, row r counts `g[r]` times as much as its cell says. A cell of few levels then
cannot hold what it should on a row far from the middle: an error of the input that sits there. Inputs of large importance
(variance on the calibration inputs times mean squared weight) go where `g` is near the middle, inputs that hardly vary
to the ends. Rows that the arrays have to spare, at no more weight images, do one of two things: two rows whose weights
add up to the middle share one input (the cell of each holds its share of the weight), or a row stays a pad, whose input
is the constant 0 and whose cells alternate in sign, so that it leaves the converter's range to the others.

Exact to float rounding: the shares of an input add up to 1, and pads multiply 0. Layers that are not dense, or coded,
stay as they are, and so does everything on an array whose rows count alike.

With one scale per output and independent inputs, the error of binary weights is `sum_k importance_k (1 - g_k / c)^2`, c
the row weight that is coded best; for any c sorting by importance is optimal for the rows of one layout (rearrangement
inequality), and c and the number of pairs are searched. Source: row weights: Jung et al., Nature 601, 211 (2022),
equation 3; the order: our own derivation, as above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.ir import MatrixLayer, Network
from xbcompile.passes.contract import Advice, LayerTrouble, NetworkPass, PassContext
from xbcompile.passes.edit import rewiring, row_order


@dataclass(frozen=True)
class OrderRows(NetworkPass):
    """Order the inputs of every dense layer that has no code yet, where rows of the array weigh differently.

    Args:
        pairs: "on": spare rows form pairs that share an input; "off": they stay pads.
        samples: calibration inputs to use at most, the first ones.
    """

    name: ClassVar[str] = "order-rows"
    needs: ClassVar[str] = "an array whose rows weigh differently, or an uncoded dense layer to order better"
    helps_against: ClassVar[Mapping[str, int]] = {"weights": 1}
    needs_calibration: ClassVar[bool] = True
    pairs: str = "on"
    samples: int = 10_000

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """Where rows weigh differently."""
        return super().advice(trouble) if trouble.spec.has_row_weights else None

    def wanted_samples(self) -> int:
        """For the variance of inputs."""
        return 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("pairs", ("on", "off"))
        self._check_count("samples", 1)

    def requires(self, network: Network, context: PassContext) -> None:
        """Calibration inputs, where rows weigh differently."""
        if context.spec.has_row_weights:
            context.require_calibration(self.name)

    def run(self, network: Network, context: PassContext) -> Network:
        """Order layer by layer; a layer takes spare rows as long as the layout has no more images."""
        if not context.spec.has_row_weights:
            return network
        for i, layer in enumerate(network.layers):
            if row_order.is_free(layer) and not rewiring.has_node(network, _name(layer)):
                network = self.ordered(network, i, context)
        return network

    def ordered(self, network: Network, index: int, context: PassContext) -> Network:
        """One layer's inputs in their order."""
        layer = network.layers[index]
        gain = row_order.gains(network, index, row_order.rows_at_hand(network, layer, context), context)
        importance = row_order.importance(network, layer, context, self.samples)
        source = row_order.place(importance, gain.mean(axis=1), self.pairs == "on")
        if np.array_equal(source, np.arange(layer.inputs)):
            return network
        before = rewiring.routed(network, layer, source, _name(layer))
        weights = row_order.spread(layer.weights[0].astype(np.float64), source, gain, context.spec.rows)
        ordered = replace(layer, input=before.output_names[0], weights=weights.astype(np.float32)[None], matrix="")
        return rewiring.with_nodes(network, layer, [before, ordered])

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """No more weight images than before."""
        if context.images(after) > context.images(before):
            raise ValueError("the number of weight images grew")


def _name(layer: MatrixLayer) -> str:
    return f"{layer.name}/order-rows"

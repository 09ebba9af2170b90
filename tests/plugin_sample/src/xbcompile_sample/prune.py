"""Small weights become 0, so that they cost no conductance.

before: fc: [784x128], real weights
after:  the same, the share of each layer's weights that is smallest in absolute value set to 0
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer, Network
from xbcompile.passes.contract import NetworkPass, PassContext


@dataclass(frozen=True)
class Prune(NetworkPass):
    """Set the smallest weights of every layer to 0.

    Args:
        share: of the weights, rounded down.
        first: leave the first layer as it is.
    """

    name: ClassVar[str] = "prune"
    share: float = 0.5
    first: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise PassError(f"share={self.share:g} is out of range; allowed: 0 up to, and not with, 1")

    def requires(self, network: Network, context: PassContext) -> None:
        """The weights must still be real numbers."""
        if any(layer.weight_code is not None for layer in network.layers):
            raise PassError("weights are already quantized; put prune before quantize")

    def run(self, network: Network, context: PassContext) -> Network:
        """The smallest weights of each layer become 0; those that are 0 already count among them."""
        layers = network.layers if self.first else network.layers[1:]
        changed = [pruned for layer in layers if (pruned := self.pruned(layer)) is not layer]
        return network.with_layers(changed) if changed else network

    def pruned(self, layer: MatrixLayer) -> MatrixLayer:
        """The layer with its smallest weights set to 0; the same object where they are."""
        order = np.argsort(np.abs(layer.weights), axis=None, kind="stable")[: int(self.share * layer.weights.size)]
        if not layer.weights.ravel()[order].any():
            return layer
        weights = layer.weights.copy()
        weights.ravel()[order] = 0
        return replace(layer, weights=weights)

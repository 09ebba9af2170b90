"""The mapping of one network while passes change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xbcompile.ir import ArraySpec, Network
from xbcompile.ir.row_weights import row_weight_of_layer
from xbcompile.options import MappingOptions
from xbcompile.passes.input_coding import InputCoding
from xbcompile.planning.mapper import Mapper, Mapping
from xbcompile.planning.planned import planned_network
from xbcompile.tiler import Layout


class NetworkMapper:
    """Passes ask for rows and images before weights and inputs are coded, the compiler for the mapping in the end.

    What a pass codes for the rows of a layout must end up on those rows. So where rows weigh differently, networks of the
    same shapes keep the cuts and packing that were chosen first, whatever codes their inputs get later.

    Args:
        spec: the target's array.
        options: of the mapping.
        coding: the pass that will code inputs that are not coded yet; None: they take one slice.
    """

    def __init__(self, spec: ArraySpec, options: MappingOptions, coding: InputCoding | None) -> None:
        self.spec, self.options, self.coding = spec, options, coding
        self._mapper = Mapper()
        self._chosen: dict[tuple[Any, ...], Mapping] = {}

    def mapping(self, network: Network) -> Mapping:
        """The best mapping of the network's matrices.

        Raises:
            ScheduleError: see `Mapper.map`.
        """
        planned = planned_network(network, self.spec, self.coding)
        shapes = tuple(
            (layer.groups, layer.inputs, layer.outputs, layer.vectors_per_inference) for layer in planned.layers
        )
        chosen = self._chosen.get((shapes, planned.matrices))
        if chosen is not None and chosen.network.uses == planned.uses:
            return chosen
        options = self.options
        if chosen is not None and self.spec.has_row_weights:
            options = replace(options, cuts=chosen.cuts, packing=chosen.packing)
        mapping = self._mapper.map(planned, self.spec, options)
        self._chosen[shapes, planned.matrices] = mapping
        return mapping

    def images(self, network: Network) -> int:
        """See PassContext."""
        return self._layout(network).images

    def row_weights(self, network: Network) -> list[np.ndarray | None]:
        """See PassContext."""
        if not self.spec.has_row_weights:
            return [None] * len(network.layers)
        tiles, layers = self._layout(network).tiles, network.layers
        weights = {
            owner: row_weight_of_layer(tiles, owner, layers[owner].shape, self.spec) for owner in set(network.matrices)
        }
        return [weights[owner] for owner in network.matrices]

    def _layout(self, network: Network) -> Layout:
        """The layout of the mapping; no schedule is made where the options leave one layout."""
        if self.options.leaves_one_layout:
            return self._mapper.layout(planned_network(network, self.spec, self.coding), self.spec, self.options)
        return self.mapping(network).layout

"""What is mapped: the sizes of matrices and what waits for what, without weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from xbcompile.ir import ArraySpec, MatrixLayer, Network, Use
from xbcompile.passes.input_coding import InputCoding


@dataclass(frozen=True)
class PlannedMatrix:
    """Size of one layer's matrix.

    Args:
        name: unique.
        groups: independent matrices of this size.
        inputs: rows of each.
        outputs: columns of each.
        vectors_per_inference: input vectors; None where the shapes leave it open (counted as 1).
        slices: reads per input vector and tile.
        own_slices: the file or the model's own quantizers say how many slices; else a default applies.
    """

    name: str
    groups: int
    inputs: int
    outputs: int
    vectors_per_inference: int | None = 1
    slices: int = 1
    own_slices: bool = False

    @property
    def weights(self) -> int:
        """Weights of all groups."""
        return self.groups * self.inputs * self.outputs


@dataclass(frozen=True)
class PlannedNetwork:
    """What is mapped: matrices and their uses, without weights.

    Args:
        name: for listings.
        layers: one per layer, in order of execution.
        matrices: owner of each layer's matrix, see `Network.matrices`.
        uses: see `Network.uses`.
        slices_from: where the slices that no matrix says for itself come from, for people.
        notes: what a reader of the plan should know.
    """

    name: str
    layers: tuple[PlannedMatrix, ...]
    matrices: tuple[int, ...]
    uses: tuple[Use, ...]
    slices_from: str
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> int:
        """Weights of all matrices; shared ones count once."""
        return sum(self.layers[owner].weights for owner in set(self.matrices))

    @property
    def most_slices(self) -> int:
        """Most slices of a matrix that a default decides; 0 where there is none."""
        return max((layer.slices for layer in self.layers if not layer.own_slices), default=0)

    def with_slices(self, slices: int, slices_from: str) -> PlannedNetwork:
        """The same network where each matrix that does not say its slices takes so many."""
        layers = tuple(layer if layer.own_slices else replace(layer, slices=slices) for layer in self.layers)
        uses = tuple(replace(use, reads=layers[use.layer].slices * use.vectors) for use in self.uses)
        return replace(self, layers=layers, uses=uses, slices_from=slices_from)


def planned_network(network: Network, spec: ArraySpec, coding: InputCoding | None = None) -> PlannedNetwork:
    """The sizes and uses of a network, with the slices of its input codes.

    Args:
        network: before or behind any pass.
        spec: the array that it is for.
        coding: the pass that will code inputs that have no code yet; None: they take one slice.
    """
    symmetric = coding is not None and coding.scheme == "analogue" and spec.drive == "signed"

    def slices(layer: MatrixLayer) -> int:
        if layer.input_code is not None or coding is None:
            return layer.slices
        code = coding.on_grid(layer, symmetric)
        return coding.slices() if code is None else code.bits

    layers = tuple(
        PlannedMatrix(layer.name, *layer.shape, layer.vectors_per_inference, slices(layer)) for layer in network.layers
    )
    uses = tuple(replace(use, reads=layers[use.layer].slices * use.vectors) for use in network.uses)
    return PlannedNetwork(network.name, layers, network.matrices, uses, "the input codes")

"""The pass contract: requires, run, ensures.

A pass is a frozen dataclass with a `name`; its fields are its options, spelled alike in the pipeline text, the log and
the tests. A network pass maps a Network to a Network at compile time. A device pass is fitted on the device itself,
when a session starts on a chip: it comes last in a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.image_route import ImageRoute, RoutingProblem
from xbcompile.ir.network import Network
from xbcompile.reference.evaluate import layer_inputs


def _no_images(network: Network) -> int:
    return 0


@dataclass(frozen=True)
class PassContext:
    """What a pass may know besides the network.

    Args:
        spec: the target's array.
        calibration: calibration inputs by graph input name, axis 0 counts samples; None where none were given.
        row_weights: gives, per matrix layer of a network, the weight of the row on which each weight will sit: float32
            [groups, inputs, outputs], or None where all rows count alike. It follows from shapes alone.
        images: gives the number of weight images of a network's layout, from shapes alone; without a tiler always 0.
        model: the network as it came from the user's model: what tensors of the same name should be. None: unknown.
    """

    spec: ArraySpec
    calibration: dict[str, np.ndarray] | None
    row_weights: Callable[[Network], list[np.ndarray | None]]
    images: Callable[[Network], int] = _no_images
    model: Network | None = None

    def require_calibration(self, user: str) -> dict[str, np.ndarray]:
        """The calibration inputs.

        Raises:
            PassError: there are none; `user` says who needs them.
        """
        if self.calibration is None:
            raise PassError(
                f"{user} needs calibration inputs; give them with --calibration mnist:train:1000 or FILE.npz"
            )
        return self.calibration

    def goal(self, network: Network, tensor: str) -> Network:
        """Where a tensor of this network is as it should be: the model, if it writes a tensor of that name, else the
        network itself, in which passes may have coded or approximated what comes before.
        """
        if self.model is not None and self.model.writes(tensor):
            return self.model
        return network

    def layer_inputs(self, network: Network, user: str) -> dict[str, list[np.ndarray]]:
        """Input tensors of every matrix layer on the calibration inputs, one per chunk of samples, by layer name."""
        return layer_inputs(network, self.require_calibration(user))


class Pass:
    """Base of network passes and device passes."""

    name: ClassVar[str]
    needs_calibration: ClassVar[bool] = False

    def __str__(self) -> str:
        """The pass as it is written in a pipeline: options that differ from their defaults."""
        options = " ".join(
            f"{f.name}={_text(getattr(self, f.name))}"
            for f in fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
            if getattr(self, f.name) != f.default
        )
        return f"{self.name}{{{options}}}" if options else self.name


class NetworkPass(Pass):
    """A pass that rewrites the network when it is compiled."""

    def requires(self, network: Network, context: PassContext) -> None:
        """Raise PassError when the network is not what this pass expects."""

    def run(self, network: Network, context: PassContext) -> Network:
        """Return the rewritten network; the same object when nothing changed."""
        raise TypeError(f"{type(self).__name__} must define run")

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Raise PassError when the result is not what this pass promises."""

    def __call__(self, network: Network, context: PassContext) -> Network:
        """requires -> run -> ensures, and the network's own check."""
        self.requires(network, context)
        result = self.run(network, context)
        if result is not network:
            result.check()
        if [v.name for v in result.outputs] != [v.name for v in network.outputs]:
            raise PassError(f"pass {self.name} changed the network's outputs")
        self.ensures(network, result, context)
        return result


class DevicePass(Pass):
    """A pass that belongs to the chip and runs when a session starts on it."""


class RoutingPass(DevicePass):
    """A device pass that chooses where an image's rows and columns go on its array."""

    def route(self, problem: RoutingProblem, route: ImageRoute) -> ImageRoute:
        """A route at which the array's defects matter least, never worse than the one given."""
        raise TypeError(f"{type(self).__name__} must define route")


@dataclass(frozen=True)
class CalibratedPass(DevicePass):
    """A device pass that is fitted through the device, on the program's calibration inputs.

    Args:
        samples: calibration inputs to use at most.
    """

    needs_calibration: ClassVar[bool] = True
    least_samples: ClassVar[int] = 1
    samples: int = 500

    def __post_init__(self) -> None:
        if self.samples < self.least_samples:
            raise PassError(f"samples={self.samples} is out of range; allowed: {self.least_samples} or more")


@dataclass(frozen=True)
class ColumnsPass(CalibratedPass):
    """A device pass that chooses the physical columns of each image from errors that are measured on the chip.

    Args:
        vectors: input vectors of each layer, or random drives, in every measurement.
        patterns: random images per array, where not the program's own are measured.
        step: share of the standard deviation by which a layer's outputs are moved to see what they matter.
    """

    vectors: int = 200
    patterns: int = 16
    step: float = 0.1

    @property
    def measures_images(self) -> bool:
        """Whether errors are measured on the program's own images, each logical column on each physical one."""
        raise TypeError(f"{type(self).__name__} must define measures_images")

    @property
    def weighs_outputs(self) -> bool:
        """Whether outputs count by what they move at the network's outputs."""
        raise TypeError(f"{type(self).__name__} must define weighs_outputs")

    def assign(self, cost: npt.NDArray[np.float64], column: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Physical column of each logical one, a bijection.

        Args:
            cost: float64 [logical, physical], what each logical column costs on each physical one.
            column: intp [logical], where they are now.
        """
        raise TypeError(f"{type(self).__name__} must define assign")


class ReadingsPass(CalibratedPass):
    """A device pass that corrects the readings of each physical column."""

    def fit(self, mean_error: np.ndarray, lsb: float | None) -> np.ndarray:
        """Offsets of columns, any shape, from their mean error (reading minus exact sum); dot-product units."""
        raise TypeError(f"{type(self).__name__} must define fit")


class OutputsPass(CalibratedPass):
    """A device pass that corrects each output of each matrix layer."""

    def fit(self, measured: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset [outputs] that take measured layer outputs [vectors, outputs] to the right ones."""
        raise TypeError(f"{type(self).__name__} must define fit")

    @property
    def per_tile(self) -> bool:
        """Whether `fit_tiles` is to be called before `fit`."""
        return False

    def fit_tiles(self, parts: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Gain [tiles, outputs] of what each tile adds, [vectors, tiles, outputs], to the outputs [vectors, outputs]."""
        raise TypeError(f"{type(self).__name__} must define fit_tiles")


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)

"""The pass contract: requires, run, ensures.

A pass is a frozen dataclass with a `name`; its fields are its options, spelled alike in the pipeline text, the log and
the tests. A network pass maps a Network to a Network at compile time. A device pass is fitted on the chip itself, when a program
is commissioned on it: it comes last in a pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError, shown, written
from xbcompile.ir.array_spec import ArraySpec
from xbcompile.ir.corrections import Corrections
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.network import Network
from xbcompile.ir.schedule import Schedule
from xbcompile.passes.options import option_types, print_options
from xbcompile.reference.evaluate import layer_inputs

MOST_COUNT = 2**31 - 1  # of what an option counts, where nothing else limits it

Floats = npt.NDArray[np.float64]
Feeds = dict[str, np.ndarray]


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

        Args:
            user: who needs them, for the message.

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

        Args:
            network: the network as it is now.
            tensor: name of one of its tensors.
        """
        if self.model is not None and self.model.writes(tensor):
            return self.model
        return network

    def layer_inputs(self, network: Network, user: str) -> dict[str, list[np.ndarray]]:
        """Input tensors of every matrix layer on the calibration inputs, one per chunk of samples, by layer name.

        Args:
            network: the network as it is now.
            user: who needs them, for the message.
        """
        return layer_inputs(network, self.require_calibration(user))


@dataclass(frozen=True)
class LayerTrouble:
    """The largest source of error of a layer, and what there is of means against it.

    Args:
        source: see `xbcompile.diagnosis.ablation.SOURCES`.
        spec: the target's array.
        input_code: the layer's.
        used: the passes of the program's pipeline by name.
        has_defects: whether a chip of the target has a defect map.
    """

    source: str
    spec: ArraySpec
    input_code: InputCode | None
    used: Mapping[str, Pass]
    has_defects: bool


@dataclass(frozen=True)
class Advice:
    """A pass to use against a source of error.

    Args:
        use: the pass with its options.
        words: what is said in its place; empty: the pass as it is written in a pipeline.
    """

    use: Pass
    words: str = ""

    def __str__(self) -> str:
        return self.words or str(self.use)


class Pass:
    """Base of network passes and device passes.

    `helps_against` names the sources of error that a pass makes smaller, each with its turn among the passes that do: the one
    that costs an array least comes first.
    """

    name: ClassVar[str]
    needs_calibration: ClassVar[bool] = False
    helps_against: ClassVar[Mapping[str, int]] = {}

    def __post_init__(self) -> None:
        """Check that options have the types that they are declared with; a pass that checks more calls this first.

        Raises:
            PassError: one has not.
        """
        for name, declared in option_types(type(self)).items():
            value = getattr(self, name)
            try:
                taken = declared.taken(value)
            except ValueError as error:
                raise PassError(f"{name}={shown(value)} {error}") from None
            if taken is not value:
                object.__setattr__(self, name, taken)

    def _check_count(self, name: str, least: int, most: int = MOST_COUNT, zero: str = "") -> None:
        """Check an option that counts.

        Args:
            name: of the option.
            least: smallest number allowed.
            most: largest number allowed.
            zero: what 0 stands for, where it is allowed besides.

        Raises:
            PassError: it is out of range.
        """
        value = getattr(self, name)
        if not least <= value <= most and not (zero and value == 0):
            besides = f", or 0 for {zero}" if zero else ""
            limit = "or more" if most == MOST_COUNT else f"to {most}"
            raise PassError(f"{name}={shown(value)} is out of range; allowed: {least} {limit}{besides}")

    def _check_choice(self, name: str, allowed: Collection[str]) -> None:
        """Check an option that has names as values.

        Args:
            name: of the option.
            allowed: its values; an empty one stands for none and is not told.

        Raises:
            PassError: it is none of them.
        """
        value = getattr(self, name)
        if value not in allowed:
            raise PassError(f"{name}={written(value)} is unknown; allowed: {', '.join(filter(None, allowed))}")

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """How to use this pass against a source that it helps against; None: not here.

        Args:
            trouble: the layer, its largest source of error, and what is used already.
        """
        return None if cls.name in trouble.used else Advice(cls())

    def wanted_samples(self) -> int:
        """Calibration samples below which what the pass finds is uncertain; 0: it looks at none, or few do."""
        return 0

    def __str__(self) -> str:
        """The pass as it is written in a pipeline: options that differ from their defaults."""
        changed = {
            each.name: getattr(self, each.name)
            for each in fields(self)  # type: ignore[arg-type]  # subclasses are dataclasses
            if getattr(self, each.name) != each.default
        }
        return f"{self.name}{{{print_options(changed, option_types(type(self)))}}}" if changed else self.name


class NetworkPass(Pass):
    """A pass that rewrites the network when it is compiled.

    Attributes:
        needs: what there must be for the pass to change anything, for the note where it changes nothing.
    """

    needs: ClassVar[str] = "something to change"

    def requires(self, network: Network, context: PassContext) -> None:
        """Raise PassError when the network is not what this pass expects.

        Args:
            network: what the pass is to run on.
            context: what else it may know.
        """

    def run(self, network: Network, context: PassContext) -> Network:
        """Return the rewritten network; the same object when nothing changed.

        Args:
            network: what to rewrite; it stays as it is.
            context: what else the pass may know.
        """
        raise TypeError(f"{type(self).__name__} must define run")

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Raise ValueError when the result is not what this pass promises, or PassError where passes before it are in the way.

        Args:
            before: what `run` was given.
            after: what it gave.
            context: what else the pass may know.
        """

    def note(self, before: Network, after: Network) -> str | None:
        """What the pass has to say of what it did, in one sentence; None: nothing. It says where it changed nothing.

        Args:
            before: what `run` was given.
            after: what it gave.
        """
        return f"{self} changed nothing: it needs {self.needs}" if after is before else None

    def __call__(self, network: Network, context: PassContext) -> Network:
        """requires -> run -> ensures, and the network's own check."""
        self.requires(network, context)
        result = self.run(network, context)
        if result is not network:
            result.check()
        if [v.name for v in result.outputs] != [v.name for v in network.outputs]:
            raise ValueError(f"pass {self.name} changed the network's outputs")
        self.ensures(network, result, context)
        return result


class LayerMeasurement(Protocol):
    """One matrix layer on the chip, for what a device pass fits to it; all vectors of the calibration inputs."""

    @property
    def reference(self) -> Floats:
        """What the outputs should be, float64 [vectors, outputs]: those of the user's model where the program holds it."""

    @property
    def outputs(self) -> Floats:
        """What they are, with the corrections so far, float64 [vectors, outputs]."""

    @property
    def sample(self) -> npt.NDArray[np.intp]:
        """Which calibration sample each vector belongs to, intp [vectors], from 0; vectors of one sample are alike."""

    def tile_parts(self) -> tuple[Floats, Floats] | None:
        """What each tile of an output's column adds, float64 [vectors, tiles, outputs], and what they should add up to, float64
        [vectors, outputs], on a part of the vectors; None where each column has one tile.
        """

    def with_tile_gain(self, gain: Floats) -> LayerMeasurement:
        """The same layer with gains, float64 [tiles, outputs], of what each tile adds.

        Args:
            gain: float64 [tiles, outputs].
        """

    def with_outputs(self, gain: Floats, shift: Floats) -> LayerMeasurement:
        """The same layer with outputs gain * y + shift, float64 [outputs] each, behind the corrections so far.

        Args:
            gain: float64 [outputs].
            shift: float64 [outputs].
        """


class ChipView(Protocol):
    """What a device pass may know of the chip and of the program that it is to run; measuring counts as commissioning.

    Attributes:
        network: coded matrix layers and digital segments.
        schedule: tiles, images and where they sit.
        spec: the array.
        later: the device passes that come after this one.
    """

    network: Network
    schedule: Schedule
    spec: ArraySpec
    later: tuple[DevicePass, ...]

    @property
    def lsb(self) -> float | None:
        """See `Device`."""

    @property
    def reading_limits(self) -> tuple[float, float] | None:
        """See `Device`."""

    def cell_limits(self, array: int) -> np.ndarray | None:
        """The defect map, see `xbcompile.targets.contract.HasDefectMap`; None where the chip has none, or no defect there.

        Args:
            array: which array of the chip.
        """

    def knows_defects(self) -> bool:
        """Whether the chip has a defect map at all."""

    def cells(self, images: np.ndarray, corrections: Corrections) -> np.ndarray:
        """Cells [n, rows, columns] of images [n], as they are written with these corrections.

        Args:
            images: whole numbers [n], which weight images.
            corrections: those so far.
        """

    def column_errors(self, feeds: Feeds, corrections: Corrections) -> tuple[Floats, Floats]:
        """Errors (reading minus exact sum, dot-product units) of physical columns while all layers are read on the network's
        ideal activations: sums and numbers of readings, float64 [parts, arrays, columns] each, over parts of the inputs.

        Args:
            feeds: calibration inputs by name.
            corrections: those so far.
        """

    def tile_errors(self, feeds: Feeds, vectors: int, corrections: Corrections) -> tuple[Floats, Floats]:
        """Errors of the columns of tiles while each layer is read on about so many of its ideal input vectors: mean and mean
        square over vectors, float64 [tiles, columns] by physical column, of the mean over slices and copies.

        Args:
            feeds: calibration inputs by name.
            vectors: input vectors of each layer, about.
            corrections: those so far.
        """

    def random_errors(self, array: int, cells: np.ndarray, drives: np.ndarray) -> np.ndarray:
        """Errors, float64 [n, vectors, columns], of reads of an array that holds cells [n, rows, columns] in turn, driven with
        drives float32 [n, vectors, rows].

        Args:
            array: which array of the chip.
            cells: [n, rows, columns], level indices or values.
            drives: float32 [n, vectors, rows].
        """

    def fit_layers(
        self, feeds: Feeds, corrections: Corrections, fit: Callable[[LayerMeasurement], LayerMeasurement]
    ) -> Corrections:
        """Fit all layers in order of execution, each on what the corrected layers before it give; layers in a recurrence on the
        model's own values at all steps, as what they see depends on themselves.

        Args:
            feeds: calibration inputs by name.
            corrections: those so far.
            fit: gives a layer back with its correction.
        """


class Stage(IntEnum):
    """In which order device passes are fitted: each on what those before it leave."""

    ROUTES = 0
    COLUMNS = 1
    READINGS = 2
    OUTPUTS = 3


class DevicePass(Pass):
    """A pass that belongs to the chip, and is fitted when a program is commissioned on it.

    Attributes:
        stage: what it fits; passes come in this order in a pipeline.
        removes: what of later readings' errors it takes away, for passes before it to leave out: "column means" (of each physical
            column), "output means" (of each layer output), or nothing.
    """

    stage: ClassVar[Stage]
    removes: ClassVar[str] = ""
    samples: int = 0

    def note(self, has_defects: bool) -> str | None:
        """What there is to say before the pass is fitted on a chip, in one sentence; None: nothing.

        Args:
            has_defects: whether a chip of the target has a defect map.
        """
        return None

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """Corrections with what this pass adds.

        Args:
            chip: the chip, as far as a pass may know it.
            feeds: calibration inputs by name, `samples` of them; none where the program holds none.
            corrections: those of the passes before.
        """
        raise TypeError(f"{type(self).__name__} must define fit")


@dataclass(frozen=True)
class CalibratedPass(DevicePass):
    """A device pass that needs calibration inputs.

    Args:
        samples: calibration inputs to use at most.
    """

    needs_calibration: ClassVar[bool] = True
    samples: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("samples", 1)


class OutputsPass(CalibratedPass):
    """A device pass that corrects each output of each matrix layer, one layer after another."""

    stage = Stage.OUTPUTS
    removes = "output means"

    def fit_layer(self, layer: LayerMeasurement) -> LayerMeasurement:
        """The layer with its correction.

        Args:
            layer: the layer on the chip, with the corrections so far.
        """
        raise TypeError(f"{type(self).__name__} must define fit_layer")

    def fit(self, chip: ChipView, feeds: Feeds, corrections: Corrections) -> Corrections:
        """See DevicePass."""
        return chip.fit_layers(feeds, corrections, self.fit_layer)

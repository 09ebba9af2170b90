"""Random matrix-vector products on multistate arrays, and their errors.

A matrix of the array's size is quantized by `quantize{per=matrix}`, written into a simulated chip of its own and read with
random inputs in 0..1 (MultiSpin.AI deliverable D4.2 (2026), section 2.3); larger matrices run as compiled programs. An
error is what was recovered from the voltages less the product in real numbers. The range of resistances stays the same
whatever the number of states, so that more states lie closer together (section 4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from xbcompile.api import compile as compile_model
from xbcompile.errors import TargetError
from xbcompile.ir import WeightCode
from xbcompile.onnx_graph import builder
from xbcompile.passes.contract import PassContext
from xbcompile.passes.quantize import Quantize
from xbcompile.program.program import Program
from xbcompile.runtime import Session
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import BatchedDevice, ReadBlock, Target, WrittenImages
from xbcompile.targets.families.multistate import MultistateParameters

WEIGHTS = ("normal", "uniform")
MAX_STATES = 256  # of a cell: level indices are one byte
MAX_DRAWS = 1_000_000  # seeds, matrices or vectors; more are a slip of the pen


def states_between(low: int, high: int, count: int = 20) -> tuple[int, ...]:
    """All whole numbers from low to high, or about `count` of them, evenly spread over their logarithms."""
    if high - low < count:
        return tuple(range(low, high + 1))
    return tuple(sorted({round(float(n)) for n in np.geomspace(low, high, count + 5)}))


@dataclass(frozen=True)
class StudySettings:
    """What is measured, and on how many draws.

    Args:
        target: a target of model `multistate`; its own number of states is that of the sweeps over sigma.
        seeds: independent repetitions; means and standard deviations are over them.
        states: numbers of equidistant states, rising, 2 to 256 (2 to 64 assumed).
        sigma_nl_ohm: standard deviation of the offsets that all cells share; 50 Ohm in Fig. 18.
        sigma_perp_ohm: standard deviations of each cell's own offsets; 5, 30, 60 Ohm in Fig. 18.
        matrices: random matrices per seed, each on a chip of its own (assumed).
        vectors: random inputs per matrix (assumed).
        weights: "normal" of variance 1, or "uniform" in -1..1 (assumed).
        inputs: numbers of inputs at which the growth of the error with the matrix is measured (assumed).
        tolerance: an error within this fraction of the lowest counts as lowest (assumed).

    Raises:
        TargetError: another model, or a value out of range.
    """

    target: Target
    seeds: int = 10
    states: tuple[int, ...] = states_between(2, 64)
    sigma_nl_ohm: float = 50.0
    sigma_perp_ohm: tuple[float, ...] = (5.0, 30.0, 60.0)
    matrices: int = 50
    vectors: int = 10
    weights: str = "normal"
    inputs: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    tolerance: float = 0.05

    def __post_init__(self) -> None:
        if not isinstance(self.target.parameters, MultistateParameters):
            raise TargetError(
                f"target {self.target.name!r} is of model {self.target.model}; study works on model multistate (m2tj4)"
            )
        for name, value in (("seeds", self.seeds), ("matrices", self.matrices), ("vectors", self.vectors)):
            if not 1 <= value <= MAX_DRAWS:
                raise TargetError(f"study: {name} = {value} is out of range; allowed: 1 to {MAX_DRAWS:,}")
        rising = all(a < b for a, b in zip(self.states, self.states[1:], strict=False))
        if len(self.states) < 2 or not rising or not 2 <= self.states[0] <= self.states[-1] <= MAX_STATES:
            raise TargetError(
                f"study: states {list(self.states)} must be at least two rising whole numbers from 2 to {MAX_STATES}; "
                "try 2:64 or 2,4,8,16"
            )
        if not self.inputs or min(self.inputs) < 1:
            raise TargetError(
                f"study: inputs {list(self.inputs)} are out of range; allowed: 1 or more, for example 4,16,64"
            )
        if not self.sigma_perp_ohm:
            raise TargetError("study: no sigma_perp given; try 5,30,60")
        if self.sigma_nl_ohm == 0 and max(self.sigma_perp_ohm) == 0:
            raise TargetError("study: sigma_nl and sigma_perp are all 0; give at least one above 0, for example 50")
        for sigma_ohm in (self.sigma_nl_ohm, *self.sigma_perp_ohm):
            with_errors(self.target, self.states[0], sigma_ohm, sigma_ohm)
        if len(set(self.sigma_perp_ohm)) < len(self.sigma_perp_ohm):
            raise TargetError(f"study: sigma_perp {list(self.sigma_perp_ohm)} names a value twice")
        if self.weights not in WEIGHTS:
            raise TargetError(f"study: weights = {self.weights!r} is unknown; allowed: {', '.join(WEIGHTS)}")

    @property
    def range_ohm(self) -> float:
        """R_max - R_min of the target."""
        return float(self.target.parameters.r_highest_ohm - self.target.parameters.r_lowest_ohm)


def with_errors(target: Target, states: int, sigma_nl_ohm: float, sigma_perp_ohm: float) -> Target:
    """The target with another number of states, in the same range of resistances, and other offsets.

    Raises:
        TargetError: a value out of range.
    """
    return target.with_quantities(
        "study", states=states, sigma_nl_ohm=float(sigma_nl_ohm), sigma_perp_ohm=float(sigma_perp_ohm)
    )


class Errors(NamedTuple):
    """Root-mean-square errors per matrix, float64 [matrices], in units of the product or of a weight.

    Attributes:
        product: recovered product less the product in real numbers.
        device: recovered product less that of an exact array with the same codes: without the quantization.
        weight: what one unit of an input adds to an output, less the real weight.
    """

    product: np.ndarray
    device: np.ndarray
    weight: np.ndarray


class RandomProducts:
    """Random matrices of the array's size and their inputs, on chips with any number of states and any offsets.

    Seed s is the same matrices, inputs and chips for every sigma; chips with other numbers of states are other chips.
    """

    def __init__(self, settings: StudySettings) -> None:
        self.settings = settings
        p = settings.target.parameters
        self._shape = (settings.matrices, p.rows, p.columns)
        self._data = lru_cache(maxsize=None)(self._draw)
        self._codes = lru_cache(maxsize=None)(self._encode)
        self.errors = lru_cache(maxsize=None)(self._measure_seed)
        self._target = lru_cache(maxsize=None)(lambda *numbers: with_errors(settings.target, *numbers))

    def _draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights float32 [matrices, rows, columns] and inputs float32 [matrices, vectors, rows]."""
        rng = np.random.default_rng(seed)
        return (
            random_weights(rng, self.settings.weights, self._shape),
            rng.random((self._shape[0], self.settings.vectors, self._shape[1]), np.float32),
        )

    def _encode(self, seed: int, states: int) -> WeightCode:
        """The seed's matrices as groups of one layer, each with one scale and one offset (section 2.3)."""
        weights = self._data(seed)[0]
        quantize = Quantize(scheme="levels", per="matrix")
        context = PassContext(self._target(states, 0.0, 0.0).array_spec, None, lambda network: [])
        # Equidistant to the last bit: rounded to float32 as in array_spec, many states take the search a hundred times longer.
        codes, scale, offset = quantize.fit(quantize.columns(weights), None, np.linspace(-1, 1, states))
        scale, offset = (np.repeat(value[:, None], weights.shape[2], axis=1) for value in (scale, offset))
        codes = codes.T.reshape(weights.shape)
        return quantize.on_target(quantize.level_table(context), codes, scale, offset, None, context)

    def _measure_seed(self, seed: int, states: int, sigma_nl_ohm: float, sigma_perp_ohm: float) -> Errors:
        """Write every matrix of a seed into a chip of its own, read, recover the products and compare."""
        weights, x = self._data(seed)
        code = self._codes(seed, states)
        target = self._target(states, sigma_nl_ohm, sigma_perp_ohm)
        chips = np.random.SeedSequence((seed, states)).generate_state(len(weights), np.uint64)
        unit = np.broadcast_to(np.eye(x.shape[2], dtype=np.float32), (len(x), x.shape[2], x.shape[2]))
        drives = np.concatenate([unit, x], axis=1)
        readings = np.stack(
            [
                _read(target, int(chip), cells, drive)
                for chip, cells, drive in zip(chips, code.codes, drives, strict=True)
            ]
        )
        total = drives.sum(axis=2, dtype=np.float64, keepdims=True)
        recovered = readings * code.scale[:, None] + code.offset[:, None] * total
        drives64 = drives.astype(np.float64)
        error = recovered - drives64 @ weights.astype(np.float64)
        of_device = recovered - drives64 @ code.dequantized().astype(np.float64)
        rows = x.shape[2]
        return Errors(_rms(error[:, rows:]), _rms(of_device[:, rows:]), _rms(error[:, :rows]))

    def measure(self, states: int, sigma_nl_ohm: float, sigma_perp_ohm: float) -> Errors:
        """The errors of all seeds, each float64 [seeds, matrices]."""
        each = [self.errors(seed, states, sigma_nl_ohm, sigma_perp_ohm) for seed in range(self.settings.seeds)]
        return Errors(*(np.stack(values) for values in zip(*each, strict=True)))


def random_weights(rng: np.random.Generator, weights: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights, float32: "normal" of variance 1, or "uniform" in -1..1."""
    values = rng.standard_normal(shape) if weights == "normal" else rng.uniform(-1, 1, shape)
    return values.astype(np.float32)


def _read(target: Target, chip: int, cells: np.ndarray, drives: np.ndarray) -> np.ndarray:
    """Readings float64 [vectors, columns] of one image on a chip's first array."""
    device = target.device(seed=chip)
    assert isinstance(device, BatchedDevice)
    zero = np.zeros(1, np.int64)
    loaded = device.load(WrittenImages.once(zero, cells[None]))
    return loaded.read(drives[None, :, None, :], ReadBlock(zero, 0))[0, :, 0].astype(np.float64)


def _rms(error: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(error).mean(axis=(1, 2))))


_CHIPS_PER_MATRIX = 5  # assumed: a chip has one draw of the shared offsets


def program_errors(settings: StudySettings, target: Target, inputs: int, arrays: int, seed: int) -> np.ndarray:
    """Root-mean-square error, per chip, of a compiled random matrix against the exact device."""
    rng = np.random.default_rng((seed, inputs))
    weights = random_weights(rng, settings.weights, (inputs, target.parameters.columns))
    program = one_layer_program(weights, target, arrays)
    x = rng.random((settings.vectors, inputs), np.float32)
    prepared = PreparedProgram(program, threads=1)
    exact = Session(prepared, "ideal").run({"x": x})["y"].astype(np.float64)
    errors = []
    for chip in np.random.SeedSequence((seed, inputs, 1)).generate_state(_CHIPS_PER_MATRIX, np.uint64):
        y = Session(prepared, seed=int(chip)).run({"x": x})["y"]
        errors.append(np.sqrt(np.square(y - exact).mean()))
    return np.array(errors)


def one_layer_program(weights: np.ndarray, target: Target, arrays: int) -> Program:
    """`y = x @ weights` compiled for inputs in 0..1, one scale and offset for the whole matrix."""
    inputs, outputs = weights.shape
    graph = builder.make_graph(
        "random_product",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="random")],
        [builder.value("x", onnx.TensorProto.FLOAT, ["n", inputs])],
        [builder.value("y", onnx.TensorProto.FLOAT, ["n", outputs])],
        [builder.tensor("w", weights)],
    )
    model = builder.make_model(graph, [("", 17)], ir_version=10)
    passes = "quantize{scheme=levels per=matrix},analogue{low=0 high=1}"
    return compile_model(model, target, passes=passes, arrays=arrays, cuts="greedy", packing="none", scramble=False)

"""What decides how a network is mapped, compiled and planned, as values that check themselves."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import NoneType
from typing import Any, Self

import numpy as np

from xbcompile.errors import ScheduleError
from xbcompile.frontend.inputs import ModelInputs
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.tiler.cuts import CUTS
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.reuse import REWRITE_MODES
from xbcompile.tiler.schedule.objective import parse_objective
from xbcompile.tiler.shapes import check_array

AUTO = "auto"
PACKINGS = ("dense", "in-order", "none")
MOST_ARRAYS = 2**31 - 1  # tables are int32
MOST_BATCH = 2**62  # what can be counted in int64
MOST_ROWS = 65_536  # as target `ideal` allows
MOST_SLICES = 255  # as the pass `thermometer` allows


@dataclass(frozen=True)
class MappingOptions:
    """Which matrices are mapped, and how.

    Args:
        arrays: physical arrays at most; 0 takes as many as there are weight images (nothing is rewritten), more than that
            hold copies of the images that take longest, where that helps.
        batch: inferences served between two weight updates.
        cuts: "greedy", "balanced" (blocks of equal size), "free" (residual strips are cut together with the packing), or
            "auto": all are tried, and the best schedule by the objective stands.
        packing: "dense" (fewest images), "in-order" (images follow the order of execution, so that one array is loaded
            with each once), "none" (one tile per image), or "auto": the better one of the first two.
        objective: what the schedule is made for: "latency", "throughput", "energy", "weight-updates", or a weighted sum
            of them, "latency=0.5,energy=0.5".
        effort: work allowed to each search, in the solver's deterministic time (one unit takes some seconds); 0:
            heuristics alone.
        digital: names (or patterns) of nodes that stay digital.
        dims: sizes of open dimensions of the inputs, by name or `INPUT:AXIS`: {"batch": 1}.
        batch_axis: the axis that counts samples by input, or of all inputs as "*": {"x": 1}; None: it holds none. It is found
            where it is not said.
        keep_inputs: initializers that stay inputs; others that the model lists among its inputs are constants.
        fixed_inputs: values of inputs that become constants: numbers, texts, lists of them, or arrays: {"rate": 16000}.

    Raises:
        ScheduleError: an unknown name, or a number out of range.
    """

    arrays: int = 1
    batch: int = 1
    cuts: str = AUTO
    packing: str = AUTO
    objective: str = "latency"
    effort: float = DEFAULT_EFFORT
    digital: tuple[str, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    batch_axis: Mapping[str, int | None] = field(default_factory=dict)
    keep_inputs: tuple[str, ...] = ()
    fixed_inputs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_types(self)
        for several in ("digital", "keep_inputs"):
            names = getattr(self, several)
            object.__setattr__(self, several, (names,) if isinstance(names, str) else tuple(names))
        object.__setattr__(self, "dims", dict(self.dims))
        object.__setattr__(self, "batch_axis", dict(self.batch_axis))
        object.__setattr__(self, "fixed_inputs", {name: _plain(v) for name, v in self.fixed_inputs.items()})
        _check_range("arrays", self.arrays, 0, MOST_ARRAYS, "the number of physical arrays, 0 for one per weight image")
        _check_range("batch", self.batch, 1, MOST_BATCH, "the inferences served between two weight updates")
        _check_name("cuts", self.cuts, (AUTO, *CUTS))
        _check_name("packing", self.packing, (AUTO, *PACKINGS))
        if (self.cuts, self.packing) == ("free", "none"):
            raise ScheduleError(
                "cuts='free' are chosen while packing: use another packing than 'none', or cuts='greedy'"
            )
        parse_objective(self.objective)
        if not 0 <= self.effort < math.inf:
            raise ScheduleError(f"effort={self.effort} is out of range; allowed: numbers from 0")
        object.__setattr__(
            self, "effort", float(min(self.effort, sys.float_info.max))
        )  # of equal settings equal programs

    @property
    def inputs(self) -> ModelInputs:
        """What becomes of a model's inputs."""
        return ModelInputs(self.dims, self.keep_inputs, self.fixed_inputs)

    @property
    def leaves_one_layout(self) -> bool:
        """Whether cuts and packing are both said."""
        return AUTO not in (self.cuts, self.packing)


@dataclass(frozen=True)
class CompileOptions(MappingOptions):
    """All that decides how a network is compiled, besides the target and the calibration inputs; see `MappingOptions` too.

    Args:
        passes: pipeline text; None takes the target's own.
        rewrite: which rows a write writes: "all", "changed" (rows in which a cell changes), or "matched" (the same, with
            orders and columns chosen so that few cells change).
        floorplan: "8x8" or "8x8x2", site rows x site columns x chips: arrays are placed for little traffic.
        scramble: permute the columns of each image.
        seed: of the permutations, and of the search for places on the floorplan.
        embed_model: keep the user's model in the program, for `run` to report its software accuracy.

    Raises:
        ScheduleError: an unknown name, or a number out of range.
        PassError: a pipeline that cannot be read.
    """

    passes: str | None = None
    rewrite: str = "all"
    floorplan: str | None = None
    scramble: bool = True
    seed: int = 0
    embed_model: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_name("rewrite", self.rewrite, REWRITE_MODES)
        _check_range("seed", self.seed, 0, 2**128 - 1, "the seed of the column permutations")
        if self.passes is not None:
            parse_pipeline(self.passes)
        if self.floorplan is not None:
            SiteGrid.parse(self.floorplan)

    def to_table(self) -> dict[str, Any]:
        """All fields as JSON holds them."""
        return asdict(self) | {"digital": list(self.digital), "keep_inputs": list(self.keep_inputs)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """Inverse of `to_table`.

        Args:
            table: what `to_table` gave.

        Raises:
            ValueError: a field is missing, or unknown.
        """
        names = {each.name for each in fields(cls)}
        if names != table.keys():
            raise ValueError(f"options {sorted(names ^ table.keys())} are missing or unknown")
        return cls(**table)


@dataclass(frozen=True)
class PlanOptions(MappingOptions):
    """How shapes are planned with; see `MappingOptions` too.

    Args:
        array: rows and columns in place of the target's; None: the target's.
        slices: reads per input vector of each matrix; None: as the file, the model or the target says.

    Raises:
        ScheduleError: an unknown name, or a number out of range.
    """

    array: tuple[int, int] | None = None
    slices: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.array is not None:
            check_array(*self.array)
            if self.array[0] > MOST_ROWS:
                raise ScheduleError(f"array of {self.array[0]:,} rows: at most {MOST_ROWS:,} are planned with")
        if self.slices is not None:
            _check_range("slices", self.slices, 1, MOST_SLICES, "reads per input vector")


# What a field takes, by its declared type, and in words; numbers that count check themselves.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "str | None": ((str, NoneType), "text, or None"),
    "bool": ((bool,), "True or False"),
    "float": ((int, float), "a number"),
    "tuple[str, ...]": ((str, tuple, list, set, frozenset), "text, or several"),
    "Mapping[str, int]": ((Mapping,), "sizes by name"),
    "Mapping[str, int | None]": ((Mapping,), "axes by name of the input"),
    "Mapping[str, Any]": ((Mapping,), "values by name"),
    "tuple[int, int] | None": ((tuple, list, NoneType), "rows and columns, or None"),
}


def _check_types(options: MappingOptions) -> None:
    """Raise ScheduleError where a field is of another type than it declares."""
    for each in fields(options):
        value = getattr(options, each.name)
        kinds, words = _KINDS.get(str(each.type), ((object,), ""))
        wrong = not isinstance(value, kinds) or (each.type == "float" and isinstance(value, bool))
        if wrong or (each.type == "tuple[str, ...]" and not all(isinstance(name, str) for name in value)):
            raise ScheduleError(f"{each.name}={value!r}: give {words}")


def _plain(value: Any) -> Any:
    """A value as JSON has it: what arrays, numpy's numbers and tuples hold."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _check_name(option: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ScheduleError(f"{option}={found!r} is unknown: use one of {', '.join(allowed)}")


def _check_range(option: str, found: int, least: int, most: int, what: str) -> None:
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise ScheduleError(f"{option}={found!r}: give {what}, a whole number from {least} to {most:,}")

"""What decides how a network is mapped, compiled and planned, as values that check themselves."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import NoneType
from typing import Any, Self, TypeVar

import numpy as np

from xbcompile.errors import ScheduleError, shown
from xbcompile.frontend.inputs import ModelInputs
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.tiler.cuts import CUTS
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.tiler.reuse import REWRITE_MODES
from xbcompile.tiler.schedule.objective import parse_objective
from xbcompile.tiler.shapes import check_array
from xbcompile.whole_numbers import as_whole_number, whole_number

AUTO = "auto"
PACKINGS = ("dense", "in-order", "none")
MOST_ARRAYS = 2**31 - 1  # tables are int32
MOST_BATCH = 2**62  # what can be counted in int64
MOST_ROWS = 65_536  # as target `ideal` allows
MOST_SLICES = 255  # as the pass `thermometer` allows
MOST_AXES = 64  # as arrays of numpy have


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
        for sizes in ("dims", "batch_axis"):
            object.__setattr__(self, sizes, _named_numbers(sizes, getattr(self, sizes)))
        object.__setattr__(self, "fixed_inputs", {name: _plain(name, v) for name, v in self.fixed_inputs.items()})
        self._count("arrays", 0, MOST_ARRAYS, "the number of physical arrays, 0 for one per weight image")
        self._count("batch", 1, MOST_BATCH, "the inferences served between two weight updates")
        _check_name("cuts", self.cuts, (AUTO, *CUTS))
        _check_name("packing", self.packing, (AUTO, *PACKINGS))
        if (self.cuts, self.packing) == ("free", "none"):
            raise ScheduleError(
                "cuts='free' are chosen while packing: use another packing than 'none', or cuts='greedy'"
            )
        parse_objective(self.objective)
        if not 0 <= self.effort < math.inf:
            raise ScheduleError(f"effort={shown(self.effort)} is out of range; allowed: numbers from 0")
        object.__setattr__(
            self, "effort", float(min(self.effort, sys.float_info.max))
        )  # of equal settings equal programs

    def _count(self, name: str, least: int, most: int, what: str) -> None:
        """Check a field that counts, and keep it as Python's int."""
        object.__setattr__(self, name, whole_number(name, getattr(self, name), least, most, what, ScheduleError))

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
        self._count("seed", 0, 2**128 - 1, "the seed of the column permutations")
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
            rows, columns = (as_whole_number(each) for each in self.array) if len(self.array) == 2 else (None, None)
            if rows is None or columns is None:
                raise ScheduleError(f"array={shown(self.array)}: give rows and columns, two whole numbers")
            check_array(rows, columns)
            if rows > MOST_ROWS:
                raise ScheduleError(f"array of {rows:,} rows: at most {MOST_ROWS:,} are planned with")
            object.__setattr__(self, "array", (rows, columns))
        if self.slices is not None:
            self._count("slices", 1, MOST_SLICES, "reads per input vector")


Options = TypeVar("Options", bound=MappingOptions)

# What a field takes, by its declared type, and in words; numbers that count check themselves.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "str | None": ((str, NoneType), "text, or None"),
    "bool": ((bool, np.bool_), "True or False"),
    "float": ((int, float, np.integer), "a number"),
    "tuple[str, ...]": ((str, tuple, list, set, frozenset), "text, or several"),
    "Mapping[str, int]": ((Mapping,), "sizes by name"),
    "Mapping[str, int | None]": ((Mapping,), "axes by name of the input"),
    "Mapping[str, Any]": ((Mapping,), "values by name"),
    "tuple[int, int] | None": ((tuple, list, NoneType), "rows and columns, or None"),
}


def changed_options(kind: type[Options], options: Options | None, changes: Mapping[str, Any]) -> Options:
    """The options with some fields changed.

    Args:
        kind: their class.
        options: those to start from; None: the defaults.
        changes: fields by name.

    Raises:
        ScheduleError: options of another class, or as `kind` raises it.
        TypeError: a field that does not exist.
    """
    if options is not None and not isinstance(options, kind):
        raise ScheduleError(f"options={shown(options)}: give {kind.__name__}(...), or its fields by name")
    return replace(options or kind(), **changes)


def _check_types(options: MappingOptions) -> None:
    """Raise ScheduleError where a field is of another type than it declares."""
    for each in fields(options):
        value = getattr(options, each.name)
        kinds, words = _KINDS.get(str(each.type), ((object,), ""))
        wrong = not isinstance(value, kinds) or (each.type == "float" and isinstance(value, bool))
        if isinstance(value, Mapping) or each.type == "tuple[str, ...]":
            wrong = wrong or not all(isinstance(name, str) for name in value)
        if wrong:
            raise ScheduleError(f"{each.name}={shown(value)}: give {words}, and nothing of another type")
        if isinstance(value, np.bool_):
            object.__setattr__(options, each.name, bool(value))


def _named_numbers(option: str, values: Mapping[str, Any]) -> dict[str, int | None]:
    """Whole numbers by name as Python's own; axes may be None."""
    numbers: dict[str, int | None] = {}
    for name, value in values.items():
        numbers[name] = as_whole_number(value)
        if numbers[name] is None and not (value is None and option == "batch_axis"):
            raise ScheduleError(f"{option}={shown(values)}: {shown(value)} of {shown(name)} is no whole number")
    return numbers


def _plain(name: str, value: Any, depth: int = 0) -> Any:
    """A value as JSON has it: what arrays, numpy's numbers and tuples hold."""
    if depth > MOST_AXES:
        raise ScheduleError(f"fixed_inputs: the value of {shown(name)} has more than {MOST_AXES} lists within lists")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(name, each, depth + 1) for each in value] if isinstance(value, list | tuple) else value


def _check_name(option: str, found: str, allowed: tuple[str, ...]) -> None:
    if found not in allowed:
        raise ScheduleError(f"{option}={shown(found)} is unknown: use one of {', '.join(allowed)}")

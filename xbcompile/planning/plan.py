"""Planning without weights: matrices onto arrays, from shapes or a model, with bounds, and why it does not fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from collections.abc import Mapping as Table
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import onnx

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.planning.figures import layer_rows
from xbcompile.planning.mapper import Mapper, Mapping, MappingOptions
from xbcompile.planning.requirements import judge, parse_requirement, unmet
from xbcompile.planning.shapes import PlannedNetwork, read_problem
from xbcompile.planning.totals import schedule_totals
from xbcompile.targets import Target, load_target
from xbcompile.tiler import Layout
from xbcompile.tiler.effort import DEFAULT_EFFORT


@dataclass(frozen=True, eq=False)
class Plan:
    """A mapping of matrices without weights.

    Args:
        target: the target asked for.
        spec: its array, in the size asked for.
        network: the matrices and their uses.
        layout: tiles and images.
        schedule: writes and reads; no column is moved.
        summary: all of it as plain data: the keys of `plan --json`, see docs/json.md.
    """

    target: Target
    spec: ArraySpec
    network: PlannedNetwork
    layout: Layout
    schedule: Schedule
    summary: dict[str, Any]

    @property
    def uses(self) -> tuple[Use, ...]:
        """What is read, and after what."""
        return self.network.uses

    @property
    def fits(self) -> bool:
        """Whether all requirements are met."""
        return all(each["verdict"] == "met" for each in self.summary["requirements"])


def plan(
    source: str | os.PathLike[str] | onnx.ModelProto | Sequence[Any],
    target: str | os.PathLike[str] | Target = "mram64",
    *,
    array: tuple[int, int] | None = None,
    arrays: int = 1,
    batch: int = 1,
    cuts: str | None = None,
    packing: str | None = None,
    objective: str = "latency",
    effort: float = DEFAULT_EFFORT,
    slices: int | None = None,
    digital: Collection[str] = (),
    dims: Table[str, int] | None = None,
    require: Collection[str] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> Plan:
    """Map layer shapes alone onto arrays: cut, pack and schedule, as `compile` does with weights.

    Args:
        source: path of an .onnx model (no pass changes its shapes), path of a .json file of shapes, `FILE.json:NAME` for one
            of several lists in it, a model in memory, or a list of `[inputs, outputs]` and of objects with `name`,
            `inputs`, `outputs`, `vectors`, `groups`, `slices` and `after` (names of the matrices that it waits for; the one
            before where left out).
        target: name of a shipped target, path of a .toml description, or a Target.
        array: rows and columns in place of the target's.
        arrays: physical arrays; 0: one per weight image.
        batch: inferences served between two weight updates.
        cuts: "greedy", "balanced" or "free"; None: the best of all.
        packing: "dense", "in-order" or "none"; None: the better of the first two. See `MappingOptions`.
        objective: "latency", "throughput", "energy", "weight-updates", or a weighted sum, "latency=0.5,energy=0.5".
        effort: work allowed to the searches, in the solver's deterministic time; 0: heuristics alone.
        slices: reads per input vector of each matrix; None: as file, model or target say.
        digital: names (or patterns) of nodes that stay digital.
        dims: sizes of open dimensions of a model's inputs.
        require: requirements such as "stationary", "images<=25", "latency_s<=1e-3"; see `fitting`.
        progress: called with what is being done.

    Raises:
        XbcompileError: bad input of any kind. A requirement that is not met is no error: see `Plan.fits`.
    """
    start = time.perf_counter()
    requirements = [parse_requirement(each) for each in ([require] if isinstance(require, str) else require)]
    chosen = target if isinstance(target, Target) else load_target(target)
    options = MappingOptions(array, arrays, batch, cuts, packing, objective, effort, slices)
    progress("reading shapes")
    network = read_problem(source, chosen, digital=digital, dims=dims)
    mapper = Mapper(network, chosen, progress, partial(unmet, requirements))
    mapping = mapper.map(options)
    summary = _summary(mapping, chosen)
    summary["requirements"] = judge(mapping, requirements, mapper)
    summary["seconds"] = time.perf_counter() - start
    return Plan(chosen, mapping.spec, mapping.network, mapping.layout, mapping.schedule, summary)


def _summary(mapping: Mapping, target: Target) -> dict[str, Any]:
    network, schedule, spec = mapping.network, mapping.schedule, mapping.spec
    layers = layer_rows(network, schedule, spec)
    return {
        "plan": {
            "network": network.name,
            "target": target.name,
            "array_rows": spec.rows,
            "array_columns": spec.columns,
            "arrays": schedule.arrays,
            "objective": schedule.objective,
            "batch": schedule.batch,
            "stationary": schedule.stationary,
            "packing_status": mapping.layout.packing_status,
            "cuts": mapping.cuts,
            "packing": mapping.packing,
            "slices_from": network.slices_from,
        },
        "options": asdict(mapping.options),
        "layers": layers,
        "totals": {
            **schedule_totals(schedule, spec, layers, network.weights),
            "images_lower_bound_of_packing": mapping.layout.images_lower_bound,
        },
        "candidates": list(mapping.candidates),
        "notes": [*network.notes, *mapping.notes],
    }

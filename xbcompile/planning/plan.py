"""Planning without weights: matrices onto arrays, from shapes or a model, with bounds, and why it does not fit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import onnx

from xbcompile.ir import ArraySpec, Schedule, Use
from xbcompile.notebook import html_table, html_text
from xbcompile.options import PlanOptions, changed_options
from xbcompile.planning.figures import layer_rows, schedule_totals
from xbcompile.planning.mapper import Mapping
from xbcompile.planning.planned import PlannedNetwork
from xbcompile.planning.planner import Planner
from xbcompile.planning.requirements import judge, parse_requirements, unmet
from xbcompile.planning.shapes import read_problem
from xbcompile.program.program import Program
from xbcompile.targets import Target, load_target
from xbcompile.tiler import Layout
from xbcompile.units import si


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        """In one line; `summary` says all."""
        schedule, met = self.schedule, "" if self.fits else ", requirements not met"
        return (
            f"<Plan of {self.network.name!r} on {self.target.name!r}: {len(self.network.layers):,} matrices, {schedule.images:,} "
            f"weight images of {self.spec.rows}x{self.spec.columns} (at least {schedule.images_lower_bound:,}) on "
            f"{schedule.arrays:,} arrays, {si(schedule.makespan_s, 's')} per batch{met}>"
        )

    def _repr_html_(self) -> str:
        columns = ("matrix", "groups", "inputs", "outputs", "tiles", "images", "reads per inference", "read time")
        keys = ("layer", "groups", "inputs", "outputs", "tiles", "images", "reads_per_inference")
        rows = [(*(row[key] for key in keys), si(row["t_read_per_inference_s"], "s")) for row in self.summary["layers"]]
        asked = [(row["asked"], row["verdict"]) for row in self.summary["requirements"]]
        required = html_table(("requirement", "verdict"), asked) if asked else ""
        return html_text(repr(self)[1:-1]) + html_table(columns, rows) + required

    @property
    def uses(self) -> tuple[Use, ...]:
        """What is read, and after what."""
        return self.network.uses

    @property
    def fits(self) -> bool:
        """Whether all requirements are met."""
        return all(each["verdict"] == "met" for each in self.summary["requirements"])


def plan(
    source: str | os.PathLike[str] | onnx.ModelProto | Program | Sequence[Any],
    target: str | os.PathLike[str] | Target | None = None,
    *,
    require: Collection[str] = (),
    options: PlanOptions | None = None,
    progress: Callable[[str], None] = lambda what: None,
    **changes: Any,
) -> Plan:
    """Map layer shapes alone onto arrays: cut, pack and schedule, by the engine that `compile` uses.

    Args:
        source: path of an .onnx model (no pass changes its shapes), path of a .json file of shapes, `FILE.json:NAME` for one
            of several lists in it, a model in memory, a compiled program (its network, as passes left it), or a list of
            `[inputs, outputs]` and of objects with `name`, `inputs`, `outputs`, `vectors`, `groups`, `slices` and `after`
            (names of the matrices that it waits for; the one before where left out).
        target: name of a shipped target, path of a .toml description, or a Target; None: the program's, else "mram64".
        require: requirements such as "stationary", "images<=25", "latency_s<=1e-3"; see `requirements`.
        options: all options; None: the defaults.
        progress: called with what is being done.
        **changes: fields of `PlanOptions` that differ: `plan("m.onnx", arrays=4)`.

    Raises:
        XbcompileError: bad input of any kind. A requirement that is not met is no error: see `Plan.fits`.
        TypeError: an option that does not exist.
    """
    start = time.perf_counter()
    options = changed_options(PlanOptions, options, changes)
    requirements = parse_requirements(require)
    if target is None:
        target = source.target if isinstance(source, Program) else "mram64"
    chosen = target if isinstance(target, Target) else load_target(target)
    progress("reading shapes")
    network = read_problem(source, chosen, options)
    planner = Planner(network, chosen.array_spec, progress, partial(unmet, requirements))
    mapping = planner.map(options)
    summary = _summary(mapping, chosen, options)
    summary["requirements"] = judge(mapping, options, requirements, planner)
    summary["seconds"] = time.perf_counter() - start
    return Plan(chosen, mapping.spec, mapping.network, mapping.layout, mapping.schedule, summary)


def _summary(mapping: Mapping, target: Target, options: PlanOptions) -> dict[str, Any]:
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
        "options": asdict(options),
        "layers": layers,
        "totals": {
            **schedule_totals(schedule, spec, layers, network.weights),
            "images_lower_bound_of_packing": mapping.layout.images_lower_bound,
        },
        "candidates": list(mapping.candidates),
        "notes": [*network.notes, *mapping.notes],
    }

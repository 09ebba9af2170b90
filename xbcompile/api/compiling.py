"""Compile a model to a program."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from xbcompile.api.models import model_of
from xbcompile.api.program import Program
from xbcompile.api.progress import Progress, shown_progress
from xbcompile.data.datasets import load_data
from xbcompile.errors import DataError, PassError, TargetError, VerifyError
from xbcompile.frontend import import_network, load_model, runnable
from xbcompile.frontend.lower import nothing_lowered
from xbcompile.frontend.runs import cannot_run, check_steps
from xbcompile.ir import ArraySpec, MatrixLayer, Network, Schedule, WeightCode
from xbcompile.ir.input_code import drives_rows
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.split_model import SplitModel, split
from xbcompile.options import CompileOptions, changed_options
from xbcompile.passes.contract import CalibratedPass, DevicePass, NetworkPass, Pass, PassContext
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline, run_pipeline
from xbcompile.planning.network_mapper import NetworkMapper
from xbcompile.planning.shapes import coding_of
from xbcompile.program.cells import CellImages
from xbcompile.program.program import with_stored_weights
from xbcompile.reference.evaluate import computed_tensors
from xbcompile.reference.host_graph import host_graph
from xbcompile.targets import Target, load_target
from xbcompile.tiler.floorplan.place import place_on_floorplan
from xbcompile.tiler.floorplan.traffic import array_traffic
from xbcompile.tiler.reuse.reuse_cells import reuse_cells
from xbcompile.tiler.scramble import scramble_columns
from xbcompile.verification.verify import check_program as verify


def compile(  # the name that users expect, as re.compile
    model: str | os.PathLike[str] | bytes | onnx.ModelProto | Any,
    target: str | os.PathLike[str] | Target = "mram64",
    *,
    sample: Any = None,
    calibration: Any = None,
    options: CompileOptions | None = None,
    after_pass: Callable[[Pass, Network], None] | None = None,
    warn: Callable[[str], None] | None = None,
    progress: bool | Callable[[str, float], None] | None = None,
    **changes: Any,
) -> Program:
    """Compile a model to a program; it is verified before it is returned.

    Args:
        model: path of an .onnx file, a model in memory (onnx.ModelProto, or its bytes), or a torch.nn.Module.
        target: name of a shipped target, path of a .toml description, or a Target.
        sample: for a module of torch: inputs of one batch to call it with, a tensor or array, a tuple of them, or a dict.
        calibration: inputs, needed by passes that fit to data, of any kind that `run` takes: `SET:train:N`, a file, arrays,
            a DataLoader, ...; labels are not used.
        options: all options, such as those of another program; None: the defaults.
        after_pass: called after each network pass.
        warn: called with each warning.
        progress: True: show a bar; or a function that is told what is done next, and the part of all steps (0 to 1) that is
            done; steps take different times.
        **changes: fields of `CompileOptions` that differ: `compile("m.onnx", arrays=4, cuts="greedy")`.

    Raises:
        XbcompileError: bad input of any kind, or (VerifyError) a program that does not verify.
        TypeError: an option that does not exist.
    """
    options = changed_options(CompileOptions, options, changes)
    with shown_progress("compiling", progress) as tell:
        return _compiled(
            model_of(model, sample, options.batch_axis), target, calibration, options, after_pass, warn, tell
        )


def _compiled(
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | os.PathLike[str] | Target,
    calibration: Any,
    options: CompileOptions,
    after_pass: Callable[[Pass, Network], None] | None,
    warn: Callable[[str], None] | None,
    tell: Progress,
) -> Program:
    chosen = target if isinstance(target, Target) else load_target(target)
    tell("reading the model", 0.0)
    proto = load_model(model, options.inputs)
    network = imported = import_network(proto, options.digital, options.batch_axis)
    known = [layer.weights for layer in network.layers]
    source = split(runnable(proto), known=known) if options.embed_model else None
    del proto, known  # what follows needs the memory
    if not network.layers and warn is not None:
        reason = nothing_lowered(network.records)
        warn(f"no matrix of the model can be put on arrays: {reason}; everything runs digitally")
    check_steps(network)
    data = _calibration(calibration, network)
    pipeline = choose_pipeline(chosen, options.passes, data is not None, warn if network.layers else None)
    if data is not None and warn is not None and network.layers:
        _warn_of_scarce(pipeline, network.samples.samples(data), warn)
    mapper = NetworkMapper(chosen.array_spec, options, coding_of(pipeline))
    context = PassContext(chosen.array_spec, data, mapper.row_weights, mapper.images, network)
    notes: list[str] = []
    steps = _announced(tell, pipeline)
    next(steps)

    def after(each: Pass, changed: Network) -> None:
        if after_pass is not None:
            after_pass(each, changed)
        next(steps)

    network = run_pipeline(pipeline, network, context, after, _note_taker(notes, options.passes is not None))
    said = [each.note(chosen.has_defects) for each in pipeline if isinstance(each, DevicePass)]
    notes += filter(None, said)
    network = _continuous_where_uncoded(network, chosen)
    check_fits(network, chosen)
    mapping = mapper.mapping(network)
    network = with_stored_weights(network)
    del context, mapper  # verification needs memory of its own
    next(steps)
    program = Program(
        network=network,
        schedule=_schedule(mapping.schedule, network, chosen.array_spec, options),
        target=chosen,
        pipeline=print_pipeline(pipeline),
        calibration={} if data is None else _for_devices(data, pipeline, network),
        source=source,
        options=options,
        cuts=mapping.cuts,
        packing=mapping.packing,
        taken_apart=_taken_apart(imported, network, pipeline, source),
        notes=tuple(notes),
    )
    next(steps)
    _verify(program)
    return program


def _announced(tell: Progress, pipeline: tuple[Pass, ...]) -> Iterator[None]:
    """Tells the next step each time that it is asked for one; the first step, reading the model, is done."""
    passes = [each.name for each in pipeline if isinstance(each, NetworkPass)]
    names = [*passes, "mapping", "scheduling", "verifying"]
    for number, name in enumerate(names, 1):
        tell(name, number / (len(names) + 1))
        yield


def _note_taker(notes: list[str], chosen: bool) -> Callable[[str, bool], None]:
    """Takes what passes say; that they changed nothing only where the user chose them."""

    def take(said: str, changed: bool) -> None:
        if changed or chosen:
            notes.append(said)

    return take


def _warn_of_scarce(pipeline: tuple[Pass, ...], samples: int, warn: Callable[[str], None]) -> None:
    """Name the passes that get fewer calibration samples than they want."""
    scarce = {}
    for each in pipeline:
        used = min(samples, each.samples) if isinstance(each, CalibratedPass) else samples
        if used < each.wanted_samples():
            scarce[f"{each.name} ({used} of {each.wanted_samples()})"] = each
    if scarce:
        warn(
            f"few calibration samples, so that less can be corrected or is left to chance: {', '.join(scarce)}; give more"
        )


def _taken_apart(
    imported: Network, network: Network, pipeline: tuple[Pass, ...], source: SplitModel | None
) -> SplitModel | None:
    """The imported network as a model, where device passes need tensors that the model itself does not have."""
    if source is None or not any(isinstance(each, CalibratedPass) for each in pipeline):
        return None
    needed = {layer.stands_for or layer.output for layer in network.layers}
    needed.update(layer.input for each in network.recurrences for layer in each.layers)
    return None if needed <= computed_tensors(source) else host_graph(imported)


def _schedule(schedule: Schedule, network: Network, spec: ArraySpec, options: CompileOptions) -> Schedule:
    """The schedule of a mapping with all that needs more than shapes: columns, sites, and writes of what changes."""
    seed, effort = options.seed, options.effort
    logical = CellImages(network, schedule, spec)  # no column is moved yet
    columns = scramble_columns(schedule.images, schedule.columns, seed=seed, scramble=options.scramble)
    schedule = replace(schedule, column_permutation=np.ascontiguousarray(columns))
    if options.floorplan is not None:
        grid = SiteGrid.parse(options.floorplan)
        traffic = array_traffic(schedule.tiles, schedule.copies["image"], schedule.copies["array"], network.uses)
        placed = place_on_floorplan(traffic, schedule.arrays, grid, seed=seed, effort=effort)
        schedule = replace(
            schedule,
            site=placed.site,
            floorplan=str(grid),
            hop_values=placed.cost,
            hop_values_lower_bound=placed.lower_bound,
        )
    return reuse_cells(schedule, logical.of, network.uses, spec, rewrite=options.rewrite, effort=effort)


def _verify(program: Program) -> None:
    """Raise VerifyError with every finding; ModelError when onnxruntime refuses the host graph."""
    try:
        findings = verify(program)
    except engine.ERRORS as error:
        raise cannot_run(error) from None
    if findings:
        raise VerifyError(findings)


def _calibration(given: Any, network: Network) -> dict[str, np.ndarray] | None:
    if given is None:
        return None
    found = load_data(given, network.inputs, network.samples, where="calibration")
    return {name: np.asarray(x) for name, x in found.inputs.items()}  # passes fit to all of them


def _for_devices(data: dict[str, np.ndarray], pipeline: tuple[Pass, ...], network: Network) -> dict[str, np.ndarray]:
    """The calibration inputs that device passes need, in whole batches where the model's batch is fixed.

    Raises:
        DataError: there is not one whole batch.
    """
    needed = max((p.samples for p in pipeline if isinstance(p, CalibratedPass)), default=0)
    if not needed:
        return {}
    axes = network.samples
    samples = axes.samples(data)
    kept = axes.whole(min(needed, samples))
    if not kept:
        raise DataError(
            f"device passes use {min(needed, samples)} of {samples} calibration samples, which do not fill the model's "
            f"fixed batch of {axes.call}; give more samples, and samples={axes.call} or more to the pass"
        )
    return axes.first(data, kept)


def choose_pipeline(
    target: Target, passes: str | None, has_calibration: bool, warn: Callable[[str], None] | None = None
) -> tuple[Pass, ...]:
    """The passes to run: the user's, or the target's own without those that need calibration inputs that are not there.

    Raises:
        PassError: the user asked for a pass that needs calibration inputs and gave none.
    """
    chosen = parse_pipeline(target.pipeline if passes is None else passes)
    lacking = [] if has_calibration else [p for p in chosen if p.needs_calibration]
    if not lacking:
        return chosen
    names = ", ".join(p.name for p in lacking)
    if passes is not None:
        raise PassError(
            f"pass {names} needs calibration inputs; give them with --calibration mnist:train:1000 or FILE.npz"
        )
    if warn is not None:
        warn(
            f"no calibration inputs: {names} left out and input ranges taken per vector at run time, which costs accuracy; "
            "give --calibration mnist:train:1000 or FILE.npz"
        )
    return tuple(p for p in chosen if p not in lacking)


def _continuous_where_uncoded(network: Network, target: Target) -> Network:
    """On a target whose cells hold any real value, without limit, weights that no pass coded are stored as they are."""
    if target.array_spec.levels is not None or target.array_spec.cell_limit is not None:
        return network
    codes: dict[int, WeightCode] = {}
    layers = []
    for layer, owner in zip(network.layers, network.matrices, strict=True):
        if layer.weight_code is None:
            if owner not in codes:
                codes[owner] = WeightCode.continuous(layer.weights)
            layers.append(replace(layer, weight_code=codes[owner]))
    return network.with_layers(layers)


def check_fits(network: Network, target: Target) -> None:
    """Raise TargetError when a layer's codes are none that the target's array accepts."""
    spec = target.array_spec
    for layer in network.layers:
        code = layer.weight_code
        if code is None:
            raise TargetError(
                f"layer {layer.name!r} has real-valued weights, but cells of target {target.name!r} hold {_count(spec)}; "
                f"add {'quantize{scheme=continuous}' if spec.levels is None else 'quantize{}'} to the passes"
            )
        stored = code.levels
        if (stored is None) != (spec.levels is None) or (
            stored is not None and spec.levels is not None and not np.array_equal(stored, spec.levels)
        ):
            if spec.levels is None:  # any level is a real value
                continue
            raise TargetError(f"layer {layer.name!r}: its levels are not those of target {target.name!r}")
        if not drives_rows(layer.input_code, spec.drive):
            coded = "uncoded" if layer.input_code is None else layer.input_code.scheme
            raise TargetError(
                f"layer {layer.name!r} has {coded} inputs, but rows of target {target.name!r} take {spec.drive} drives; "
                f"add {_coding_for(layer, spec)} to the passes"
            )


def _count(spec: ArraySpec) -> str:
    return f"values up to {spec.cell_limit:g}" if spec.levels is None else f"{len(spec.levels)} levels"


def _coding_for(layer: MatrixLayer, spec: ArraySpec) -> str:
    return "analogue" if spec.drive in ("analogue", "signed") else "thermometer{bits=8}"

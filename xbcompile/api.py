"""The public functions: compile a model, and what the command line is made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx

from xbcompile.data.datasets import data_of, load_data
from xbcompile.errors import DataError, ModelError, PassError, ScheduleError, TargetError, VerifyError
from xbcompile.frontend import import_network, load_model, runnable
from xbcompile.frontend.dims import fix_dimensions
from xbcompile.frontend.lower import nothing_lowered
from xbcompile.ir import ArraySpec, MatrixLayer, Network, WeightCode
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.split_model import SplitModel, split
from xbcompile.passes.contract import CalibratedPass, Pass, PassContext
from xbcompile.passes.pipeline import parse_pipeline, print_pipeline, run_pipeline
from xbcompile.planning.layouts import Layouts, with_reused_writes, with_sites
from xbcompile.program.program import Program, with_stored_weights
from xbcompile.reference.evaluate import computed_tensors, model_batch
from xbcompile.reference.host_graph import host_graph
from xbcompile.targets import Target, load_target
from xbcompile.tiler import make_schedule
from xbcompile.tiler.effort import DEFAULT_EFFORT
from xbcompile.verification.verify import verify

LARGEST_STEPS = 50_000  # assumed: a schedule of more time steps tells nobody anything and takes minutes to make


def compile(  # the name that users expect, as re.compile
    model: str | os.PathLike[str] | onnx.ModelProto,
    target: str | os.PathLike[str] | Target = "mram64",
    *,
    passes: str | None = None,
    calibration: str | os.PathLike[str] | dict[str, np.ndarray] | None = None,
    arrays: int = 1,
    batch: int = 1,
    pack: bool = True,
    cuts: str = "greedy",
    packing: str = "auto",
    objective: str = "latency",
    rewrite: str = "all",
    floorplan: str | None = None,
    scramble: bool = True,
    seed: int = 0,
    effort: float = DEFAULT_EFFORT,
    digital: Collection[str] = (),
    dims: Mapping[str, int] | None = None,
    embed_model: bool = True,
    after_pass: Callable[[Pass, Network], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Program:
    """Compile an ONNX model to a program; it is verified before it is returned.

    Args:
        model: path of an .onnx file, or a model in memory.
        target: name of a shipped target, path of a .toml description, or a Target.
        passes: pipeline text; None takes the target's own.
        calibration: `SET:train:N`, path of a .npz file, or arrays by input name; needed by passes that fit to data.
        arrays: physical arrays; 0 takes as many as there are weight images (nothing is rewritten), more than that hold
            copies of the images that take longest, where that helps.
        batch: inferences served between two weight updates.
        pack: several tiles may share one array; False keeps one tile per image.
        cuts: "greedy", "balanced" (blocks of equal size), or "free" to choose the cuts of residual strips together with
            the packing.
        packing: "dense" (fewest images), "in-order" (images follow the order of execution, so that one array is loaded
            with each once), or "auto": in order where fewer arrays than images would else be written more often.
        objective: what the schedule is made for: "latency", "throughput", "energy", "weight-updates", or a weighted sum
            of them, "latency=0.5,energy=0.5".
        rewrite: which rows a write writes: "all", "changed" (rows in which a cell changes), or "matched" (the same, with
            orders and columns chosen so that few cells change).
        floorplan: "8x8" or "8x8x2", site rows x site columns x chips: arrays are placed for little traffic.
        scramble: permute the columns of each image.
        seed: of the permutations, and of the search for places on the floorplan.
        effort: work allowed to each search, in the solver's deterministic time (one unit takes some seconds).
        digital: names (or patterns) of nodes that stay digital.
        dims: sizes of open dimensions of the inputs, by name or `INPUT:AXIS`: {"batch": 1}.
        embed_model: keep the user's model in the program, for `run` to report its software accuracy.
        after_pass: called after each network pass.
        warn: called with each warning.

    Raises:
        XbcompileError: bad input of any kind, or (VerifyError) a program that does not verify.
    """
    chosen = target if isinstance(target, Target) else load_target(target)
    proto = fix_dimensions(load_model(model), dims or {})
    network = imported = import_network(proto, (digital,) if isinstance(digital, str) else digital)
    source = split(runnable(proto), known=[layer.weights for layer in network.layers]) if embed_model else None
    del proto  # what follows needs the memory
    if not network.layers and warn is not None:
        reason = nothing_lowered(network.records)
        warn(f"no matrix of the model can be put on arrays: {reason}; everything runs digitally")
    _check_length(network)
    data = _calibration(calibration, network)
    pipeline = choose_pipeline(chosen, passes, data is not None, warn if network.layers else None)
    layouts = Layouts(chosen.array_spec, arrays, pack=pack, cuts=cuts, packing=packing, effort=effort)
    context = PassContext(chosen.array_spec, data, layouts.row_weights, layouts.images, network)
    network = run_pipeline(pipeline, network, context, after_pass)
    network = _continuous_where_uncoded(network, chosen)
    check_fits(network, chosen)
    layout = layouts.layout(network)
    schedule = make_schedule(
        layout,
        network.uses,
        chosen.array_spec,
        arrays=arrays,
        batch=batch,
        seed=seed,
        scramble=scramble,
        effort=effort,
        objective=objective,
    )
    schedule = with_sites(schedule, network.uses, floorplan, seed=seed, effort=effort)
    network = with_stored_weights(network)
    del context  # verification needs memory of its own
    program = Program(
        network=network,
        schedule=schedule,
        target=chosen,
        pipeline=print_pipeline(pipeline),
        calibration={} if data is None else _for_devices(data, pipeline, network),
        source=source,
        options={
            "cuts": cuts,
            "pack": pack,
            "packing": layouts.packing(network),
            "rewrite": rewrite,
            "scramble": scramble,
            "seed": seed,
        },
        taken_apart=_taken_apart(imported, network, pipeline, source),
    )
    program = with_reused_writes(program, rewrite, effort)
    _verify(program)
    return program


def _taken_apart(
    imported: Network, network: Network, pipeline: tuple[Pass, ...], source: SplitModel | None
) -> SplitModel | None:
    """The imported network as a model, where device passes need tensors that the model itself does not have."""
    if source is None or not any(isinstance(each, CalibratedPass) for each in pipeline):
        return None
    needed = {layer.stands_for or layer.output for layer in network.layers}
    needed.update(layer.input for each in network.recurrences for layer in each.layers)
    return None if needed <= computed_tensors(source) else host_graph(imported)


def _check_length(network: Network) -> None:
    """Raise ScheduleError for a recurrence of so many steps that no schedule should list them."""
    longest = max(network.recurrences, key=lambda each: each.steps or 1, default=None)
    if longest is not None and (longest.steps or 1) > LARGEST_STEPS:
        raise ScheduleError(
            f"recurrence {longest.name!r} has {longest.steps:,} steps, and a schedule lists at most {LARGEST_STEPS:,}; "
            f"export the model with that dimension open: then one step is scheduled, and sequences of any length run"
        )


def _verify(program: Program) -> None:
    """Raise VerifyError with every finding; ModelError when onnxruntime refuses the host graph."""
    try:
        findings = verify(program)
    except engine.ERRORS as error:
        raise ModelError(f"onnxruntime cannot run the compiled model: {engine.one_line(error)}") from None
    if findings:
        raise VerifyError(findings)


def _calibration(
    given: str | os.PathLike[str] | dict[str, np.ndarray] | None, network: Network
) -> dict[str, np.ndarray] | None:
    if given is None:
        return None
    if isinstance(given, dict):
        return data_of(given, None, network.inputs, "calibration").inputs
    return load_data(os.fspath(given), network.inputs).inputs


def _for_devices(data: dict[str, np.ndarray], pipeline: tuple[Pass, ...], network: Network) -> dict[str, np.ndarray]:
    """The calibration inputs that device passes need, in whole batches where the model's batch is fixed.

    Raises:
        DataError: there is not one whole batch.
    """
    needed = max((p.samples for p in pipeline if isinstance(p, CalibratedPass)), default=0)
    if not needed:
        return {}
    batch, samples = model_batch(network.inputs) or 1, len(next(iter(data.values())))
    kept = min(needed, samples) // batch * batch
    if not kept:
        raise DataError(
            f"device passes use {min(needed, samples)} of {samples} calibration samples, which do not fill the model's "
            f"fixed batch of {batch}; give more samples, and samples={batch} or more to the pass"
        )
    return {name: value[:kept] for name, value in data.items()}


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
    from dataclasses import replace

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
        if layer.input_code is None and spec.drive != "unbounded":
            raise TargetError(
                f"layer {layer.name!r} has uncoded inputs, but rows of target {target.name!r} take {spec.drive} drives; "
                f"add {_coding_for(layer, spec)} to the passes"
            )


def _count(spec: ArraySpec) -> str:
    return f"values up to {spec.cell_limit:g}" if spec.levels is None else f"{len(spec.levels)} levels"


def _coding_for(layer: MatrixLayer, spec: ArraySpec) -> str:
    return "analogue" if spec.drive in ("analogue", "signed") else "thermometer{bits=8}"

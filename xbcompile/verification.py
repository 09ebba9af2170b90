"""Checks of a program on its own, without trust in the compiler that made it.

The schedule tables are checked against the matrices, the host graph (plain onnxruntime) against the runtime on the
exact device, layer by layer on the same inputs, so that a rounding difference in one layer cannot hide in, or be
blamed on, another.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper
from threadpoolctl import threadpool_limits

from xbcompile.errors import DataError
from xbcompile.frontend import engine
from xbcompile.ir import MatrixLayer, Network, Patches, Schedule
from xbcompile.ir.activations import make_session
from xbcompile.ir.dimensions import is_fixed
from xbcompile.ir.host import parameter_name
from xbcompile.ir.host_recurrence import body_of, expose, scan_bodies, scan_of
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.ir.split_model import SplitModel, is_apart
from xbcompile.probes import probe_inputs
from xbcompile.program import Program
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.targets.ideal import IdealArray

# A layer's output may differ from the host graph's by float32 rounding of its products.
RELATIVE_TOLERANCE = 2e-5
HALF_TOLERANCE = 2e-3

_NO_PROBES: tuple[type[Exception], ...] = (DataError, *engine.REFUSALS)
# Sums of absolute products from here on may overflow float32, in one order of summation and not in another.
OVERFLOW = 1e37
LARGEST_COMPARED = 8_000_000  # assumed: elements of a layer's input that are compared within seconds
PROBE_SECONDS = 10.0  # assumed: models that take longer on a few samples are checked layer by layer instead


def verify(program: Program, equivalence: bool = True) -> list[str]:
    """Run all checks.

    Args:
        program: the program.
        equivalence: also compare host graph and runtime on random (or calibration) inputs.

    Returns:
        findings, one line each; empty when the program is right.
    """
    findings = check_tiles(program.schedule, program.network)
    findings += check_placement(program.schedule)
    if findings:  # steps refer to tiles: with wrong ones there is no telling what a step does
        return findings
    findings += check_steps(program.schedule, program.network)
    findings += check_durations(program)
    findings += check_codes(program)
    findings += check_recurrences(program)
    if findings or not equivalence:
        return findings
    return check_equivalence(program)


def check_tiles(schedule: Schedule, network: Network) -> list[str]:
    """Every weight of every matrix is in exactly one tile, under the first layer that uses the matrix."""
    tiles, findings = schedule.tiles, []
    layers, owners = network.layers, set(network.matrices)
    if len(tiles) and (tiles["layer"].min() < 0 or tiles["layer"].max() >= len(layers)):
        return [f"tiles: layer indices outside 0..{len(layers) - 1}"]
    for i, layer in enumerate(layers):
        if i not in owners:
            if np.any(tiles["layer"] == i):
                owner = layers[network.matrices[i]].name
                findings.append(
                    f"tiles: layer {layer.name!r} has tiles of its own, but its matrix is that of {owner!r}"
                )
            continue
        mine = tiles[tiles["layer"] == i]
        bounds = [("group", 0, layer.groups - 1), ("k0", 0, layer.inputs), ("m0", 0, layer.outputs)]
        bounds += [("k1", 0, layer.inputs), ("m1", 0, layer.outputs)]
        outside = [n for n, low, high in bounds if len(mine) and (mine[n].min() < low or mine[n].max() > high)]
        if outside:
            findings.append(f"tiles: layer {layer.name!r} has {outside[0]} outside its matrix")
            continue
        if np.any(mine["k1"] <= mine["k0"]) or np.any(mine["m1"] <= mine["m0"]):
            findings.append(f"tiles: layer {layer.name!r} has an empty tile")
            continue
        cover = np.zeros((layer.groups, layer.inputs + 1, layer.outputs + 1), np.int32)  # difference array
        for rows, columns, sign in (("k0", "m0", 1), ("k1", "m0", -1), ("k0", "m1", -1), ("k1", "m1", 1)):
            np.add.at(cover, (mine["group"], mine[rows], mine[columns]), sign)
        count = cover.cumsum(axis=1).cumsum(axis=2)[:, :-1, :-1]
        for what, wrong in (("in no tile", count < 1), ("in more than one tile", count > 1)):
            if wrong.any():
                g, k, m = (int(v[0]) for v in np.nonzero(wrong))
                findings.append(
                    f"tiles: {int(wrong.sum())} weights of layer {layer.name!r} are {what}, "
                    f"the first at group {g}, row {k}, column {m}"
                )
    return findings


def check_placement(schedule: Schedule) -> list[str]:
    """Tiles lie inside their array and do not overlap; permutations are bijective; arrays and images exist."""
    tiles, findings = schedule.tiles, []
    height, width = tiles["k1"] - tiles["k0"], tiles["m1"] - tiles["m0"]
    if np.any(tiles["image"] < 0) or np.any(tiles["image"] >= schedule.images):
        return [f"tiles: image indices outside 0..{schedule.images - 1}"]
    inside = (tiles["row"] >= 0) & (tiles["row"] + height <= schedule.rows)
    inside &= (tiles["column"] >= 0) & (tiles["column"] + width <= schedule.columns)
    if not inside.all():
        findings.append(
            f"tiles: tile {int(np.flatnonzero(~inside)[0])} lies outside its {schedule.rows}x{schedule.columns} array"
        )
    else:
        findings += _overlaps(schedule, height, width)
    if schedule.column_permutation.shape != (schedule.images, schedule.columns):
        findings.append(f"permutations: table has shape {schedule.column_permutation.shape}")
    else:
        wrong = np.any(np.sort(schedule.column_permutation, axis=1) != np.arange(schedule.columns), axis=1)
        if wrong.any():
            findings.append(f"permutations: image {int(np.flatnonzero(wrong)[0])} has no bijection of its columns")
    if np.any(schedule.image_array < 0) or np.any(schedule.image_array >= schedule.arrays):
        findings.append(f"images: array indices outside 0..{schedule.arrays - 1}")
    return findings


def _overlaps(schedule: Schedule, height: np.ndarray, width: np.ndarray) -> list[str]:
    tiles = schedule.tiles
    order = np.argsort(tiles["image"], kind="stable")
    image = tiles["image"][order]
    starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]]) if len(image) else np.array([], int)
    ends = np.r_[starts[1:], len(image)]
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        used = np.zeros((schedule.rows, schedule.columns), bool)
        for i in order[start:end]:
            area = used[tiles["row"][i] :, tiles["column"][i] :][: height[i], : width[i]]
            if area.any():
                return [f"tiles: tile {int(i)} overlaps another in image {int(tiles['image'][i])}"]
            area[:] = True
    return []


def check_steps(schedule: Schedule, network: Network) -> list[str]:
    """Written before read, right image present, no array used twice at a time, each tile read once per use, uses in order."""
    steps = schedule.steps
    reads, writes = steps["operation"] == READ, steps["operation"] == WRITE
    if not np.all(reads | writes):
        return ["steps: an operation is neither write nor read"]
    for name, high in (("array", schedule.arrays), ("image", schedule.images)):
        if np.any(steps[name] < 0) or np.any(steps[name] >= high):
            return [f"steps: {name} indices outside 0..{high - 1}"]
    if np.any(steps["end_s"] < steps["start_s"]):
        return ["steps: a step ends before it starts"]
    if np.any(np.diff(steps["start_s"]) < 0):
        return ["steps: the table is not in order of start time"]
    for name, high in (("tile", len(schedule.tiles)), ("use", len(network.uses))):
        if np.any(steps[name][writes] != -1):
            return [f"steps: a write names a {name}; only reads have one"]
        if np.any(steps[name][reads] < 0) or np.any(steps[name][reads] >= high):
            return [f"steps: {name} indices outside 0..{high - 1}"]
    tile = steps["tile"][reads]
    findings = _reads_of_uses(schedule, network)
    if np.any(schedule.tiles["image"][tile] != steps["image"][reads]):
        findings.append("steps: a read names another image than the one that holds its tile")
    if np.any(schedule.image_array[steps["image"]] != steps["array"]):
        findings.append("steps: a step uses another array than its image's")
    order = np.lexsort((np.arange(len(steps)), steps["start_s"], steps["array"]))
    ordered = steps[order]
    same = ordered["array"][1:] == ordered["array"][:-1]
    late = ordered["start_s"][1:] < ordered["end_s"][:-1] * (1 - 1e-12) - 1e-18
    if np.any(same & late):
        findings.append(f"steps: array {int(ordered['array'][1:][same & late][0])} is used by two steps at a time")
    # The image present in an array is that of its last write.
    last = np.where(ordered["operation"] == WRITE, np.arange(len(ordered)), -1)
    last = np.maximum.accumulate(last) if len(last) else last
    is_read = ordered["operation"] == READ
    present = (last >= 0) & (ordered["array"][last] == ordered["array"]) & (ordered["image"][last] == ordered["image"])
    if np.any(is_read & ~present):
        wrong = ordered[is_read & ~present][0]
        findings.append(
            f"steps: tile {int(wrong['tile'])} is read from array {int(wrong['array'])} before its image is written"
        )
    return findings + _use_order(schedule, network)


def _reads_of_uses(schedule: Schedule, network: Network) -> list[str]:
    """Each use reads every tile of its matrix once, and no other."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    layers, uses = network.layers, network.uses
    matrix = np.array([use.matrix for use in uses], dtype=np.int64)
    foreign = schedule.tiles["layer"][reads["tile"]] != matrix[reads["use"]]
    if np.any(foreign):
        wrong = reads[foreign][0]
        name = layers[uses[wrong["use"]].layer].name
        return [f"steps: tile {int(wrong['tile'])} is read for layer {name!r}, whose matrix it is no part of"]
    pair = reads["use"].astype(np.int64) * len(schedule.tiles) + reads["tile"]
    found, times = np.unique(pair, return_counts=True)
    if np.any(times != 1):
        use, tile = divmod(int(found[times != 1][0]), len(schedule.tiles))
        return [
            f"steps: tile {tile} is read {int(times[times != 1][0])} times for layer {layers[uses[use].layer].name!r}; "
            "each tile's reads must enter its sum once"
        ]
    read = np.bincount(reads["use"], minlength=len(uses))
    wanted = np.bincount(schedule.tiles["layer"], minlength=len(layers))[matrix]
    missing = np.flatnonzero(read != wanted)
    return [
        f"steps: {int(wanted[use] - read[use])} tiles of layer {layers[uses[use].layer].name!r} are never read"
        for use in missing[:1]
    ]


def _use_order(schedule: Schedule, network: Network) -> list[str]:
    """Each use starts when those that it waits for are complete."""
    reads = schedule.steps[schedule.steps["operation"] == READ]
    layers, uses = network.layers, network.uses
    first, last = np.full(len(uses), np.inf), np.full(len(uses), -np.inf)
    np.minimum.at(first, reads["use"], reads["start_s"])
    np.maximum.at(last, reads["use"], reads["end_s"])
    # Where steps take no time, the order of the table is the order of execution.
    position = np.arange(len(reads))
    first_position, last_position = np.full(len(uses), len(reads)), np.full(len(uses), -1)
    np.minimum.at(first_position, reads["use"], position)
    np.maximum.at(last_position, reads["use"], position)
    for i, use in enumerate(uses):
        for j in use.waits_for:
            if first[i] < last[j] * (1 - 1e-12) - 1e-18 or first_position[i] < last_position[j]:
                names = layers[use.layer].name, layers[uses[j].layer].name
                return [
                    f"steps: layer {names[0]!r} is read before layer {names[1]!r}, on which it depends, is complete"
                ]
    return []


def check_durations(program: Program) -> list[str]:
    """Each step lasts as long as the target's writes and reads do; what the schedule says of itself is true."""
    schedule, spec, steps = program.schedule, program.spec, program.schedule.steps
    if (schedule.rows, schedule.columns) != (spec.rows, spec.columns):
        return [
            f"schedule: it is for an array of {schedule.rows}x{schedule.columns}, "
            f"the target's is {spec.rows}x{spec.columns}"
        ]
    if schedule.batch < 1:
        return [f"schedule: batch is {schedule.batch}"]
    reads = steps["operation"] == READ
    per_use = [use.reads * schedule.batch * spec.t_read_s for use in program.network.uses]
    expected = np.full(len(steps), spec.t_write_s)
    valid = reads & (steps["use"] >= 0) & (steps["use"] < len(per_use))
    expected[valid] = np.array(per_use, dtype=np.float64)[steps["use"][valid]]
    # Times are whole multiples of a tick that is at most 2**-50 of the sum of all work.
    wrong = ~np.isclose(steps["end_s"] - steps["start_s"], expected, rtol=1e-9, atol=1e-12 * expected.sum())
    findings = [f"steps: step {int(i)} does not last as long as the target's" for i in np.flatnonzero(wrong)[:1]]
    written_once = schedule.arrays == schedule.images == schedule.weight_updates
    if schedule.stationary != (written_once and bool(np.all(steps["end_s"][~reads] <= 0))):
        findings.append(f"schedule: stationary is {schedule.stationary}, its writes say otherwise")
    for what, bound, value in (
        ("images", schedule.images_lower_bound, schedule.images),
        ("weight updates", schedule.weight_updates_lower_bound, schedule.weight_updates),
        ("makespan", schedule.makespan_lower_bound_s * (1 - 1e-9), schedule.makespan_s),
    ):
        if not bound <= value:
            findings.append(f"schedule: lower bound of {what} is above the schedule's own {value:g}")
    return findings


def check_codes(program: Program) -> list[str]:
    """Codes index the target's levels; scales and biases are finite; the cells hold what the host graph says."""
    findings = []
    levels = program.spec.levels
    host = program.host_graph
    constants = {i.name: i for i in host.skeleton.graph.initializer}
    for layer in program.network.layers:
        code = layer.weight_code
        if code is None:
            findings.append(f"codes: layer {layer.name!r} has none")
            continue
        if levels is not None and code.codes.size and int(code.codes.max()) >= len(levels):
            findings.append(f"codes: layer {layer.name!r} has codes beyond the target's {len(levels)} levels")
        limit = program.spec.cell_limit
        if levels is None and limit is not None and np.abs(code.codes).max(initial=0) > limit * (1 + 1e-6):
            findings.append(f"codes: layer {layer.name!r} has cell values beyond the target's limit of {limit:g}")
        for name, values in (("scale", code.scale), ("offset", code.offset), ("bias", layer.bias)):
            if not np.isfinite(values).all():
                findings.append(f"codes: layer {layer.name!r} has a {name} that is not finite")
        stored = constants.get(parameter_name(layer.name, "weights" if levels is None else "codes"))
        if stored is None:
            continue
        meant = host.tensors[stored.name] if is_apart(stored) else onnx.numpy_helper.to_array(stored)
        if meant is not code.codes and not np.array_equal(meant, code.codes):
            findings.append(f"codes: layer {layer.name!r} differs from the host graph's")
    return findings


def check_recurrences(program: Program) -> list[str]:
    """Each recurrence's Scan in the host graph reads, carries and writes the same tensors."""
    scans = {node.name: node for node in program.host_graph.skeleton.graph.node if node.op_type == "Scan"}
    findings = []
    for recurrence in program.network.recurrences:
        scan = scans.get(recurrence.name)
        if scan is None or _wiring(scan) != _wiring(scan_of(recurrence, [])):
            findings.append(f"recurrence {recurrence.name!r}: its states and sequences are not those of the host graph")
    return findings


def _wiring(scan: onnx.NodeProto) -> dict[str, list[Any]]:
    """All of a Scan but the nodes of its body."""
    body = body_of(scan)
    ends = {"starts": [value.name for value in body.input], "ends": [value.name for value in body.output]}
    attributes = {a.name: [helper.get_attribute_value(a)] for a in scan.attribute if a.name != "body"}
    return {"inputs": list(scan.input), "outputs": list(scan.output), **ends, **attributes}


def check_equivalence(program: Program) -> list[str]:
    """Each matrix layer on the exact device equals its host-graph function on the same inputs, to float rounding."""
    findings = []
    layers = program.network.layers
    if not layers:
        make_session(program.host_graph)  # there is nothing to compare, but onnxruntime must be able to load it
        return []
    values = _layer_values(program)
    # The products are small: threads of the linear algebra library would spend their time waiting for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        for i, layer in enumerate(layers):
            x, reference = values[i]
            # Probe inputs may take the model where it has no finite values; a large fixed batch is needless work.
            if x.size > LARGEST_COMPARED or not np.isfinite(x).all():
                x, reference = _run_alone(program, layer)
            result = LayerExecutor(program, i, IdealArray(program.spec), os.cpu_count() or 1).run(x)
            findings += _differences(layer, x, result, reference)
    return findings


def _differences(layer: MatrixLayer, x: np.ndarray, result: np.ndarray, reference: np.ndarray) -> list[str]:
    """The finding where a layer's output is not the host graph's, as far as float rounding allows."""
    if result.shape != reference.shape:
        return [f"equivalence: layer {layer.name!r} gives shape {result.shape}, the host graph {reference.shape}"]
    # Float32 rounding is relative to the largest sum of absolute products that an output can have.
    reach = max(np.abs(x).max(initial=0), *(abs(b or 0.0) for b in _input_range(layer)))
    weights = np.abs(layer.weights).sum(axis=1, dtype=np.float64).max(initial=0)
    size = float(reach) * float(weights) + float(np.abs(layer.bias).max(initial=0))
    compared = np.isfinite(result) & np.isfinite(reference) if size > OVERFLOW else np.ones(result.shape, bool)
    difference = float(np.abs(result[compared] - reference[compared]).max(initial=0))
    tolerance = RELATIVE_TOLERANCE if layer.element_type != onnx.TensorProto.FLOAT16 else HALF_TOLERANCE
    if difference <= tolerance * max(size, 1e-30):
        return []
    return [f"equivalence: layer {layer.name!r} differs from the host graph by {difference:.3g} of {size:.3g}"]


def _layer_values(program: Program) -> list[tuple[np.ndarray, np.ndarray]]:
    """Input and output of each layer in the host graph, on the model's probe inputs.

    A model may refuse random inputs (open sizes, values that mean something); then each layer runs alone, on random inputs
    of its own.
    """
    layers = program.network.layers
    tensors = [t for layer in layers for t in (layer.input, layer.output)]
    try:
        values = _evaluate(program.host_graph, probe_inputs(program), tensors)
    except _NO_PROBES:
        make_session(program.host_graph)  # a host graph that cannot even be loaded is no matter of inputs
        return [_run_alone(program, layer) for layer in layers]
    pairs = zip(values[::2], values[1::2], strict=True)
    return [
        pair if _has_its_channels(layer, pair[0]) else _run_alone(program, layer)
        for layer, pair in zip(layers, pairs, strict=True)
    ]


def _has_its_channels(layer: MatrixLayer, x: np.ndarray) -> bool:
    """Whether a convolution's input has the channels that it reads; onnxruntime's grouped Conv takes more without a word."""
    if not isinstance(layer.geometry, Patches):
        return True
    return bool(x.shape[1] == layer.groups * layer.inputs // math.prod(layer.geometry.kernel))


def _evaluate(model: SplitModel, feeds: dict[str, Any], tensors: list[str]) -> list[np.ndarray]:
    """Values of the named tensors in one run."""
    model = model.copy()
    graph = model.skeleton.graph
    computed = list(dict.fromkeys(name for name in tensors if name not in feeds))
    stacked = expose(graph, computed)
    wanted = [stacked.get(name, name) for name in computed]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    values = feeds | dict(zip(computed, _run_limited(make_session(model), wanted, feeds), strict=True))
    return [values[name] for name in tensors]


def _run_limited(session: ort.InferenceSession, wanted: list[str], feeds: dict[str, Any]) -> list[Any]:
    """One run, ended with an error of onnxruntime's after a while: with random inputs a loop may go on for ever."""
    options = ort.RunOptions()
    timer = threading.Timer(PROBE_SECONDS, setattr, (options, "terminate", True))
    timer.start()
    try:
        values: list[Any] = session.run(wanted, feeds, options)
        return values
    finally:
        timer.cancel()


def _run_alone(program: Program, layer: MatrixLayer) -> tuple[np.ndarray, np.ndarray]:
    """Random input of one layer, and the output of its node in the host graph."""
    model = program.host_graph.copy()
    graph = model.skeleton.graph
    around = scan_bodies(graph).get(layer.output)
    own = graph if around is None else body_of(around)
    types = {v.name: v.type.tensor_type for g in (graph, own) for v in [*g.value_info, *g.input, *g.output]}
    node = next(node for node in own.node if layer.output in node.output)
    kept = [initializer for initializer in graph.initializer if initializer.name in node.input]
    alone = helper.make_graph(
        [node], graph.name, [helper.make_tensor_value_info(layer.input, layer.element_type, None)], [], kept
    )
    graph.CopyFrom(alone)
    known = types[layer.input].shape.dim if layer.input in types else []
    shape = _shape_alone(layer, [int(dim.dim_value) if is_fixed(dim) else None for dim in known])
    x = np.random.default_rng(0).random(shape).astype(helper.tensor_dtype_to_np_dtype(layer.element_type))
    return x, _evaluate(model, {layer.input: x}, [layer.output])[0]


def _shape_alone(layer: MatrixLayer, known: list[int | None]) -> list[int]:
    """A shape for a layer's input: known sizes, and small ones where they are open or too large."""
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        extents = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
        smallest = [2, layer.groups * layer.inputs // math.prod(geometry.kernel), *extents]
        inputs = 1
    else:
        inputs = geometry.input_axis
        smallest = [2] * max(len(known), 2, -inputs)
        smallest[inputs] = layer.inputs
    sizes = known if len(known) == len(smallest) else [None] * len(smallest)
    shape = [small if size is None else size for size, small in zip(sizes, smallest, strict=True)]
    shape[inputs] = smallest[inputs]
    if math.prod(shape) > LARGEST_COMPARED:
        shape[0] = smallest[0]
    return smallest if math.prod(shape) > LARGEST_COMPARED else shape


def _input_range(layer: MatrixLayer) -> tuple[float | None, float | None]:
    code = layer.input_code
    return (None, None) if code is None else (code.low, code.high)

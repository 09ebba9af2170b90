"""Checks of a program on its own, without trust in the compiler that made it.

The schedule tables are checked against the matrices, the host graph (plain onnxruntime) against the runtime on the
exact device, layer by layer on the same inputs, so that a rounding difference in one layer cannot hide in, or be
blamed on, another.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from xbcompile.frontend import engine
from xbcompile.ir import MatrixLayer, Network, Patches, Schedule
from xbcompile.ir.activations import evaluate_model, make_session, model_batch
from xbcompile.ir.host import parameter_name
from xbcompile.ir.schedule import READ, WRITE
from xbcompile.program import Program
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.targets.ideal import IdealArray

# A layer's output may differ from the host graph's by float32 rounding of its products.
RELATIVE_TOLERANCE = 2e-5
HALF_TOLERANCE = 2e-3


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
    if findings or not equivalence:
        return findings
    return check_equivalence(program)


def check_tiles(schedule: Schedule, network: Network) -> list[str]:
    """Every weight of every layer is in exactly one tile."""
    tiles, findings = schedule.tiles, []
    layers = network.layers
    if len(tiles) and (tiles["layer"].min() < 0 or tiles["layer"].max() >= len(layers)):
        return [f"tiles: layer indices outside 0..{len(layers) - 1}"]
    for i, layer in enumerate(layers):
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
    """Written before read, right image present, no array used twice at a time, each tile read once, layers in order."""
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
    if np.any(steps["tile"][writes] != -1):
        return ["steps: a write names a tile; only reads have one"]
    tile = steps["tile"][reads]
    if np.any(tile < 0) or np.any(tile >= len(schedule.tiles)):
        return [f"steps: tile indices outside 0..{len(schedule.tiles) - 1}"]
    findings = []
    times = np.bincount(tile, minlength=len(schedule.tiles))
    if np.any(times != 1):
        wrong = int(np.flatnonzero(times != 1)[0])
        findings.append(
            f"steps: tile {wrong} is read {int(times[wrong])} times; each tile's reads must enter its sum once"
        )
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
    return findings + _layer_order(schedule, network)


def _layer_order(schedule: Schedule, network: Network) -> list[str]:
    reads = schedule.steps[schedule.steps["operation"] == READ]
    layer = schedule.tiles["layer"][reads["tile"]]
    count = len(network.layers)
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, layer, reads["start_s"])
    np.maximum.at(last, layer, reads["end_s"])
    # Where steps take no time, the order of the table is the order of execution.
    position = np.arange(len(reads))
    first_position, last_position = np.full(count, len(reads)), np.full(count, -1)
    np.minimum.at(first_position, layer, position)
    np.maximum.at(last_position, layer, position)
    for i, waits_for in enumerate(network.layer_dependencies()):
        for j in waits_for:
            if first[i] < last[j] * (1 - 1e-12) - 1e-18 or first_position[i] < last_position[j]:
                names = network.layers[i].name, network.layers[j].name
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
    per_layer = [
        n.slices * (n.vectors_per_inference or 1) * schedule.batch * spec.t_read_s for n in program.network.layers
    ]
    expected = np.full(len(steps), spec.t_write_s)
    valid = reads & (steps["tile"] >= 0) & (steps["tile"] < len(schedule.tiles))
    layer = schedule.tiles["layer"][steps["tile"][valid]]
    expected[valid] = np.array([*per_layer, 0.0])[np.clip(layer, -1, len(per_layer))]
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
    constants = {i.name: i for i in program.host.graph.initializer}
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
        if stored is not None and not np.array_equal(onnx.numpy_helper.to_array(stored), code.codes):
            findings.append(f"codes: layer {layer.name!r} differs from the host graph's")
    return findings


def check_equivalence(program: Program) -> list[str]:
    """Each matrix layer on the exact device equals its host-graph function on the same inputs, to float rounding."""
    findings = []
    layers = program.network.layers
    values = _layer_values(program)
    for i, layer in enumerate(layers):
        x, reference = values[i]
        result = LayerExecutor(program, i, IdealArray(program.spec)).run(x)
        if result.shape != reference.shape:
            findings.append(
                f"equivalence: layer {layer.name!r} gives shape {result.shape}, the host graph {reference.shape}"
            )
            continue
        # Float32 rounding is relative to the largest sum of absolute products that an output can have.
        reach = max(np.abs(x).max(initial=0), *(abs(b or 0.0) for b in _input_range(layer)))
        size = reach * np.abs(layer.weights).sum(axis=1).max(initial=0) + np.abs(layer.bias).max(initial=0)
        difference = float(np.abs(result - reference).max(initial=0))
        tolerance = RELATIVE_TOLERANCE if layer.element_type != onnx.TensorProto.FLOAT16 else HALF_TOLERANCE
        if not difference <= tolerance * max(float(size), 1e-30):
            findings.append(
                f"equivalence: layer {layer.name!r} differs from the host graph by {difference:.3g} of {size:.3g}"
            )
    return findings


def _layer_values(program: Program) -> list[tuple[np.ndarray, np.ndarray]]:
    """Input and output of each layer in the host graph, on the model's probe inputs.

    A model may refuse random inputs (open sizes, values that mean something); then each layer runs alone, on random inputs
    of its own.
    """
    host = onnx.ModelProto()
    host.CopyFrom(program.host)
    layers, inputs = program.network.layers, program.network.inputs
    tensors = [t for layer in layers for t in (layer.input, layer.output)]
    try:
        values = evaluate_model(host, inputs, probe_inputs(program), tensors)
    except engine.ERRORS:
        make_session(program.host)  # a host graph that cannot even be loaded is no matter of inputs
        return [_run_alone(program, layer) for layer in layers]
    first = [chunks[0] for chunks in values]
    return list(zip(first[::2], first[1::2], strict=True))


def _run_alone(program: Program, layer: MatrixLayer) -> tuple[np.ndarray, np.ndarray]:
    """Random input of one layer, and the output of its node in the host graph."""
    model = onnx.ModelProto()
    model.CopyFrom(program.host)
    graph = model.graph
    types = {value.name: value.type.tensor_type for value in [*graph.value_info, *graph.input, *graph.output]}
    node = next(node for node in graph.node if layer.output in node.output)
    kept = [initializer for initializer in graph.initializer if initializer.name in node.input]
    alone = helper.make_graph(
        [node], graph.name, [helper.make_tensor_value_info(layer.input, layer.element_type, None)], [], kept
    )
    graph.CopyFrom(alone)
    known = types[layer.input].shape.dim if layer.input in types else []
    shape = [d.dim_value if d.HasField("dim_value") else 2 for d in known]
    geometry = layer.geometry
    if isinstance(geometry, Patches):
        extents = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
        open_shape = [2, layer.groups * layer.inputs // int(np.prod(geometry.kernel)), *extents]
        sizes = known or [None] * len(open_shape)
        shape = [d.dim_value if d and d.HasField("dim_value") else o for d, o in zip(sizes, open_shape, strict=True)]
    else:
        shape = shape or [2] * max(2, -geometry.input_axis)
        shape[geometry.input_axis] = layer.inputs
    x = np.random.default_rng(0).random(shape).astype(helper.tensor_dtype_to_np_dtype(layer.element_type))
    return x, evaluate_model(model, tuple(graph.input), {layer.input: x}, [layer.output])[0][0]


def _input_range(layer: MatrixLayer) -> tuple[float | None, float | None]:
    code = layer.input_code
    return (None, None) if code is None else (code.low, code.high)


def probe_inputs(program: Program, samples: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """A few inputs that fit the model: calibration inputs where the program has them, else random ones."""
    count = model_batch(program.network.inputs) or samples
    if program.calibration and all(len(value) >= count for value in program.calibration.values()):
        return {name: value[:count] for name, value in program.calibration.items()}
    generator = np.random.default_rng(seed)
    return {value.name: _random_input(value, count, generator) for value in program.network.inputs}


def _random_input(value: onnx.ValueInfoProto, samples: int, generator: np.random.Generator) -> np.ndarray:
    tensor = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    shape = [samples if d is None and i == 0 else 8 if d is None else d for i, d in enumerate(dims)]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)

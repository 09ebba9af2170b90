"""Checks of a program on its own, without trust in the compiler that made it.

The schedule tables are checked against the matrices, the host graph (plain onnxruntime) against the runtime on the
exact device, layer by layer on the same inputs, so that a rounding difference in one layer cannot hide in, or be
blamed on, another.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from threadpoolctl import threadpool_limits

from xbcompile.errors import DataError, ScheduleError, XbcompileError
from xbcompile.ir import MatrixLayer, Patches
from xbcompile.ir.site_grid import SiteGrid
from xbcompile.ir.vectors import lay_out, of_type
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.dimensions import is_fixed
from xbcompile.onnx_graph.engine import open_session, probe_bytes, run_limited
from xbcompile.onnx_graph.split_model import SplitModel, is_apart
from xbcompile.program.program import Program, device_passes
from xbcompile.reference.host_graph import parameter_name
from xbcompile.reference.host_recurrence import body_of, expose, is_wired_as, scan_bodies
from xbcompile.runtime.commissioning import chip_name
from xbcompile.runtime.kept_tiles import KeptTiles
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.placed import PlacedProgram, no_corrections
from xbcompile.runtime.session import Session
from xbcompile.runtime.workers import Workers
from xbcompile.targets.families.ideal import IdealArray
from xbcompile.targets.target import EXACT_DEVICE
from xbcompile.verification.differences import differences
from xbcompile.verification.exact_vectors import exact_vectors
from xbcompile.verification.probes import probe_inputs
from xbcompile.verification.schedule_checks import check_schedule, check_tables
from xbcompile.verification.traffic import hop_values

# A layer's output may differ from the host graph's by float32 rounding of its products.
RELATIVE_TOLERANCE = 2e-5
HALF_TOLERANCE = 2e-3
# Sums of an integer layer that are this near a tie may be rounded to either side; whole ones, half a unit away, never are.
LARGEST_TIE = 0.25

_NO_PROBES: tuple[type[Exception], ...] = (DataError, *engine.ERRORS)
_FAILURES: tuple[type[Exception], ...] = (XbcompileError, *engine.ERRORS)
# Sums of absolute products from here on may overflow float32, in one order of summation and not in another.
OVERFLOW = 1e37
LARGEST_COMPARED = 8_000_000  # assumed: elements of a layer's input that are compared within seconds


def verify(program: Program, equivalence: bool = True) -> list[str]:
    """Run all checks, and the program itself once where the host graph takes random inputs.

    Args:
        program: the program.
        equivalence: also compare host graph and runtime on random (or calibration) inputs.

    Returns:
        findings, one line each; empty when the program is right.
    """
    try:
        return check_program(program, equivalence) or (check_run(program) if equivalence else [])
    except engine.ERRORS as error:
        return [f"host graph: onnxruntime does not run it: {engine.one_line(error)}"]


def check_program(program: Program, equivalence: bool = True) -> list[str]:
    """`verify` but for the run of the whole program, which is made of what is compared layer by layer.

    Raises:
        one of `engine.ERRORS`: onnxruntime does not load the host graph.
    """
    findings = check_schedule(program.schedule, program.network, program.spec)
    if findings and check_tables(program.schedule, program.network):
        return findings
    findings += check_sites(program)
    findings += check_rewrites(program)
    findings += check_codes(program)
    findings += check_cells(program)
    findings += check_recurrences(program)
    if findings or not equivalence:
        return findings
    return check_equivalence(program)


def check_run(program: Program) -> list[str]:
    """A session runs the program on what the host graph runs on, to outputs of the same types and shapes."""
    try:
        device_passes(program.pipeline)
    except XbcompileError as error:
        return [f"pipeline: {error}"]
    names = [value.name for value in program.network.outputs]
    try:
        feeds = probe_inputs(program, samples=1)
        if max((np.size(x) for x in feeds.values()), default=0) > LARGEST_COMPARED:
            return []
        session = open_session(program.host_graph, once=True)
        expected = dict(zip(names, run_limited(session, names, feeds), strict=True))
    except _NO_PROBES:  # a model may refuse random inputs
        return []
    chip = chip_name(program, EXACT_DEVICE, 0)
    corrections = replace(no_corrections(program), program=program.digest, chip=chip)
    try:
        found = Session(program, EXACT_DEVICE, corrections=corrections).run(feeds)
    except _FAILURES as error:
        return [f"run: it fails where the host graph runs: {engine.one_line(error)}"]
    return [
        f"run: output {name!r} is {_shown(found[name])}, the host graph's {_shown(value)}"
        for name, value in expected.items()
        if _shown(found[name]) != _shown(value)
    ]


def _shown(value: Any) -> str:
    """Element type and shape of a tensor; of what is none, its type."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__


def check_sites(program: Program) -> list[str]:
    """Arrays sit on sites of their own, and the traffic over the floorplan is what the schedule says."""
    schedule = program.schedule
    if not schedule.floorplan and not len(schedule.site):
        without = schedule.hop_values == schedule.hop_values_lower_bound == 0
        return [] if without else ["sites: the schedule says that values travel, but not where its arrays are"]
    try:
        grid = SiteGrid.parse(schedule.floorplan)
    except ScheduleError as error:
        return [str(error)]
    site = schedule.site
    if site.shape != (schedule.arrays,) or np.any(site < 0) or np.any(site >= grid.sites):
        return [f"sites: not one of {grid.sites} sites for each of {schedule.arrays} arrays"]
    if len(np.unique(site)) < len(site):
        return ["sites: two arrays sit on one site"]
    total = hop_values(schedule.tiles, schedule.copies, program.network, site, grid)
    if total != schedule.hop_values or schedule.hop_values_lower_bound > total:
        return [
            f"sites: traffic is {total:,} values times hops; the schedule says {schedule.hop_values:,} "
            f"and at least {schedule.hop_values_lower_bound:,}"
        ]
    return []


def check_rewrites(program: Program) -> list[str]:
    """A write of fewer rows than an array has leaves out no row in which a cell changes; the count of cells is right."""
    schedule, spec = program.schedule, program.spec
    counted = schedule.cells_written is not None
    cells = 0
    writes = schedule.writes
    for array in np.unique(writes["array"][(writes["rows"] < spec.rows) | counted]).tolist():
        held = int(schedule.initial[array])
        for write in writes[writes["array"] == array]:
            image = int(write["image"])
            differ = np.ones((spec.rows, spec.columns), dtype=bool)
            if held >= 0:
                before, after = program.cells(np.array([held, image]))
                differ = before != after
            cells += int(differ.sum())
            changed = int(differ.any(axis=1).sum())
            if write["rows"] < changed:
                return [
                    f"steps: image {image} is written into array {array} with {int(write['rows'])} rows, "
                    f"but {changed} differ from what the array holds"
                ]
            held = image
    if counted and cells != schedule.cells_written:
        return [f"schedule: it says that {schedule.cells_written:,} cells change per batch; {cells:,} do"]
    return []


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


def check_cells(program: Program) -> list[str]:
    """The cells that are written are the codes of the layers, each where its tile sits; compared exactly.

    Few vectors are enough for `check_equivalence` then: no wrong cell can hide behind an input that is 0.
    """
    schedule, layers = program.schedule, program.network.layers
    codes = [layer.weight_code.codes for layer in layers if layer.weight_code is not None]
    if len(codes) < len(layers):
        return []  # a finding already
    tiles = schedule.tiles[np.argsort(schedule.tiles["image"], kind="stable")]
    starts = np.searchsorted(tiles["image"], np.arange(schedule.images + 1))
    for image in range(schedule.images):
        cells = program.cells(np.array([image]))[0]
        columns = schedule.column_permutation[image]
        for layer, group, k0, k1, m0, m1, _, row, column in tiles[starts[image] : starts[image + 1]].tolist():
            found = cells[row : row + k1 - k0, columns[column : column + m1 - m0]]
            if not np.array_equal(found, codes[layer][group, k0:k1, m0:m1]):
                return [
                    f"cells: image {image} does not hold the codes of layer {layers[layer].name!r} where its tile sits"
                ]
    return []


def check_recurrences(program: Program) -> list[str]:
    """Each recurrence's Scan in the host graph reads, carries and writes the same tensors."""
    scans = {node.name: node for node in program.host_graph.skeleton.graph.node if node.op_type == "Scan"}
    findings = []
    for recurrence in program.network.recurrences:
        scan = scans.get(recurrence.name)
        if scan is None or not is_wired_as(scan, recurrence):
            findings.append(f"recurrence {recurrence.name!r}: its states and sequences are not those of the host graph")
    return findings


def check_equivalence(program: Program) -> list[str]:
    """Each matrix layer on the exact device equals its host-graph function on the same inputs, to float rounding."""
    findings = []
    layers = program.network.layers
    if not layers:
        open_session(program.host_graph, once=True)  # nothing to compare, but onnxruntime must be able to load it
        return []
    values = _layer_values(program)
    placed, ideal, workers = PlacedProgram(program, no_corrections(program)), IdealArray(program.spec), Workers()
    placed.kept = KeptTiles(0)  # each layer is run once
    # The products are small: threads of the linear algebra library would spend their time waiting for each other.
    with threadpool_limits(limits=1, user_api="blas"):
        for i, layer in enumerate(layers):
            x, reference = values[i]
            # Probe inputs may take the model where it has no finite values; a large fixed batch is needless work.
            if x.size > LARGEST_COMPARED or not np.isfinite(x).all():
                x, reference = _run_alone(program, layer)
            vectors, shape = exact_vectors(LayerExecutor(placed, i, ideal, workers), x)
            findings += _differences(layer, x, lay_out(layer, vectors, shape), reference)
            placed.blocks.clear()
    return findings


def _differences(layer: MatrixLayer, x: np.ndarray, exact: np.ndarray, reference: np.ndarray) -> list[str]:
    """The finding where a layer's output is not the host graph's, as far as float rounding allows.

    Args:
        layer: the layer.
        x: its input.
        exact: float64, its output before it is rounded to the element type.
        reference: the host graph's output.
    """
    result = of_type(exact, x.dtype)
    if result.shape != reference.shape:
        return [f"equivalence: layer {layer.name!r} gives shape {result.shape}, the host graph {reference.shape}"]
    # Float32 rounding is relative to the largest sum of absolute products that an output can have.
    reach = max(np.abs(x).max(initial=0), *(abs(b or 0.0) for b in _input_range(layer)))
    weights = np.abs(layer.weights).sum(axis=1, dtype=np.float64).max(initial=0)
    size = float(reach) * float(weights) + float(np.abs(layer.bias).max(initial=0))
    off = differences(result, reference)
    if size > OVERFLOW:
        off[~np.isfinite(result) | ~np.isfinite(reference)] = 0.0
    tolerance = RELATIVE_TOLERANCE if layer.element_type != onnx.TensorProto.FLOAT16 else HALF_TOLERANCE
    tolerance *= max(size, 1e-30)
    if layer.element_type == onnx.TensorProto.INT32:  # one unit, where the sum is a tie as far as rounding can tell
        from_tie = np.abs(np.abs(exact - np.rint(exact)) - 0.5)
        off[(off <= 1) & (from_tie <= min(tolerance, LARGEST_TIE))] = 0.0
    difference = float(off.max(initial=0))
    if difference <= tolerance:
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
        values = _evaluate(program.host_graph, probe_inputs(program, samples=2), tensors)
    except _NO_PROBES:
        open_session(program.host_graph, once=True)  # a host graph that cannot even be loaded is no matter of inputs
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
    return bool(x.shape[layer.geometry.channel_axis] == layer.groups * layer.inputs // math.prod(layer.geometry.kernel))


def _evaluate(model: SplitModel, feeds: dict[str, Any], tensors: list[str]) -> list[np.ndarray]:
    """Values of the named tensors in one run."""
    model = model.copy()
    graph = model.skeleton.graph
    computed = list(dict.fromkeys(name for name in tensors if name not in feeds))
    stacked = expose(graph, computed)
    wanted = [stacked.get(name, name) for name in computed]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = open_session(model, once=True, memory_bytes=probe_bytes(model))
    values = feeds | dict(zip(computed, run_limited(session, wanted, feeds), strict=True))
    return [values[name] for name in tensors]


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
    if math.prod(filter(None, shape)) > LARGEST_COMPARED:  # no axis of an empty array may be longer, either
        shape[0] = smallest[0]
    return smallest if math.prod(filter(None, shape)) > LARGEST_COMPARED else shape


def _input_range(layer: MatrixLayer) -> tuple[float | None, float | None]:
    code = layer.input_code
    return (None, None) if code is None else (code.low, code.high)

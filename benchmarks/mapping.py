"""Mapping figures on this machine: images, writes and makespans beside their lower bounds, beside plainer packers, with times.

    python benchmarks/mapping.py [--quick] [--json] [--model FILE.onnx]

Shapes are in mapping_shapes.json. Networks count as one matrix after the other, read once per vector, on square arrays; only the
second table depends on a target's times.

Columns: `naive`: ceil(inputs / rows) x ceil(outputs / columns) images per matrix, one tile each, as mappers without packing
need. `shelves`: greedy cuts on shelves, first fit by falling height. `solver`: what rectangles are left beside full tiles,
given to OR-Tools CP-SAT alone. `published`: the best packer's figures that we know of, arrays/writes per inference. Bounds
of images hold for any cuts: ceil(weights / cells).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from ortools.sat.python import cp_model
from rich.console import Console
from rich.table import Table

import xbcompile

FOLDER = Path(__file__).parent
SHAPES = json.loads((FOLDER / "mapping_shapes.json").read_text())
MODELS = FOLDER.parent / "models"

# Network, rows and columns of the array, whether it is small, and figures of the best published packer: arrays with writes
# per inference on one recycled array.
NETWORKS = [
    ("mlp_784_128_10", 64, True, ""),
    ("lenet5", 64, True, ""),
    ("mlp_784_200_200_10", 64, True, ""),
    ("mlperf_tiny_autoencoder", 256, True, ""),
    ("mlperf_tiny_resnet8", 256, True, ""),
    ("mlperf_tiny_dscnn", 256, True, ""),
    ("mobilenet_v2_cifar10", 256, True, "35/87 or 53/53"),
    ("resnet18", 64, False, ""),
    ("resnet18", 256, False, ""),
    ("resnet50", 64, False, ""),
    ("resnet50", 256, False, ""),
    ("vgg16", 64, False, ""),
    ("vgg16", 256, False, ""),
]
SHIPPED = [
    ("mnist_bnn", "mram64"),
    ("mnist_mlp", "m2tj4"),
    ("mnist_lenet5", "m2tj4"),
    ("mnist_lenet5", "mram64"),
    ("digits_mlp", "mram64"),
]
REWRITTEN = [("mnist_bnn", "mram64"), ("mnist_lenet5", "mram64")]
LARGE = [("plan", "resnet50", 64), ("plan", "gpt2_small", 64), ("plan", "llama_7b", 64), ("compile", "gpt2_small", 64)]

Row = dict[str, Any]


def sizes_of(network: str) -> list[tuple[int, int]]:
    """Inputs and outputs of every matrix."""
    return [
        (each["inputs"], each["outputs"]) if isinstance(each, dict) else (each[0], each[1]) for each in SHAPES[network]
    ]


def naive_images(network: str, size: int) -> int:
    """One image per tile of the greedy cut."""
    return sum(-(-k // size) * -(-m // size) for k, m in sizes_of(network))


def residual_tiles(network: str, size: int) -> tuple[int, list[tuple[int, int]]]:
    """Number of full tiles, and height and width of the others, of the greedy cut."""
    full, others = 0, []
    for k, m in sizes_of(network):
        heights = [size] * (k // size) + [k % size] * (k % size > 0)
        widths = [size] * (m // size) + [m % size] * (m % size > 0)
        full += (k // size) * (m // size)
        others += [(h, w) for h in heights for w in widths if (h, w) != (size, size)]
    return full, others


def shelf_images(network: str, size: int) -> int:
    """Shelf packing: tiles by falling height, each on the first shelf that has room, else on a new one in the first image."""
    full, tiles = residual_tiles(network, size)
    free: list[int] = []  # rows left in each image
    shelves: list[tuple[int, int]] = []  # height, columns left
    for height, width in sorted(tiles, reverse=True):
        shelf = next((i for i, (h, left) in enumerate(shelves) if h >= height and left >= width), None)
        if shelf is not None:
            shelves[shelf] = (shelves[shelf][0], shelves[shelf][1] - width)
            continue
        image = next((i for i, left in enumerate(free) if left >= height), None)
        if image is None:
            free.append(size)
            image = len(free) - 1
        free[image] -= height
        shelves.append((height, size - width))
    return full + len(free)


def solver_images(network: str, size: int, limit: float) -> int | None:
    """CP-SAT alone: images stacked in one tall strip, no rectangle across a border; None where nothing was found."""
    full, tiles = residual_tiles(network, size)
    most = shelf_images(network, size) - full
    if most > 60:  # assumed: more finds nothing
        return None
    if not tiles:
        return full
    model = cp_model.CpModel()
    last = model.new_int_var(0, most - 1, "last")
    across, along = [], []
    for i, (height, width) in enumerate(tiles):
        column = model.new_int_var(0, size - width, f"column{i}")
        places = cp_model.Domain.from_intervals([[n * size, (n + 1) * size - height] for n in range(most)])
        row = model.new_int_var_from_domain(places, f"row{i}")
        model.add(row <= last * size + size - height)
        across.append(model.new_fixed_size_interval_var(column, width, f"across{i}"))
        along.append(model.new_fixed_size_interval_var(row, height, f"along{i}"))
    model.add_no_overlap_2d(across, along)
    model.minimize(last)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    status = solver.solve(model)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return full + int(solver.value(last)) + 1 if found else None


def plan_row(network: str, size: int, published: str, *, solver_limit: float) -> Row:
    """All cuts, dense and in order, on one recycled array, and the plainer packers."""
    started = time.perf_counter()
    plan = xbcompile.plan(SHAPES[network], "mram64", array=(size, size), arrays=1, slices=1, objective="weight-updates")
    seconds = time.perf_counter() - started
    totals, tried = plan.summary["totals"], plan.summary["candidates"]
    row: Row = {"network": network, "array": f"{size}x{size}"}
    for cuts in ("greedy", "balanced", "free"):
        found = [each for each in tried if each["cuts"] == cuts]
        row[cuts] = min((each["images"] for each in found), default=None)
    row |= {
        "cuts": f"{plan.summary['plan']['cuts']}, {plan.summary['plan']['packing']}",
        "images": totals["images"],
        "writes": totals["weight_updates"],
        "bound": totals["images_lower_bound"],
        "gap": totals["images"] / totals["images_lower_bound"] - 1,
        "writes_gap": totals["weight_updates"] / totals["weight_updates_lower_bound"] - 1
        if totals["weight_updates_lower_bound"]
        else 0.0,
        "naive": naive_images(network, size),
        "shelves": shelf_images(network, size),
        "solver": solver_images(network, size, solver_limit),
        "published": published,
        "seconds": seconds,
    }
    return row


def makespan_rows() -> list[Row]:
    """Makespans of the shipped networks, compiled, against their bounds."""
    rows = []
    for model, target in SHIPPED:
        for arrays in (1, 2, 4, 8, 0):
            started = time.perf_counter()
            schedule = xbcompile.compile(MODELS / f"{model}.onnx", target, arrays=arrays).schedule
            rows.append(
                {
                    "network": model,
                    "target": target,
                    "arrays": arrays or "all",
                    "images": schedule.images,
                    "writes": schedule.weight_updates,
                    "writes_bound": schedule.weight_updates_lower_bound,
                    "makespan_s": schedule.makespan_s,
                    "makespan_bound_s": schedule.makespan_lower_bound_s,
                    "gap": schedule.makespan_s / schedule.makespan_lower_bound_s - 1,
                    "seconds": time.perf_counter() - started,
                }
            )
    return rows


def changes(program: xbcompile.Program) -> tuple[int, int]:
    """Cells and rows that change per batch, counted on the cells that are written, batch after batch."""
    schedule = program.schedule
    cells = rows = 0
    for array in np.unique(schedule.writes["array"]):
        images = schedule.writes["image"][schedule.writes["array"] == array]
        written = program.cells(images)
        different = written != np.roll(written, 1, axis=0)  # the first write follows the last of the batch before
        cells += int(different.sum())
        rows += int(different.any(axis=2).sum())
    return cells, rows


def rewrite_rows() -> list[Row]:
    """Cells and rows changed per inference on one recycled array."""
    rows = []
    variants = [
        ("plain order, seeded columns", {}),
        ("plain order, columns as they are", {"scramble": False}),
        ("ordered and matched", {"rewrite": "matched"}),
    ]
    for model, target in REWRITTEN:
        plain = 0
        for name, options in variants:
            started = time.perf_counter()
            # one layout for all: rewrites alone are compared
            program = xbcompile.compile(MODELS / f"{model}.onnx", target, arrays=1, cuts="greedy", **options)
            cells, changed = changes(program)
            plain = plain or cells
            rows.append(
                {
                    "network": model,
                    "target": target,
                    "columns": name,
                    "writes": program.schedule.weight_updates,
                    "cells": cells,
                    "against_plain": cells / plain - 1,
                    "rows": changed,
                    "rows_written": program.schedule.rows_written,
                    "makespan_s": program.schedule.makespan_s,
                    "seconds": time.perf_counter() - started,
                }
            )
    return rows


def products_model(network: str, path: Path) -> None:
    """Save a model of the network's matrices with random weights, each the product of an input of its own."""
    generator = np.random.default_rng(0)
    nodes, inputs, outputs, weights = [], [], [], []
    for i, (k, m) in enumerate(sizes_of(network)):
        nodes.append(onnx.helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"y{i}"], f"matrix{i}"))
        inputs.append(onnx.helper.make_tensor_value_info(f"x{i}", onnx.TensorProto.FLOAT, [1, k]))
        outputs.append(onnx.helper.make_tensor_value_info(f"y{i}", onnx.TensorProto.FLOAT, [1, m]))
        weights.append(onnx.numpy_helper.from_array(generator.standard_normal((k, m), np.float32), f"w{i}"))
    graph = onnx.helper.make_graph(nodes, network, inputs, outputs, weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


def alone(what: str, network: str, size: int) -> Row:
    """Time and peak memory of one large job; called in a process of its own."""
    if what == "plan":
        started = time.perf_counter()
        plan = xbcompile.plan(SHAPES[network], "mram64", array=(size, size), arrays=1, slices=1)
        schedule, bound = plan.schedule, plan.summary["totals"]["images_lower_bound"]
    else:
        started = time.perf_counter()
        program = xbcompile.compile(network, "mram64", arrays=1)
        schedule, bound = program.schedule, program.schedule.images_lower_bound
    seconds = time.perf_counter() - started
    return {
        "images": schedule.images,
        "bound": bound,
        "gap": schedule.images / bound - 1,
        "writes": schedule.weight_updates,
        "tiles": len(schedule.tiles),
        "seconds": seconds,
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """Peak resident memory of this process. Linux's getrusage also counts that of the parent before the new program started."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def large_row(what: str, network: str, size: int, folder: Path, model: str = "") -> Row:
    """The same job in a new process, so that its peak memory is its own."""
    source = network
    if what == "compile":
        source = model or str(folder / f"{network}.onnx")
        if not model:
            make = [sys.executable, __file__, "--products", network, source]
            subprocess.run(make, check=True)  # in a process of its own: the weights are no memory of ours
    command = [sys.executable, __file__, "--alone", what, source, str(size)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr}")
    return {"job": what, "network": network, "array": f"{size}x{size}", **json.loads(result.stdout)}


def show(title: str, rows: list[Row]) -> None:
    """One table; gaps in per cent."""
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        text = isinstance(rows[0][name], str)
        table.add_column(name.replace("_", " "), justify="left" if text else "right", no_wrap=text)
    for row in rows:
        cells = []
        for name, value in row.items():
            if value is None:
                cells.append("-")
            elif name in ("gap", "writes_gap", "against_plain"):
                cells.append(f"{value:.2%}")
            else:
                cells.append(f"{value:.4g}" if isinstance(value, float) else str(value))
        table.add_row(*cells)
    Console(width=200).print(table)


def tables(*, quick: bool, model: str) -> dict[str, list[Row]]:
    """All tables by title."""
    found: dict[str, list[Row]] = {}
    found["Images and writes per inference on one recycled array"] = [
        plan_row(name, size, published, solver_limit=2.0 if quick else 10.0)
        for name, size, small, published in NETWORKS
        if small or not quick
    ]
    if quick:
        return found
    found["Makespan of the shipped networks"] = makespan_rows()
    found["Cells and rows changed per inference"] = rewrite_rows()
    with tempfile.TemporaryDirectory() as folder:
        jobs = [("compile", model, 64)] if model else LARGE
        found["Large networks, each in a process of its own"] = [
            large_row(*job, folder=Path(folder), model=model) for job in jobs
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small networks alone")
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")
    parser.add_argument("--model", default="", help="a model to compile for mram64 as the large one")
    parser.add_argument("--alone", nargs=3, metavar=("JOB", "NETWORK", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--products", nargs=2, metavar=("NETWORK", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options.alone[0], options.alone[1], int(options.alone[2]))))
    elif options.products:
        products_model(options.products[0], Path(options.products[1]))
    else:
        found = tables(quick=options.quick, model=options.model)
        if options.json:
            print(json.dumps(found, indent=1))
        else:
            for title, rows in found.items():
                show(title, rows)


if __name__ == "__main__":
    main()

"""Random ONNX graphs over all operators that are lowered and those between them, compared with onnxruntime.

    python -m tests.fuzz.random_graphs 2000 --seed 0          # 2,000 graphs; status 1 when one is wrong
    python -m tests.fuzz.random_graphs 1 --seed 0 --first 123 # graph 123 of seed 0 again
    python -m tests.fuzz.random_graphs 2000 --save FOLDER     # keep the reduced models of what fails

How far a right answer may be from onnxruntime's is stated in `graph_builder`. A graph that fails is reduced: outputs are
dropped, and nodes become inputs that are fed what they gave, as long as it fails in the same way.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.graph_builder import GraphBuilder, Refused, value_info
from tests.fuzz.graph_check import NOTES, Case, alive, check, check_apart, describe, reads, reduced, save
from tests.fuzz.graph_digital import DIGITAL
from tests.fuzz.graph_products import PRODUCTS, gemm
from tests.fuzz.graph_quantized import QUANTIZED
from tests.fuzz.graph_recurrent import CONTROL

OPSETS = (7, 8, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 19, 20, 21, 22, 23, 24, 25)
SHOWN = 4  # failures of one kind that are reduced and printed; more are counted


def generate(seed: int, index: int) -> Case:
    """Graph `index` of a seed."""
    rng = np.random.default_rng([seed, index])
    opset = int(rng.choice(OPSETS))
    dtype = str(rng.choice(["float32", "float64", "float16"], p=[0.8, 0.1, 0.1]))
    b = GraphBuilder(rng, opset, dtype, whole=bool(rng.random() < 0.35))
    if b.flag(0.15):
        b.prefix, b.suffix = b.choose(
            [("model/layer.0/", ":0"), ("/a b/", ""), ("é::", "[0]"), ("", "/gemm"), ("%", "*")]
        )
    families = [(3, PRODUCTS), (1 + b.integer(0, 3), DIGITAL), (b.integer(0, 3), QUANTIZED), (b.integer(0, 2), CONTROL)]
    wanted = b.integer(1, 12)
    for _ in range(5 * wanted):
        if len(b.nodes) >= wanted:
            break
        attempt(b, choose_weighted(b, choose_weighted(b, families)))
    while not b.must_lower:
        attempt(b, gemm)
    return assemble(b)


def choose_weighted(b: GraphBuilder, options: Any) -> Any:
    """One of (weight, option)."""
    weights = np.array([weight for weight, _ in options], float)
    return options[int(b.rng.choice(len(options), p=weights / weights.sum()))][1]


def attempt(b: GraphBuilder, step: Any) -> None:
    """Append the nodes of one step, or leave the graph as it is."""
    parts = ("values", "nodes", "initializers", "inputs", "domains", "functions", "must_lower")
    before = {part: getattr(b, part).copy() for part in parts}
    try:
        step(b)
    except Refused:
        for part, value in before.items():
            setattr(b, part, value)


def assemble(b: GraphBuilder) -> Case:
    """The model of a finished graph, with its outputs and declarations drawn."""
    read = {name for node in b.nodes for name in reads(node)}
    activations = [name for name, value in b.values.items() if not value.constant and name not in b.inputs]
    outputs = [name for name in activations if name not in read and (b.flag(0.95) or name == activations[-1])]
    outputs += [name for name in activations if name in read and b.flag(0.1)]
    if b.flag(0.03):
        outputs += [name for name, value in b.values.items() if value.constant and b.flag(0.2)]
    outputs = [name for name in outputs if not isinstance(b.array(name), list)] or activations[-1:]
    nodes = alive(b.nodes, outputs)
    used = {name for node in nodes for name in reads(node)} | set(outputs)
    inputs = {name: array for name, array in b.inputs.items() if name in used or b.flag()}
    initializers = [tensor for name, tensor in b.initializers.items() if name in used]
    newest = 10 if b.functions or b.opset > 20 else b.choose([4, 6, 8, 9, 10])
    newest = max(newest, 11 if b.opset == 23 else 12 if b.opset == 24 else 13 if b.opset == 25 else 0)
    ir_version = 3 if not b.functions and b.flag(0.05) else newest
    offered = [t.name for t in initializers if ir_version == 3 or (b.flag(0.05) and b.flag(0.3))]
    declared = [value_info(name, array, dims(b, array)) for name, array in inputs.items()]
    declared += [value_info(name, b.array(name)) for name in offered]
    graph = helper.make_graph(
        [maybe_unnamed(b, node) for node in nodes],
        "random",
        declared,
        [declare_output(b, name) for name in outputs],
        initializers,
    )
    b.domains = {domain: version for domain, version in b.domains.items() if any(n.domain == domain for n in nodes)}
    if not any(n.domain == "local" for n in nodes):
        b.functions, b.domains = [], {d: v for d, v in b.domains.items() if d != "local"}
    model = b.model(graph, ir_version)
    open_names = tainted(nodes, set(offered)) if ir_version > 3 else set()
    names = {node.name for node in nodes if not open_names & set(reads(node))}
    feeds = with_nonfinite(b, inputs) if b.flag(0.1) else dict(inputs)
    array = (64, 64) if b.flag(0.6) else (int(b.choose([3, 5, 8, 33, 128])), int(b.choose([3, 5, 8, 33, 128])))
    return Case(
        model,
        feeds,
        {name: b.error(name) for name in outputs},
        {name: operator for name, operator in b.must_lower.items() if name in names},
        array,
        reload=b.flag(0.25),
        again=b.flag(0.1),
    )


def with_nonfinite(b: GraphBuilder, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs with a NaN or an infinity in one of them; as they are where integers follow from floats."""
    floats = [name for name, array in inputs.items() if array.dtype.kind == "f" and array.size]
    jumps = {"Cast", "ArgMax", "TopK", "Greater", "If", "Loop", "Scan", "LSTM", "GRU", "RNN", "Attention"}
    jumps.add("ConvTranspose")  # as a convolution it has zero taps, whose products with NaN are NaN
    jumps.add("Einsum")  # the order of its sums is free, and what infinities add up to depends on it
    if not floats or any(n.op_type in jumps or "Quant" in n.op_type or "Integer" in n.op_type for n in b.nodes):
        return dict(inputs)
    name = b.choose(floats)
    array = inputs[name].copy()
    array.reshape(-1)[b.integer(0, array.size - 1)] = b.choose([np.nan, np.inf, -np.inf])
    return {**inputs, name: array}


def tainted(nodes: list[onnx.NodeProto], names: set[str]) -> set[str]:
    """The names and all that depends on them."""
    for node in nodes:
        if names & set(reads(node)):
            names |= set(node.output)
    return names - {""}


def maybe_unnamed(b: GraphBuilder, node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, sometimes without its name or with one that another may have."""
    if node.name not in b.must_lower and b.flag(0.2):
        node = onnx.NodeProto.FromString(node.SerializeToString())
        node.name = b.choose([""] * 40 + ["node"])
    return node


def dims(b: GraphBuilder, array: Any) -> list[int | str | None] | None:
    """The declared shape of an input: some axes are left open."""
    if b.flag(0.6):
        return None
    return [(f"d{size}" if b.flag(0.7) else None) if b.flag(0.4) else size for size in np.shape(array)]


def declare_output(b: GraphBuilder, name: str) -> onnx.ValueInfoProto:
    """A graph output, with its type or without."""
    if b.flag():
        return onnx.ValueInfoProto(name=name)
    if b.flag(0.03):  # of which onnxruntime only warns
        return value_info(name, b.array(name), [size + 1 for size in b.array(name).shape])
    return value_info(name, b.array(name), [None] * b.array(name).ndim if b.flag() else None)


def run(count: int, seed: int, first: int, folder: Path | None, reduce: bool) -> int:
    """Check graphs and print what fails; the number of failures."""
    kinds: Counter[str] = Counter()
    operators: Counter[str] = Counter()
    started = time.monotonic()
    for index in range(first, first + count):
        case = generate(seed, index)
        operators.update({f"{node.domain}.{node.op_type}".lstrip(".") for node in case.model.graph.node})
        failure = check_apart(case)
        if failure is None:
            continue
        kinds[failure.kind] += 1
        line = f"graph {index} of seed {seed}: {failure.kind}"
        if kinds[failure.kind] > SHOWN:
            print(line, flush=True)
            continue
        if reduce and failure.kind != "hang":
            case, failure = reduced(case, failure, check_apart if failure.kind == "crash" else check)
        print(f"{line}: {failure.message}\n{describe(case)}", flush=True)
        if folder is not None:
            print(f"  saved as {save(case, folder, f'seed{seed}_graph{index}')}", flush=True)
    seconds = time.monotonic() - started
    print(f"{count} graphs in {seconds:.0f} s ({seconds / max(1, count):.2f} s each), operators in so many graphs:")
    print("  " + ", ".join(f"{name} {number}" for name, number in operators.most_common()))
    print(f"{sum(kinds.values())} failures" + "".join(f"\n  {number} {kind}" for kind, number in kinds.most_common()))
    return sum(number for kind, number in kinds.items() if kind not in NOTES)


def main() -> int:
    """The command line; its status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--whole", action="store_true", help="do not reduce what fails")
    chosen = parser.parse_args()
    return int(bool(run(chosen.count, chosen.seed, chosen.first, chosen.save, not chosen.whole)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

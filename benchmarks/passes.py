"""What passes are worth: accuracy, reads and energy of networks with and without them, on the same chips and samples.

    python benchmarks/passes.py [--chips 3] [--samples 2000] [--rows 1,4] [--write-docs]

Drop: accuracy of the float model in onnxruntime less that of the array, mean over chips; the deviation is that from chip to chip.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import xbcompile
from benchmarks.report import Cells, markdown, write_between
from xbcompile.data.datasets import load_data
from xbcompile.planning.figures import figures_of
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.units import si

ROOT = Path(__file__).parents[1]
MARK = "<!-- make bench-passes -->"
HEAD = ["network", "target", "without -> with", "drop without", "drop with", "reads", "updates", "energy"]


@dataclass(frozen=True)
class Comparison:
    """One network, with two or more pipelines.

    Args:
        model: name in `models/`.
        target: name of a target.
        calibration: data that passes fit to.
        pipelines: what is shown of each, and its passes; the first is what the others are compared with.
        data: what accuracies are taken on.
        stays: whether every image has an array of its own; else one array is recycled, a tile in each image.
        least_chips: as many chips at least, where the spread from chip to chip is large and runs are short.
    """

    model: str
    target: str
    calibration: str
    pipelines: tuple[tuple[str, str], ...]
    data: str = "mnist:test"
    stays: bool = False
    least_chips: int = 0


_LEVELS, _BINARY = "quantize{scheme=levels per=column", "quantize{scheme=binary per=column"
_M2TJ = "fold-batchnorm,%s,analogue,recalibrate{samples=1000}"
_MRAM = "fold-batchnorm,%s,thermometer{bits=8},%s"
_RECALIBRATE = "recalibrate{samples=1000}"
COMPARISONS = (
    Comparison(
        "mnist_mlp", "m2tj4", "mnist:train:10000",
        (
            ("`quantize`", _M2TJ % (_LEVELS + "}")),
            ("`method=data-aware`", _M2TJ % (_LEVELS + " method=data-aware}")),
            ("`reduce{components=48}`", _M2TJ % ("reduce{components=48}," + _LEVELS + " method=data-aware}")),
        ),
    ),
    Comparison(
        "mnist_mlp", "m2tj4", "mnist:train:1000",
        tuple((f"`planes{{k={k} scheme=binary}}`", _M2TJ % f"planes{{k={k} scheme=binary}}") for k in (1, 2, 3)),
    ),
    Comparison(
        "digits_mlp", "sot", "digits:train:1000",
        (
            ("`quantize{scheme=ternary}`", "quantize{scheme=ternary per=column},analogue,recalibrate"),
            ("`method=data-aware`", "quantize{scheme=ternary per=column method=data-aware},analogue,recalibrate"),
            ("`planes{k=2 scheme=ternary}`", "planes{k=2 scheme=ternary},analogue,recalibrate"),
        ),
        "digits:test", stays=True, least_chips=20,
    ),
    Comparison(
        "mnist_bnn_plain", "mram64", "mnist:train:10000",
        (
            ("`recalibrate`", _MRAM % (_BINARY + "}", _RECALIBRATE)),
            ("`{per=tile}`", _MRAM % (_BINARY + "}", "recalibrate{samples=1000 per=tile}")),
            ("`order-rows`", _MRAM % ("order-rows," + _BINARY + "}", _RECALIBRATE)),
            ("`order-rows`, `data-aware`", _MRAM % ("order-rows," + _BINARY + " method=data-aware}", _RECALIBRATE)),
        ),
    ),
    Comparison(
        "mnist_bnn", "mram64", "mnist:train:1000",
        (
            ("nothing fitted on the chip", _MRAM.removesuffix(",%s") % "quantize{scheme=binary}"),
            ("`quiet-columns`", _MRAM % ("quantize{scheme=binary}", "quiet-columns")),
            ("`recalibrate`", _MRAM % ("quantize{scheme=binary}", _RECALIBRATE)),
            ("`recalibrate`, `use-spare-cells`", _MRAM % ("quantize{scheme=binary},use-spare-cells", _RECALIBRATE)),
            ("`recalibrate`, `quiet-columns`", _MRAM % ("quantize{scheme=binary}", f"quiet-columns,{_RECALIBRATE}")),
        ),
    ),
    Comparison(
        "letters_mlp", "memristor20", "letters:train",
        (
            ("`quantize{scheme=continuous}`", "quantize{scheme=continuous per=matrix},analogue"),
            ("`avoid-defects`", "quantize{scheme=continuous per=matrix},analogue,avoid-defects"),
            (
                "`avoid-defects`, `recalibrate`",
                "quantize{scheme=continuous per=matrix},analogue,avoid-defects,recalibrate{samples=40}",
            ),
        ),
        "letters:test", stays=True, least_chips=20,
    ),
)  # fmt: skip


def measured(row: Comparison, pipeline: str, chips: int, samples: int) -> tuple[float, float, dict[str, Any]]:
    """Mean drop and its deviation over chips, in points, and the cost of an inference."""
    layout: dict[str, Any] = {"arrays": 0} if row.stays else {"packing": "none"}
    path = ROOT / "models" / f"{row.model}.onnx"
    program = xbcompile.compile(path, row.target, calibration=row.calibration, passes=pipeline, **layout)
    known = {"digits": 360, "letters": 640}.get(row.data.split(":")[0], samples)
    data = load_data(f"{row.data}:{min(samples, known)}", program.network.inputs)
    classifier, name = Classifier.of(program.network), program.network.outputs[0].name
    software = software_accuracy(program, data.inputs, data.labels)
    assert software is not None
    drops = []
    for seed in range(max(chips, row.least_chips)):
        outputs = xbcompile.Session(program, seed=seed).run_samples(data.inputs)[name]
        drops.append(100 * (software - classifier.accuracy(outputs, data.labels)))
    return (
        float(np.mean(drops)),
        float(np.std(drops, ddof=1)),
        figures_of(program.network, program.spec, program.schedule),
    )


def cells_of(row: Comparison, chips: int, samples: int) -> Cells:
    """The lines of one comparison."""
    found = [measured(row, pipeline, chips, samples) for _, pipeline in row.pipelines]
    (first, spread, _), body = found[0], []
    for (shown, _), (drop, deviation, cost) in zip(row.pipelines[1:], found[1:], strict=True):
        told = f"{row.pipelines[0][0]} -> {shown}"
        body.append(
            [
                *(
                    f"`{row.model}`",
                    f"`{row.target}`",
                    told,
                    f"{first:.2f} ± {spread:.2f}",
                    f"{drop:.2f} ± {deviation:.2f}",
                ),
                *(f"{cost['reads']:,.0f}", f"{cost['weight_updates']:,.0f}", si(cost["energy_j"], "J")),
            ]
        )
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chips", type=int, default=3, help="simulated chips of each row, two or more")
    parser.add_argument("--samples", type=int, default=2000, help="of each test set, at most")
    parser.add_argument("--rows", help="numbers of comparisons, from 1 on, separated by commas; all of them otherwise")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/accuracy.md")
    options = parser.parse_args()
    chosen = [COMPARISONS[int(each) - 1] for each in options.rows.split(",")] if options.rows else COMPARISONS
    started, console = time.perf_counter(), Console(width=200)
    cells = [HEAD]
    for row in chosen:
        cells += cells_of(row, options.chips, options.samples)
        for line in cells[-len(row.pipelines) + 1 :]:
            console.print("  ".join(line), highlight=False, markup=False)
    table = Table(*HEAD)
    for line in cells[1:]:
        table.add_row(*line)
    console.print(table, highlight=False)
    minutes = (time.perf_counter() - started) / 60
    chips = f"{options.chips} chips (20 of `digits_mlp` and `letters_mlp`)"
    told = f"{chips}, at most {options.samples:,} test samples; {minutes:.1f} minutes."
    console.print(told, highlight=False)
    if options.write_docs:
        write_between(ROOT / "docs" / "accuracy.md", MARK, f"{markdown(cells)}\n\n{told}")


if __name__ == "__main__":
    main()

"""The diagnose command's work, and what to try against each source of error."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from xbcompile.data.datasets import load_data
from xbcompile.diagnosis.diagnosis import INHERITED, Decomposition, LayerDiagnosis, diagnose
from xbcompile.diagnosis.switched import SOURCES
from xbcompile.ir import MatrixLayer
from xbcompile.passes import pass_names
from xbcompile.passes.pipeline import parse_pipeline
from xbcompile.program.program import Program, load_program
from xbcompile.runtime.accuracy import accuracy_of


def diagnose_program(path: Path, data: str, device: str | None, seed: int, show_progress: bool) -> dict[str, Any]:
    """Diagnose a program file; the keys are those of `diagnose --json`."""
    program = load_program(path)
    loaded = load_data(data, program.network.inputs)
    labels = loaded.labels
    started = time.perf_counter()
    with Console(stderr=True, quiet=not show_progress).status("diagnosing") as status:
        found = diagnose(
            program,
            loaded.inputs,
            device,
            seed,
            None if labels is None else lambda output: accuracy_of(output, labels),
            lambda text: status.update(f"diagnosing: {text}"),
        )
    return {
        "device": device or program.target.device_names[0],
        "seed": seed,
        "data": data,
        "samples": loaded.samples,
        "sources": list(found.sources),
        "absent": [source for source in SOURCES if source not in found.sources],
        "layers": [
            _layer(program, layer, each) for layer, each in zip(program.network.layers, found.layers, strict=True)
        ],
        "end_to_end": [
            {
                "case": row.case,
                "source": row.source,
                "accuracy": row.score,
                "relative_error": row.relative_error,
                "possible": row.possible,
            }
            for row in found.end_to_end
        ],
        "seconds": time.perf_counter() - started,
    }


def _layer(program: Program, layer: MatrixLayer, found: LayerDiagnosis) -> dict[str, Any]:
    largest = found.corrected.largest
    return {
        "layer": found.layer,
        "reference": found.reference,
        "vectors": found.vectors,
        "variance": found.variance,
        "saturated_fraction": found.saturated_fraction,
        "largest": largest,
        "advice": None if largest is None else advice(program, layer, largest),
        "corrected": _decomposition(found.corrected, found.variance),
        "uncorrected": _decomposition(found.uncorrected, found.variance),
    }


def _decomposition(found: Decomposition, variance: float) -> dict[str, Any]:
    """Mean squares, and the same relative to the variance; null where they cannot be had."""

    def relative(mean_square: float | None) -> float | None:
        return None if mean_square is None or not variance > 0 else mean_square / variance

    whole = relative(found.whole)
    return {
        "mean_square": found.whole,
        "relative_mean_square": whole,
        "relative_error": None if whole is None else math.sqrt(whole),
        "cross_terms": found.cross_terms,
        "relative_cross_terms": relative(found.cross_terms),
        "residual": found.residual,
        "sources": [
            {
                "source": each.source,
                "mean_square": each.mean_square,
                "relative_mean_square": (square := relative(each.mean_square)),
                "relative_error": None if square is None else math.sqrt(square),
                "share": each.share,
            }
            for each in found.sources
        ],
    }


def advice(program: Program, layer: MatrixLayer, source: str) -> str:
    """What to try where this source is the largest on a layer; passes are named that exist and are not in use."""
    pipeline = {each.name: each for each in parse_pipeline(program.pipeline)}
    unused = [name for name in pass_names() if name not in pipeline]

    def offered(*names: str) -> list[str]:
        return [name for name in names if name in unused]

    code = layer.input_code
    ideas: list[str] = []
    if source == "weights":
        if getattr(pipeline.get("quantize"), "method", "data-aware") != "data-aware":
            ideas.append("quantize{method=data-aware}")
        ideas += offered("order-rows") if program.spec.has_row_weights else []
        ideas += [*offered("recalibrate", "planes"), "a target with more levels", "training for this array's weights"]
    elif source == "coding":
        if code is not None and code.steps:
            ideas.append(
                f"more slices ({code.scheme}{{bits={code.bits + 1 if code.scheme == 'bitserial' else 2 * code.bits}}})"
            )
        ideas.append("calibration inputs, or low= and high=, whose range fits the layer's inputs better")
    elif source == "systematic":
        defects = ["avoid-defects"] if _has_defects(program) else []
        ideas += offered("recalibrate", *defects, "use-spare-cells")
        ideas += ["more calibration samples for recalibrate", "training with this spread"]
    elif source == "saturation":
        ideas += ["a converter with a wider range", "tiles with fewer driven rows", *offered("recalibrate")]
    elif source == "rounding":
        ideas += [
            "a converter with more codes",
            "more slices per input, over which rounding averages",
            *offered("use-spare-cells"),
        ]
    elif source == "random":
        if code is not None and code.scheme == "bitserial":
            ideas.append(
                f"thermometer{{bits={code.steps}}} (noise power {code.steps} s² against {code.noise_power:g} s²)"
            )
        elif code is not None and code.scheme == "thermometer":
            ideas.append(f"thermometer{{bits={2 * code.bits}}}, over which noise averages")
        ideas += [*offered("use-spare-cells"), "a quieter readout"]
    elif source == INHERITED:
        return "it comes with its inputs: mend the layers before it first"
    return "try " + ", or ".join(ideas[:2])


def _has_defects(program: Program) -> bool:
    """Whether a chip of the target has a defect map."""
    limits = getattr(program.target.device(), "cell_limits", None)
    return limits is not None and limits(0) is not None

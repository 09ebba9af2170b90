"""The diagnose command's work."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.api import compile as compile_model
from xbcompile.cli.progress import progress
from xbcompile.data.datasets import load_data
from xbcompile.diagnosis.ablation import SOURCES, model_of
from xbcompile.diagnosis.advice import advice
from xbcompile.diagnosis.diagnosis import Decomposition, EndToEnd, LayerDiagnosis, diagnose
from xbcompile.diagnosis.trial import Trial, TrialRuns
from xbcompile.errors import DataError
from xbcompile.ir import MatrixLayer
from xbcompile.program.program import Program, load_program
from xbcompile.runtime.accuracy import Classifier

MEASURING = 0.5  # the part of the time that measuring takes, beside trying what helps; assumed


def diagnose_program(
    path: Path,
    data: str,
    device: str | None,
    seed: int,
    threshold: float | None = None,
    threads: int | None = None,
    *,
    labels_name: str | None = None,
    show_progress: bool,
) -> dict[str, Any]:
    """Diagnose a program file; the keys are those of `diagnose --json`."""
    program = load_program(path)
    loaded = load_data(data, program.network.inputs, program.network.samples, labels=labels_name)
    labels = loaded.labels
    if labels is None and threshold is not None:
        raise DataError(f"--threshold {threshold:g} is for accuracy, and data {data!r} has no labels")
    classifier = Classifier.of(program.network, threshold)
    started = time.perf_counter()
    layers = program.network.layers
    with progress("diagnosing", show_progress) as tell:
        found = diagnose(
            program,
            loaded.inputs,
            device,
            seed,
            None if labels is None else lambda output: classifier.accuracy(output, labels),
            lambda text, done: tell(f"diagnosing: {text}", MEASURING * done),
            threads,
        )
        trials = TrialRuns(
            program,
            loaded.inputs,
            partial(_recompiled, program),
            None if labels is None else lambda output: classifier.accuracy(output, labels[: len(output)]),
            device,
            seed,
            threads,
        )
        told = []
        for number, (layer, each) in enumerate(zip(layers, found.layers, strict=True)):
            tell(f"diagnosing: what helps {layer.name}", MEASURING + (1 - MEASURING) * number / len(layers))
            told.append(_layer(program, layer, each, trials))
    return {
        "device": device or program.target.device_names[0],
        "seed": seed,
        "data": data,
        "samples": loaded.samples,
        "sources": list(found.sources),
        "absent": [source for source in SOURCES if source not in found.sources],
        "layers": told,
        "tried": [_tried(each, trial) for each, trial in trials.trials.items()],
        "end_to_end": [_case(row) for row in found.end_to_end],
        "seconds": time.perf_counter() - started,
    }


def _case(row: EndToEnd) -> dict[str, Any]:
    """One case of the whole network."""
    return {
        "case": row.case,
        "source": row.source,
        "accuracy": row.score,
        "relative_error": row.relative_error,
        "possible": row.possible,
    }


def _recompiled(program: Program, pipeline: str, calibration: dict[str, np.ndarray]) -> Program:
    """The program's model compiled as it was, but for the passes, and without searches."""
    options = replace(program.options, passes=pipeline, effort=0.0)
    options = replace(options, dims={}, fixed_inputs={}, keep_inputs=())  # the model that the program keeps has them
    return compile_model(model_of(program), program.target, calibration=calibration, options=options)


def _tried(each: str, trial: Trial | None) -> dict[str, Any]:
    """One pass that was tried; null where it could not be."""
    if trial is None:
        return {"pass": each, "pipeline": None, "samples": 0, "helps": False, "before": None, "after": None}
    before, after = (
        {"accuracy": figures.score, "relative_error": figures.relative_error} for figures in (trial.before, trial.after)
    )
    return {
        "pass": each,
        "pipeline": trial.pipeline,
        "samples": trial.samples,
        "helps": trial.helps,
        "before": before,
        "after": after,
    }


def _layer(program: Program, layer: MatrixLayer, found: LayerDiagnosis, trials: TrialRuns) -> dict[str, Any]:
    largest = found.corrected.largest
    return {
        "layer": found.layer,
        "reference": found.reference,
        "vectors": found.vectors,
        "variance": found.variance,
        "saturated_fraction": found.saturated_fraction,
        "largest": largest,
        "advice": None if largest is None else advice(program, layer, largest, trials),
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

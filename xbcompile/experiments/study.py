"""The error study of a multistate array: quantization, shared and cell-specific level offsets, the best number of states.

Source: MultiSpin.AI deliverable D4.2, "Standard ML tasks" (2026), section 4 and Figs. 13 to 18: root-mean-square errors
of random matrix-vector products on 4x4 arrays.

The report leaves out the distributions of weights and inputs and the numbers of draws. Assumed and configurable: normal
weights of variance 1, inputs uniform in 0..1; with them the error of 4 states alone is 0.26 and falls about as 1 / N, the
report says 0.25 and 1 / N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xbcompile.api import compile as compile_model
from xbcompile.data.datasets import Data, load_data
from xbcompile.errors import DataError
from xbcompile.experiments.random_products import RandomProducts, StudySettings, program_errors, with_errors
from xbcompile.runtime import Session
from xbcompile.runtime.accuracy import Classifier, software_accuracy
from xbcompile.runtime.prepared import PreparedProgram
from xbcompile.targets import Device, Target
from xbcompile.targets.families.multistate import MultistateArray

_SWEEP_OHM = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 100.0, 200.0, 300.0)  # assumed; Figs. 15 to 17
# Assumed. 2^n + 1 levels are equidistant in float32, where the fit of many levels is quickest.
ACCURACY_STATES = (2, 3, 4, 5, 6, 8, 9, 17, 33, 65, 129)
_LAW_SIGMA_PERP_OHM = (10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 100.0)  # assumed: around those of Fig. 18


def _spread(per_seed: Iterable[float] | np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    values = np.asarray(list(per_seed), np.float64)
    return {"mean": float(values.mean()), "std": float(values.std())}


def _curve(points: list[np.ndarray]) -> dict[str, list[float]]:
    """Mean and standard deviation over seeds of the mean over matrices; points are [seeds, matrices]."""
    each = [_spread(point.mean(axis=1)) for point in points]
    return {key: [point[key] for point in each] for key in ("mean", "std")}


def _exponents(x: Iterable[float], points: list[np.ndarray]) -> dict[str, float]:
    """Slope of a straight line through log(error) against log(x), per seed, then mean and standard deviation."""
    log_error = np.log(np.stack([point.mean(axis=1) for point in points]))
    return _spread(np.polyfit(np.log(np.asarray(list(x), np.float64)), log_error, 1)[0])


def study(settings: StudySettings, progress: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Run every part of the study; the keys are those of `study --json`, described in docs/json.md.

    Args:
        settings: what to measure.
        progress: called with the name of each part before it starts.
    """
    products = RandomProducts(settings)
    parts: dict[str, Callable[[RandomProducts], Any]] = {
        "by_states": by_states,
        "by_sigma": by_sigma,
        "by_inputs": by_inputs,
        "best_states": best_states,
        "levels_ohm": example_levels,
    }
    result: dict[str, Any] = {"target": settings.target.name, "settings": _settings_json(settings)}
    for name, part in parts.items():
        progress(name.replace("_", " "))
        result[name] = part(products)
    return result


def _settings_json(settings: StudySettings) -> dict[str, Any]:
    p = settings.target.parameters
    names = (
        "seeds",
        "states",
        "sigma_nl_ohm",
        "sigma_perp_ohm",
        "matrices",
        "vectors",
        "weights",
        "inputs",
        "tolerance",
    )
    values = {name: getattr(settings, name) for name in names}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {**plain, "rows": p.rows, "columns": p.columns, "target_states": p.states, "range_ohm": settings.range_ohm}


def by_states(products: RandomProducts) -> dict[str, Any]:
    """Errors against the number of states: quantization alone, each offset alone, all together (Figs. 13 and 18)."""
    s = products.settings
    chosen = [(0.0, 0.0), (s.sigma_nl_ohm, 0.0)]
    chosen += [(0.0, perp) for perp in s.sigma_perp_ohm] + [(s.sigma_nl_ohm, perp) for perp in s.sigma_perp_ohm]
    curves = []
    for sigma_nl_ohm, sigma_perp_ohm in dict.fromkeys(chosen):
        points = [products.measure(states, sigma_nl_ohm, sigma_perp_ohm) for states in s.states]
        curves.append(
            {
                "sigma_nl_ohm": sigma_nl_ohm,
                "sigma_perp_ohm": sigma_perp_ohm,
                "rmse": _curve([point.product for point in points]),
                "rmse_device": _curve([point.device for point in points]),
                "rmse_weight": _curve([point.weight for point in points]),
            }
        )
    alone = [products.measure(states, 0.0, 0.0) for states in s.states]
    return {
        "states": list(s.states),
        "curves": curves,
        "quantization_exponent": _exponents(s.states, [point.product for point in alone]),
        "quantization_weight_exponent": _exponents(s.states, [point.weight for point in alone]),
    }


def _held_nl(settings: StudySettings) -> list[float]:
    """sigma_NL of the curves over sigma_perp: 0, 10, 50 Ohm in Fig. 17."""
    return list(dict.fromkeys((0.0, settings.sigma_nl_ohm / 5, settings.sigma_nl_ohm)))


def by_sigma(products: RandomProducts) -> dict[str, Any]:
    """Errors at the target's own number of states against sigma_NL and sigma_perp (Figs. 15 to 17)."""
    s = products.settings
    states = s.target.parameters.states

    def sweep(sigmas: list[tuple[float, float]]) -> dict[str, list[float]]:
        return _curve([products.measure(states, *pair).product for pair in sigmas])

    top = _SWEEP_OHM[-1]
    slopes = {
        name: products.measure(states, *pair).device.mean(axis=1) / top
        for name, pair in (("nl", (top, 0.0)), ("perp", (0.0, top)))
    }
    return {
        "states": states,
        "sigma_ohm": list(_SWEEP_OHM),
        "plateau": _spread(products.measure(states, 0.0, 0.0).product.mean(axis=1)),
        "nl": sweep([(sigma, 0.0) for sigma in _SWEEP_OHM]),
        "perp": [
            {
                "sigma_nl_ohm": nl,
                "plateau": _spread(products.measure(states, nl, 0.0).product.mean(axis=1)),
                "rmse": sweep([(nl, sigma) for sigma in _SWEEP_OHM]),
            }
            for nl in _held_nl(s)
        ],
        "slope_nl_per_ohm": _spread(slopes["nl"]),
        "slope_perp_per_ohm": _spread(slopes["perp"]),
        "slope_ratio": float(slopes["nl"].mean() / slopes["perp"].mean()),
    }


def by_inputs(products: RandomProducts) -> dict[str, Any]:
    """Errors of the device alone against the number of inputs, on compiled one-layer programs (section 4.3).

    Each sigma is the study's sigma_NL (its largest sigma_perp where that is 0). Every tile has an array of its own, or all
    tiles follow one another on one array, whose cells then repeat their offsets from tile to tile.
    """
    s = products.settings
    states, sigma_ohm = s.target.parameters.states, s.sigma_nl_ohm or max(s.sigma_perp_ohm)
    cases = {
        "nl": (0, (sigma_ohm, 0.0)),
        "perp": (0, (0.0, sigma_ohm)),
        "perp_one_array": (1, (0.0, sigma_ohm)),
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in cases}
    for inputs in s.inputs:
        for name, (arrays, sigmas) in cases.items():
            target = with_errors(s.target, states, *sigmas)
            found[name].append(np.stack([program_errors(s, target, inputs, arrays, seed) for seed in range(s.seeds)]))
    return {
        "states": states,
        "sigma_ohm": sigma_ohm,
        "inputs": list(s.inputs),
        **{name: _curve(points) for name, points in found.items()},
        "exponents": {
            name: _exponents(s.inputs, points) if len(s.inputs) > 1 else None for name, points in found.items()
        },
    }


@dataclass(frozen=True)
class _Best:
    """The best number of states at one pair of offsets."""

    sigma_nl_ohm: float
    sigma_perp_ohm: float
    per_matrix: np.ndarray = field(repr=False)  # [seeds, matrices], the N of each matrix's lowest error
    fewest: float | None  # see fewest_states


def best_states(products: RandomProducts) -> dict[str, Any]:
    """Which number of states has the lowest error, matrix by matrix and in the mean, and its law (section 4.5, Fig. 18).

    The law N_opt = k (R_max - R_min) / sqrt(sigma_NL^2 + sigma_perp^2) is fitted, by least squares through the origin, to
    `fewest_states` of the mean error, over more sigmas than the report names. Points at the smallest or above half of the
    largest number of states tell a bound only and are left out of the fit.
    """
    s = products.settings
    fig18 = [_best(products, s.sigma_nl_ohm, perp, s.states) for perp in s.sigma_perp_ohm]
    pairs = [(nl, perp) for nl in _held_nl(s) for perp in _LAW_SIGMA_PERP_OHM]
    law = [_best(products, nl, perp, s.states) for nl, perp in pairs]
    points = [_law_point(s, each) for each in law]
    return {
        "sigma_nl_ohm": s.sigma_nl_ohm,
        "states": list(s.states),
        "best": [_best_json(s, each) for each in fig18],
        "law": {"points": points, **_fit_law([point for point in points if point["fitted"]])},
    }


def _law_point(settings: StudySettings, best: _Best) -> dict[str, Any]:
    sigma_ohm = float(np.hypot(best.sigma_nl_ohm, best.sigma_perp_ohm))
    return {
        "sigma_nl_ohm": best.sigma_nl_ohm,
        "sigma_perp_ohm": best.sigma_perp_ohm,
        "range_over_sigma": settings.range_ohm / sigma_ohm,
        "fewest_states": best.fewest,
        "fitted": best.fewest is not None and best.fewest > settings.states[0],
    }


def _best(products: RandomProducts, sigma_nl_ohm: float, sigma_perp_ohm: float, states: tuple[int, ...]) -> _Best:
    errors = np.stack([products.measure(n, sigma_nl_ohm, sigma_perp_ohm).product for n in states])
    fewest = fewest_states(states, errors.mean(axis=(1, 2)), products.settings.tolerance)
    return _Best(sigma_nl_ohm, sigma_perp_ohm, np.asarray(states)[errors.argmin(axis=0)], fewest)


def fewest_states(states: tuple[int, ...], error: np.ndarray, tolerance: float) -> float | None:
    """The fewest states whose error is within `tolerance` of the lowest one: more states hardly help, or harm.

    Between two numbers of states log(error) is taken as a straight line over log(N). None where the answer is above half
    of the largest number: the error may fall on beyond it, and the lowest one is not known then.
    """
    limit = (1 + tolerance) * error.min()
    first = int(np.flatnonzero(error <= limit)[0])
    if first == 0:
        return float(states[0])
    log_n, log_error = np.log(states[first - 1 : first + 1]), np.log(error[first - 1 : first + 1])
    share = (log_error[0] - np.log(limit)) / (log_error[0] - log_error[1])
    fewest = float(np.exp(log_n[0] + share * (log_n[1] - log_n[0])))
    return fewest if fewest <= states[-1] / 2 else None


def _best_json(settings: StudySettings, best: _Best) -> dict[str, Any]:
    few = settings.target.parameters.states
    return {
        "sigma_perp_ohm": best.sigma_perp_ohm,
        "fraction": [float((best.per_matrix == n).mean()) for n in settings.states],
        "fraction_few": _spread((best.per_matrix <= few).mean(axis=1)),
        "mean": _spread(best.per_matrix.mean(axis=1)),
        "median": float(np.median(best.per_matrix)),
        "fewest_states": best.fewest,
    }


def _fit_law(points: list[dict[str, Any]]) -> dict[str, float | None]:
    """k of N = k ratio by least squares through the origin, and the root-mean-square relative residual."""
    if not points:
        return {"k": None, "relative_residual": None}
    ratio, n = np.array([[p["range_over_sigma"], p["fewest_states"]] for p in points], np.float64).T
    k = float((ratio * n).sum() / np.square(ratio).sum())
    return {"k": k, "relative_residual": float(np.sqrt(np.square(n / (k * ratio) - 1).mean()))}


def example_levels(products: RandomProducts) -> dict[str, Any]:
    """Nominal resistances and those of a few chips with the shared offsets only (Fig. 14)."""
    s = products.settings
    p = s.target.parameters
    target = with_errors(s.target, p.states, s.sigma_nl_ohm, 0.0)
    chips = [_level_resistances_ohm(target, seed) for seed in range(4)]
    return {"nominal": [float(ohm) for ohm in p.resistances_ohm], "chips": chips}


def _level_resistances_ohm(target: Target, seed: int) -> list[float]:
    device = target.device(seed=seed)
    assert isinstance(device, MultistateArray)
    return [float(ohm) for ohm in device.cell_resistances_ohm(0)[:, 0, 0]]


def accuracy(
    settings: StudySettings,
    model: Path,
    data: str,
    calibration: str | None,
    warn: Callable[[str], None] | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Accuracy of a network against the number of states, for the study's sigmas and without offsets.

    Compiled with the target's own passes once per number of states, then run on one chip per seed.

    Args:
        settings: target, seeds and sigmas; of its states, those of ACCURACY_STATES up to the largest are taken.
        model: path of the .onnx file.
        data: labelled samples, as `run --data` takes them.
        calibration: inputs that passes are fitted on, or None.
        warn: called with each warning, once.
        threads: worker threads; None takes one per processor.

    Raises:
        DataError: the data have no labels.
        XbcompileError: the model or the data cannot be used.
    """
    s = settings
    states = [n for n in ACCURACY_STATES if s.states[0] <= n <= s.states[-1]] or [s.states[0]]
    pairs = list(dict.fromkeys([(0.0, 0.0)] + [(s.sigma_nl_ohm, perp) for perp in s.sigma_perp_ohm]))
    found: dict[tuple[float, float], list[np.ndarray]] = {pair: [] for pair in pairs}
    loaded: Data | None = None
    software: float | None = None
    for n in states:
        target = with_errors(s.target, n, 0.0, 0.0)
        program = compile_model(model, target, calibration=calibration, cuts="greedy", packing="none", warn=warn)
        warn = None
        if loaded is None:
            loaded = load_data(data, program.network.inputs, program.network.samples)
            if loaded.labels is None:
                raise DataError(
                    f"data {data!r} have no labels; accuracy needs them: mnist:test, digits:test or labelled .npz"
                )
            software = software_accuracy(program, loaded.inputs, loaded.labels)
        prepared = PreparedProgram(program, threads)
        for pair, points in found.items():
            # Without offsets every chip is the same.
            chips = [with_errors(s.target, n, *pair).device(seed=seed) for seed in range(s.seeds if any(pair) else 1)]
            points.append(np.array([[_accuracy_on(prepared, chip, loaded)] for chip in chips]))
    curves = [
        {"sigma_nl_ohm": nl, "sigma_perp_ohm": perp, "accuracy": _curve(points)} for (nl, perp), points in found.items()
    ]
    return {"model": model.stem, "data": data, "states": states, "software": software, "curves": curves}


def _accuracy_on(prepared: PreparedProgram, chip: Device, data: Data) -> float:
    outputs, network = Session(prepared, chip).run_samples(data.inputs, observe=False), prepared.program.network
    assert data.labels is not None
    name = network.outputs[0].name
    return Classifier.of(network).accuracy(network.samples.samples_first(name, outputs[name]), data.labels)

"""The `mram64` array itself, measured as its paper did: dot products, resistances, delays, clock, power.

Source: Jung et al., Nature 601, 211 (2022). The chip is the simulated one: every number comes out of the target's resistances,
capacitances and converter, through the same readout as programs. In all of it W = R_H across the array.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from xbcompile.experiments.figure import Effort, Figure, Panel, Series, numbers
from xbcompile.experiments.measurement import Measured
from xbcompile.targets import load_target
from xbcompile.targets.families.characterization import (
    characterize,
    column_offsets,
    errors_when_high,
    vectors_of_dot,
)
from xbcompile.targets.families.error_histograms import ErrorHistogramArray
from xbcompile.targets.families.resistance_sum import ResistanceSumArray, ResistanceSumParameters

_DC_VECTORS = 200  # of each expected resistance, as in Fig. 2c and Extended Data Fig. 3
_CLOCKS_HERTZ = (5e6, 7e6, 9e6, 11.1e6, 13e6, 14e6, 15e6, 16e6, 17.2e6, 18e6, 19e6, 20e6, 22e6, 24e6)  # assumed
_KILO, _MEGA = 1e-3, 1e-6


def parameters_of(target: str) -> ResistanceSumParameters:
    """The numbers of a shipped resistance-sum target."""
    found = load_target(target).parameters
    assert isinstance(found, ResistanceSumParameters)
    return found


def spread_of(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None of one value."""
    each = np.asarray(list(values), np.float64)
    return float(each.mean()), float(each.std(ddof=1)) if len(each) > 1 else None


def _vectors(effort: Effort) -> int:
    return 100 if effort.quick else 1000


def mean_error(target: str, everywhere: bool, jitter: bool, effort: Effort) -> Measured:
    """Mean absolute error of dot products in converter codes, after one whole-code offset per column (Fig. 2d).

    Args:
        target: name of the target.
        everywhere: over all dot products from -64 to 64 alike, outliers being right in the outermost code; else over those
            that the converter covers alone.
        jitter: with the converter's random error, which is calibrated; without it nothing is.
        effort: chips and vectors.
    """
    p = parameters_of(target)
    chips = [characterize(p if jitter else p.without("random"), seed, _vectors(effort)) for seed in range(effort.seeds)]
    both = {
        True: [each.mean_absolute_error_all_lsb for each in chips],
        False: [each.mean_absolute_error_lsb for each in chips],
    }
    mean, spread = spread_of(both[everywhere])
    other = float(np.mean(both[not everywhere]))
    words = "the covered dot products alone" if everywhere else "all dot products"
    random = f"{p.tdc_jitter_dot / p.lsb_dot:.2f} LSB" if jitter else "none"
    return Measured(mean, spread, len(chips), f"{other:.3f} over {words}; random error of the converter: {random}")


def dc_resistance_ohm(device: ResistanceSumArray, drives: np.ndarray) -> np.ndarray:
    """Resistance per column as the d.c. measurement gives it: all columns at one voltage, their whole current divided by 64.

    Args:
        device: the chip; cells of its first array are all high.
        drives: -1 or 1, [vectors, rows].

    Returns:
        float64 [vectors], in Ohm: the harmonic mean over columns.
    """
    left, right = device.paths(0)
    column_ohm = (drives > 0).astype(np.float64) @ left[1] + (drives < 0).astype(np.float64) @ right[0]
    result: np.ndarray = 1 / (1 / column_ohm).mean(axis=1)
    return result


def dc_spread_ohm(effort: Effort) -> Measured:
    """Standard deviation of the d.c. resistance over input vectors with as many high rows as low ones (Methods)."""
    p = parameters_of("mram64")
    found = []
    for seed in range(effort.seeds):
        drives = vectors_of_dot(p.rows, p.rows // 2, 5 * _DC_VECTORS, seed)
        found.append(dc_resistance_ohm(ResistanceSumArray(p, seed), drives).std(ddof=1))
    mean, spread = spread_of(found)
    return Measured(mean, spread, len(found), "spread of paths alone; biases of transistors are not modelled")


def efficiency(target: str, effort: Effort) -> Measured:
    """Operations per second and watt while reading (Methods "Power consumption and efficiency")."""
    p = parameters_of(target)
    value = 2 * p.rows * p.columns / p.e_read_j / 1e12
    return Measured(
        value, note="2 operations per cell and read; array and converters; no writes, buffers, control, digital layers"
    )


def fastest_clock_megahertz(effort: Effort) -> Measured:
    """The clock whose half period is the longest nominal delay, and with what control takes (Methods "Operating frequency")."""
    p = parameters_of("mram64")
    longest_s = float(p.delay_s(float(p.rows)))
    with_control = 1e-6 / (2 * (longest_s + p.t_control_s))
    return Measured(
        1e-6 / (2 * longest_s), note=f"longest delay {1e9 * longest_s:.1f} ns; {with_control:.1f} MHz with control"
    )


def write_energy_nj(effort: Effort) -> Measured:
    """Energy to write the whole array (Methods "Crossbar array weight update")."""
    p = parameters_of("mram64")
    return Measured(
        1e9 * p.e_write_array_j, note=f"{p.i_write_ampere * 1e6:.0f} uA through each of 8,192 paths for a cycle"
    )


def figure_2c(effort: Effort) -> Figure:
    """Measured d.c. resistance against the expected one (Fig. 2c)."""
    p = parameters_of("mram64")
    device, count = ResistanceSumArray(p, 0), 20 if effort.quick else _DC_VECTORS
    expected = p.rows * p.r_low_ohm + np.arange(p.rows + 1) * (p.r_high_ohm - p.r_low_ohm)
    found = np.stack(
        [dc_resistance_ohm(device, vectors_of_dot(p.rows, highs, count, 0)) for highs in range(p.rows + 1)]
    )
    wide = found.std(axis=1, ddof=1)
    points = Series(
        f"{count} vectors each", numbers(np.repeat(expected, count) * _KILO), numbers(found * _KILO), marks="points"
    )
    ideal = Series("ideal", numbers(expected[[0, -1]] * _KILO), numbers(expected[[0, -1]] * _KILO))
    middle = [float(expected[p.rows // 2]) * _KILO]
    process = Series("process alone (up to)", middle, [1.4], marks="points", published=True)
    measured = Series("with transistor biases", middle, [4.9], marks="points", published=True)
    return Figure(
        [
            Panel("d.c. measurement", "expected R in kOhm", "measured R in kOhm", [points, ideal]),
            Panel(
                "spread over vectors",
                "expected R in kOhm",
                "standard deviation in kOhm",
                [Series("process alone", numbers(expected * _KILO), numbers(wide * _KILO)), process, measured],
            ),
        ],
        "Paths vary independently (assumed for the two states of one path). How resistances depend on the biases of the "
        "transistors down the column is not in the text, so the 4.9 kOhm measured are not derived.",
    )


def figure_ed3(effort: Effort) -> Figure:
    """Resistance estimated from the delay against the true one, nominal cells (Extended Data Fig. 3)."""
    p = parameters_of("mram64")
    count = 20 if effort.quick else _DC_VECTORS
    true_ohm, estimated_ohm = [], []
    for highs in range(p.rows + 1):
        cell_ohm = np.where(vectors_of_dot(p.rows, highs, count, 0) > 0, p.r_high_ohm, p.r_low_ohm)
        true_ohm.append(cell_ohm.sum(axis=1))
        estimated_ohm.append(cell_ohm @ p.row_weight)
    true, estimated = np.stack(true_ohm), np.stack(estimated_ohm)
    ends = [float(true.min()) * _KILO, float(true.max()) * _KILO]
    wide = Series(
        "standard deviation", numbers(true[:, 0] * _KILO), numbers((estimated - true).std(axis=1, ddof=1) * _KILO)
    )
    points = Series(f"{count} vectors each", numbers(true * _KILO), numbers(estimated * _KILO), marks="points")
    return Figure(
        [
            Panel(
                "delay / effective capacitance",
                "true R in kOhm",
                "estimated R in kOhm",
                [points, Series("ideal", ends, ends)],
            ),
            Panel("error of the estimate", "true R in kOhm", "standard deviation in kOhm", [wide]),
        ],
        "Equations 3 to 5 with the published capacitances; the spread of 20 kOhm in the middle is the paper's equation's own.",
    )


def figure_ed7(effort: Effort) -> Figure:
    """Histograms of errors that the emulator draws from: column 1, N_delta = -16 and 16 (Extended Data Fig. 7)."""
    p = parameters_of("mram64")
    counts, errors = ErrorHistogramArray(p, 0).histograms(0)
    panels = []
    for n_delta in (-16, 16):
        group = counts[0, n_delta + p.rows // 2]
        found = np.flatnonzero(group)
        shown = slice(int(found[0]), int(found[-1]) + 1)
        name = f"{group.sum():,} dot products"
        series = Series(name, numbers(errors[shown]), numbers(group[shown] / group.sum()), marks="bars")
        panels.append(Panel(f"column 1, N_delta = {n_delta}", "error of the dot product", "share", [series]))
    return Figure(panels, "N_delta: number of R_H in the upper half of the column less that in its lower half; chip 0.")


def figure_2d(effort: Effort, offsets: bool) -> Figure:
    """Distribution of errors for each column and for each dot product (Fig. 2d; with digital offsets Extended Data Fig. 4)."""
    p = parameters_of("mram64")
    dots, error = errors_when_high(ResistanceSumArray(p, 0), _vectors(effort))
    covered = (dots >= p.tdc_lowest_dot) & (dots < p.tdc_lowest_dot + 2 * p.tdc_dots_per_code * p.tdc_codes)
    offset = column_offsets(error)
    if offsets:
        error = error + offset
    columns = np.arange(p.columns) + 1
    of_column, of_dot = error.reshape(-1, p.columns), error.reshape(len(dots), -1)
    codes = np.arange(error.min(), error.max() + 2)
    share = np.histogram(error, codes - 0.5)[0] / error.size
    return Figure(
        [
            Panel("by column", "column", "error in LSB", _band(columns, of_column)),
            Panel("by dot product", "expected dot product", "error in LSB", _band(dots, of_dot.T)),
            Panel(
                "all",
                "error in LSB",
                "share",
                [Series("all dot products", numbers(codes[:-1]), numbers(share), marks="bars")],
            ),
        ],
        f"Chip 0, {error.size:,} dot products; mean absolute error {np.abs(error).mean():.3f} LSB over all, "
        f"{np.abs(error[covered]).mean():.3f} LSB over those that the converter covers"
        + (
            f"; offsets on {np.count_nonzero(offset)} columns (published 0.47)."
            if offsets
            else ", before digital offsets."
        ),
    )


def _band(x: np.ndarray, error: np.ndarray) -> list[Series]:
    """Mean with standard deviation, and the 1st and 99th percentiles, of errors [readings, points]."""
    low, high = np.percentile(error, [1, 99], axis=0)
    return [
        Series("mean", numbers(x), numbers(error.mean(axis=0)), spread=numbers(error.std(axis=0)), marks="points"),
        Series("1 %", numbers(x), numbers(low)),
        Series("99 %", numbers(x), numbers(high)),
    ]


def figure_ed5(effort: Effort) -> Figure:
    """Error and efficiency against the converters' supply and the clock (Extended Data Fig. 5)."""
    supplies = {"mram64-0v8": 0.8, "mram64": 1.0}
    by_supply = [
        [_error_at(parameters_of(target), seed, effort) for seed in range(effort.seeds)] for target in supplies
    ]
    volts = list(supplies.values())
    clocks = _CLOCKS_HERTZ[1::3] if effort.quick else _CLOCKS_HERTZ
    p = parameters_of("mram64")
    by_clock = [
        [_error_at(replace(p, f_clock_hertz=clock), seed, effort) for seed in range(effort.seeds)] for clock in clocks
    ]
    megahertz = numbers(np.array(clocks) * _MEGA)
    efficiency_of = [efficiency(target, effort).value for target in supplies]
    return Figure(
        [
            Panel(
                "a: supply, 11.1 MHz",
                "supply of the converters in V",
                "mean absolute error in LSB",
                [
                    _points("here", volts, by_supply),
                    Series("published", volts, [0.83, 0.47], marks="points", published=True),
                ],
            ),
            Panel(
                "a: efficiency",
                "supply of the converters in V",
                "TOPS/W",
                [
                    Series("here", volts, numbers(efficiency_of), marks="points"),
                    Series("published", volts, [405.0, 262.0], marks="points", published=True),
                ],
            ),
            Panel(
                "b: clock, 1.0 V",
                "clock in MHz",
                "mean absolute error in LSB",
                [
                    _points("here", megahertz, by_clock),
                    Series("published", [11.1], [0.47], marks="points", published=True),
                ],
            ),
        ],
        f"Over covered dot products, {effort.seeds} chips. A delay longer than half a period less {1e9 * p.t_control_s:.1f} ns "
        "of control is cut off (that it is this long is derived from errors that rise sharply above 15 MHz). A read is taken to "
        "need the same energy at every clock. The paper's points between are in its figure only.",
    )


def _error_at(p: ResistanceSumParameters, seed: int, effort: Effort) -> float:
    return characterize(p, seed, 20 if effort.quick else 100).mean_absolute_error_lsb


def _points(name: str, x: list[float], each: list[list[float]]) -> Series:
    found = [spread_of(values) for values in each]
    spread = [deviation for _, deviation in found if deviation is not None]
    return Series(name, x, [mean for mean, _ in found], spread=spread)

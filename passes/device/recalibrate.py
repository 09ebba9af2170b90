"""recalibrate: one digital gain and offset per layer output, measured through the device.

    y[m]  ->  gain[m] * y[m] + offset[m]

Least squares of the user's model's own layer outputs against the device's, on unlabelled calibration inputs, layer by
layer: a later layer is fitted on what the recalibrated earlier ones give. It costs nothing where a batch-norm or bias
follows. It corrects what stays the same from read to read: devices, converter offsets, and the mean and gain error of
quantization. (A program without the user's model takes its own ideal meaning instead, and corrects the device alone.)
With per=tile each tile of an output's column first gets a gain of its own, by the same least squares with a small pull to 1;
that costs one multiplication per tile and output.

Of the mean errors of a layer, of its gains, and of its tiles' gains, the share is kept that holds on samples which they
were not fitted on (`shrinkage`): all of it with hundreds of samples, none with one. Measured over 25 layers on six targets,
the root mean square error relative to none at all, with plain least squares in brackets: 0.88 (37) with 2 samples, 0.85
(1.53) with 3, 0.75 (0.84) with 5, 0.69 (0.70) with 10, 0.611 (0.610) with 200.
Source: ordinary least squares, shrunk; the effect was measured, see docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.passes.contract import LayerMeasurement, OutputsPass
from xbcompile.passes.device.shrinkage import Floats, Indices, kept_share

SCOPES = ("output", "tile")
_LEAST_VECTORS = 3  # a line through two vectors fits them whatever they are
_ROUNDS = 20  # of the shares of shift and gain, each given the other: they settle in a few
_VALUES_AT_ONCE = 1 << 20  # of outputs whose sums are taken together
_FOLDS = 10  # into which samples are parted for the gains of tiles, as a fit to all but one for each takes long


@dataclass(frozen=True)
class Recalibrate(OutputsPass):
    """Fit gain and offset of every output of every matrix layer.

    Args:
        samples: calibration inputs to use at most.
        per: "output", or "tile": a gain for each tile of an output's column before those.
    """

    name: ClassVar[str] = "recalibrate"
    helps_against: ClassVar[Mapping[str, int]] = {"weights": 2, "systematic": 0}
    per: str = "output"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("per", SCOPES)

    def wanted_samples(self) -> int:
        """From here on little is kept back."""
        return 20

    def fit_layer(self, layer: LayerMeasurement) -> LayerMeasurement:
        """See OutputsPass."""
        parts = layer.tile_parts() if self.per == "tile" else None
        if parts is not None:
            layer = layer.with_tile_gain(tile_gain(*parts, layer.sample[: len(parts[1])]))
        return layer.with_outputs(*gain_and_shift(layer.outputs, layer.reference, layer.sample))


def gain_and_shift(measured: np.ndarray, reference: np.ndarray, sample: Indices) -> tuple[Floats, Floats]:
    """Gain and shift per output: least squares, shrunk towards no correction by what holds on samples left out.

    Args:
        measured: float64 [vectors, outputs], the device's layer outputs.
        reference: float64 [vectors, outputs], the right ones.
        sample: intp [vectors], which sample each vector belongs to, from 0.

    Returns:
        float64 [outputs] each; gain 1 where the device's output does not vary.

    Raises:
        PassError: an output is not finite.
    """
    if not (np.isfinite(measured).all() and np.isfinite(reference).all()):
        raise PassError("recalibrate: outputs of a layer are not finite on the calibration inputs; give smaller inputs")
    centre = measured.mean(axis=0)
    sums = _sums(measured, reference, centre, sample)
    total = sums.sum(axis=0)
    _, shift, slope = _line(total, total)
    shift_share, slope_share = _shares(sums, total)
    shift, slope = shift_share * shift, slope_share * slope
    return 1 + slope, shift - slope * centre


def _sums(measured: np.ndarray, reference: np.ndarray, centre: Floats, sample: Indices) -> Floats:
    """Per sample and output the number of vectors and the sums of x, e, x x and x e, with x the output about `centre` and e its
    error; float64 [samples, 5, outputs].
    """
    order = np.argsort(sample, kind="stable")
    samples, starts, counts = np.unique(sample[order], return_index=True, return_counts=True)
    sums = np.zeros((int(sample.max()) + 1, 5, measured.shape[1]))
    sums[samples, 0] = counts[:, None]
    at_once = max(1, _VALUES_AT_ONCE // max(1, int(counts.max()) * measured.shape[1]))
    for first in range(0, len(samples), at_once):
        start, some = starts[first : first + at_once], samples[first : first + at_once]
        mine = order[start[0] : start[-1] + counts[first : first + at_once][-1]]
        x = measured[mine]
        e = reference[mine] - x
        x -= centre
        for place, values in enumerate((x, e, x * x, x * e), start=1):
            sums[some, place] = np.add.reduceat(values, start - start[0], axis=0)
    return sums


def _line(sums: Floats, total: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean x, mean e, and slope of e on x of sums [..., 5, outputs]; slope 0 where x does not vary."""
    count, x, e, xx, xe = np.moveaxis(sums, -2, 0)
    mean_x, mean_e = x / count, e / count
    spread = xx - x * mean_x
    varies = (count >= _LEAST_VECTORS) & (spread > 1e-12 * total[3])
    return mean_x, mean_e, np.where(varies, (xe - x * mean_e) / np.where(varies, spread, 1.0), 0.0)


def _shares(sums: Floats, total: Floats) -> tuple[float, float]:
    """Of the mean errors and of the slopes of a layer, the shares that hold on samples left out, one after another."""
    if len(sums) < 2:
        return 0.0, 0.0
    mean_x, mean_e, slope = _line(total - sums, total)
    count, x, e, xx, xe = np.moveaxis(sums, -2, 0)
    # Predictions are p = mean_e and q = slope (x - mean_x): sums of their products over the vectors of each sample.
    pe, pp = (mean_e * e).sum(axis=1), (count * mean_e * mean_e).sum(axis=1)
    pq = (mean_e * slope * (x - count * mean_x)).sum(axis=1)
    qe = (slope * (xe - mean_x * e)).sum(axis=1)
    qq = (slope * slope * (xx - 2 * mean_x * x + count * mean_x * mean_x)).sum(axis=1)
    shift_share = slope_share = 0.0
    for _ in range(_ROUNDS):
        shift_share = kept_share(pe - slope_share * pq, pp, standard_errors=0)
        slope_share = kept_share(qe - shift_share * pq, qq, standard_errors=0)
    return kept_share(pe - slope_share * pq, pp), kept_share(qe - shift_share * pq, qq)


def tile_gain(parts: np.ndarray, reference: np.ndarray, sample: Indices) -> Floats:
    """Gain of each tile's part of each output, beside a free constant, shrunk towards 1; float64 [tiles, outputs].

    Args:
        parts: float64 [vectors, tiles, outputs], what each tile adds to the output.
        reference: float64 [vectors, outputs], what all of them together should add, up to a constant per output.
        sample: intp [vectors], which sample each vector belongs to, from 0.
    """
    error = reference - parts.sum(axis=1)
    fold = sample % _FOLDS
    products, squares = [], []
    for each in np.unique(fold) if fold.min() < fold.max() else ():
        out = fold == each
        gain = _tile_gain_error(parts[~out], error[~out])
        predicted = ((parts[out] - parts[~out].mean(axis=0)) * gain).sum(axis=1)
        products.append((predicted * (error[out] - error[~out].mean(axis=0))).sum())
        squares.append(np.square(predicted).sum())
    share = kept_share(np.array(products), np.array(squares))
    return 1 + share * _tile_gain_error(parts, error)


def _tile_gain_error(parts: np.ndarray, error: np.ndarray) -> Floats:
    """What least squares of `error` on `parts`, with a constant, adds to gains of 1; float64 [tiles, outputs]."""
    vectors, tiles, _ = parts.shape
    centred = (parts - parts.mean(axis=0)).transpose(2, 0, 1)  # [outputs, vectors, tiles]
    wanted = (error - error.mean(axis=0)).T
    normal = centred.transpose(0, 2, 1) @ centred / vectors
    pull = (normal.trace(axis1=1, axis2=2) / vectors)[:, None, None] * np.eye(tiles)
    right = (centred.transpose(0, 2, 1) @ wanted[:, :, None]) / vectors
    # A tile that adds nothing keeps its gain; the pull alone would leave a column of zeros singular.
    pull += np.where(normal.trace(axis1=1, axis2=2) > 0, 0.0, 1.0)[:, None, None] * np.eye(tiles)
    found: Floats = np.linalg.solve(normal + pull, right)[:, :, 0].T
    return found

"""quantize: real weights -> level indices with a digital scale and offset per column (or per matrix).

    y = x @ W            W float
    y = x @ (g * scale * levels[codes] + offset)

Exactness: with method=least-squares each scheme is the global optimum of ||W - W_hat||^2 for its form; see
`least_squares`. With method=data-aware the codes keep the layer's outputs on the calibration inputs instead,
||x @ W - x @ W_hat - b||^2, never worse there than the least-squares codes; see `data_aware`. Layers are fitted in
order, each on what the quantized earlier ones give, and the mean error goes into the bias.

Sources: binary: Rastegari et al., XNOR-Net (2016), equation 6; N equidistant levels: MultiSpin.AI deliverable D4.2
(2026), section 2.3; row weights: the delay of Jung et al. (2022), equation 3; data-aware: Frantar et al., GPTQ (2022).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import gcd
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.ir import Contraction, MatrixLayer, Network, WeightCode
from xbcompile.ir.vectors import gather
from xbcompile.passes.contract import Advice, LayerTrouble, NetworkPass, PassContext
from xbcompile.passes.fit import closed_forms, data_aware, exact_codes, least_squares
from xbcompile.reference.evaluate import evaluate

SCHEMES = ("binary", "ternary", "levels", "continuous")
SCOPES = ("column", "matrix")
METHODS = ("least-squares", "data-aware")
DEFAULT_SAMPLES = 10_000
DATA_AWARE_SAMPLES = 100  # below, codes follow chance: measured on digits_mlp, where the error falls on to 500

CHUNK_VALUES = 1 << 24  # values of gathered vectors at once: bounds the memory of a convolution's patches
MAX_VECTORS = 100_000  # vectors of a layer that count; more of one picture's patches tell little
FIT_WEIGHTS = 1 << 22  # weights fitted at once: a fit holds some ten float64 numbers of each; assumed


@dataclass(frozen=True)
class Quantize(NetworkPass):
    """Quantize the weights of every matrix layer that has no weight code yet.

    Args:
        scheme: "binary" (-1, +1; sign with least-squares scale), "ternary" (-1, 0, +1), "levels", or "continuous" (any
            value that a cell holds, for targets without levels: the largest weight of the scope fills the cell's range).
        levels: number of equidistant levels for scheme=levels; 0 takes the target's own level table.
        per: "column": scale and offset per output; "matrix": one pair per group of a layer.
        method: "least-squares" (of the weights, without data), or "data-aware" (of the outputs on calibration inputs,
            per column; rewrites the bias).
        samples: calibration inputs that data-aware uses at most, the first ones.
    """

    name: ClassVar[str] = "quantize"
    needs: ClassVar[str] = "a layer whose weights are not coded yet"
    helps_against: ClassVar[Mapping[str, int]] = {"weights": 0}
    scheme: str = "levels"
    levels: int = 0
    per: str = "column"
    method: str = "least-squares"
    samples: int = DEFAULT_SAMPLES

    @classmethod
    def advice(cls, trouble: LayerTrouble) -> Advice | None:
        """Fit to outputs, where weights are fitted now."""
        now = trouble.used.get(cls.name)
        if not isinstance(now, cls) or now.method == "data-aware" or now.scheme == "continuous" or now.per != "column":
            return None
        return Advice(replace(now, method="data-aware"))

    def wanted_samples(self) -> int:
        """Data-aware codes get better up to some hundred samples."""
        return DATA_AWARE_SAMPLES if self.method == "data-aware" else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("scheme", SCHEMES)
        self._check_choice("per", SCOPES)
        self._check_choice("method", METHODS)
        if self.method == "data-aware" and self.scheme == "continuous":
            raise PassError("scheme=continuous has no levels to choose from data; it goes with method=least-squares")
        if self.method == "data-aware" and self.per != "column":
            raise PassError(f"method=data-aware is per column; per={self.per} goes with method=least-squares")
        self._check_count("samples", 1)
        if self.method != "data-aware" and self.samples != DEFAULT_SAMPLES:
            raise PassError(f"samples={self.samples} goes with method=data-aware, not method={self.method}")
        self._check_count("levels", 2, 256, zero="the target's own levels")
        if self.levels and self.scheme != "levels":
            raise PassError(f"levels={self.levels} goes with scheme=levels, not scheme={self.scheme}")

    def requires(self, network: Network, context: PassContext) -> None:
        """The level table must be storable on the target's array."""
        own = context.spec.levels
        if self.scheme == "continuous":
            if own is not None:
                raise PassError(f"scheme=continuous: the target's cells hold {len(own)} levels only; use scheme=levels")
            return
        table = self.level_table(context)
        if own is None:
            return
        if len(table) > len(own):
            raise PassError(f"{len(table)} levels do not fit the target's {len(own)} cell states; use fewer levels")
        if _embedding(table, own) is None:
            raise PassError(
                f"levels {_numbers(table)} are not spaced like any of the target's cell states {_numbers(own)}; "
                "use scheme=levels without levels= to take the target's own"
            )

    def level_table(self, context: PassContext) -> np.ndarray:
        """Normalised levels, float32 [L], strictly increasing."""
        if self.scheme == "binary":
            return np.array([-1, 1], np.float32)
        if self.scheme == "ternary":
            return np.array([-1, 0, 1], np.float32)
        if self.levels:
            return np.linspace(-1, 1, self.levels).astype(np.float32)
        if context.spec.levels is None:
            raise PassError("the target's cells hold any real value; say how many levels, for example levels=4")
        return context.spec.levels

    def run(self, network: Network, context: PassContext) -> Network:
        """Give every layer without one its weight code: one code for all layers that share a matrix."""
        if all(layer.weight_code is not None for layer in network.layers):
            return network
        weights_of_rows = context.row_weights(network)
        if self.method == "data-aware":
            return self.run_on_data(network, weights_of_rows, context)
        codes: dict[int, WeightCode] = {}
        layers = []
        for layer, owner, row_weight in zip(network.layers, network.matrices, weights_of_rows, strict=True):
            if layer.weight_code is None:
                if owner not in codes:
                    codes[owner] = self.encode(layer, row_weight, context)
                layers.append(replace(layer, weight_code=codes[owner]))
        return network.with_layers(layers)

    def run_on_data(self, network: Network, weights_of_rows: list[np.ndarray | None], context: PassContext) -> Network:
        """Layer by layer: codes and bias on what the quantized earlier layers give.

        A matrix that layers share is coded on the inputs of the first of them; each has a bias of its own.
        """
        feeds = self.feeds(network, context)
        result, codes = network, dict[int, WeightCode]()
        for i, (layer, waits_for) in enumerate(zip(network.layers, network.layer_dependencies(), strict=True)):
            if layer.weight_code is not None:
                continue
            original = evaluate(context.goal(network, layer.input), feeds, [layer.input])[0]
            seen = evaluate(result, feeds, [layer.input])[0] if waits_for else original
            moments = moments_of(layer, seen, original)
            owner = network.matrices[i]
            if owner not in codes:
                codes[owner] = self.encode_on_data(layer, moments, weights_of_rows[i], context)
            coded = replace(layer, weight_code=codes[owner], bias=corrected_bias(layer, codes[owner], moments))
            result = result.with_layers([coded])
        return result

    def feeds(self, network: Network, context: PassContext) -> dict[str, np.ndarray]:
        """The first calibration inputs, as many as `samples` allows, in whole calls of the model."""
        calibration = context.require_calibration("quantize{method=data-aware}")
        axes = network.samples
        return axes.first(calibration, axes.whole(min(self.samples, axes.samples(calibration))) or axes.per_call)

    def encode_on_data(
        self,
        layer: MatrixLayer,
        moments: list[data_aware.Moments],
        row_weight: np.ndarray | None,
        context: PassContext,
    ) -> WeightCode:
        """Fit one layer's code to its inputs."""
        table = self.level_table(context)
        codes = np.empty(layer.weights.shape, np.uint8)
        scale, offset = (np.empty((layer.groups, layer.outputs)) for _ in range(2))
        for g, weights in enumerate(layer.weights):
            own = None if row_weight is None else row_weight[g]
            start = data_aware.DataAwareFit(*self.fit(weights, own, table))
            found = data_aware.fit(moments[g], weights, table, start, own, with_offset=self.scheme == "levels")
            codes[g], scale[g], offset[g] = found.codes, found.scale, found.offset
        return self.on_target(table, codes, scale, offset, row_weight, context)

    def encode(self, layer: MatrixLayer, row_weight: np.ndarray | None, context: PassContext) -> WeightCode:
        """Fit one layer's code."""
        if self.scheme == "continuous":
            return self.encode_continuous(layer, row_weight, context)
        groups, inputs, outputs = layer.weights.shape
        table = self.level_table(context)
        row_columns = None if row_weight is None else self.columns(row_weight)
        codes, scale, offset = self.fit(self.columns(layer.weights), row_columns, table)
        if self.per == "matrix":
            codes = codes.reshape(inputs, outputs, groups).transpose(2, 0, 1)
            scale, offset = (np.repeat(v[:, None], outputs, axis=1) for v in (scale, offset))
        else:
            codes = codes.reshape(inputs, groups, outputs).transpose(1, 0, 2)
            scale, offset = scale.reshape(groups, outputs), offset.reshape(groups, outputs)
        return self.on_target(table, codes, scale, offset, row_weight, context)

    def encode_continuous(self, layer: MatrixLayer, row_weight: np.ndarray | None, context: PassContext) -> WeightCode:
        """Cells proportional to the weights, the largest of each column (or matrix) at the cell's limit."""
        cells = layer.weights.astype(np.float64)
        if row_weight is not None:
            cells = cells / row_weight
        largest = np.abs(cells).max(axis=(1, 2) if self.per == "matrix" else 1, initial=0.0)
        scale = largest.reshape(layer.groups, -1) / (context.spec.cell_limit or 1.0)
        scale = np.broadcast_to(np.where(scale > 0, scale, 1.0), (layer.groups, layer.outputs)).astype(np.float32)
        limit = np.inf if context.spec.cell_limit is None else context.spec.cell_limit
        cells = np.clip(cells / scale[:, None, :], -limit, limit)  # the scale is rounded to float32
        return WeightCode(None, cells.astype(np.float32), scale, np.zeros_like(scale), row_weight)

    def fit(
        self, columns: np.ndarray, row_weight: np.ndarray | None, table: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes, scale and offset of columns [inputs, problems]: exact where the levels hold their values, else least squares."""
        codes = np.empty(columns.shape, np.uint8)
        scale, offset = (np.empty(columns.shape[1]) for _ in range(2))
        for some in column_runs(*columns.shape):
            own = None if row_weight is None else np.ascontiguousarray(row_weight[:, some])
            codes[:, some], scale[some], offset[some] = self._fit_run(columns[:, some], own, table)
        return codes, scale, offset

    def _fit_run(
        self, columns: np.ndarray, row_weight: np.ndarray | None, table: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`fit` for as many columns as memory should hold at a time."""
        table = _exact(table)
        if self.scheme == "levels":
            return _fit_levels(columns, row_weight, table)
        closed_form = closed_forms.fit_binary if self.scheme == "binary" else closed_forms.fit_ternary
        codes, scale = closed_form(columns, row_weight)
        return _with_exact_codes(columns, row_weight, table, codes, scale, np.zeros_like(scale))

    def columns(self, weights: np.ndarray) -> np.ndarray:
        """Weights [groups, inputs, outputs] as independent problems, one per column of the result."""
        groups, inputs, outputs = weights.shape
        if self.per == "matrix":
            return weights.transpose(1, 2, 0).reshape(inputs * outputs, groups)
        return weights.transpose(1, 0, 2).reshape(inputs, groups * outputs)

    def on_target(
        self,
        table: np.ndarray,
        codes: np.ndarray,
        scale: np.ndarray,
        offset: np.ndarray,
        row_weight: np.ndarray | None,
        context: PassContext,
    ) -> WeightCode:
        """Express the code in the target's own level table, of which this table is an affine picture."""
        own = context.spec.levels
        if own is None:  # cells hold any real value: they hold the levels themselves
            limit = context.spec.cell_limit or 1.0
            table, scale = table * limit, scale / limit
            cells = np.ascontiguousarray(table.astype(np.float32)[codes])
            return WeightCode(None, cells, scale.astype(np.float32), offset.astype(np.float32), row_weight)
        if not np.array_equal(own, table):
            embedding = _embedding(table, own)
            assert embedding is not None  # requires() saw to it
            index, factor, shift = embedding
            offset = offset + scale * shift
            scale, codes, table = scale * factor, index[codes], own
        return WeightCode(
            table.astype(np.float32),
            np.ascontiguousarray(codes, dtype=np.uint8),
            scale.astype(np.float32),
            offset.astype(np.float32),
            row_weight,
        )

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Every layer has a code of its weights' shape."""
        for layer in after.layers:
            if layer.weight_code is None or layer.weight_code.codes.shape != layer.weights.shape:
                raise ValueError(f"layer {layer.name!r} has no weight code of shape {layer.weights.shape}")


def column_runs(inputs: int, problems: int) -> list[slice]:
    """Runs of columns of about FIT_WEIGHTS weights; never a single one beside others, which numpy sums in another order."""
    size = max(2, FIT_WEIGHTS // max(inputs, 1))
    starts = list(range(0, problems, size))
    if len(starts) > 1 and problems - starts[-1] == 1:
        starts.pop()
    return [slice(first, end) for first, end in pairwise([*starts, problems])]


def corrected_bias(layer: MatrixLayer, code: WeightCode, moments: list[data_aware.Moments]) -> np.ndarray:
    """The layer's bias, float32 [groups * outputs], plus the mean error of its coded outputs on its inputs.

    Inputs that do not vary, as a single vector, tell no mean error from their own.
    """
    if not any(m.covariance.any() for m in moments):
        return layer.bias
    stored = code.dequantized()
    mean_error = [
        m.mean_original @ layer.weights[g].astype(np.float64) - m.mean @ stored[g] for g, m in enumerate(moments)
    ]
    return (layer.bias + np.concatenate(mean_error)).astype(np.float32)


def moments_of(layer: MatrixLayer, seen: list[np.ndarray], original: list[np.ndarray]) -> list[data_aware.Moments]:
    """Moments of a layer's inputs, per group.

    Args:
        layer: the layer.
        seen: its input tensors behind quantized layers, one per chunk of samples.
        original: the same of the original network; the same object where nothing is quantized before the layer.

    Raises:
        PassError: an input is not finite.
    """
    if not all(np.isfinite(chunk).all() for chunk in [*original, *seen]):
        raise PassError(f"inputs of layer {layer.name!r} are not finite on the calibration inputs")
    limit = max(1, MAX_VECTORS // len(seen))
    return data_aware.moments(
        pair for chunks in zip(seen, original, strict=True) for pair in _vectors(layer, *chunks, limit)
    )


def _fit_levels(
    columns: np.ndarray, row_weight: np.ndarray | None, table: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale and offset of columns [inputs, problems]: found where they are on a grid already, else fitted."""
    codes = np.empty(columns.shape, np.uint8)
    scale, offset = np.empty(columns.shape[1]), np.empty(columns.shape[1])
    rest = np.ones(columns.shape[1], np.bool_)
    if row_weight is None and np.allclose(np.diff(table, 2), 0.0, atol=1e-9 * (table[-1] - table[0])):
        exact = exact_codes.find(columns, table)
        codes[:, exact.found], scale[exact.found], offset[exact.found] = exact[1:]
        rest = ~exact.found
    if rest.any():
        own = None if row_weight is None else row_weight[:, rest]
        fit = least_squares.fit_levels(columns[:, rest], table, own)
        codes[:, rest], scale[rest], offset[rest] = fit.codes, fit.scale, fit.offset
    if row_weight is not None:
        return _with_exact_codes(columns, row_weight, table, codes, scale, offset)
    return codes, scale, offset


def _with_exact_codes(
    columns: np.ndarray,
    row_weight: np.ndarray | None,
    table: np.ndarray,
    codes: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A fit of columns, in place; of those whose values lie on the levels with an offset only, the code that has it.

    Where rows weigh differently that is not exact; scale and offset are least squares, and taken where they err less.
    """
    gain = np.ones_like(columns) if row_weight is None else row_weight
    error = np.square(columns - gain * scale * table[codes] - offset).sum(axis=0)
    errs = error > np.square(exact_codes.TOLERANCE * columns).sum(axis=0)
    constant = errs & (columns == columns[0]).all(axis=0)
    scale[constant], offset[constant] = 0.0, columns[0, constant]
    at = np.flatnonzero(errs & ~constant)
    exact = exact_codes.find(columns[:, at], table)
    largest = np.abs(columns[:, at[exact.found]]).max(axis=0, initial=0)
    has_offset = np.abs(exact.offset) > exact_codes.TOLERANCE * largest
    at, found = at[exact.found][has_offset], exact.codes[:, has_offset]
    used = gain[:, at] * table[found]
    from_mean = used - used.mean(axis=0)
    slope = (from_mean * columns[:, at]).sum(axis=0) / np.square(from_mean).sum(axis=0)
    best = columns[:, at].mean(axis=0) - slope * used.mean(axis=0)
    better = (slope > 0) & (np.square(columns[:, at] - slope * used - best).sum(axis=0) < error[at])
    at = at[better]
    codes[:, at], scale[at], offset[at] = found[:, better], slope[better], best[better]
    return codes, scale, offset


def _exact(table: np.ndarray) -> np.ndarray:
    """The level table in float64; an equidistant one without the rounding of float32, so that it is known for one."""
    equidistant = np.linspace(float(table[0]), float(table[-1]), len(table))
    return equidistant if np.array_equal(equidistant.astype(table.dtype), table) else table.astype(np.float64)


def _vectors(
    layer: MatrixLayer, seen: np.ndarray, original: np.ndarray, limit: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of input vectors [groups, vectors, inputs], in pieces along axis 0; every n-th where there are over `limit`."""
    geometry = layer.geometry
    if isinstance(geometry, Contraction) and seen.ndim + geometry.input_axis == 0:  # axis 0 holds the inputs
        yield gather(layer, seen)[0], gather(layer, original)[0]
        return
    each = gather(layer, seen[:1])[0].shape[1]
    every = max(1, each * len(seen) // limit)
    while gcd(every, each) > 1:  # else the same places of every picture
        every += 1
    step = max(1, CHUNK_VALUES // (each * layer.groups * layer.inputs))
    for first in range(0, len(seen), step):
        kept = slice(-first * each % every, None, every)
        vectors = gather(layer, seen[first : first + step])[0][:, kept]
        same = seen is original
        yield vectors, vectors if same else gather(layer, original[first : first + step])[0][:, kept]


def _embedding(table: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, float, float] | None:
    """Indices, factor and shift with `table == factor * own[indices] + shift`, over evenly chosen states; or None."""
    for step in range((len(own) - 1) // (len(table) - 1), 0, -1):
        index = np.arange(len(table)) * step
        chosen = own[index].astype(np.float64)
        factor = (table[-1] - table[0]) / (chosen[-1] - chosen[0])
        shift = table[0] - factor * chosen[0]
        if np.allclose(factor * chosen + shift, table, atol=1e-6):
            return index.astype(np.uint8), float(factor), float(shift)
    return None


def _numbers(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{v:.3g}" for v in values) + "]"

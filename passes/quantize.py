"""quantize: real weights -> level indices with a digital scale and offset per column (or per matrix).

    y = x @ W            W float
    y = x @ (g * scale * levels[codes] + offset)

Exactness: each scheme is the global least-squares optimum of ||W - W_hat||^2 for its form; see `least_squares`.
    Sources:
binary: Rastegari et al., XNOR-Net (2016), equation 6; N equidistant levels: MultiSpin.AI deliverable D4.2 (2026),
    section 2.3; row weights: the delay of Jung et al. (2022), equation 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer, Network, WeightCode
from xbcompile.ir.network_pass import NetworkPass, PassContext
from xbcompile.passes import least_squares

SCHEMES = ("binary", "ternary", "levels")
SCOPES = ("column", "matrix")


@dataclass(frozen=True)
class Quantize(NetworkPass):
    """Quantize the weights of every matrix layer that has no weight code yet.

    Args:
        scheme: "binary" (-1, +1; sign with least-squares scale), "ternary" (-1, 0, +1), or "levels".
        levels: number of equidistant levels for scheme=levels; 0 takes the target's own level table.
        per: "column": scale and offset per output; "matrix": one pair per group of a layer.
    """

    name: ClassVar[str] = "quantize"
    scheme: str = "levels"
    levels: int = 0
    per: str = "column"

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise PassError(f"scheme={self.scheme} is unknown; allowed: {', '.join(SCHEMES)}")
        if self.per not in SCOPES:
            raise PassError(f"per={self.per} is unknown; allowed: {', '.join(SCOPES)}")
        if self.levels and self.scheme != "levels":
            raise PassError(f"levels={self.levels} goes with scheme=levels, not scheme={self.scheme}")
        if self.levels != 0 and not 2 <= self.levels <= 256:
            raise PassError(
                f"levels={self.levels} is out of range; allowed: 2 to 256, or 0 for the target's own levels"
            )

    def requires(self, network: Network, context: PassContext) -> None:
        """The level table must be storable on the target's array."""
        table, own = self.level_table(context), context.spec.levels
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
        """Give every layer without one its weight code."""
        if all(layer.weight_code is not None for layer in network.layers):
            return network
        weights_of_rows = context.row_weights(network)
        layers = [
            layer if layer.weight_code else replace(layer, weight_code=self.encode(layer, row_weight, context))
            for layer, row_weight in zip(network.layers, weights_of_rows, strict=True)
        ]
        return network.with_layers(layers)

    def encode(self, layer: MatrixLayer, row_weight: np.ndarray | None, context: PassContext) -> WeightCode:
        """Fit one layer's code."""
        groups, inputs, outputs = layer.weights.shape
        table = self.level_table(context)
        columns, row_columns = self.columns(layer.weights), None if row_weight is None else self.columns(row_weight)
        if self.scheme == "binary":
            codes, scale = least_squares.fit_binary(columns, row_columns)
            offset = np.zeros_like(scale)
        elif self.scheme == "ternary":
            codes, scale = least_squares.fit_ternary(columns, row_columns)
            offset = np.zeros_like(scale)
        else:
            fit = least_squares.fit_levels(columns, table.astype(np.float64), row_columns)
            codes, scale, offset = fit.codes, fit.scale, fit.offset
        if self.per == "matrix":
            codes = codes.reshape(inputs, outputs, groups).transpose(2, 0, 1)
            scale, offset = (np.repeat(v[:, None], outputs, axis=1) for v in (scale, offset))
        else:
            codes = codes.reshape(inputs, groups, outputs).transpose(1, 0, 2)
            scale, offset = scale.reshape(groups, outputs), offset.reshape(groups, outputs)
        return self.on_target(table, codes, scale, offset, row_weight, context)

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
                raise PassError(f"layer {layer.name!r} has no weight code of shape {layer.weights.shape}")


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

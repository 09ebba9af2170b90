"""planes: a weight as the sum of k cells of few levels, on k columns with one scale each.

    y = x @ W + b   ->   y = sum of k runs of  x @ [W_1 W_2 ... W_k] + [b 0 ... 0]    W ~= W_1 + ... + W_k

Binary cells give 2^k values to a weight, at k times the columns; the runs are added digitally. The pass codes the layer:
scales and codes of all planes are fitted together, see `plane_fit`, to the weights or (method=data-aware) to the layer's
outputs on calibration inputs, layers in order, each on what the coded earlier ones give, the mean error in the bias.
Columns on a grid of at most levels^k values, as those of quantized models, are held exactly, one digit a plane: four planes
of four levels are an int8. Planes of an integer layer's whole numbers are whole themselves, added up as integers.

Starts: planes one by one on what is left (least squares), and planes whose levels together are equidistant.
Source: Lin et al., ABC-Net (2017), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx
from threadpoolctl import threadpool_limits

from xbcompile.errors import PassError
from xbcompile.ir import Contraction, DigitalSegment, MatrixLayer, Network
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.passes.edit import rewiring
from xbcompile.passes.fit import data_aware, least_squares
from xbcompile.passes.fit.plane_fit import PlaneFit, digits, exact, is_even, refine
from xbcompile.passes.quantize import DEFAULT_SAMPLES, METHODS, Quantize, moments_of
from xbcompile.reference.evaluate import evaluate

Floats = npt.NDArray[np.float64]

MAX_COMBINATIONS = 256  # of levels in one weight that is fitted
MAX_VALUES = 1 << 16  # of levels in one weight that is on a grid
PROVEN_LEVELS = 16  # up to so many levels together the least-squares start is searched for its optimum


@dataclass(frozen=True)
class Planes(NetworkPass):
    """Code the weights of layers without a code as sums of planes.

    Args:
        k: planes per weight.
        layer: name of the layer; empty: every layer.
        scheme: levels of a cell, as in quantize.
        levels: number of levels, as in quantize.
        method: "least-squares" (of the weights), or "data-aware" (of the outputs on calibration inputs).
        samples: calibration inputs that data-aware uses at most, the first ones.
    """

    name: ClassVar[str] = "planes"
    needs: ClassVar[str] = "a layer without a code that is dense or a convolution of one group"
    helps_against: ClassVar[Mapping[str, int]] = {"weights": 3}
    k: int = 2
    layer: str = ""
    scheme: str = "levels"
    levels: int = 0
    method: str = "least-squares"
    samples: int = DEFAULT_SAMPLES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("k", 1, 8)
        self._check_choice("scheme", ("binary", "ternary", "levels"))
        self.coder()

    def wanted_samples(self) -> int:
        """As data-aware quantization."""
        return self.coder().wanted_samples()

    def coder(self) -> Quantize:
        """The quantization of a single plane."""
        self._check_choice("method", METHODS)
        return Quantize(scheme=self.scheme, levels=self.levels, method=self.method, samples=self.samples)

    def requires(self, network: Network, context: PassContext) -> None:
        """Levels that the array has, not too many together, and calibration inputs where they are used.

        More than MAX_COMBINATIONS together are for weights that are on a grid already, which `run` finds out.
        """
        coder = self.coder()
        coder.requires(network, context)
        levels = len(coder.level_table(context))
        if levels**self.k > MAX_VALUES:
            raise PassError(self.too_many(levels, MAX_VALUES))
        if self.method == "data-aware":
            context.require_calibration("planes{method=data-aware}")
        if self.layer:
            rewiring.layer_named(network, self.layer)

    def too_many(self, levels: int, allowed: int) -> str:
        """What is wrong with so many levels together."""
        most = int(np.log(allowed) / np.log(levels) + 1e-9)
        return (
            f"k={self.k} planes of {levels} levels make {levels**self.k} values of a weight; allowed: {allowed}, "
            f"so k up to {most}"
        )

    def run(self, network: Network, context: PassContext) -> Network:
        """Layer by layer, in order."""
        chosen = [layer for layer in network.layers if layer.weight_code is None and self.layer in ("", layer.name)]
        if not chosen:
            return network
        wide = network.with_layers(
            replace(
                layer, weights=np.zeros((layer.groups, layer.inputs, self.k * layer.outputs), np.float32), matrix=""
            )
            for layer in chosen
        )
        weights_of_rows = dict(zip([layer.name for layer in wide.layers], context.row_weights(wide), strict=True))
        waits_for = dict(zip([layer.name for layer in network.layers], network.layer_dependencies(), strict=True))
        coder, result = self.coder(), network
        feeds = coder.feeds(network, context) if self.method == "data-aware" else {}
        for layer in chosen:
            moments = None
            if feeds:
                original = evaluate(context.goal(network, layer.input), feeds, [layer.input])[0]
                seen = evaluate(result, feeds, [layer.input])[0] if waits_for[layer.name] else original
                moments = moments_of(layer, seen, original)
            nodes = self.coded(result, layer, moments, weights_of_rows[layer.name], context)
            result = rewiring.with_nodes(result, layer, nodes)
        return result

    def coded(
        self,
        network: Network,
        layer: MatrixLayer,
        moments: list[data_aware.Moments] | None,
        row_weight: np.ndarray | None,
        context: PassContext,
    ) -> list[MatrixLayer | DigitalSegment]:
        """The layer in planes, and the segment that adds them."""
        coder = self.coder()
        table = coder.level_table(context)
        with threadpool_limits(limits=1, user_api="blas"):
            fits = [
                self.fitted(layer, g, table, None if moments is None else moments[g], row_weight)
                for g in range(layer.groups)
            ]
        offset = np.zeros((layer.groups, self.k, layer.outputs))
        offset[:, -1] = [fit.offset for fit in fits]  # the lowest plane of whole numbers is whole with it
        codes = np.stack([fit.codes.transpose(1, 0, 2).reshape(layer.inputs, -1) for fit in fits])
        scale = np.stack([fit.scale.ravel() for fit in fits])
        code = coder.on_target(table, codes, scale, offset.reshape(layer.groups, -1), row_weight, context)
        stored = code.dequantized()
        bias = np.zeros((layer.groups, self.k, layer.outputs))
        bias[:, 0] = layer.bias.reshape(layer.groups, layer.outputs)
        for g, seen in enumerate(moments or []):
            total = stored[g].astype(np.float64).reshape(layer.inputs, self.k, layer.outputs).sum(axis=1)
            bias[g, 0] += seen.mean_original @ layer.weights[g].astype(np.float64) - seen.mean @ total
        wide = replace(layer, weights=stored, weight_code=code, bias=bias.ravel().astype(np.float32), matrix="")
        if self.k == 1:
            return [wide]
        behind = rewiring.joined(network, layer, self.k, "Sum", f"{layer.name}/planes")
        geometry = layer.geometry
        if isinstance(geometry, Contraction) and geometry.squeeze:
            geometry = replace(geometry, squeeze=False, output_axis=geometry.input_axis)
        # A plane alone stands for no tensor of the model, even where the layer's outputs are copies of one.
        return [replace(wide, output=behind.input_names[0], geometry=geometry, stands_for=""), behind]

    def fitted(
        self,
        layer: MatrixLayer,
        group: int,
        table: npt.NDArray[np.float32],
        moments: data_aware.Moments | None,
        row_weight: np.ndarray | None,
    ) -> PlaneFit:
        """Planes of one matrix: exact ones of the columns that have them, fitted ones of the others.

        Raises:
            PassError: there are others, but more values of a weight than can be tried.
        """
        weights = layer.weights[group].astype(np.float64)
        gain = np.ones((self.k, *weights.shape))
        found = np.zeros(layer.outputs, np.bool_)
        if row_weight is None:
            whole = layer.element_type == onnx.TensorProto.INT32
            found, planes = exact(weights, table, self.k, apart=not whole)
            if found.all():
                return planes
        else:  # the planes' columns are side by side
            gain = row_weight[group].astype(np.float64).reshape(layer.inputs, self.k, layer.outputs).transpose(1, 0, 2)
        if len(table) ** self.k > MAX_COMBINATIONS:
            raise PassError(
                f"{self.too_many(len(table), MAX_COMBINATIONS)}; more only for weights on a grid of so many values, which those "
                f"of layer {layer.name!r} are not"
            )
        rest = ~found
        fit = self.least_squares(weights[:, rest], table, gain[:, :, rest], moments)
        if not found.any():
            return fit
        codes, scale = np.empty(gain.shape, np.uint8), np.empty((self.k, layer.outputs))
        offset = np.empty(layer.outputs)
        for some, of in ((found, planes), (rest, fit)):
            codes[:, :, some], scale[:, some], offset[some] = of.codes, of.scale, of.offset
        return PlaneFit(codes, scale, offset)

    def least_squares(
        self, weights: Floats, table: npt.NDArray[np.float32], gain: Floats, moments: data_aware.Moments | None
    ) -> PlaneFit:
        """The best planes found from several starts, in weights or (with moments) in outputs."""
        coder = self.coder()
        if moments is None:
            hessian, linear = np.eye(len(weights)), weights
        else:
            hessian, linear = data_aware.damped(moments, weights)
        starts = [one_by_one(weights, table, gain, coder), *together(weights, table, gain, coder, moments)]
        return refine(hessian, linear, table, starts, gain, with_offset=self.scheme == "levels")

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """Every layer in planes has k times the outputs, and a code."""
        outputs = {layer.name: layer.outputs for layer in before.layers if layer.weight_code is None}
        for layer in after.layers:
            coded = layer.name in outputs and layer.weight_code is not None
            if coded and layer.outputs != self.k * outputs[layer.name]:
                raise ValueError(f"layer {layer.name!r} has {layer.outputs} columns, not {self.k} per output")


def one_by_one(weights: Floats, table: npt.NDArray[np.float32], gain: Floats, coder: Quantize) -> PlaneFit:
    """Planes in order, each the least-squares fit of what those before it left."""
    left = weights.copy()
    codes, scales, offsets = [], [], np.zeros(weights.shape[1])
    for own in gain:
        code, scale, offset = coder.fit(left, own, table)
        left = left - own * scale * table[code] - offset
        offsets = offsets + offset
        codes.append(code)
        scales.append(scale)
    return PlaneFit(np.stack(codes), np.stack(scales), offsets)


def together(
    weights: Floats,
    table: npt.NDArray[np.float32],
    gain: Floats,
    coder: Quantize,
    moments: data_aware.Moments | None,
) -> list[PlaneFit]:
    """Planes whose scales are powers of the number of levels: together they are one finer table of equidistant levels.

    Its fit is `quantize`'s. None where the levels of one plane are not equidistant about 0, or are too many together to
    be fitted.
    """
    count, planes = len(table), len(gain)
    if count**planes > PROVEN_LEVELS or not is_even(table):
        return []
    fine = np.linspace(-1.0, 1.0, count**planes).astype(np.float32)
    mean = gain.mean(axis=0)
    with_offset = coder.scheme == "levels"
    fit = least_squares.fit_levels(weights, fine, mean)
    start = data_aware.DataAwareFit(fit.codes, fit.scale, fit.offset)
    if moments is not None:
        start = data_aware.fit(moments, weights, fine, start, mean, with_offset=with_offset)
    return [digits(start.codes, start.scale, start.offset, count, planes)]

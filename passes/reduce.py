"""reduce: fewer rows on the array for a dense layer, by dropping inputs or by projecting them onto few components.

    inputs=dead     y = x @ W + b   ->   y = x[live] @ W[live] + (c[dead] @ W[dead] + b)

Inputs that never vary on the calibration inputs (always c) go into the bias. Exact wherever they keep that value.

    components=K    y = x @ W + b   ->   z = x @ P (digital)    y = z @ B + (mean(x) @ (W - P B) + b)

`B` [K, outputs] holds the array's few levels with a scale and offset per output, `P` [inputs, K] is real and digital.
Both are fitted in turn to min over P, B of `mean |(x - mean(x)) @ (W - P B)|^2`: B by the data-aware fit of `quantize`
to what is best for P, then `P = W B^+`, which is optimal for B whatever the inputs. The start is reduced-rank
regression, optimal for a real B. Neither step makes the error larger (B's but for its damping), and the best is kept;
the alternation stops in a local optimum. Because P follows the levels, hardly anything is lost to them: unlike after
`pca` the weights on the array need not be any network's. The layer leaves coded. The digital product takes inputs x K
multiplications per vector; `inspect` lists them.

Source: reduced-rank regression: Izenman, Journal of Multivariate Analysis 5, 248 (1975); the alternation is block
coordinate descent on two linear factors, one of which is discrete (our own combination).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from onnx import helper
from threadpoolctl import threadpool_limits

from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer, Network
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.passes.edit import rewiring
from xbcompile.passes.fit import data_aware
from xbcompile.passes.quantize import Quantize, moments_of
from xbcompile.reference.evaluate import evaluate

Floats = npt.NDArray[np.float64]

ROUNDS = 10  # of the alternation; on MNIST the error falls by less than 1 % a round from there on


@dataclass(frozen=True)
class Reduce(NetworkPass):
    """Reduce the inputs of dense layers; give one of `inputs` and `components`.

    Args:
        inputs: "dead": drop the inputs that never vary on the calibration inputs.
        components: project one layer's inputs on this many components, and code the layer.
        layer: name of the layer; empty: every dense layer for inputs=dead, the first layer for components=.
        scheme: of the code that components= makes, as in quantize.
        levels: as in quantize.
        samples: calibration inputs to use at most, the first ones; 0: all for inputs=dead, 10,000 for components=.
    """

    name: ClassVar[str] = "reduce"
    needs: ClassVar[str] = "an uncoded dense layer with inputs that never vary"
    needs_calibration: ClassVar[bool] = True
    inputs: str = ""
    components: int | None = None
    layer: str = ""
    scheme: str = "levels"
    levels: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.inputs) == (self.components is not None):
            raise PassError("give one of inputs=dead and components=")
        self._check_choice("inputs", ("", "dead"))
        if self.components is not None:
            self._check_count("components", 1)
        if self.inputs and (self.scheme != "levels" or self.levels):
            raise PassError("scheme= and levels= go with components=; put quantize behind reduce{inputs=dead}")
        self._check_count("samples", 1, zero="the default")
        self.coder()

    def coder(self) -> Quantize:
        """The quantization whose codes B has."""
        return Quantize(scheme=self.scheme, levels=self.levels, method="data-aware", samples=self.samples or 10_000)

    def wanted_samples(self) -> int:
        """An input that never varied on n samples still may on a share of 3 / n of all (the rule of three)."""
        return 100 if self.components is None else self.coder().wanted_samples()

    def requires(self, network: Network, context: PassContext) -> None:
        """Calibration inputs, and a suitable layer where one is named or needed."""
        context.require_calibration(self.name)
        if self.components is None and not self.layer:
            return
        layer = rewiring.layer_named(network, self.layer)
        if rewiring.has_node(network, self.segment_name(layer)):
            if self.components not in (None, layer.inputs):
                raise PassError(f"layer {layer.name!r} is already reduced to {layer.inputs} components")
            return
        if not rewiring.is_dense(layer):
            raise PassError(
                f"layer {layer.name!r} is no dense float32 layer over the last axis; choose another with layer="
            )
        if layer.weight_code is not None or layer.input_code is not None:
            raise PassError(f"layer {layer.name!r} is already coded; put reduce before quantize and input coding")
        if self.components is None:
            return
        if self.components > min(layer.inputs, layer.outputs):
            raise PassError(
                f"components={self.components} is out of range for layer {layer.name!r} of {layer.inputs} inputs and "
                f"{layer.outputs} outputs; allowed: 1 to {min(layer.inputs, layer.outputs)}"
            )
        self.coder().requires(network, context)

    def segment_name(self, layer: MatrixLayer) -> str:
        """Name of the segment that the pass puts before a layer."""
        return f"{layer.name}/live" if self.components is None else f"{layer.name}/reduce"

    def run(self, network: Network, context: PassContext) -> Network:
        """Insert the segments and rewrite the layers."""
        if self.components is not None:
            layer = rewiring.layer_named(network, self.layer)
            if rewiring.has_node(network, self.segment_name(layer)):
                return network
            return self.projected(network, layer, self.components, context)
        for layer in network.layers if not self.layer else [rewiring.layer_named(network, self.layer)]:
            if rewiring.is_dense(layer) and layer.weight_code is None and layer.input_code is None:
                network = self.without_dead(network, layer, context)
        return network

    def without_dead(self, network: Network, layer: MatrixLayer, context: PassContext) -> Network:
        """Drop one layer's dead inputs, all but one where none is alive."""
        name = self.segment_name(layer)
        if rewiring.has_node(network, name):
            return network
        feeds = {n: v[: self.samples or None] for n, v in context.require_calibration(self.name).items()}
        chunks = [chunk.reshape(-1, layer.inputs) for chunk in evaluate(network, feeds, [layer.input])[0]]
        _check_vectors(layer, chunks)
        low, high = (f([f(chunk, axis=0) for chunk in chunks if len(chunk)], axis=0) for f in (np.min, np.max))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise PassError(f"inputs of layer {layer.name!r} are not finite on the calibration inputs")
        live = low < high
        live[0] |= not live.any()
        if live.all():
            return network
        before = rewiring.routed(network, layer, np.flatnonzero(live), name)
        weights = layer.weights[0]
        constant = low[~live].astype(np.float64) @ weights[~live].astype(np.float64)
        reduced = replace(
            layer,
            input=before.output_names[0],
            weights=np.ascontiguousarray(weights[live])[None],
            matrix="",
            bias=(layer.bias + constant).astype(np.float32),
        )
        return rewiring.with_nodes(network, layer, [before, reduced])

    def projected(self, network: Network, layer: MatrixLayer, components: int, context: PassContext) -> Network:
        """Project one layer's inputs and code the layer."""
        coder = self.coder()
        values = evaluate(network, coder.feeds(network, context), [layer.input])[0]
        _check_vectors(layer, values)
        seen = moments_of(layer, values, values)[0]
        weights = layer.weights[0].astype(np.float64)
        small = replace(layer, weights=np.zeros((1, components, layer.outputs), np.float32), matrix="")
        index = [each.name for each in network.layers].index(layer.name)
        row_weight = context.row_weights(network.with_layers([small]))[index]
        table = coder.level_table(context)
        own = None if row_weight is None else row_weight[0].astype(np.float64)
        with threadpool_limits(limits=1, user_api="blas"):
            projection, found = factors(seen.covariance, weights, components, table, coder, own)
        code = coder.on_target(table, found.codes[None], found.scale[None], found.offset[None], row_weight, context)
        stored = projection.astype(np.float32)
        lost = weights - stored.astype(np.float64) @ code.dequantized()[0]
        name = self.segment_name(layer)
        target = f"{name}/components"
        before = rewiring.segment(
            network,
            name,
            [helper.make_node("MatMul", [layer.input, f"{name}/projection"], [target], f"{name}/project")],
            layer.input,
            target,
            {f"{name}/projection": stored},
        )
        reduced = replace(
            layer,
            input=target,
            weights=code.dequantized(),
            bias=(layer.bias + seen.mean @ lost).astype(np.float32),
            weight_code=code,
            matrix="",
        )
        return rewiring.with_nodes(network, layer, [before, reduced])

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """No layer has more inputs than it had; the projected one has as many as asked for."""
        inputs = {layer.name: layer.inputs for layer in before.layers}
        for layer in after.layers:
            if layer.inputs > inputs[layer.name]:
                raise ValueError(f"the number of inputs of layer {layer.name!r} grew")
        if self.components not in (None, rewiring.layer_named(after, self.layer).inputs):
            raise ValueError("the layer has not the number of components asked for")


def _check_vectors(layer: MatrixLayer, chunks: list[np.ndarray]) -> None:
    """Raise PassError where nothing can vary."""
    if sum(chunk.size for chunk in chunks) <= layer.inputs:
        raise PassError(f"one calibration vector does not show which inputs of layer {layer.name!r} vary; give more")


def factors(
    covariance: Floats,
    weights: Floats,
    components: int,
    table: npt.NDArray[np.float32],
    coder: Quantize,
    row_weight: Floats | None = None,
) -> tuple[Floats, data_aware.DataAwareFit]:
    """A real and a few-level factor of a matrix, `weights ~ P B`, fitted in turn where the inputs vary.

    Args:
        covariance: float64 [inputs, inputs] of the inputs.
        weights: float64 [inputs, outputs].
        components: inner size K of the product.
        table: level table of B.
        coder: the quantization that gives B's first codes, and says whether it has offsets.
        row_weight: float64 [K, outputs] of the rows that B sits on; None: all alike.

    Returns:
        P [inputs, K], and B's code: `B = row_weight * scale * table[codes] + offset`.
    """
    variances, axes = np.linalg.eigh(covariance)
    root = np.sqrt(np.maximum(variances, 0.0))[:, None] * axes.T  # root.T @ root = covariance
    goal = root @ weights
    basis = np.linalg.svd(goal, full_matrices=False)[2][:components]
    gain = np.ones_like(basis) if row_weight is None else row_weight
    projection, start = weights @ np.linalg.pinv(basis), None
    best: tuple[float, Floats, data_aware.DataAwareFit] | None = None
    for _ in range(ROUNDS):
        reached = root @ projection
        wanted = np.linalg.lstsq(reached, goal, rcond=None)[0]
        if start is None:
            start = data_aware.DataAwareFit(*coder.fit(wanted, row_weight, table))
        second, nothing = reached.T @ reached, np.zeros(components)
        seen = data_aware.Moments(nothing, nothing, second, second)
        start = data_aware.fit(seen, wanted, table, start, row_weight, with_offset=coder.scheme == "levels")
        coded = gain * start.scale * table[start.codes] + start.offset
        projection = weights @ np.linalg.pinv(coded)
        error = float(np.square(goal - root @ projection @ coded).sum())
        if best is None or error < best[0]:
            best = error, projection, start
    assert best is not None
    return best[1], best[2]

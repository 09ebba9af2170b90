"""use-spare-cells: columns and rows that the arrays have to spare carry copies, at no more weight images.

    outputs     y = x @ W + b   ->   Y = x @ [W W ... W] + [b b ... b]    y = mean of the runs of Y   (digital)

Copies of an output sit on other columns: the errors of devices and converters that differ from column to column average
out, n copies leave 1 / n of their power. The codes of copies are alike.

    inputs      y = x @ W + b   ->   y = x[source] @ V + b,   V[r] = W[source[r]] * share[r]

The busiest inputs (variance on the calibration inputs times mean squared weight) get further rows, before the weights
are coded: two cells of few levels have more sums than levels, which `quantize{method=data-aware}` makes use of
(method=least-squares gives both cells one code, and wins nothing). An input of n cells is taken to leave 1 / n^2 of its
error, and each row goes where it helps most. Weights that already are what one cell can hold exactly only lose.

Exact to float rounding. Copies of outputs: dense layers and convolutions of one group, of at most half as many outputs
as an array has columns, coded or not; copies of inputs: dense layers that are not coded. Other layers stay as they are.
Source: averaging of independent errors; several cells for a weight: Rzeszut et al., Multi-state MRAM cells for hardware
neuromorphic computing (2022), there in series. That n cells leave 1 / n^2 is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from heapq import heapify, heapreplace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from xbcompile.errors import PassError
from xbcompile.ir import MatrixLayer, Network, WeightCode
from xbcompile.passes.contract import NetworkPass, PassContext
from xbcompile.passes.edit import rewiring, row_order

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UseSpareCells(NetworkPass):
    """Fill idle columns with copies of outputs, and idle rows with copies of inputs.

    Args:
        outputs: copies of each output at most; 0: as many as fit; 1: one, so none is added.
        inputs: "on": copies of busy inputs too; needs calibration inputs.
        samples: calibration inputs to use at most, the first ones.
    """

    name: ClassVar[str] = "use-spare-cells"
    needs: ClassVar[str] = "a layer with room for a copy at no more weight images"
    helps_against: ClassVar[Mapping[str, int]] = {"systematic": 2, "rounding": 0, "random": 1}
    outputs: int = 0
    inputs: str = "off"
    samples: int = 10_000

    def wanted_samples(self) -> int:
        """For the variance of inputs."""
        return 10 if self.inputs == "on" else 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("outputs", 1, zero="as many as fit")
        self._check_choice("inputs", ("on", "off"))
        self._check_count("samples", 1)

    def requires(self, network: Network, context: PassContext) -> None:
        """Calibration inputs where inputs are copied."""
        if self.inputs == "on":
            context.require_calibration("use-spare-cells{inputs=on}")

    def run(self, network: Network, context: PassContext) -> Network:
        """Inputs first: a full row is worth more than a copy of an output."""
        for i, layer in enumerate(network.layers):
            if self.inputs == "on" and row_order.is_free(layer) and not rewiring.has_node(network, _rows_name(layer)):
                network = self.with_input_copies(network, i, context)
        for i, layer in enumerate(network.layers):
            if rewiring.output_axis(layer) is not None and not rewiring.has_node(network, _columns_name(layer)):
                network = self.with_output_copies(network, i, context)
        return network

    def with_input_copies(self, network: Network, index: int, context: PassContext) -> Network:
        """One layer whose busiest inputs have several rows."""
        layer = network.layers[index]
        rows = row_order.rows_at_hand(network, layer, context)
        if rows == layer.inputs:
            return network
        importance = row_order.importance(network, layer, context, self.samples)
        source = np.concatenate([np.arange(layer.inputs), copies_by_need(importance, rows - layer.inputs)])
        gain = row_order.gains(network, index, rows, context)
        before = rewiring.routed(network, layer, source, _rows_name(layer))
        weights = row_order.spread(layer.weights[0].astype(np.float64), source, gain, context.spec.rows)
        copied = replace(layer, input=before.output_names[0], weights=weights.astype(np.float32)[None], matrix="")
        return rewiring.with_nodes(network, layer, [before, copied])

    def with_output_copies(self, network: Network, index: int, context: PassContext) -> Network:
        """One layer with as many copies of its outputs as fit."""
        layer = network.layers[index]
        most = context.spec.columns // layer.outputs
        images = context.images(network)
        for copies in range(min(most, self.outputs or most), 1, -1):
            changed = _with_copies(network, layer, copies)
            if context.images(changed) <= images:
                row_weight = context.row_weights(changed)[index]
                code = changed.layers[index].weight_code
                if code is not None:
                    code = replace(code, row_weight=row_weight)
                    return changed.with_layers([replace(changed.layers[index], weight_code=code)])
                return changed
        return network

    def ensures(self, before: Network, after: Network, context: PassContext) -> None:
        """No more weight images, and every coded weight still sits on a row of the weight that it was coded for."""
        if context.images(after) > context.images(before):
            raise ValueError("the number of weight images grew")
        for layer, row_weight in zip(after.layers, context.row_weights(after), strict=True):
            code = layer.weight_code
            if code is None or code.row_weight is None or row_weight is None:
                continue
            if not np.array_equal(code.row_weight, row_weight):
                raise PassError(
                    f"layer {layer.name!r} is coded for other rows than it would sit on; put use-spare-cells before quantize"
                )


def _rows_name(layer: MatrixLayer) -> str:
    return f"{layer.name}/spare-rows"


def _columns_name(layer: MatrixLayer) -> str:
    return f"{layer.name}/spare-columns"


def copies_by_need(importance: Floats, spare: int) -> npt.NDArray[np.int64]:
    """Which inputs get the spare rows: each goes to the input that gains most, int64 [spare].

    An input of n cells leaves `importance / n^2`, so one more takes `importance (1 / n^2 - 1 / (n + 1)^2)` away.
    """
    heap = [(-value * 0.75, each, 1) for each, value in enumerate(importance.tolist())]
    heapify(heap)
    result = []
    for _ in range(spare):
        _, each, cells = heap[0]
        result.append(each)
        gain = float(importance[each]) * ((cells + 1.0) ** -2 - (cells + 2.0) ** -2)
        heapreplace(heap, (-gain, each, cells + 1))
    return np.array(result, np.int64)


def _with_copies(network: Network, layer: MatrixLayer, copies: int) -> Network:
    behind = rewiring.joined(network, layer, copies, "Mean", _columns_name(layer))
    repeated = replace(
        layer,
        output=behind.input_names[0],
        weights=np.tile(layer.weights, (1, 1, copies)),
        bias=np.tile(layer.bias, copies),
        weight_code=None if layer.weight_code is None else _repeated(layer.weight_code, copies),
        stands_for=layer.output,
        matrix="",
    )
    return rewiring.with_nodes(network, layer, [repeated, behind])


def _repeated(code: WeightCode, copies: int) -> WeightCode:
    """Codes side by side; the rows of the copies are those of the layer."""
    return replace(
        code,
        codes=np.tile(code.codes, (1, 1, copies)),
        scale=np.tile(code.scale, (1, copies)),
        offset=np.tile(code.offset, (1, copies)),
        row_weight=None if code.row_weight is None else np.tile(code.row_weight, (1, 1, copies)),
    )

"""Two kinds of node in a network: matrix layers (on arrays) and digital segments (in onnxruntime). The third is `recurrence`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from xbcompile.ir.content_equality import ContentEqual
from xbcompile.ir.geometry import Geometry
from xbcompile.ir.input_code import InputCode
from xbcompile.ir.weight_code import WeightCode

if TYPE_CHECKING:
    import onnx

FLOAT = 1  # `onnx.TensorProto.FLOAT`: tables of layers are used without ONNX, too


@dataclass(frozen=True)
class InputGrid:
    """A tensor takes the values `low + i * step`, i = 0..steps, only, to float32 rounding.

    Args:
        tensor: the tensor's name; a layer that reads another one by now has no use for the grid.
        low: smallest value.
        step: distance of neighbouring values.
        steps: number of steps.
        window: steps of a narrower range that holds 0 and all values of one tensor, and lies where it is found when it runs;
            None: nothing narrower is known.
    """

    tensor: str
    low: float
    step: float
    steps: int
    window: int | None = None


@dataclass(frozen=True, eq=False)
class MatrixLayer(ContentEqual):
    """One matrix-vector-multiplication layer: `output[m] = sum_k input[k] * weights[k, m] + bias[m]` per vector.

    Args:
        name: unique; the ONNX node's name (or its operator and output name where it has none).
        input: name of the tensor that it reads.
        output: name of the tensor that it writes.
        weights: float32 [groups, inputs, outputs], the real weights (groups is 1 but for grouped convolutions). Of a layer
            from `with_stored_weights`, what its code stands for, made anew whenever it is asked for.
        bias: float32 [groups * outputs]; zeros where the model has none.
        geometry: how vectors are gathered and outputs laid out.
        element_type: ONNX element type (`onnx.TensorProto.FLOAT`, ...) of input and output. INT32: outputs are rounded to
            whole numbers, and wrap around where they leave int32.
        vectors_per_inference: input vectors per inference, which is one sample (1 for a dense layer, output pixels for a
            convolution); None when the shapes leave it open.
        sample_axis: the axis of `input` along which samples lie, counted from 0: vectors are numbered sample by sample.
        weight_code: how the weights are stored; None until a pass quantizes.
        input_code: how the inputs are driven; None until a pass codes them (then x itself drives the rows, which only
            an unbounded array accepts).
        stands_for: name of the model's tensor of which the layer's outputs are copies, side by side along the axis of
            outputs; empty: `output` itself is the only name to look for.
        input_grid: what the model's own quantizers say of the values of `input`; None where they say nothing.
        matrix: name of the matrix that the layer uses: layers that give the same name share one, and hold the same weights
            and the same code. Empty: a matrix of its own, as every layer has whose weights a pass changed for it alone.
    """

    name: str
    input: str
    output: str
    weights: np.ndarray
    bias: np.ndarray
    geometry: Geometry
    element_type: int = FLOAT
    vectors_per_inference: int | None = None
    sample_axis: int = 0
    weight_code: WeightCode | None = None
    input_code: InputCode | None = None
    stands_for: str = ""
    input_grid: InputGrid | None = None
    matrix: str = ""

    def with_stored_weights(self) -> MatrixLayer:
        """The coded layer whose real weights are what its code stands for: it holds none of its own.

        Raises:
            ValueError: it has no weight code.
        """
        if self.weight_code is None:
            raise ValueError(f"layer {self.name!r} has no weight code")
        layer = replace(self, weights=self.weight_code.codes)
        del layer.__dict__["weights"]
        return layer

    if not TYPE_CHECKING:  # to mypy an attribute is one of the class's or an error

        def __getattr__(self, name: str) -> np.ndarray:
            """See `with_stored_weights`."""
            if name == "weights" and self.__dict__.get("weight_code") is not None:
                return self.weight_code.real_weights()
            raise AttributeError(f"a matrix layer has no {name!r}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, inputs and outputs."""
        weights: np.ndarray | None = self.__dict__.get("weights")
        if weights is None:
            assert self.weight_code is not None
            weights = self.weight_code.codes
        groups, inputs, outputs = weights.shape
        return groups, inputs, outputs

    @property
    def groups(self) -> int:
        """Number of independent matrices (groups of a convolution)."""
        return self.shape[0]

    @property
    def inputs(self) -> int:
        """K, the rows of each matrix."""
        return self.shape[1]

    @property
    def outputs(self) -> int:
        """M, the columns of each matrix."""
        return self.shape[2]

    @property
    def slices(self) -> int:
        """Reads per input vector and tile."""
        return 1 if self.input_code is None else self.input_code.bits

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensors read, as `DigitalSegment` has them."""
        return (self.input,)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Tensors written."""
        return (self.output,)


@dataclass(frozen=True, eq=False)
class DigitalSegment(ContentEqual):
    """A connected or unconnected piece of the model that onnxruntime runs as it is.

    Args:
        name: unique.
        model: a complete ONNX model with the initializers it needs; its graph inputs and outputs carry the network's
            tensor names.
    """

    name: str
    model: onnx.ModelProto

    @property
    def input_names(self) -> tuple[str, ...]:
        """Tensors that it reads."""
        return tuple(value.name for value in self.model.graph.input)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Tensors that it writes."""
        return tuple(value.name for value in self.model.graph.output)


@dataclass(frozen=True)
class LoweringRecord:
    """What became of one MVM-like node of the model.

    Args:
        node: name of the ONNX node.
        operator: its operator type.
        lowered: whether it is a matrix layer now.
        reason: why it stayed digital, or a part of it did; empty where all of it was lowered.
        layers: names of the matrix layers that it became.
    """

    node: str
    operator: str
    lowered: bool
    reason: str = ""
    layers: tuple[str, ...] = ()

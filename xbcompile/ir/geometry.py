"""How a matrix layer's input vectors are gathered from its input tensor and its outputs laid out.

Every MVM-like operator is one of two: a `Contraction` of one axis, or a convolution whose vectors are `Patches`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contraction:
    """`y = moveaxis(moveaxis(x, input_axis, -1) @ W, -1, output_axis)`; one group.

    Args:
        input_axis: the axis of x that holds the K inputs, counted from the end (-1: rows of a MatMul with the
            constant on the right; -2: columns, constant on the left, or Gemm with transA).
        output_axis: the axis of y that holds the M outputs, counted from the end.
        squeeze: the constant was one-dimensional: M is 1 and the output axis is dropped.
    """

    input_axis: int = -1
    output_axis: int = -1
    squeeze: bool = False


@dataclass(frozen=True)
class Patches:
    """A convolution over 1 to 3 spatial axes of x, of shape `[batch, channels, *spatial]`.

    The K inputs of group g are the flattened patch `[channels / groups, *kernel]` (the layout of an ONNX Conv weight),
    the output is `[batch, groups * M, *output_spatial]`.

    Args:
        kernel: kernel size per spatial axis.
        strides: step per spatial axis.
        dilations: distance of the kernel's taps per spatial axis.
        pads: begins of all spatial axes, then ends, as ONNX orders them; unused unless `auto_pad` is NOTSET.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER, resolved from the actual input shape when it runs.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"

    @property
    def channel_axis(self) -> int:
        """The axis of channels, of inputs as of outputs, counted from the last."""
        return -1 - len(self.kernel)

    def resolved_pads(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Pads (begins, then ends) for an input of this spatial size, by the ONNX Conv specification of auto_pad."""
        if self.auto_pad == "NOTSET":
            return self.pads
        if self.auto_pad == "VALID":
            return (0,) * (2 * len(self.kernel))
        begins, ends = [], []
        for size, kernel, stride, dilation in zip(spatial, self.kernel, self.strides, self.dilations, strict=True):
            output = -(-size // stride)
            total = max(0, (output - 1) * stride + (kernel - 1) * dilation + 1 - size)
            small, large = total // 2, total - total // 2
            begins.append(small if self.auto_pad == "SAME_UPPER" else large)
            ends.append(large if self.auto_pad == "SAME_UPPER" else small)
        return (*begins, *ends)

    def output_size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial size of the output for an input of this spatial size (ONNX Conv)."""
        pads = self.resolved_pads(spatial)
        rank = len(self.kernel)
        return tuple(
            (size + pads[i] + pads[i + rank] - (self.kernel[i] - 1) * self.dilations[i] - 1) // self.strides[i] + 1
            for i, size in enumerate(spatial)
        )


Geometry = Contraction | Patches

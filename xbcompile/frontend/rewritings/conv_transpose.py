"""ConvTranspose as a convolution whose outputs are the phases of the strides, laid out side by side afterwards.

Along one axis, with input x, taps w of number k, stride s and dilation d, the uncropped result is
    y[t] = sum over taps c and positions i with i s + c d = t of w[c] x[i]
With c d = p + j s (phase p < s) and t = q s + p this is y[q s + p] = sum_j w[c] x[q - j]: each phase is a convolution of x,
and all phases are the channels of one. Source: the definition of ConvTranspose in the ONNX specification; the phases are
the sub-pixel convolution of Shi et al., CVPR 2016, arXiv:1609.05158.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from xbcompile.frontend.operands import StaysDigital, attribute, constant_weights, is_constant, why_not_constant
from xbcompile.frontend.rewriter import Replacement
from xbcompile.onnx_graph.tensors import to_array

LARGEST_KERNEL = 2**27  # elements, those of empty phases included; assumed


@dataclass(frozen=True)
class Axis:
    """One spatial axis.

    Args:
        taps: size of the kernel.
        stride: stride.
        dilation: dilation.
        pads: positions cut off the uncropped result, before and behind; negative behind where positions are added.
    """

    taps: int
    stride: int
    dilation: int
    pads: tuple[int, int]

    @property
    def is_plain(self) -> bool:
        """Whether there is one phase: the taps are the kernel's, flipped, and the dilation stays."""
        return self.stride == 1

    @property
    def kernel(self) -> int:
        """Taps of the convolution."""
        return self.taps if self.is_plain else (self.taps - 1) * self.dilation // self.stride + 1

    @property
    def kernel_dilation(self) -> int:
        """Dilation of the convolution."""
        return self.dilation if self.is_plain else 1

    @property
    def reach(self) -> int:
        """How far back the convolution looks: the largest j."""
        return (self.kernel - 1) * self.kernel_dilation

    @property
    def kernel_pads(self) -> tuple[int, int]:
        """Padding of the convolution: no more than what is kept of the result needs."""
        before = max(self.reach - self.pads[0] // self.stride, 0)
        behind = max(((self.taps - 1) * self.dilation - self.pads[1]) // self.stride, 0)
        return before, behind

    @property
    def crop(self) -> tuple[int, int]:
        """What to cut off the convolution's phases laid out, whatever the size of the input is."""
        before, behind = self.kernel_pads
        start = self.pads[0] - self.stride * (self.reach - before)
        # Laid out: (size + before + behind - reach) * stride. Wanted: (size - 1) * stride + span - pads.
        span = (self.taps - 1) * self.dilation + 1
        surplus = (before + behind - self.reach + 1) * self.stride - span + sum(self.pads)
        return start, surplus - start

    def place(self, tap: int) -> tuple[int, int]:
        """Phase of a tap, and its place in the convolution's kernel."""
        if self.is_plain:
            return 0, self.taps - 1 - tap
        j, phase = divmod(tap * self.dilation, self.stride)
        return phase, self.kernel - 1 - j


def rewrite_conv_transpose(r: Replacement) -> bool:
    """ConvTranspose over one to three axes with a constant kernel."""
    node, graph = r.node, r.graph
    if not is_constant(graph, node.input[1]):
        raise StaysDigital(why_not_constant(graph, node.input[1], "the kernel"))
    constant_weights(node, graph, node.input[1])
    pads = [int(pad) for pad in attribute(node, "pads", ())]
    emit_conv_transpose(r, pads, node.input[2] if len(node.input) > 2 else "")
    return True


def emit_conv_transpose(r: Replacement, pads: Sequence[int], bias: str) -> None:
    """The nodes for a node with a constant kernel and the attributes of ConvTranspose.

    Args:
        r: the node's replacement.
        pads: its pads; none at all are zeros.
        bias: name of the bias, or nothing.
    """
    node = r.node
    kernel = to_array(r.graph.constants[node.input[1]])
    if not 1 <= kernel.ndim - 2 <= 3:
        raise StaysDigital(f"a convolution over {kernel.ndim - 2} axes is not lowered")
    axes = _axes(r, kernel.shape[2:], pads)
    groups, strides = attribute(node, "group", 1), [axis.stride for axis in axes]
    _check_shapes(r, kernel, groups, bias)
    phases = math.prod(strides)
    if kernel.shape[0] * kernel.shape[1] * phases * math.prod(axis.kernel for axis in axes) > LARGEST_KERNEL:
        raise StaysDigital(f"strides {strides} make a matrix of more than {LARGEST_KERNEL} elements")
    inputs = [node.input[0], r.constant(_phase_kernel(kernel, groups, axes), "weights")]
    addend = ""
    if bias and is_constant(r.graph, bias):
        inputs.append(r.constant(np.repeat(to_array(r.graph.constants[bias]), phases), "bias"))
    elif bias:
        addend = bias
    y = r.emit(
        "Conv",
        *inputs,
        name=r.matrix_name(),
        group=groups,
        kernel_shape=[axis.kernel for axis in axes],
        dilations=[axis.kernel_dilation for axis in axes],
        pads=[axis.kernel_pads[0] for axis in axes] + [axis.kernel_pads[1] for axis in axes],
    )
    channels = kernel.shape[1] * groups
    if phases > 1:
        y = _laid_out(r, y, channels, strides, [_positions(r, axis, i) for i, axis in enumerate(axes)])
    y = _cropped(r, y, axes)
    if addend:
        y = r.emit("Add", y, r.emit("Reshape", addend, r.constant([1, channels] + [1] * len(axes), "shape")))
    r.nodes[-1].output[0] = node.output[0]


def _check_shapes(r: Replacement, kernel: np.ndarray, groups: int, bias: str) -> None:
    shape, found = r.graph.shape(r.node.input[0]), r.graph.shape(bias) if bias else None
    fits = groups >= 1 and kernel.shape[0] % groups == 0
    if shape is not None:
        fits = fits and len(shape) == kernel.ndim and shape[1] in (None, kernel.shape[0])
    if found is not None:
        fits = fits and found in ((None,), (groups * kernel.shape[1],))
    if not fits:
        raise StaysDigital(
            f"a kernel of shape {list(kernel.shape)} in {groups} groups does not fit the shapes of the input or the bias"
        )


def _axes(r: Replacement, taps: Sequence[int], pads: Sequence[int]) -> list[Axis]:
    node, rank = r.node, len(taps)
    strides = attribute(node, "strides", (1,) * rank)
    dilations = attribute(node, "dilations", (1,) * rank)
    added = attribute(node, "output_padding", (0,) * rank)
    shape = attribute(node, "output_shape", ())
    auto_pad = attribute(node, "auto_pad", b"").decode(errors="replace") or "NOTSET"
    pads = list(pads) or [0] * (2 * rank)
    fits = all(len(values) == rank for values in (strides, dilations, added)) and len(shape) in (0, rank, rank + 2)
    known = auto_pad in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if len(pads) != 2 * rank or not fits or not known or tuple(attribute(node, "kernel_shape", taps)) != tuple(taps):
        raise StaysDigital("the attributes do not fit the kernel's axes")
    if min((*pads, *added)) < 0 or min((*strides, *dilations)) < 1:
        raise StaysDigital("negative pads, strides or dilations")
    if any(extra >= max(s, d) for extra, s, d in zip(added, strides, dilations, strict=True)):
        raise StaysDigital(f"output_padding {list(added)} must be less than the stride or the dilation of its axis")
    axes = []
    for i in range(rank):
        span = (taps[i] - 1) * dilations[i] + 1 + added[i]
        if shape:
            before, behind = _distributed(_pads_to(r, i, strides[i], span, shape[i - rank]), auto_pad)
        elif auto_pad.startswith("SAME"):
            before, behind = _distributed(max(span - strides[i], 0), auto_pad)
        elif auto_pad == "VALID":
            before, behind = 0, 0
        else:
            before, behind = pads[i], pads[i + rank]
        size = _size(r, i)
        if size is not None and (size - 1) * strides[i] + span <= before + behind:
            raise StaysDigital(f"pads {pads} leave nothing of axis {i}")
        axes.append(Axis(taps[i], strides[i], dilations[i], (before, behind - added[i])))
    return axes


def _pads_to(r: Replacement, axis: int, stride: int, span: int, size: int) -> int:
    """What to cut off an axis so that `size` is left; not negative, as onnxruntime has it."""
    found = _size(r, axis)
    if found is None:
        raise StaysDigital("output_shape is given and the size of the input is not known")
    if (found - 1) * stride + span < size:
        raise StaysDigital("output_shape is larger than the result")
    return (found - 1) * stride + span - size


def _distributed(total: int, auto_pad: str) -> tuple[int, int]:
    """Before and behind; the larger half is behind with SAME_UPPER, else before (ONNX specification of ConvTranspose)."""
    smaller = total // 2
    return (smaller, total - smaller) if auto_pad == "SAME_UPPER" else (total - smaller, smaller)


def _phase_kernel(kernel: np.ndarray, groups: int, axes: Sequence[Axis]) -> np.ndarray:
    """Conv's kernel [groups * outputs * phases, channels / groups, taps]: phases of one output follow one another."""
    channels, outputs = kernel.shape[0] // groups, kernel.shape[1]
    split = kernel.reshape(groups, channels, outputs, -1)  # the taps in the order of the loop below
    strides, sizes = [axis.stride for axis in axes], [axis.kernel for axis in axes]
    every = slice(None)
    phases = np.zeros((groups, outputs, *strides, channels, *sizes), split.dtype)
    for i, taps in enumerate(product(*(range(axis.taps) for axis in axes))):
        placed = [axis.place(tap) for axis, tap in zip(axes, taps, strict=True)]
        to: list[int | slice] = [every, every, *(phase for phase, _ in placed), every, *(place for _, place in placed)]
        phases[tuple(to)] = split[..., i].swapaxes(1, 2)
    return phases.reshape(groups * outputs * math.prod(strides), channels, *sizes)


def _size(r: Replacement, index: int) -> int | None:
    """Size of the input along a spatial axis; None where it is not known.

    None too behind another node whose size onnx infers wrongly: it adds the output padding to what SAME gives already.
    """
    for node in r.graph.nodes:
        if node is r.node:
            break
        same = attribute(node, "auto_pad", b"").startswith(b"SAME")
        if node.op_type == "ConvTranspose" and same and any(attribute(node, "output_padding", ())):
            return None
    shape = r.graph.shape(r.node.input[0])
    return None if shape is None else shape[index + 2]


def _positions(r: Replacement, axis: Axis, index: int) -> int | None:
    """Positions of the convolution along an axis; None where the size of the input is not known."""
    size = _size(r, index)
    return None if size is None else size + sum(axis.kernel_pads) - axis.reach


def _laid_out(r: Replacement, y: str, channels: int, strides: Sequence[int], positions: Sequence[int | None]) -> str:
    """Phases, which are channels, side by side: [N, channels * phases, *positions] -> [N, channels, *positions * strides]."""
    rank = len(strides)
    order = [0, 1] + [index for i in range(rank) for index in (2 + rank + i, 2 + i)]
    known = [size for size in positions if size is not None]
    if len(known) == rank:
        split = r.constant([0, channels, *strides, *known], "shape")
        joined = r.constant([0, channels] + [a * b for a, b in zip(known, strides, strict=True)], "shape")
    else:
        sizes = r.slice(r.emit("Shape", y), [2], [2 + rank], [0])
        split = r.emit("Concat", r.constant([0, channels, *strides], "sizes"), sizes, axis=0)
        scaled = r.emit("Mul", sizes, r.constant(strides, "strides"))
        joined = r.emit("Concat", r.constant([0, channels], "sizes"), scaled, axis=0)
    y = r.emit("Transpose", r.emit("Reshape", y, split), perm=order)
    return r.emit("Reshape", y, joined)


def _cropped(r: Replacement, y: str, axes: Sequence[Axis]) -> str:
    """Without the positions that the pads cut off."""
    cut = [(i, *axis.crop) for i, axis in enumerate(axes) if any(axis.crop)]
    if not cut:
        return y
    end = np.iinfo(np.int64).max
    starts = [before for _, before, _ in cut]
    ends = [-behind if behind else end for _, _, behind in cut]
    return r.slice(y, starts, ends, [2 + i for i, _, _ in cut])

"""Which tensors take values on a known equidistant grid: what quantizers write, and what keeps their values.

Here is what a grid is and, one function per kind of operator, what becomes of it. An array's input code needs no more values
than the grid has, and sums of whole numbers can be computed exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, TensorProto

from xbcompile.frontend.operands import attribute, is_constant
from xbcompile.onnx_graph.graph import Graph
from xbcompile.onnx_graph.tensors import elements, to_array

# Integer types whose whole range is a grid worth knowing.
INTEGER_RANGES: dict[int, tuple[int, int]] = {
    TensorProto.BOOL: (0, 1),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-(2**7), 2**7 - 1),
    TensorProto.UINT8: (0, 2**8 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
}
_TOLERANCE = 1e-6  # of a step, relative to the number of steps: float32 rounding of a grid's ends


@dataclass(frozen=True)
class Grid:
    """Values `low, low + step, ..., high`; `low` and `high` may be infinite, then `step * integer` is meant.

    Args:
        low: smallest value.
        high: greatest value.
        step: distance of neighbours, above 0.
        window: steps of a narrower range that holds 0 and all values of one tensor, and lies where it is found when it runs
            (behind a zero point that is found then); None: nothing narrower is known.
    """

    low: float
    high: float
    step: float
    window: int | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are known."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def steps(self) -> int:
        """Number of steps of a bounded grid."""
        return round((self.high - self.low) / self.step)

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.step == 1 and all(not np.isfinite(v) or v == round(v) for v in (self.low, self.high))

    def has(self, value: float) -> bool:
        """Whether the value is on the grid."""
        if not self.low <= value <= self.high:
            return False
        origin = self.low if np.isfinite(self.low) else self.high if np.isfinite(self.high) else 0.0
        position = (value - origin) / self.step
        return abs(position - round(position)) <= _TOLERANCE * max(1.0, abs(position))

    def scaled(self, factor: float) -> Grid | None:
        """The grid of `factor * value`."""
        if factor == 0 or not np.isfinite(factor):
            return None
        low, high = sorted((self.low * factor, self.high * factor))
        return replace(self, low=low, high=high, step=self.step * abs(factor))

    def plus(self, other: Grid) -> Grid | None:
        """The grid of sums of two values, where the steps are equal and both start on multiples of it."""
        if not np.isclose(self.step, other.step, rtol=_TOLERANCE, atol=0):
            return None
        return Grid(self.low + other.low, self.high + other.high, self.step)

    def shifted(self, by: float) -> Grid | None:
        """The grid of `value + by`."""
        if not self.is_bounded and by % self.step:
            return None
        return Grid(self.low + by, self.high + by, self.step)

    def between(self, low: float, high: float) -> Grid | None:
        """The grid of values limited to low..high, where the limits that matter are on the grid."""
        new_low, new_high = max(self.low, low), min(self.high, high)
        if new_low > new_high or (low > self.low and not self.has(low)) or (high < self.high and not self.has(high)):
            return None
        return replace(self, low=new_low, high=new_high, window=self.window if low <= 0 <= high else None)


GridRule = Callable[[NodeProto, Graph, dict[str, Grid]], Grid | None]


def _of_operand(name: str, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """The grid of a tensor, a constant of whole numbers or of one value included."""
    if not is_constant(graph, name):
        return grids.get(name)
    value = _value(graph, name)
    if value is not None:
        return Grid(value, value, 1) if value == round(value) else None
    array = to_array(graph.constants[name])
    if array.size == 0 or array.dtype.kind not in "iuf" or not np.array_equal(np.rint(array), array):
        return None
    return Grid(float(array.min()), float(array.max()), 1)


def _value(graph: Graph, name: str) -> float | None:
    """The value of a constant of one element."""
    if not name or not is_constant(graph, name) or elements(graph.constants[name]) != 1:
        return None
    value = to_array(graph.constants[name]).reshape(())
    return float(value) if value.dtype.kind in "iufb" and np.isfinite(value) else None


def kept(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Values are moved, repeated, left out or compared, not changed."""
    return grids.get(node.input[0])


def kept_by_pad(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Pad: the values and the fill."""
    grid = grids.get(node.input[0])
    if grid is None or attribute(node, "mode", b"constant") != b"constant":
        return grid
    fill: float | None = attribute(node, "value", 0.0)
    if len(node.input) > 2 and node.input[2]:
        fill = _value(graph, node.input[2])
    if fill is None or not grid.has(fill):
        return None
    return grid if fill == 0 else replace(grid, window=None)


def concat(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Concat of tensors on one grid, each in a window of its own."""
    found = {grids.get(name) for name in node.input}
    grid = found.pop()
    return None if found or grid is None else replace(grid, window=None)


def cast(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Cast to a type that holds the values."""
    grid, to = grids.get(node.input[0]), attribute(node, "to", 0)
    if grid is None:
        return None
    if to in (TensorProto.FLOAT, TensorProto.DOUBLE):
        return grid if not grid.is_whole or max(abs(grid.low), abs(grid.high)) <= 2**24 else None
    if to in (TensorProto.INT32, TensorProto.INT64):
        return grid if grid.is_whole and max(abs(grid.low), abs(grid.high)) < 2**31 else None
    return None


def add(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Add: of a constant, or of whole numbers."""
    return _sum(node, graph, grids, 1.0)


def sub(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Sub: of a constant, or of whole numbers."""
    return _sum(node, graph, grids, -1.0)


def _sum(node: NodeProto, graph: Graph, grids: dict[str, Grid], sign: float) -> Grid | None:
    x, value = node.input[0], _value(graph, node.input[1])
    if x in grids and value is not None and grids[x].is_bounded and not grids[x].is_whole:
        return grids[x].shifted(sign * value)
    left, right = (_of_operand(name, graph, grids) for name in node.input[:2])
    right = None if right is None else right.scaled(sign)
    if left is None or right is None or not (left.is_whole and right.is_whole):
        return None
    found = left.plus(right)
    if found is not None and sign < 0 and graph.shape(node.input[1]) in ((), (1,)):
        found = _in_window(found, left, right)
    # Beyond this, int32 wraps around and float32 rounds.
    return found if found is not None and max(abs(found.low), abs(found.high)) < 2**24 else None


def _in_window(found: Grid, left: Grid, right: Grid) -> Grid:
    """The sums of a grid and one value of the other, where its opposite is on the grid too: a zero point, so that one tensor's
    sums lie in a range about 0 as wide as the grid.
    """
    is_inside = left.is_bounded and left.low <= -right.high and -right.low <= left.high
    return replace(found, window=left.steps) if is_inside and left.steps < found.steps else found


def mul(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Mul with a constant."""
    both = [grids.get(name) for name in node.input]
    if node.name in graph.origins and all(grid is not None and grid.is_whole for grid in both):
        return Grid(-np.inf, np.inf, 1)  # a quantizer's sign times its rounded size
    for x, factor in (node.input, reversed(node.input)):
        value = _value(graph, factor)
        if value is not None and x in grids:
            return grids[x].scaled(value)
    return None


def dequantize(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """DequantizeLinear with one scale, which is constant, and one zero point."""
    scale = _value(graph, node.input[1])
    grid = grids.get(node.input[0])
    if grid is None or scale is None or scale <= 0:
        return None
    zero_point = node.input[2] if len(node.input) > 2 else ""
    if not zero_point:
        return grid.scaled(scale)
    zero = _of_operand(zero_point, graph, grids)
    if zero is None or not (zero.is_whole and grid.is_whole):
        return None
    if not is_constant(graph, zero_point) and graph.shape(zero_point) not in ((), (1,)):
        return None
    opposite = zero.scaled(-1.0)
    shifted = None if opposite is None else grid.plus(opposite)
    return None if shifted is None or opposite is None else _in_window(shifted, grid, opposite).scaled(scale)


def relu(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Relu."""
    grid = grids.get(node.input[0])
    return None if grid is None else grid.between(0.0, np.inf)


def clip(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Clip with constant bounds."""
    grid = grids.get(node.input[0])
    limits: list[float | None] = [attribute(node, "min", -np.inf), attribute(node, "max", np.inf)]
    for i in (1, 2):
        if len(node.input) > i and node.input[i]:
            limits[i - 1] = _value(graph, node.input[i])
    if grid is None or limits[0] is None or limits[1] is None:
        return None
    return grid.between(limits[0], limits[1])


def whole_numbers(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Ceil, Floor, Round: whole numbers of any size."""
    return Grid(-np.inf, np.inf, 1)


def where(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """Two values, as a bipolar quantizer writes them; only where a quantizer became this node."""
    values = [_value(graph, name) for name in node.input[1:3]]
    if node.name not in graph.origins or values[0] is None or values[1] is None or values[0] == values[1]:
        return None
    low, high = sorted((values[0], values[1]))
    return Grid(low, high, high - low)


def sign(node: NodeProto, graph: Graph, grids: dict[str, Grid]) -> Grid | None:
    """A sign, where a quantizer's rounding became this node."""
    return Grid(-1, 1, 1) if node.name in graph.origins else None

"""Packing for any number of rectangles: stack them in bands of columns, put the bands side by side.

A rectangle kind is (row, height, width) with row -1 when it is free to move; in a list of kinds all rows are fixed or
all are free. Equal rectangles are handled together: a `Bin` stands for `copies` arrays filled alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

_OPEN_MASKS = 256  # open bands with different free rows that are tried per kind

Kind = tuple[int, int, int]


@dataclass
class Bin:
    """Arrays filled alike: `placed` holds (kind, row, column)."""

    copies: int
    placed: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class _Band:
    """Full-height strips of an array that hold the same kinds one above the other: `placed` holds (kind, row)."""

    copies: int
    width: int
    placed: list[tuple[int, int]]


def images_of(bins: Sequence[Bin]) -> int:
    """Number of arrays of a packing."""
    return sum(b.copies for b in bins)


def pack_bands(kinds: Sequence[Kind], counts: Sequence[int], rows: int, columns: int) -> list[Bin]:
    """Pack `counts[i]` rectangles of each kind, widest first; nearly linear in the number of kinds."""
    stacks = _FixedStacks(rows) if kinds and kinds[0][0] >= 0 else _FreeStacks(rows)
    for index in sorted(range(len(kinds)), key=lambda i: (-kinds[i][2], -kinds[i][1], kinds[i][0], i)):
        stacks.add(index, kinds[index], counts[index])
    return _side_by_side([band for state in stacks.open.values() for band in state], columns)


class _FreeStacks:
    """Bands by state; here the state is the height that is still free, above (at higher rows than) what is placed."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.empty = rows
        self.open: dict[int, deque[_Band]] = {}

    def add(self, index: int, kind: Kind, count: int) -> None:
        """Put `count` rectangles on the bands where they fit, then on new ones."""
        for state in self.fitting(kind):
            count = self._join(state, index, kind, count)
            if not count:
                return
        self.open[self.empty] = deque([_Band(count, kind[2], [])])
        self._join(self.empty, index, kind, count)
        del self.open[self.empty]  # copies that were not needed

    def _join(self, state: int, index: int, kind: Kind, count: int) -> int:
        """Add up to `count` rectangles to the bands of one state; return how many remain."""
        bands = self.open[state]
        while count and bands:
            band = bands.popleft()
            rows, next_state = self.stack(state, kind, count)
            used = min(band.copies, count // len(rows))
            if used < band.copies:
                bands.appendleft(_Band(band.copies - used, band.width, band.placed))
            joined = _Band(used, band.width, band.placed + [(index, row) for row in rows])
            self.open.setdefault(next_state, deque()).append(joined)
            count -= used * len(rows)
        return count

    def fitting(self, kind: Kind) -> list[int]:
        """States that can take the kind, the tightest first."""
        return [state for state in range(kind[1], self.rows) if self.open.get(state)]

    def stack(self, state: int, kind: Kind, count: int) -> tuple[list[int], int]:
        """Rows of as many rectangles as fit one band of this state (at most `count`), and its next state."""
        height, fits = kind[1], min(state // kind[1], count)
        return [self.rows - state + i * height for i in range(fits)], state - fits * height


class _FixedStacks(_FreeStacks):
    """The same with fixed rows; here the state is the mask of the occupied rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(rows)
        self.empty = 0

    def fitting(self, kind: Kind) -> list[int]:
        mask = _row_mask(kind)
        latest = list(self.open)[-_OPEN_MASKS:]
        fitting = [state for state in latest if self.open[state] and not state & mask]
        return sorted(fitting, key=lambda state: (-state.bit_count(), state))

    def stack(self, state: int, kind: Kind, count: int) -> tuple[list[int], int]:
        return [kind[0]], state | _row_mask(kind)


def _row_mask(kind: Kind) -> int:
    return ((1 << kind[1]) - 1) << kind[0]


def _side_by_side(bands: list[_Band], columns: int) -> list[Bin]:
    """Fill arrays with bands, the widest that fits first; arrays with the same widths are made together."""
    queues: dict[int, deque[_Band]] = {}
    for band in sorted(bands, key=lambda b: -b.width):
        queues.setdefault(band.width, deque()).append(band)
    left = {width: sum(band.copies for band in queue) for width, queue in queues.items()}
    bins: list[Bin] = []
    while any(left.values()):
        space, pattern = columns, {}
        for width, count in left.items():
            if used := min(space // width, count):
                pattern[width] = used
                space -= used * width
        copies = min(left[width] // used for width, used in pattern.items())
        for width, used in pattern.items():
            left[width] -= used * copies
        bins.extend(_take_bands(queues, pattern, copies))
    return bins


def _take_bands(queues: dict[int, deque[_Band]], pattern: dict[int, int], copies: int) -> list[Bin]:
    """Take `copies` arrays, each with `pattern[width]` bands of each width, from the queues."""
    bins = []
    while copies:
        same = min(copies, max(1, min(queues[width][0].copies // used for width, used in pattern.items())))
        taken, column = Bin(same), 0
        for width, used in pattern.items():
            for _ in range(used):
                band = queues[width][0]
                taken.placed.extend((kind, row, column) for kind, row in band.placed)
                column += width
                band.copies -= same
                if not band.copies:
                    queues[width].popleft()
        bins.append(taken)
        copies -= same
    return bins

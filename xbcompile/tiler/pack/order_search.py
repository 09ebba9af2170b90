"""Search for packings that follow execution: image i holds tiles of layers up to at most the first layer of image i + 1.

Then one array that takes the images in turn is written once per image, as no image is needed again after another one.
Such a packing is a chain of *open* images, which serve several layers (the last tiles of one, all of some, the first tiles
of another), and of images between them that hold tiles of one layer. The search keeps, for each number of images, what can
be left to pack when that many are closed: a layer, and how many of its tiles of each kind. Going farther is never worse, as
a packing of some tiles also packs fewer of them; so of the layers only the farthest is kept, and of that layer the
smallest sets of tiles. Full tiles, which are alone in their images, count for themselves, but no open image serves layers
before and after a layer that has any.

With an exact answer to "how many images do these tiles need" the search is exact; with a lower bound for an answer it gives
a lower bound on the packings in this order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np

from xbcompile.tiler.pack.contents import Content, Oracle, join

Vector = tuple[int, ...]

_STATES = 8  # states kept per number of images, unless the answer shall be a lower bound
_ENUMERATED = 64  # combinations of numbers of tiles that are enumerated


@dataclass(frozen=True)
class LayerTiles:
    """The residual tiles of one layer: `counts[i]` of kind `kinds[i]`, kinds ascending; whether it has full tiles."""

    kinds: Vector
    counts: Vector
    has_full: bool

    def content(self, counts: Vector) -> Content:
        """So many tiles of each kind of this layer."""
        return tuple((kind, count) for kind, count in zip(self.kinds, counts, strict=True) if count)


@dataclass(frozen=True)
class Step:
    """From one state to the next: images of `layer` alone, then an open image.

    Args:
        layer: the layer that was left in part.
        alone: tiles of `layer` that are packed into images of their own.
        head: tiles of `layer` in the open image.
        end: layers between `layer` and this one are in the open image as a whole.
        tail: tiles of layer `end` in the open image.
    """

    layer: int
    alone: Vector
    head: Vector
    end: int
    tail: Vector


@dataclass(frozen=True)
class _State:
    images: int
    layer: int
    left: Vector
    before: _State | None
    step: Step | None


class OrderSearch:
    """Fewest images for layers in order, as far as the oracle knows.

    `narrowed` tells, after `run`, that some states or sets of tiles were left out.

    Args:
        layers: residual tiles of each layer in order of execution.
        oracle: how many images tiles need.
        relax: the answer shall be a lower bound: where not all sets of tiles can be tried, one that is better than all of
            them is taken, though it may not exist; nothing is left out.
    """

    def __init__(self, layers: Sequence[LayerTiles], oracle: Oracle, *, relax: bool) -> None:
        self.layers, self.oracle, self.relax = layers, oracle, relax
        self.narrowed = False

    def run(self) -> tuple[int, list[Step]]:
        """Images of the residual tiles, and the steps to get there."""
        if not self.layers:
            return 0, []
        queue: list[tuple[int, int, Vector, int]] = []
        states: list[_State] = []

        def push(state: _State) -> None:
            heapq.heappush(queue, (state.images, -state.layer, state.left, len(states)))
            states.append(state)

        push(_State(0, 0, self.layers[0].counts, None, None))
        farthest, smallest, expanded = -1, list[Vector](), 0
        while True:
            _, _, _, number = heapq.heappop(queue)
            state = states[number]
            if state.layer == len(self.layers):
                return state.images, _steps(state)
            if state.layer < farthest:
                continue
            if state.layer > farthest:
                farthest, smallest, expanded = state.layer, [], 0
            if any(_within(known, state.left) for known in smallest):
                continue
            if expanded >= _STATES and not self.relax:
                self.narrowed = True
                continue
            smallest.append(state.left)
            expanded += 1
            for after in self._next(state):
                push(after)

    def _next(self, state: _State) -> Iterator[_State]:
        """States after the next open image."""
        layer = self.layers[state.layer]
        for head, own_images in self._heads(layer, state.left):
            alone, images = _minus(state.left, head), state.images + own_images
            content, end = layer.content(head), state.layer + 1
            while end < len(self.layers) and not self.layers[end].has_full:
                more = join(content, self.layers[end].content(self.layers[end].counts))
                if not self.oracle.at_most(more, 1):
                    break
                content, end = more, end + 1
            if end == len(self.layers):
                step = Step(state.layer, alone, head, end, ())
                yield _State(images + bool(content), end, (), state, step)
                continue
            last = self.layers[end]
            if not content:
                step = Step(state.layer, alone, head, end, (0,) * len(last.counts))
                yield _State(images, end, last.counts, state, step)
                continue
            for tail in self._tails(last, content):
                step = Step(state.layer, alone, head, end, tail)
                yield _State(images + 1, end, _minus(last.counts, tail), state, step)

    def _heads(self, layer: LayerTiles, left: Vector) -> list[tuple[Vector, int]]:
        """Smallest sets of tiles that, put into the open image, spare an image of the layer's own; images that remain.

        A set that fits one image cannot spare more; where none spares one, the open image starts empty.
        """
        if sum(left) <= 1:
            return [(left, 0)]
        spare = self.oracle.images(layer.content(left)) - 1
        single = [self._most(partial(self._fits_one, layer, kind), count) for kind, count in enumerate(left)]
        floor = _minus(left, single)

        def spares(more: Vector) -> bool:
            return self.oracle.at_most(layer.content(_plus(floor, more)), spare)

        heads = [_minus(tuple(single), more) for more in self._largest(spares, single)]
        heads = [head for head in heads if self.oracle.at_most(layer.content(head), 1)]
        return [(head, min(spare, self.oracle.images(layer.content(_minus(left, head))))) for head in heads] or [
            ((0,) * len(left), spare + 1)
        ]

    def _fits_one(self, layer: LayerTiles, kind: int, count: int) -> bool:
        return self.oracle.at_most(((layer.kinds[kind], count),) if count else (), 1)

    def _tails(self, layer: LayerTiles, content: Content) -> list[Vector]:
        """Largest sets of the layer's tiles that fit beside the content of the open image, where not all of them do."""
        if sum(layer.counts) == 1 and not layer.has_full:  # it has been tried
            return [(0,) * len(layer.counts)]
        return self._largest(lambda tail: self.oracle.at_most(join(content, layer.content(tail)), 1), layer.counts) or [
            (0,) * len(layer.counts)
        ]

    def _largest(self, feasible: Callable[[Vector], bool], limit: Sequence[int]) -> list[Vector]:
        """The vectors of which no component can grow, of a property that holds for all smaller vectors too."""
        zero = (0,) * len(limit)
        if not feasible(zero):
            return []
        caps = tuple(self._most_of(feasible, zero, i, cap) for i, cap in enumerate(limit))
        if feasible(caps):
            return [caps]
        ranks = sorted(range(len(caps)), key=lambda i: caps[i])
        if np.prod([caps[i] + 1 for i in ranks[:-1]], dtype=float) <= _ENUMERATED:
            found = list(self._enumerate(feasible, caps, ranks, zero))
        elif self.relax:
            return [caps]
        else:
            self.narrowed = True
            orders = list(permutations(ranks)) if len(ranks) <= 3 else [tuple(ranks), tuple(ranks[::-1])]
            found = [self._grow(feasible, caps, order) for order in orders]
        found = [one for one in found if not any(one != other and _within(one, other) for other in found)]
        return list(dict.fromkeys(found))

    def _enumerate(
        self, feasible: Callable[[Vector], bool], caps: Vector, ranks: list[int], start: Vector
    ) -> Iterator[Vector]:
        """For each numbers of the first kinds, the most of the last."""
        first, *rest = ranks
        if not rest:
            yield _put(start, first, self._most_of(feasible, start, first, caps[first]))
            return
        for number in range(caps[first] + 1):
            vector = _put(start, first, number)
            if not feasible(vector):
                return
            yield from self._enumerate(feasible, caps, rest, vector)

    def _grow(self, feasible: Callable[[Vector], bool], caps: Vector, order: Sequence[int]) -> Vector:
        """One kind after another, each as often as it fits."""
        vector = (0,) * len(caps)
        for i in order:
            vector = _put(vector, i, self._most_of(feasible, vector, i, caps[i]))
        return vector

    def _most_of(self, feasible: Callable[[Vector], bool], vector: Vector, index: int, limit: int) -> int:
        """Largest value of one component that is feasible with the others of `vector`."""
        return self._most(lambda number: feasible(_put(vector, index, number)), limit)

    @staticmethod
    def _most(feasible: Callable[[int], bool], limit: int) -> int:
        """Largest number up to `limit` that is feasible, where 0 is: doubling, then halving."""
        low, step = 0, 1
        while low + step <= limit and feasible(low + step):
            low, step = low + step, step * 2
        while step > 1:
            step //= 2
            if low + step <= limit and feasible(low + step):
                low += step
        return low


def _steps(state: _State) -> list[Step]:
    steps: list[Step] = []
    at: _State | None = state
    while at is not None:
        if at.step is not None:
            steps.append(at.step)
        at = at.before
    return steps[::-1]


def _put(vector: Vector, index: int, value: int) -> Vector:
    return (*vector[:index], value, *vector[index + 1 :])


def _plus(one: Sequence[int], other: Sequence[int]) -> Vector:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def _minus(one: Sequence[int], other: Sequence[int]) -> Vector:
    return tuple(a - b for a, b in zip(one, other, strict=True))


def _within(one: Vector, other: Vector) -> bool:
    """No component of `one` is larger."""
    return all(a <= b for a, b in zip(one, other, strict=True))

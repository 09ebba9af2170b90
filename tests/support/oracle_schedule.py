"""Best schedules by exhaustive search: written from the definition of a schedule alone, so that it shares no thought with the
tiler.

The definition: every copy of an image sits on one array; the copies of an image share the vectors of a batch, contiguous and as
equal as can be; every use of a matrix reads every copy of every tile of it once; a use starts when all uses that it waits for
are complete; an array does one step at a time and must hold the image that it reads; an array that starts a batch with
an image ends it with that image. Only for tiny instances; times are whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One use of a matrix: the image of each of its tiles, the vectors of a batch, the reads of each, what it waits for."""

    images: tuple[int, ...]
    vectors: int
    slices: int
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True)
class Times:
    """What steps take, and what may happen at a time: `most_writes` 0 is any number."""

    write: int
    read: int
    writes_while_reading: bool = True
    most_writes: int = 0


def homes_of(images: int, arrays: int, kind: str) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every choice of arrays for every image, up to renaming arrays.

    Args:
        images: number of images.
        arrays: number of arrays.
        kind: "single": each image on one array; "staying": on any, none of which is another image's; "any": on any.
    """
    choices = [c for n in range(1, (1 if kind == "single" else arrays) + 1) for c in combinations(range(arrays), n)]
    seen = set()
    for homes in product(choices, repeat=images):
        of_array = tuple(sorted(tuple(array in home for home in homes) for array in range(arrays)))
        if of_array not in seen and (kind != "staying" or all(sum(held) <= 1 for held in of_array)):
            seen.add(of_array)
            yield homes


def shares(vectors: int, copies: int) -> list[int]:
    """Vectors that each copy serves: contiguous ranges that end at the rounded-up fractions."""
    ends = [-(-(i + 1) * vectors // copies) for i in range(copies)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def fewest_writes(jobs: Sequence[Job], images: int, arrays: int) -> int:
    """Fewest writes per batch, each batch like the one before.

    A second copy of an image only adds what must be read, so each image has one array; all tiles of one image are read for one
    use at the time of the last of them, at no more writes. Then the state is what was read and what arrays hold.
    """
    return min(_writes_at(jobs, [home[0] for home in homes], arrays) for homes in homes_of(images, arrays, "single"))


def _writes_at(jobs: Sequence[Job], home: Sequence[int], arrays: int) -> int:
    """Fewest writes where image i sits on array home[i]: breadth-first search from every start."""
    visits = [(use, image) for use, job in enumerate(jobs) for image in sorted(set(job.images))]
    of_use = [sum(1 << i for i, v in enumerate(visits) if v[0] == use) for use in range(len(jobs))]
    waits = [sum(of_use[w] for w in jobs[use].waits_for) for use, _ in visits]
    everything = (1 << len(visits)) - 1
    best = len(visits)
    starts = [[i for i in range(len(home)) if home[i] == a] or [-1] for a in range(arrays)]
    for start in product(*starts):
        layer = {(0, start)}
        seen = set(layer)
        for writes in range(best + 1):
            reached, todo = set(), list(layer)
            while todo:  # all that is reached with this number of writes
                done, held = todo.pop()
                if done == everything and writes + sum(x != y for x, y in zip(held, start, strict=True)) < best:
                    best = writes + sum(x != y for x, y in zip(held, start, strict=True))
                for i, (_, image) in enumerate(visits):
                    if done >> i & 1 or waits[i] & ~done:
                        continue
                    array = home[image]
                    state = (done | 1 << i, (*held[:array], image, *held[array + 1 :]))
                    if state not in seen:
                        if held[array] == image:
                            seen.add(state)
                            todo.append(state)
                        else:
                            reached.add(state)
            layer = reached - seen
            seen |= layer
    return best


def shortest_makespan(jobs: Sequence[Job], images: int, arrays: int, times: Times, kind: str) -> int:
    """Shortest time of one batch over choices of arrays of one kind, contents at the start, and orders of all steps.

    Steps are appended in order of their start times, each as early as those before it allow: by induction none is later
    than in the schedule whose order this is, so the best schedule is found.
    """
    best = 1 << 60
    if times.most_writes >= arrays:
        times = replace(times, most_writes=0)
    for homes in homes_of(images, arrays, kind):
        best = _Search(jobs, homes, arrays, times, best).run()
    return best


@dataclass(frozen=True)
class _State:
    """Where a search stands.

    Args:
        left: reads left of each kind.
        held: image that each array holds; None: that of the start, not yet chosen.
        first: image that each array started with; None: not yet chosen, -1: none.
        fresh: whether each array's last step was a write.
        times: when each array is free, when each use ended, when all reads ended, when writes ended (latest first).
    """

    left: tuple[int, ...]
    held: tuple[int | None, ...]
    first: tuple[int | None, ...]
    fresh: tuple[bool, ...]
    times: tuple[int, ...]


def _put(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


class _Search:
    """Depth-first search for one choice of arrays: reads of equal use, image and array are of one kind.

    A state is not followed where it cannot beat the best (what each array still has to do; chains of uses), nor where
    one with equal contents was met whose times are all as early.
    """

    def __init__(
        self, jobs: Sequence[Job], homes: Sequence[tuple[int, ...]], arrays: int, times: Times, best: int
    ) -> None:
        self.jobs, self.homes, self.arrays, self.limits, self.best = jobs, homes, arrays, times, best
        self.met: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
        self.kinds: list[tuple[int, int, int, int]] = []  # use, image, array, duration
        self.counts: list[int] = []
        for use, job in enumerate(jobs):
            for image in sorted(set(job.images)):
                for array, part in zip(homes[image], shares(job.vectors, len(homes[image])), strict=True):
                    self.kinds.append((use, image, array, part * job.slices * times.read))
                    self.counts.append(job.images.count(image))
        longest = [max(d for use, _, _, d in self.kinds if use == u) for u in range(len(jobs))]
        self.tail = [0] * len(jobs)  # time needed behind each use
        for use in reversed(range(len(jobs))):
            for before in jobs[use].waits_for:
                self.tail[before] = max(self.tail[before], longest[use] + self.tail[use])
        # Writes count at a time: the latest of them, or as many as are allowed.
        self.writes_kept = times.most_writes or int(not times.writes_while_reading)
        self.free_writes = self.writes_kept == 0

    def run(self) -> int:
        """The shortest makespan, or `best` where none is shorter."""
        n = self.arrays
        times = (0,) * (n + len(self.jobs) + 1 + self.writes_kept)
        self._extend(_State(tuple(self.counts), (None,) * n, (None,) * n, (False,) * n, times))
        return self.best

    def _extend(self, state: _State) -> None:
        if self._least(state) >= self.best or self._dominated(state):
            return
        changed = [(a, f) for a, f in enumerate(state.first) if f not in (None, -1) and f != state.held[a]]
        if not any(state.left) and not changed:
            self.best = max(state.times)
            return
        # A write that waits for its array alone may be appended directly before the read that needs it.
        written = [a for a, fresh in enumerate(state.fresh) if fresh and self.free_writes]
        for kind in range(len(self.kinds)):
            if not written or self.kinds[kind][2] in written:
                self._read(state, kind)
        if not written:
            for array in range(self.arrays):
                for image in range(len(self.homes)):
                    self._write(state, array, image)

    def _least(self, state: _State) -> int:
        """No end of this state is earlier."""
        free = list(state.times[: self.arrays])
        behind = 0
        absent: list[set[int | None]] = [set() for _ in free]
        for (use, image, array, duration), left in zip(self.kinds, state.left, strict=True):
            if left:
                start = max([state.times[array], *(self._end(state, w) for w in self.jobs[use].waits_for)])
                behind = max(behind, start + duration + self.tail[use])
                free[array] += duration * left
                absent[array].add(image)
        for array, images in enumerate(absent):  # one that must be read is there, or is written
            images.discard(state.held[array])
            if state.held[array] is not None or len(images) > 1:
                free[array] += self.limits.write * len(images)
        return max(behind, *free, *state.times)

    def _dominated(self, state: _State) -> bool:
        """Whether equal contents were met at times as early; what no later step looks at is left out."""
        awaited = {w for k, left in enumerate(state.left) if left for w in self.jobs[self.kinds[k][0]].waits_for}
        times = [*state.times, max(state.times)]
        for use in range(len(self.jobs)):
            if use not in awaited:
                times[self.arrays + use] = 0
        if self.limits.writes_while_reading:
            times[self.arrays + len(self.jobs)] = 0
        met = self.met.setdefault((state.left, state.held, state.first, state.fresh), [])
        if any(all(x <= y for x, y in zip(other, times, strict=True)) for other in met):
            return True
        met.append(tuple(times))
        return False

    def _end(self, state: _State, use: int) -> int:
        return state.times[self.arrays + use]

    def _read(self, state: _State, kind: int) -> None:
        use, image, array, duration = self.kinds[kind]
        waits = self.jobs[use].waits_for
        if not state.left[kind] or state.held[array] not in (None, image):
            return
        if any(left and self.kinds[k][0] in waits for k, left in enumerate(state.left)):
            return
        start = max([state.times[array], *(self._end(state, w) for w in waits)])
        at = self.arrays + len(self.jobs)
        if duration and not self.limits.writes_while_reading:
            start = max(start, state.times[at + 1])
        end = start + duration
        times = _put(state.times, array, end)
        times = _put(times, self.arrays + use, max(self._end(state, use), end))
        times = _put(times, at, max(times[at], end))
        first = _put(state.first, array, image) if state.held[array] is None else state.first
        left, fresh = _put(state.left, kind, state.left[kind] - 1), _put(state.fresh, array, False)
        self._extend(_State(left, _put(state.held, array, image), first, fresh, times))

    def _write(self, state: _State, array: int, image: int) -> None:
        """Only where it is read next, or where the image of the start must return."""
        mine = [k for k, left in enumerate(state.left) if left and self.kinds[k][2] == array]
        wanted = any(self.kinds[k][1] == image for k in mine) or (not mine and state.first[array] == image)
        if not wanted or state.held[array] == image or state.fresh[array]:
            return
        start = state.times[array]
        at = self.arrays + len(self.jobs)
        times, writes = state.times[: at + 1], state.times[at + 1 :]
        if self.limits.write and not self.limits.writes_while_reading:
            start = max(start, times[at])
        if self.limits.write and self.limits.most_writes:
            start = max(start, writes[self.limits.most_writes - 1])
        end = start + self.limits.write
        times = (*_put(times, array, end), *sorted([*writes, end], reverse=True)[: self.writes_kept])
        first = _put(state.first, array, -1) if state.held[array] is None else state.first
        fresh = _put(state.fresh, array, bool(mine))
        self._extend(_State(state.left, _put(state.held, array, image), first, fresh, times))


def shortest_staying_period(jobs: Sequence[Job], images: int, arrays: int, times: Times) -> int:
    """Shortest time from batch to batch where all images stay.

    Each array then holds one copy of one image, and the busiest counts: its reads of a batch follow each other in cyclic time,
    at the price of latency. (While weights are rewritten batches do not overlap: the makespan counts.)
    """
    best = 1 << 60
    for copies in product(range(1, arrays + 1), repeat=images):
        if sum(copies) <= arrays:
            busy = [
                sum(max(shares(job.vectors, count)) * job.slices * job.images.count(image) for job in jobs)
                for image, count in enumerate(copies)
            ]
            best = min(best, max(busy) * times.read)
    return best

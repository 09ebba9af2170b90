"""What all chips that run one program share, as none of it depends on the chip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from xbcompile.errors import DataError, ProgramError, RunError
from xbcompile.onnx_graph.engine import ERRORS, one_line, open_session
from xbcompile.passes.contract import DevicePass, Feeds
from xbcompile.program.program import Program, device_passes
from xbcompile.runtime.dataflow import Digital, RunsSegment, count_bytes
from xbcompile.runtime.tile_block import TileBlock
from xbcompile.runtime.workers import Workers
from xbcompile.whole_numbers import whole_number

# What simulating takes at most, unless told otherwise, and the part of it that the tensors of a call have: the rest is for
# vectors on their way through tiles and for tiles that stay prepared.
MEMORY_BYTES = 1 << 29
TENSORS_SHARE = 1 / 4
# Most bytes, and samples at a time, that can be asked for.
MOST_BYTES, MOST_CHUNK = 2**62, 2**31 - 1
# Samples that are simulated together at most: more leave no less between calls for one thread alone.
MOST_SAMPLES = 1000
# Bytes of tensors of the calibration inputs that are kept for the next chip; what is larger is computed again.
KEPT_BYTES = 1 << 27

# Tables of tiles by layer and tiles of a block.
Blocks = dict[tuple[int, int], list[TileBlock]]
Found = TypeVar("Found")


class PreparedProgram:
    """A program ready to run on any number of chips, which share its digital segments, the tables of its tiles, the right outputs
    of its layers on the calibration inputs, and worker threads.

    Args:
        program: the program.
        threads: worker threads; None takes one per processor.
        memory_bytes: see `Session`.

    Raises:
        RunError: no number of threads or bytes.
    """

    def __init__(self, program: Program, threads: int | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        self.program, self.workers = program, Workers(threads)
        self.memory_bytes = whole_number(
            "memory_bytes", memory_bytes, 1, MOST_BYTES, "what simulating may take", RunError
        )
        self.blocks: Blocks = {}
        self._calibration: dict[int, Feeds] = {}
        self._sample_bytes: dict[tuple[tuple[str, tuple[int, ...]], ...], int] = {}
        self._found: dict[tuple[str, int], Any] = {}

    @cached_property
    def segments(self) -> Mapping[str, RunsSegment]:
        """Sessions of the network's digital segments, by name.

        Raises:
            ProgramError: onnxruntime does not load one.
        """
        threads = self.workers.threads
        sessions: dict[str, RunsSegment] = {}
        for each in self.program.network.segments:
            try:
                sessions[each.name] = open_session(each.model, threads=threads, pooled=False)
            except ERRORS as error:
                raise ProgramError(
                    f"onnxruntime cannot load the program's digital segment {each.name!r}: {one_line(error)}"
                ) from error
        return sessions

    @cached_property
    def device_passes(self) -> list[DevicePass]:
        """What is fitted on each chip."""
        return device_passes(self.program.pipeline)

    @cached_property
    def blas(self) -> ThreadpoolController:
        """The libraries' own threads: work is split over ours, and a threaded BLAS below them would only compete."""
        return ThreadpoolController().select(user_api="blas")

    def calibration(self, samples: int) -> Feeds:
        """The first calibration inputs, in whole calls of the model; the same object for each chip.

        Args:
            samples: so many at most, unless a call takes more.
        """
        if samples not in self._calibration:
            axes = self.program.network.samples
            self._calibration[samples] = axes.first(self.program.calibration, axes.whole(samples) or axes.per_call)
        return self._calibration[samples]

    def samples_at_once(self, feeds: Mapping[str, Any]) -> int:
        """Samples whose tensors fit into their share of `memory_bytes`, in whole calls of the model, and MOST_SAMPLES at most.

        Args:
            feeds: graph inputs by name; the sizes of their first sample count.
        """
        axes = self.program.network.samples
        if axes.call or axes.samples(feeds) <= 1:
            return MOST_SAMPLES
        one = axes.part(feeds, 0, 1)
        sizes = tuple((name, np.shape(value)) for name, value in one.items())
        if sizes not in self._sample_bytes:
            digital = Digital(self.program.network, segments=self.segments)
            try:
                self._sample_bytes[sizes] = count_bytes(digital, one)
            except DataError:  # a segment does not take zeros for the layers' outputs
                self._sample_bytes[sizes] = 0
        each = self._sample_bytes[sizes]
        return min(MOST_SAMPLES, max(1, int(self.memory_bytes * TENSORS_SHARE) // max(each, 1)))

    def once(self, what: str, feeds: Feeds, compute: Callable[[], Found]) -> Found:
        """What follows from calibration inputs alone, computed for the first chip that asks, if there is room to keep it.

        Args:
            what: its name.
            feeds: as `calibration` gave them; of others nothing is kept.
            compute: gives it.
        """
        key = what, id(feeds)
        if key in self._found:
            found: Found = self._found[key]
            return found
        value = compute()
        ours = any(feeds is each for each in self._calibration.values())
        if ours and _bytes(value) + sum(map(_bytes, self._found.values())) <= KEPT_BYTES:
            self._found[key] = value
        return value


def _bytes(value: Any) -> int:
    """Bytes of the arrays in nested sequences and mappings."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else int(getattr(value, "nbytes", 0))

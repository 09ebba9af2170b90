"""A session: one program on one chip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import Lock, RLock
from typing import Any, ClassVar

import numpy as np

from xbcompile.data.stored import StoredArray, in_memory, is_mapped
from xbcompile.errors import DataError, ProgramError, RunError, shown
from xbcompile.ir.corrections import Corrections, Effort
from xbcompile.ir.sample_axes import SampleAxes
from xbcompile.ir.vectors import count_vectors
from xbcompile.notebook import html_table, html_text
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import CHUNK_SAMPLES
from xbcompile.reference.sequence import calls_in_sequence, with_initial_states
from xbcompile.runtime.commissioning import chip_name, chip_of, fitted, with_corrections
from xbcompile.runtime.corrections_check import check_corrections
from xbcompile.runtime.cost import Counters
from xbcompile.runtime.dataflow import Digital, Pending, count_steps, walk
from xbcompile.runtime.feeds import all_samples, check_feeds, taken
from xbcompile.runtime.joining import joined
from xbcompile.runtime.layer_executor import OBSERVED_READINGS, PART_VECTORS, LayerExecutor
from xbcompile.runtime.one_by_one import batched, checked
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.player import BatchInput, Player, vector_range
from xbcompile.runtime.prepared import MEMORY_BYTES, MOST_CHUNK, PreparedProgram
from xbcompile.runtime.statistics import ColumnStatistics, LayerStatistics, StatisticsCollector
from xbcompile.runtime.timeline import COMMISSION_BATCH, checked_first
from xbcompile.runtime.unroll import open_recurrences
from xbcompile.targets import BatchedDevice, Device
from xbcompile.units import percent
from xbcompile.whole_numbers import whole_number


class Session:
    """Runs a program: its schedule's events on the device, digital segments in onnxruntime.

    Executing N samples is ceil(N / batch) batches, and a session counts on from run to run, so that every run has noise of its
    own; a run that fails has used its numbers. Runs of several threads take turns. A device with the batched path takes many
    events together, any other one by one in order of time; the readings are the same to the bit. The same program, corrections,
    device and seed give the same readings whatever the chunking and the threads, hence the same outputs, but for what is float
    arithmetic throughout: digital segments, and the `ideal` device, follow the rounding of their libraries.

    Args:
        program: what to run; a `PreparedProgram` where several chips run it, which then share what does not depend on the chip.
        device: a device name of the program's target (see `Target.device_names`), a Device, or None for the default. A Device
            is written and read, and otherwise stays as it is.
        seed: which simulated chip.
        corrections: what was fitted on this chip; None: the program's device passes are fitted now, see `commission`.
        threads: worker threads; None takes one per processor. A prepared program has its own.
        memory_bytes: what simulating may take, beside the program and the inputs and outputs of all samples; so many samples are
            simulated together, though one at least. A prepared program has its own.

    Raises:
        RunError: no number of threads or bytes.
        TargetError: the target has no such device.
        ProgramError: the corrections are for another program or another chip, or the device takes events one by one and the
            program's batch is not made of whole calls of the model.
    """

    calls_share_nothing: ClassVar[bool] = True  # but what stays as it is: several may be made at one time

    def __init__(
        self,
        program: Program | PreparedProgram,
        device: str | Device | None = None,
        seed: int = 0,
        corrections: Corrections | None = None,
        threads: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        given = program if isinstance(program, PreparedProgram) else PreparedProgram(program, threads, memory_bytes)
        self.prepared = given
        program = self.program = self.prepared.program
        chip = checked(chip_of(program, device, seed))
        self._name = chip_name(program, device, seed)
        self.digital = self._digital_parts()
        if corrections is None:
            with self.prepared.blas.limit(limits=1):
                corrections = self._fitted(chip)
        else:
            check_corrections(corrections, program, self._name)
        self._corrections = corrections
        self.device = with_corrections(chip, corrections)
        self.counters = Counters()
        self.placed = PlacedProgram(program, corrections, blocks=self.prepared.blocks)
        self.executors = self._make_executors()
        self._player = None if isinstance(self.device, BatchedDevice) else self._new_player()
        self._statistics = [
            StatisticsCollector(each.device, each.layer.input_code, program.spec.columns) for each in self.executors
        ]
        self._set_up = self._warm = False
        self._turn, self._noting = RLock(), Lock()

    def __repr__(self) -> str:
        return f"<Session of {self.program!r} on {self._name}: {self.counters.inferences:,} inferences so far>"

    def _repr_html_(self) -> str:
        columns = ("layer", "inputs", "clipped", "readings observed", "mean error", "mean |error|")
        unit = "dot" if self.device.lsb is None else "LSB"
        rows = [
            (
                each.layer,
                each.inputs,
                "-" if each.clipped_fraction is None else percent(each.clipped_fraction),
                each.readings,
                *(f"{value:.3f} {unit}" for value in (each.mean_error_lsb, each.mean_absolute_error_lsb)),
            )
            for each in self.statistics
        ]
        return html_text(repr(self)[1:-1]) + html_table(columns, rows)

    @property
    def corrections(self) -> Corrections:
        """What was fitted on the chip, bound to it and to the program."""
        return replace(self._corrections, program=self.program.digest, chip=self._name)

    @property
    def corrections_effort(self) -> Effort:
        """What it took to fit the corrections."""
        return self._corrections.effort

    @property
    def statistics(self) -> list[LayerStatistics]:
        """Per-layer statistics: of all inputs, and of the first readings of the session's runs of samples, see `run_samples`."""
        names = [layer.name for layer in self.program.network.layers]
        return [c.result(name) for c, name in zip(self._statistics, names, strict=True)]

    @property
    def column_statistics(self) -> list[ColumnStatistics]:
        """What was seen on each physical column, by layer; of the same readings as `statistics`."""
        names = [layer.name for layer in self.program.network.layers]
        return [c.result_of_columns(name) for c, name in zip(self._statistics, names, strict=True)]

    @property
    def axes(self) -> SampleAxes:
        """Which axes of the model's inputs and outputs count samples."""
        return self.program.network.samples

    def run(self, feeds: Mapping[str, Any], first_sample: int | None = None) -> dict[str, Any]:
        """Run the model once on exactly these inputs, in one call where the device has the batched path and the model allows it.

        Args:
            feeds: graph inputs by name, or the only one; see `xbcompile.data.inputs.arrays_of`.
            first_sample: number of the first sample in the session's life; noise depends on it, and a multiple of the batch gives
                the readings of that place again. None goes on behind the last batch.

        Returns:
            graph outputs by name.

        Raises:
            DataError: inputs that do not fit, or a first sample inside of a batch.
        """
        first_sample = checked_first(first_sample, self.program.schedule.batch)
        with self._turn:
            feeds = taken(self.program, feeds)
            check_feeds(self.program, feeds)
            samples = self.axes.samples(feeds)
            size = samples if self.axes.mixed else self.axes.chunk(feeds, samples)
            parts = list(self._execute(feeds, samples, size, first_sample))
            return parts[0] if len(parts) == 1 else self.axes.join(parts)

    def run_samples(
        self,
        feeds: Any,
        progress: Callable[[int], None] | None = None,
        chunk: int | None = None,
        first_sample: int | None = None,
        states: Mapping[str, str] | None = None,
        observe: bool = True,
    ) -> dict[str, Any]:
        """Run any number of samples, call by call; outputs are joined along their axes of samples, see `SampleAxes`.

        Args:
            feeds: graph inputs by name, or the only one, see `run`; those without samples once, or per call, with an axis more in
                front. Or data of any kind that `xbcompile.run` takes, whose labels are left out. Of arrays in files
                (`numpy.memmap`) no more is read at once than one call takes.
            progress: told the number of samples done after each call.
            chunk: samples that are simulated together; None takes up to 1,000, fewer where their tensors would take more than
                `memory_bytes`. What the model takes in one call goes before. A device without the batched path takes batch after
                batch.
            first_sample: see `run`.
            states: inputs by the output whose value of one call they take in the next: {"new_state": "state"}. Samples then
                follow each other, each in a batch of its own; a state that `feeds` lack starts at zeros.
            observe: the first readings that each layer makes in the session's life, `OBSERVED_READINGS` at least where there are
                so many, are compared with exact ones for `statistics`.

        Raises:
            DataError: the samples do not fill calls of the model, an input does not fit, or a state is none.
            RunError: `chunk` is no number of samples.
        """
        feeds = all_samples(self.program, feeds)
        return self.join(feeds, self.run_parts(feeds, progress, chunk, first_sample, states, observe), states)

    def run_parts(
        self,
        feeds: Any,
        progress: Callable[[int], None] | None = None,
        chunk: int | None = None,
        first_sample: int | None = None,
        states: Mapping[str, str] | None = None,
        observe: bool = True,
    ) -> Iterator[dict[str, Any]]:
        """Outputs of the calls that `run_samples` joins, as they come; other runs wait until the last one is taken.

        Args:
            feeds: see `run_samples`, as all others.
            progress: told the number of samples done.
            chunk: samples that are simulated together.
            first_sample: see `run`.
            states: inputs by the output that gives their next value.
            observe: gather statistics of readings.

        Raises:
            DataError: see `run_samples`.
            RunError: see `run_samples`.
        """
        first_sample = checked_first(first_sample, self.program.schedule.batch)
        if chunk is not None:
            chunk = whole_number("chunk", chunk, 1, MOST_CHUNK, "how many samples are simulated together", RunError)
        with self._turn:
            feeds = all_samples(self.program, feeds)
            if states:
                feeds = with_initial_states(self.program.network, feeds, states)
                yield from self._run_in_sequence(feeds, states, progress, first_sample, observe)
                return
            feeds = {
                name: StoredArray(x) if is_mapped(x) and self.axes.cuts(name, x) else x for name, x in feeds.items()
            }
            samples = self.axes.checked_samples(feeds)
            check_feeds(self.program, self.axes.part(feeds, 0, self.axes.per_call))
            size = self.axes.chunk(feeds, chunk or self.prepared.samples_at_once(feeds))
            yield from self._execute(feeds, samples, size, first_sample, progress, observe, by_samples=chunk is None)

    def join(
        self, feeds: Mapping[str, Any], parts: Iterable[Mapping[str, Any]], states: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Outputs of `run_parts`, or some of each, as those of one call.

        Args:
            feeds: what it was given.
            parts: outputs by name of each call.
            states: what it was given.
        """
        ordinary = {name: value for name, value in feeds.items() if name not in (states or {}).values()}
        stack = bool(states or self.axes.given_per_call(feeds))
        return joined(self.axes, parts, self.axes.samples(ordinary), stack)

    def _run_in_sequence(
        self,
        feeds: Mapping[str, np.ndarray],
        states: Mapping[str, str],
        progress: Callable[[int], None] | None,
        first_sample: int | None,
        observe: bool,
    ) -> list[dict[str, Any]]:
        """`run_parts` with states."""
        axes, batch = self.axes, self.program.schedule.batch
        own = axes.per_call  # samples of a call, which takes whole batches
        axes.checked_samples({name: value for name, value in feeds.items() if name not in states.values()})

        def call(part: dict[str, Any], first: int) -> dict[str, Any]:
            if first == 0:
                check_feeds(self.program, part)
            start = None if first_sample is None else first_sample + first // own * -(-own // batch) * batch
            (outputs,) = self._execute(part, own, own, start, observe=observe and first < CHUNK_SAMPLES)
            if progress is not None:
                progress(first + own)
            return outputs

        return calls_in_sequence(axes, feeds, states, call)

    def _execute(
        self,
        feeds: Mapping[str, Any],
        samples: int,
        size: int,
        first_sample: int | None,
        progress: Callable[[int], None] | None = None,
        observe: bool = False,
        by_samples: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Outputs of the calls of the model that run samples, so many per call where events are taken together.

        With `by_samples`, calls are shared out among threads, which meet at their ends alone and not after each layer.
        """
        whole = samples <= size and not self.axes.given_per_call(feeds)
        if whole:
            feeds = {name: in_memory(value) for name, value in feeds.items()}
        self._follow(feeds if whole else self.axes.part(feeds, 0, size))
        first = self._begin(samples, first_sample)
        if self._player is not None and samples:  # no samples are no events
            played = self._play(feeds, samples, first, observe)
            if progress is not None:
                progress(samples)
            yield from played
            return
        alone = self._samples_at_once_alone(feeds, samples, size) if by_samples else 0
        done = 0
        if not alone or not self._warm or (observe and self._wants_readings()):
            # What is loaded once and what is observed comes first, with all threads at work on each layer.
            last = max(size, CHUNK_SAMPLES if observe else 0) if alone else samples
            for at, part in [(0, feeds)] if whole else self.axes.parts(feeds, size):
                if at and at >= last:  # no samples are a call, too
                    break
                count = min(size, samples - at)
                yield self._run_together(part, count, first + at, observe and at < CHUNK_SAMPLES)
                done = at + count
                if progress is not None:
                    progress(done)
            self._warm = True
        if done < samples:
            yield from self._run_side_by_side(feeds, (done, samples, alone), first, progress)

    def _wants_readings(self) -> bool:
        return any(each.readings < OBSERVED_READINGS for each in self._statistics)

    def _samples_at_once_alone(self, feeds: Mapping[str, Any], samples: int, size: int) -> int:
        """Samples per call where each thread makes calls of its own; 0: threads share each layer instead."""
        threads, axes, schedule = self.prepared.workers.threads, self.axes, self.program.schedule
        fixed = axes.call or axes.given_per_call(feeds) or axes.mixed or self.program.network.recurrences
        in_turn = any(each.rewritten or each.one_by_one for each in self.executors)
        if threads == 1 or fixed or in_turn or not self.calls_share_nothing:
            return 0
        most = max((int(use.vectors) for use in self.placed.uses.uses), default=1)
        alone = -(-min(size, samples) // threads)
        alone = -(-alone // schedule.batch) * schedule.batch
        return alone if alone < samples and alone * most >= PART_VECTORS else 0

    def _run_side_by_side(
        self, feeds: Mapping[str, Any], cut: tuple[int, int, int], first: int, progress: Callable[[int], None] | None
    ) -> Iterator[dict[str, Any]]:
        """Calls on a thread each, from a first sample to an end, so many samples each; what they give comes in order."""
        start, stop, size = cut
        workers, blas = self.prepared.workers, self.prepared.blas
        waiting: deque[tuple[int, Future[dict[str, Any]]]] = deque()
        try:
            for at in range(start, stop, size):
                end = min(at + size, stop)
                part = self.axes.part(feeds, at, end)
                work = partial(self._run_together, part, end - at, first + at, observe=False, alone=True)
                waiting.append((end, workers.start(work)))
                if len(waiting) > workers.threads or end == stop:
                    for _ in range(len(waiting) if end == stop else 1):
                        done, outputs = waiting.popleft()
                        with blas.limit(limits=1):
                            given = outputs.result()
                        yield given
                        if progress is not None:
                            progress(done)
        finally:
            wait([each for _, each in waiting])

    def _begin(self, samples: int, first_sample: int | None) -> int:
        """Count a run of samples; the number of its first one."""
        schedule, clock = self.program.schedule, self.placed.clock
        first = clock.batches if first_sample is None else first_sample // schedule.batch
        batches = -(-samples // schedule.batch)
        if first + batches > COMMISSION_BATCH:
            raise DataError(
                f"{samples} samples from number {shown(first * schedule.batch)} on are more than a session has numbers "
                f"for; allowed: {COMMISSION_BATCH * schedule.batch} in its life"
            )
        if not self._set_up:
            if self._player is not None:
                self._player.set_up()
            else:
                self.counters.count_setup(schedule, self.program.spec)
            self._set_up = True
        if first != clock.next:
            self._carry_over(first)
        clock.run(first, batches)
        self.counters.count_run(samples, batches, self.placed.timeline.schedule)
        if self._player is None:
            self.counters.count_writes(self.placed.timeline.schedule, batches)
        return first * schedule.batch

    def _carry_over(self, first: int) -> None:
        """Before a batch that does not follow the last one, arrays are written as the batch before it would have left them, which
        takes the time of one batch.
        """
        timeline, clock, counters = self.placed.timeline, self.placed.clock, self.counters
        steps = timeline.carried()
        if not len(steps):
            return
        if first == 0:
            clock.set_up_again_s = clock.now_s
        if self._player is not None:
            self._player.carry_over(steps, first)
        else:
            arrays = len(np.unique(timeline.schedule.steps["array"][steps]))
            counters.weight_updates += len(steps) if first else arrays
            rows = int(timeline.schedule.steps["rows"][steps].sum())
            counters.rows_written += rows if first else arrays * self.program.spec.rows
        clock.now_s += clock.period_s
        counters.array_s += clock.period_s

    def _follow(self, feeds: Mapping[str, Any]) -> None:
        """Take the schedule of the number of steps that open recurrences make on these inputs."""
        if open_recurrences(self.program.network):
            self.digital.known_steps = count_steps(self.digital, feeds)
            self.placed.take_steps(self.digital.known_steps)

    def _run_together(
        self, feeds: Mapping[str, Any], samples: int, first: int, observe: bool, alone: bool = False
    ) -> dict[str, Any]:
        """One call of the model, all events of each layer together; `alone` in its thread beside other calls."""

        def execute(at: Pending, values: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
            executor, statistics = self.executors[at.layer], self._statistics[at.layer]
            outputs = []
            for each in values:
                x = self._input(at.layer, each)
                count = count_vectors(executor.layer, x.shape)
                reads = vector_range(self.placed, at, first, count, samples)
                with nullcontext() if alone else self.prepared.blas.limit(limits=1):
                    outputs.append(executor.run(x, reads, alone))
                    if observe and statistics.readings < OBSERVED_READINGS:
                        executor.observe(x, reads, statistics)
                    else:
                        self.placed.kept.drop_images(at.layer)
                with self._noting:
                    statistics.note_inputs(x)
                    self.counters.count_reads(self.program, at.layer, count)
            return outputs

        return walk(self.digital, [feeds], execute)[0]

    def _play(self, feeds: Mapping[str, Any], samples: int, first: int, observe: bool) -> list[dict[str, Any]]:
        """Batch after batch, event after event."""
        batch, axes = self.program.schedule.batch, self.axes
        size = axes.chunk(feeds, batch)
        batches = [
            BatchInput(
                [axes.part(feeds, at, at + size) for at in range(start, min(start + batch, samples), size)],
                min(batch, samples - start),
            )
            for start in range(0, samples, batch)
        ]
        assert self._player is not None
        watched = -(-CHUNK_SAMPLES // batch) if observe else 0
        return self._player.play(batches, first // batch, self._statistics, watched)

    def _new_player(self) -> Player:
        batch, fixed = self.program.schedule.batch, self.axes.per_call
        if batch % fixed:
            raise ProgramError(
                f"the model takes {fixed} samples at once, and the program's batch is {batch}: the events of such a batch cannot "
                f"be told apart, as {type(self.device).__name__} needs them; compile with --batch {-(-batch // fixed) * fixed}"
            )
        return Player(self.placed, self.executors, self.device, self.digital, self.counters)

    def _digital_parts(self) -> Digital:
        """The network's digital segments; for sessions that need more than a layer's input."""
        return Digital(self.program.network, segments=self.prepared.segments)

    def _fitted(self, chip: Device) -> Corrections:
        """Corrections of this chip; for sessions that have executors of their own."""
        return fitted(self.prepared, chip, self.digital)

    def _make_executors(self) -> list[LayerExecutor]:
        """Executors of all layers; for sessions that have their own."""
        on, workers = batched(self.device), self.prepared.workers
        return [LayerExecutor(self.placed, i, on, workers) for i in range(len(self.program.network.layers))]

    def _input(self, index: int, values: Mapping[str, Any]) -> np.ndarray:
        """A layer's input among the tensors at hand; for sessions that need more."""
        x: np.ndarray = values[self.program.network.layers[index].input]
        return x

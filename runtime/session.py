"""A session: one program on one chip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from xbcompile.errors import DataError, ProgramError
from xbcompile.ir.corrections import Corrections, Effort
from xbcompile.ir.vectors import count_vectors, lay_out, of_type
from xbcompile.onnx_graph import engine
from xbcompile.onnx_graph.types import numpy_type
from xbcompile.program.program import Program
from xbcompile.reference.evaluate import CHUNK_SAMPLES, model_batch, sample_chunks
from xbcompile.runtime.commissioning import chip_name, chip_of, fitted, with_corrections
from xbcompile.runtime.cost import Counters
from xbcompile.runtime.dataflow import Digital, Pending, count_steps, walk
from xbcompile.runtime.layer_executor import LayerExecutor
from xbcompile.runtime.one_by_one import batched, checked
from xbcompile.runtime.placed import PlacedProgram
from xbcompile.runtime.player import BatchInput, Player, samples_of, vector_range
from xbcompile.runtime.statistics import LayerStatistics, StatisticsCollector
from xbcompile.runtime.unroll import open_recurrences
from xbcompile.runtime.workers import Workers
from xbcompile.targets import BatchedDevice, Device


class Session:
    """Runs a program: its schedule's events on the device, digital segments in onnxruntime.

    Executing N samples is ceil(N / batch) batches, and a session counts on from run to run. A device with the batched path takes
    many events together, any other one by one in order of time; the readings are the same to the bit. The same program,
    corrections, device and seed give the same readings whatever the chunking and the threads, hence the same outputs, but for
    what is float arithmetic throughout: digital segments, and the `ideal` device, follow the rounding of their libraries.

    Args:
        program: what to run.
        device: a device name of the program's target (see `Target.device_names`), a Device, or None for the default. A Device
            is written and read, and otherwise stays as it is.
        seed: which simulated chip.
        corrections: what was fitted on this chip; None: the program's device passes are fitted now, see `commission`.
        threads: worker threads; None takes one per processor.

    Raises:
        TargetError: the target has no such device.
        ProgramError: the corrections are for another program or another chip, or the device takes events one by one and the
            program's batch is not made of whole calls of the model.
    """

    def __init__(
        self,
        program: Program,
        device: str | Device | None = None,
        seed: int = 0,
        corrections: Corrections | None = None,
        threads: int | None = None,
    ) -> None:
        self.program = program
        # The work is split over our own threads; a threaded BLAS below them would only compete.
        self._blas = ThreadpoolController().select(user_api="blas")
        self._name = chip_name(program, device, seed)
        chip, workers = checked(chip_of(program, device, seed)), Workers(threads)
        self.digital = self._digital_parts()
        if corrections is None:
            with self._blas.limit(limits=1):
                corrections = self._fitted(chip, workers)
        else:
            check_corrections(corrections, program, self._name)
        self._corrections = corrections
        self.device = with_corrections(chip, corrections)
        self.counters = Counters()
        self.placed = PlacedProgram(program, corrections)
        self.executors = self._make_executors(workers)
        self._player = None if isinstance(self.device, BatchedDevice) else self._new_player()
        self._statistics = [StatisticsCollector(each.device) for each in self.executors]
        self._set_up = False

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
        """Per-layer statistics of the first samples of every run."""
        names = [layer.name for layer in self.program.network.layers]
        return [c.result(name) for c, name in zip(self._statistics, names, strict=True)]

    def run(self, feeds: Mapping[str, Any], first_sample: int | None = None) -> dict[str, Any]:
        """Run the model once on exactly these inputs; nothing is split into chunks on a device with the batched path.

        Args:
            feeds: graph inputs by name.
            first_sample: number of the first sample in the session's life; noise depends on it, and a multiple of the batch gives
                the readings of that place again. None goes on behind the last batch.

        Returns:
            graph outputs by name.

        Raises:
            DataError: inputs that do not fit, or a first sample inside of a batch.
        """
        check_feeds(self.program, feeds)
        self._follow(feeds)
        samples = self._samples_of(feeds)
        first = self._begin(samples, first_sample)
        if self._player is not None:
            return _joined(self._play(feeds, samples, first, observe=False), self._call_samples)
        return self._run_together(feeds, samples, first, observe=False)

    def run_samples(
        self,
        feeds: Mapping[str, np.ndarray],
        progress: Callable[[int], None] | None = None,
        chunk: int | None = None,
        first_sample: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Run any number of samples (axis 0 of every input), chunk by chunk; outputs are joined along axis 0.

        Args:
            feeds: graph inputs by name.
            progress: told the number of samples done after each chunk.
            chunk: samples that are simulated together; None takes 500. A model's fixed batch goes before. A device without the
                batched path takes batch after batch.
            first_sample: see `run`.

        Raises:
            DataError: the samples do not fill the model's fixed batch, or an input does not fit.
        """
        feeds = dict(feeds)
        samples = check_samples(self.program, feeds)
        size = model_batch(self.program.network.inputs) or chunk or CHUNK_SAMPLES
        together = _part_of(feeds, 0, size if self._player is None else self._call_samples, samples)
        check_feeds(self.program, together)
        self._follow(together)
        first = self._begin(samples, first_sample)
        if self._player is not None:
            outputs = _joined(self._play(feeds, samples, first, observe=True), self._call_samples)
            if progress is not None:
                progress(samples)
            return outputs
        parts: list[dict[str, np.ndarray]] = []
        for at, part in sample_chunks(feeds, size):
            count = min(size, samples - at)
            parts.append(self._run_together(part, count, first + at, observe=at == 0))
            if progress is not None:
                progress(at + count)
        return _joined(parts, size)

    def _begin(self, samples: int, first_sample: int | None) -> int:
        """Count a run of samples; the number of its first one."""
        schedule, clock = self.program.schedule, self.placed.clock
        if first_sample is not None and (first_sample < 0 or first_sample % schedule.batch):
            raise DataError(
                f"first_sample={first_sample} is inside of a batch; give a multiple of {schedule.batch}, the program's batch"
            )
        first = clock.batches if first_sample is None else first_sample // schedule.batch
        batches = -(-samples // schedule.batch)
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

    def _samples_of(self, feeds: Mapping[str, Any]) -> int:
        """Samples of one call of the model: entries of axis 0; 1 where that axis counts the steps of a recurrence instead, which
        are not to be parted.
        """
        samples, steps = samples_of(feeds), self.digital.known_steps
        if samples not in steps.values() or model_batch(self.program.network.inputs):
            return samples
        try:
            return samples if count_steps(self.digital, _part_of(feeds, 0, 1, samples)) == steps else 1
        except engine.ERRORS:  # what else has this length cannot be parted from it
            return 1

    def _run_together(self, feeds: Mapping[str, Any], samples: int, first: int, observe: bool) -> dict[str, Any]:
        """One call of the model, all events of each layer together."""

        def execute(at: Pending, values: Sequence[Mapping[str, Any]]) -> list[np.ndarray]:
            executor, observer = self.executors[at.layer], self._statistics[at.layer] if observe else None
            outputs = []
            for each in values:
                x = self._input(at.layer, each)
                count = count_vectors(executor.layer, x.shape)
                reads = vector_range(self.placed, at, first, count, samples)
                with self._blas.limit(limits=1):
                    y, shape = executor.vectors(x, reads, observer)
                self.counters.count_reads(self.program, at.layer, count)
                outputs.append(lay_out(executor.layer, of_type(y, x.dtype), shape))
            return outputs

        return walk(self.digital, [feeds], execute)[0]

    def _play(self, feeds: Mapping[str, Any], samples: int, first: int, observe: bool) -> list[dict[str, Any]]:
        """Batch after batch, event after event."""
        batch, size = self.program.schedule.batch, self._call_samples
        batches = [
            BatchInput(
                [_part_of(feeds, at, at + size, samples) for at in range(start, min(start + batch, samples), size)],
                min(batch, samples - start),
            )
            for start in range(0, samples, batch)
        ]
        assert self._player is not None
        watched = -(-CHUNK_SAMPLES // batch) if observe else 0
        return self._player.play(batches, first // batch, self._statistics, watched)

    @property
    def _call_samples(self) -> int:
        """Samples of one call of the model where events come one by one: a batch, or the model's own."""
        return model_batch(self.program.network.inputs) or self.program.schedule.batch

    def _new_player(self) -> Player:
        batch, fixed = self.program.schedule.batch, self._call_samples
        if batch % fixed:
            raise ProgramError(
                f"the model takes {fixed} samples at once, and the program's batch is {batch}: the events of such a batch cannot "
                f"be told apart, as {type(self.device).__name__} needs them; compile with --batch {-(-batch // fixed) * fixed}"
            )
        return Player(self.placed, self.executors, self.device, self.digital, self.counters)

    def _digital_parts(self) -> Digital:
        """The network's digital segments; for sessions that need more than a layer's input."""
        return Digital(self.program.network)

    def _fitted(self, chip: Device, workers: Workers) -> Corrections:
        """Corrections of this chip; for sessions that have executors of their own."""
        return fitted(self.program, chip, self.digital, workers)

    def _make_executors(self, workers: Workers) -> list[LayerExecutor]:
        """Executors of all layers; for sessions that have their own."""
        on = batched(self.device)
        return [LayerExecutor(self.placed, i, on, workers) for i in range(len(self.program.network.layers))]

    def _input(self, index: int, values: Mapping[str, Any]) -> np.ndarray:
        """A layer's input among the tensors at hand; for sessions that need more."""
        x: np.ndarray = values[self.program.network.layers[index].input]
        return x


def check_corrections(corrections: Corrections, program: Program, chip: str) -> None:
    """Raise ProgramError when corrections are for another program or another chip."""
    if corrections.program != program.digest:
        raise ProgramError(
            f"the corrections are for the program {corrections.program[:16]}, and this one is {program.digest[:16]}: commission "
            f"the chip for this program"
        )
    if corrections.chip != chip:
        raise ProgramError(
            f"the corrections are for the chip {corrections.chip!r}, and this one is {chip!r}: give that device and seed, or "
            f"commission this chip"
        )


def _part_of(feeds: Mapping[str, Any], start: int, end: int, samples: int) -> dict[str, Any]:
    """Some samples of all inputs; an input that does not count samples is the same for all."""

    def counts(value: Any) -> bool:
        return isinstance(value, np.ndarray) and value.ndim > 0 and len(value) == samples

    return {name: value[start:end] if counts(value) else value for name, value in feeds.items()}


def _joined(parts: Sequence[dict[str, Any]], size: int) -> dict[str, Any]:
    """Outputs of parts of `size` samples, the last may be smaller, joined along axis 0.

    Raises:
        DataError: an output does not count samples.
    """
    if len(parts) == 1:
        return parts[0]
    for name, value in parts[0].items():
        if np.ndim(value) == 0 or len(value) != size:
            raise DataError(
                f"output {name!r} has shape {np.shape(value)} for {size} samples, so runs of several chunks cannot be "
                f"joined along axis 0; run at most {size} samples at a time"
            )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def check_feeds(program: Program, feeds: Mapping[str, Any]) -> None:
    """Raise DataError when names, types or shapes of the inputs do not fit the model."""
    for value in program.network.inputs:
        if value.name not in feeds:
            raise DataError(f"model input {value.name!r} is missing; given: {', '.join(feeds) or 'none'}")
        x = feeds[value.name]
        dtype = numpy_type(value)
        if dtype is not None and dtype.kind != "O" and np.asarray(x).dtype != dtype:  # texts have many types
            raise DataError(f"input {value.name!r} has type {np.asarray(x).dtype}; the model wants {dtype}")
        dims = value.type.tensor_type.shape.dim if value.type.tensor_type.HasField("shape") else None
        if dims is None:
            continue
        wanted = [d.dim_value if d.HasField("dim_value") else None for d in dims]
        found = np.shape(x)
        if len(found) != len(wanted) or any(w is not None and w != f for w, f in zip(wanted, found, strict=True)):
            text = "x".join("?" if w is None else str(w) for w in wanted)
            raise DataError(f"input {value.name!r} has shape {'x'.join(map(str, found))}; the model wants {text}")
    unknown = sorted(set(feeds) - {value.name for value in program.network.inputs})
    if unknown and any(tensor.name == unknown[0] for tensor in program.host_graph.skeleton.graph.initializer):
        raise DataError(
            f"{unknown[0]!r} is no input of the program: the model has a value for it, which was compiled in; to feed it, "
            "remove the initializer of that name from the model"
        )
    if unknown:
        raise DataError(f"the model has no input {unknown[0]!r}")


def check_samples(program: Program, feeds: Mapping[str, np.ndarray]) -> int:
    """Number of samples; raises DataError when inputs disagree, are empty, or do not fill the model's fixed batch."""
    counts = {name: len(value) for name, value in feeds.items()}
    samples = next(iter(counts.values()), 0)
    if samples == 0:
        raise DataError("there are no samples to run")
    if len(set(counts.values())) > 1:
        raise DataError(f"inputs have different numbers of samples: {counts}")
    fixed = model_batch(program.network.inputs)
    if fixed and samples % fixed:
        raise DataError(f"{samples} samples do not fill the model's fixed batch of {fixed}; give a multiple of {fixed}")
    return samples
